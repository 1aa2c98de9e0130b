//! `trackpost check`.

use super::load;
use std::path::Path;
use std::process::ExitCode;

pub fn run(file: &Path) -> ExitCode {
    match load(file) {
        Ok(config) => {
            config.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            println!("{}: no faults", file.display());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
