//! `trackpost serve`.

use super::{fail, journal, load};
use crate::config::{Config, LogFormat};
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

/// The exit code of a stop that the log could not be told all of: the next start repeats deliveries.
const UNWRITTEN: u8 = 3;

pub fn run(file: &Path) -> ExitCode {
    let config = match load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    start_logging(&config);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e),
    };
    match runtime.block_on(crate::server::serve(config)) {
        Ok(unwritten) if unwritten.entries > 0 => {
            eprintln!(
                "trackpost: the log could not be written to its end: {} copies that were delivered will be sent again \
                 at the next start",
                unwritten.deliveries
            );
            ExitCode::from(UNWRITTEN)
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

fn start_logging(config: &Config) {
    // A log that cannot be written must stop nothing: the library would report that on the same stderr, and panic.
    if journal::is_stderr() {
        let log = tracing_subscriber::fmt()
            .log_internal_errors(false)
            .with_writer(journal::Journal)
            .with_ansi(false)
            .with_max_level(config.log.level);
        return match config.log.format {
            LogFormat::Text => log.with_target(false).without_time().with_level(false).init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        };
    }
    let log = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(config.log.level);
    match config.log.format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
