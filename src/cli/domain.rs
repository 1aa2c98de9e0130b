//! `trackpost domain …`

use super::{ask, fail, print_json, stats, table};
use crate::admin::Request;
use crate::ops::{CertificateView, DkimImport, DomainUpdate, DomainView, NewDomain, RecordView, Verify};
use clap::Subcommand;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
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
        /// Never track copies for this address, or for a domain as @example.com; may be given several times
        #[arg(long, value_name = "ADDR")]
        exclude: Vec<String>,
        /// Sign its mail (DKIM) with a key that is made, once the record is verified
        #[arg(long)]
        dkim: bool,
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
    /// Show one with its DNS records
    Show {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// What became of its mail, by day of UTC, with the links, tags and reasons that stand out
    Stats {
        name: String,
        /// Days, today included
        #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3_660))]
        days: u32,
        #[arg(long)]
        json: bool,
    },
    /// Change tracking, the tracking host or signing
    Update {
        name: String,
        #[arg(long, value_name = "LABELS")]
        subdomain: Option<String>,
        #[arg(long, value_name = "true|false")]
        open: Option<bool>,
        #[arg(long, value_name = "true|false")]
        click: Option<bool>,
        /// Never track copies for these addresses, or domains as @example.com, in place of those excluded so far; ""
        /// for nobody
        #[arg(long, value_name = "ADDR", value_delimiter = ',')]
        exclude: Option<Vec<String>>,
        /// Sign its mail (DKIM), the first time with a key that is made, once the record is verified
        #[arg(long, value_name = "true|false")]
        dkim: Option<bool>,
        /// You vouch for it that the tracking host points here
        #[arg(long)]
        force_verified: bool,
        #[arg(long)]
        json: bool,
    },
    /// Look at the DNS records, now and then again for 72 hours
    Verify {
        name: String,
        /// You vouch for it that the tracking host points here, whatever DNS says
        #[arg(long, conflicts_with = "no_force")]
        force: bool,
        /// Take that word back: DNS decides
        #[arg(long)]
        no_force: bool,
        #[arg(long)]
        json: bool,
    },
    /// The keys that sign its mail
    #[command(subcommand)]
    Dkim(Dkim),
    /// Remove one; links already sent go on for the configured grace
    Remove {
        name: String,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub enum Dkim {
    /// Make another key; it signs once its record is verified, the one before it until then
    Rotate {
        name: String,
        /// Although the record of the key made last is still awaited, or the key whose selector it takes signed until
        /// lately
        #[arg(long)]
        force: bool,
        #[arg(long)]
        json: bool,
    },
    /// Sign with a key of yours, once its record is verified
    Import {
        name: String,
        /// RSA of 2048 to 4096 bits, PKCS#8 or PKCS#1 in PEM, not encrypted
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Under which it is published, or is to be; trackpost or trackpost2 if not given
        #[arg(long)]
        selector: Option<String>,
        /// As with rotate
        #[arg(long)]
        force: bool,
        #[arg(long)]
        json: bool,
    },
    /// Remove an earlier key, which no mail on its way is signed with any more; its record may go then
    Forget {
        name: String,
        selector: String,
        #[arg(long)]
        json: bool,
    },
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    match command {
        Command::Add { name, subdomain, open, click, exclude, dkim, force_verified, json } => {
            let excluded = exclude;
            let new =
                NewDomain { name, subdomain, open, click, force_verified, excluded, dkim, ..NewDomain::default() };
            ask(file, &Request::DomainAdd(new), |answer| show(answer, json))
        }
        Command::Update { name, subdomain, open, click, exclude, dkim, force_verified, json } => {
            let excluded = exclude.map(|all| all.into_iter().filter(|entry| !entry.is_empty()).collect());
            let update =
                DomainUpdate { subdomain, open, click, excluded, dkim, force_verified, ..DomainUpdate::default() };
            ask(file, &Request::DomainUpdate { name, update }, |answer| show(answer, json))
        }
        Command::Verify { name, force, no_force, json } => {
            let how = match (force, no_force) {
                (true, _) => Verify::Force,
                (_, true) => Verify::LeaveToDns,
                _ => Verify::Ask,
            };
            ask(file, &Request::DomainVerify { name, how }, |answer| show(answer, json))
        }
        Command::Show { name, json } => ask(file, &Request::DomainShow(name), |answer| show(answer, json)),
        Command::Stats { name, days, json } => {
            ask(file, &Request::DomainStats { name, days }, |answer| stats::show(answer, json))
        }
        Command::List { json } => ask(file, &Request::DomainList, |answer| list(answer, json)),
        Command::Dkim(Dkim::Rotate { name, force, json }) => {
            ask(file, &Request::DkimRotate { name, force }, |answer| show(answer, json))
        }
        Command::Dkim(Dkim::Import { name, key, selector, force, json }) => match read_key(&key) {
            Ok(pem) => {
                let import = DkimImport { pem, selector, force };
                ask(file, &Request::DkimImport { name, import }, |answer| show(answer, json))
            }
            Err(why) => fail(&format!("{}: {why}", key.display())),
        },
        Command::Dkim(Dkim::Forget { name, selector, json }) => {
            ask(file, &Request::DkimForget { name, selector }, |answer| show(answer, json))
        }
        Command::Remove { name, json } => {
            ask(file, &Request::DomainRemove(name), |answer| match (json, answer.as_str()) {
                (false, Some(text)) => println!("{text}"),
                _ => print_json(answer),
            })
        }
    }
}

/// The text of a file with a key in it. What else is in it the server judges: a certificate in front may have a name
/// in whatever letters.
fn read_key(path: &Path) -> Result<String, String> {
    // The largest that is taken has 4096 bits, in some 3,300 characters.
    const MOST: u64 = 32 * 1024;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MOST {
        return Err(format!("it has more than {} KiB, and is no key", MOST / 1024));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn show(answer: &Value, json: bool) {
    let Ok(domain) = serde_json::from_value::<DomainView>(answer.clone()) else { return print_json(answer) };
    if json {
        return print_json(answer);
    }
    println!("{}", domain.name);
    println!("  status     {}", domain.status);
    println!("  tracking   {}", table::clean(&domain.tracking));
    for certificate in domain.certificates.iter().filter(|c| !matches!(&*c.state, "none" | "external")) {
        println!("  TLS        {}", about(certificate));
    }
    if domain.dkim {
        println!("  signing    {}", table::clean(&domain.signing));
    }
    if !domain.excluded_recipients.is_empty() {
        println!("  excluded   {}", domain.excluded_recipients.join(", "));
    }
    println!("  added      {}", table::time(domain.created_at));
    if domain.records.is_empty() {
        return;
    }
    println!();
    let rows: Vec<_> = domain.records.iter().map(row).collect();
    table::print(&["TYPE", "NAME", "VALUE", "STATUS"], &rows);
    for record in domain.records.iter().filter(|record| !record.by_operator) {
        if let Some(found) = &record.found {
            println!("  {}: {}", record.name, table::clean(found));
        }
    }
    let next = domain.records.iter().filter(|r| matches!(&*r.status, "pending" | "temporary_failure"));
    if let Some(next) = next.filter_map(|record| record.next_check_at).min() {
        println!("  looked at again at {}", table::time(next));
    }
}

fn about(certificate: &CertificateView) -> String {
    let host = certificate.host.as_deref().unwrap_or_default();
    let mut text = match certificate.valid_until {
        Some(until) => format!("{host}: certificate valid until {}", table::time(until)),
        None => format!("{host}: no certificate, {}", certificate.state),
    };
    if let Some(message) = &certificate.message {
        text += &format!("; the last order failed: {}", table::clean(message));
    }
    if let Some(next) = certificate.next_try_at {
        text += &format!("; next at {}", table::time(next));
    }
    text
}

fn row(record: &RecordView) -> Vec<String> {
    let mut status = record.status.clone();
    if record.by_operator {
        status.push_str(" (by the operator's word)");
    }
    if record.earlier {
        status.push_str(match &*record.record {
            "DKIM" => " (earlier; keep it for a week after the change)",
            _ => " (earlier; keep it for links already sent)",
        });
    }
    vec![record.kind.clone(), record.name.clone(), record.value.clone(), status]
}

fn list(answer: &Value, json: bool) {
    match serde_json::from_value::<Vec<DomainView>>(answer.clone()) {
        Ok(domains) if !json && domains.is_empty() => {
            eprintln!(
                "no sender domain yet; add one: trackpost domain add example.com --subdomain links --open --click"
            );
        }
        Ok(domains) if !json => {
            let target = domains.first().map(|domain| domain.target_certificate.clone()).unwrap_or_default();
            let cells = |domain: DomainView| vec![domain.name, domain.status, table::clean(&domain.tracking)];
            let rows: Vec<_> = domains.into_iter().map(cells).collect();
            table::print(&["DOMAIN", "STATUS", "TRACKING"], &rows);
            if !matches!(&*target.state, "" | "none" | "external") {
                println!("\ncname_target {}", about(&target));
            }
        }
        _ => print_json(answer),
    }
}
