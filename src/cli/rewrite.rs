//! `trackpost rewrite`: one message, offline, opens and clicks on.

use super::fail;
use crate::clock;
use crate::mail::DomainName;
use crate::rewrite::{Limits, OnSigned, Policy, Scheme, Tracking, plan};
use crate::token::{Signer, TokenKey};
use clap::Args;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct Options {
    /// The sender domain
    #[arg(long)]
    domain: String,
    /// The tracking host that links lead to
    #[arg(long)]
    host: String,
    /// The message; standard input if not given
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Index of the recipient whose copy is written, from 0
    #[arg(long, default_value_t = 0)]
    recipient: u16,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> ExitCode {
    let name = |text: &str| DomainName::parse(text).map_err(|e| format!("{text:?} {e}"));
    let (domain, host) = match (name(&options.domain), name(&options.host)) {
        (Ok(domain), Ok(host)) => (domain, host),
        (Err(e), _) | (_, Err(e)) => return fail(&e),
    };
    let mut message = Vec::new();
    let read = match &options.from_file {
        Some(file) => std::fs::read(file).map(|bytes| message = bytes),
        None => io::stdin().lock().read_to_end(&mut message).map(drop),
    };
    if let Err(e) = read {
        let from = options.from_file.as_ref().map_or("standard input".to_owned(), |file| file.display().to_string());
        return fail(&format!("{from}: {e}"));
    }
    let policy = Policy {
        domain,
        open: true,
        click: true,
        scheme: Scheme::Https,
        own_hosts: vec![host.clone()],
        host: host.clone(),
        port: 0,
        on_signed: OnSigned::Skip,
        signs: false,
        limits: Limits::default(),
    };
    // A key of this run alone: the links show what would be sent, and no server follows them.
    let signer = Signer::new(&TokenKey { id: 0, secret: clock::random() }).for_host(&host);
    let plan = plan(&message, &Tracking::Active(policy), usize::from(options.recipient) + 1);
    let mut copy = Vec::with_capacity(plan.len_hint());
    plan.copy_for(&message, &clock::queue_id(), options.recipient, Some(&signer), &mut copy);
    if let Err(e) = io::stdout().lock().write_all(&copy) {
        return fail(&e);
    }
    match options.json {
        true => eprintln!("{}", serde_json::to_string(plan.report()).unwrap_or_default()),
        false => eprint!("{}", plan.report()),
    }
    ExitCode::SUCCESS
}
