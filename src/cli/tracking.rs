//! `trackpost tracking off|on [DOMAIN]`

use super::{ask, print_json};
use crate::admin::Request;
use clap::Subcommand;
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Relay mail untouched, of one sender domain or all
    Off {
        domain: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Track again as configured
    On {
        domain: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    let (domain, json, on) = match command {
        Command::Off { domain, json } => (domain, json, false),
        Command::On { domain, json } => (domain, json, true),
    };
    ask(file, &Request::Tracking { domain, on }, |answer| match json {
        true => print_json(&serde_json::json!({ "result": answer })),
        false => println!("{}", answer.as_str().unwrap_or_default()),
    })
}
