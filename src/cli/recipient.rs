//! `trackpost recipient …`

use super::{ask, erasures, print_json, table};
use crate::admin::Request;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Track no mail to an address; only a keyed hash of it is kept
    OptOut(Consent),
    /// Take an opt-out back
    OptIn(Consent),
    /// All that is kept of an address, as one JSON object a line for each message
    Export {
        #[arg(value_name = "ADDR")]
        address: String,
        /// Said for scripts; the lines are JSON in any case
        #[arg(long)]
        json: bool,
    },
    /// Forget an address, and what it opened and clicked; counts name nobody and stay
    Erase {
        #[arg(value_name = "ADDR")]
        address: String,
        #[arg(long)]
        json: bool,
    },
    /// List the erasures, as keyed hashes of the addresses, for a backup or copy that was made before them
    Erased {
        /// Add such a list to the data folder instead; the server is to be stopped
        #[arg(long, value_name = "FILE")]
        add: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub struct Consent {
    #[arg(value_name = "ADDR")]
    address: String,
    /// In mail of this sender domain alone
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    #[arg(long)]
    json: bool,
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    match command {
        Command::OptOut(consent) => opt_out(file, consent),
        Command::OptIn(consent) => opt_in(file, consent),
        Command::Export { address, json: _ } => super::events::lines(file, &Request::RecipientExport(address)),
        Command::Erase { address, json } => erase(file, address, json),
        Command::Erased { add: Some(list), json: _ } => erasures::add(file, &list),
        Command::Erased { add: None, json } => erasures::print(file, json),
    }
}

fn opt_out(file: &Path, consent: Consent) -> ExitCode {
    let what = consent.to_string();
    let Consent { address: email, domain, json } = consent;
    ask(file, &Request::OptOut { email, domain }, |answer| match json {
        true => print_json(answer),
        false => println!("{what} is not tracked from now on"),
    })
}

fn erase(file: &Path, address: String, json: bool) -> ExitCode {
    let who = table::clean(&address);
    ask(file, &Request::RecipientErase(address), |answer| match (json, answer.as_u64()) {
        (true, _) => print_json(&json!({ "messages": answer })),
        (false, Some(0)) => println!("nothing was kept of {who}"),
        (false, Some(1)) => println!("{who} is forgotten in 1 message"),
        (false, count) => println!("{who} is forgotten in {} messages", count.unwrap_or(0)),
    })
}

fn opt_in(file: &Path, consent: Consent) -> ExitCode {
    let what = consent.to_string();
    let Consent { address: email, domain, json } = consent;
    ask(file, &Request::OptIn { email, domain }, |answer| match (json, answer.as_bool()) {
        (true, _) => print_json(&json!({ "deleted": answer })),
        (false, Some(true)) => println!("the opt-out is taken back: {what}"),
        (false, _) => println!("there was no such opt-out: {what}"),
    })
}

impl std::fmt::Display for Consent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "mail of {} to {}", table::clean(domain), table::clean(&self.address)),
            None => write!(f, "mail to {}", table::clean(&self.address)),
        }
    }
}
