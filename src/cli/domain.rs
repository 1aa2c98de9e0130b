//! `trackpost domain …`

use super::{ask, print_json, table};
use crate::admin::Request;
use crate::ops::{DomainUpdate, DomainView, NewDomain};
use clap::Subcommand;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Add a sender domain
    Add {
        name: String,
        /// Labels of the tracking host under the domain, such as links
        #[arg(long, value_name = "LABELS")]
        subdomain: Option<String>,
        /// Track opens
        #[arg(long)]
        open: bool,
        /// Track clicks
        #[arg(long)]
        click: bool,
        /// You vouch for it that the tracking host points here
        #[arg(long)]
        force_verified: bool,
        #[arg(long)]
        json: bool,
    },
    /// List the sender domains
    List {
        #[arg(long)]
        json: bool,
    },
    /// Show one with its tracking hosts
    Show {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Change tracking or the tracking host
    Update {
        name: String,
        #[arg(long, value_name = "LABELS")]
        subdomain: Option<String>,
        #[arg(long, value_name = "true|false")]
        open: Option<bool>,
        #[arg(long, value_name = "true|false")]
        click: Option<bool>,
        /// You vouch for it that the tracking host points here
        #[arg(long)]
        force_verified: bool,
        #[arg(long)]
        json: bool,
    },
    /// Remove one; links already sent go on for the configured grace
    Remove {
        name: String,
        #[arg(long)]
        json: bool,
    },
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    match command {
        Command::Add { name, subdomain, open, click, force_verified, json } => {
            let request = Request::DomainAdd(NewDomain { name, subdomain, open, click, force_verified });
            ask(file, &request, |answer| show(answer, json))
        }
        Command::Update { name, subdomain, open, click, force_verified, json } => {
            let request = Request::DomainUpdate(DomainUpdate { name, subdomain, open, click, force_verified });
            ask(file, &request, |answer| show(answer, json))
        }
        Command::Show { name, json } => ask(file, &Request::DomainShow(name), |answer| show(answer, json)),
        Command::List { json } => ask(file, &Request::DomainList, |answer| list(answer, json)),
        Command::Remove { name, json } => {
            ask(file, &Request::DomainRemove(name), |answer| match (json, answer.as_str()) {
                (false, Some(text)) => println!("{text}"),
                _ => print_json(answer),
            })
        }
    }
}

fn show(answer: &Value, json: bool) {
    let Ok(domain) = serde_json::from_value::<DomainView>(answer.clone()) else { return print_json(answer) };
    if json {
        return print_json(answer);
    }
    println!("{}", domain.name);
    println!("  tracking   {}", domain.tracking);
    for subdomain in &domain.subdomains {
        let how = if subdomain.by_operator { " (by the operator's word)" } else { "" };
        println!("  host       {}  {}{how}", subdomain.host, subdomain.status);
    }
    println!("  added      {}", table::time(domain.created_at));
}

fn list(answer: &Value, json: bool) {
    match serde_json::from_value::<Vec<DomainView>>(answer.clone()) {
        Ok(domains) if !json && domains.is_empty() => {
            eprintln!(
                "no sender domain yet; add one: trackpost domain add example.com --subdomain links --open --click"
            );
        }
        Ok(domains) if !json => {
            let rows: Vec<_> = domains.into_iter().map(|domain| vec![domain.name, domain.tracking]).collect();
            table::print(&["DOMAIN", "TRACKING"], &rows);
        }
        _ => print_json(answer),
    }
}
