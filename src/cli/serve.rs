//! `trackpost serve`.

use super::load;
use super::stderr::{self, Lines};
use crate::config::{Config, LogFormat};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of a stop that the log could not be told all of: the next start repeats deliveries.
const UNWRITTEN: u8 = 3;
/// How long the last words wait for somebody to read them.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub fn run(file: &Path) -> ExitCode {
    let config = match load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let lines = match Lines::start(stderr::is_journal()) {
        Ok(lines) => lines,
        Err(e) => return super::fail(&e),
    };
    start_logging(&config, &lines);
    std::panic::set_hook(Box::new(log_panic));
    let (code, words) = serve(config);
    lines.end(words.as_deref(), LAST_WORDS);
    code
}

/// The exit code, and what is to be said with it.
fn serve(config: Config) -> (ExitCode, Option<String>) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return (ExitCode::FAILURE, Some(e.to_string())),
    };
    match runtime.block_on(crate::server::serve(config)) {
        Ok(unwritten) if unwritten.entries > 0 => {
            let words = format!(
                "the log could not be written to its end: {} copies that were delivered will be sent again at the \
                 next start",
                unwritten.deliveries
            );
            (ExitCode::from(UNWRITTEN), Some(words))
        }
        Ok(_) => (ExitCode::SUCCESS, None),
        Err(e) => (ExitCode::FAILURE, Some(e.to_string())),
    }
}

/// What the library itself would write to stderr, where it might wait.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let words = crate::supervise::Panic::of(panic.payload()).0;
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!("panicked at {place}: {words}\n{backtrace}"),
        _ => tracing::error!("panicked at {place}: {words}"),
    }
}

fn start_logging(config: &Config, lines: &Lines) {
    let log = tracing_subscriber::fmt().log_internal_errors(false).with_max_level(config.log.level);
    if stderr::is_journal() {
        let log = log.with_writer(lines.clone()).with_ansi(false);
        return match config.log.format {
            LogFormat::Text => log.with_target(false).without_time().with_level(false).init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        };
    }
    let log = log.with_writer(lines.clone()).with_ansi(std::io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
