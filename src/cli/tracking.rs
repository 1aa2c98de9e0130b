//! `trackpost tracking off|on [DOMAIN]`

use super::ask;
use crate::admin::Request;
use clap::Subcommand;
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Relay mail untouched, of one sender domain or all
    Off { domain: Option<String> },
    /// Track again as configured
    On { domain: Option<String> },
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    let (domain, on) = match command {
        Command::Off { domain } => (domain, false),
        Command::On { domain } => (domain, true),
    };
    ask(file, &Request::Tracking { domain, on }, |answer| println!("{}", answer.as_str().unwrap_or_default()))
}
