//! `trackpost check`.

use super::print_json;
use crate::config::{Config, Fault};
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

#[derive(Args)]
pub struct Options {
    #[arg(long)]
    json: bool,
}

pub fn run(file: &Path, options: &Options) -> ExitCode {
    let loaded = Config::check(file);
    let (faults, warnings) = match &loaded {
        Ok(config) => (&[][..], &config.warnings[..]),
        Err(faults) => (&faults[..], &[][..]),
    };
    if options.json {
        let list = |faults: &[Fault]| faults.iter().map(shown).collect::<Vec<_>>();
        print_json(&json!({ "faults": list(faults), "warnings": list(warnings) }));
    } else {
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        faults.iter().for_each(|fault| eprintln!("{fault}"));
        if faults.is_empty() {
            println!("{}: no faults", file.display());
        }
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn shown(fault: &Fault) -> Value {
    json!({ "file": fault.file, "line": fault.line, "key": fault.key, "message": fault.message })
}
