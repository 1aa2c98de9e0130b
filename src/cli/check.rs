//! `trackpost check`.

use super::{blocking, print_json, table};
use crate::config::{Config, Fault};
use crate::server::{self, Findings, Probe};
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

#[derive(Args)]
pub struct Options {
    /// Connect to the smarthosts, look up the tracking hosts, ask the CA, and say what would fail
    #[arg(long)]
    online: bool,
    #[arg(long)]
    json: bool,
}

pub fn run(file: &Path, options: &Options) -> ExitCode {
    let loaded = Config::check(file);
    let Findings { faults, warnings } = match &loaded {
        Ok(config) => {
            let found = server::check_files(config);
            Findings { warnings: [config.warnings.clone(), found.warnings].concat(), ..found }
        }
        Err(faults) => Findings { faults: faults.clone(), warnings: Vec::new() },
    };
    let probes = match &loaded {
        Ok(config) if options.online => blocking(async { Ok(server::check_online(config).await) }).unwrap_or_default(),
        _ => Vec::new(),
    };
    if options.json {
        let list = |faults: &[Fault]| faults.iter().map(shown).collect::<Vec<_>>();
        let probed = |probe: &Probe| {
            let (fault, found) = (probe.found.as_ref().err(), probe.found.as_ref().ok());
            json!({ "what": probe.what, "found": found, "fault": fault })
        };
        let online: Vec<_> = probes.iter().map(probed).collect();
        print_json(&json!({ "faults": list(&faults), "warnings": list(&warnings), "online": online }));
    } else {
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        faults.iter().for_each(|fault| eprintln!("{fault}"));
        if faults.is_empty() {
            println!("{}: no faults", file.display());
        }
        for probe in &probes {
            match &probe.found {
                Ok(found) => println!("{}: {}", probe.what, table::clean(found)),
                Err(fault) => eprintln!("{}: {}", probe.what, table::clean(fault)),
            }
        }
    }
    if faults.is_empty() && probes.iter().all(|probe| probe.found.is_ok()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn shown(fault: &Fault) -> Value {
    json!({ "file": fault.file, "line": fault.line, "key": fault.key, "message": fault.message })
}
