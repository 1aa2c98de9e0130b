//! `trackpost events …`

use super::{blocking, fail, load, table};
use crate::admin::{self, Request};
use clap::Subcommand;
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// The newest events
    Tail {
        /// Go on with those to come
        #[arg(long)]
        follow: bool,
        /// Events shown at first
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Every event that is kept, as one JSON object a line: message by message, in the order of their acceptance
    Export {
        /// Said for scripts; the lines are JSON in any case
        #[arg(long)]
        json: bool,
    },
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    let (follow, limit, json) = match command {
        Command::Tail { follow, limit, json } => (follow, limit, json),
        Command::Export { json: _ } => return lines(file, &Request::EventsExport),
    };
    let config = match load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut refused = None;
    let called =
        blocking(admin::call(&config.data_dir, &Request::EventsTail { limit, follow }, |answer| match answer {
            Ok(Value::Array(events)) => {
                let _ = events.iter().try_for_each(|event| print(event, json));
                false
            }
            // A reader that went away ends this, as it does any filter.
            Ok(event) => print(&event, json).is_ok(),
            Err(text) if follow => {
                eprintln!("trackpost: {text}");
                true
            }
            Err(text) => {
                refused = Some(text);
                false
            }
        }));
    match (called, refused) {
        (Err(e), _) => fail(&e),
        (Ok(()), Some(text)) => fail(&text),
        (Ok(()), None) => ExitCode::SUCCESS,
    }
}

/// Prints the lines of an answer as they are. One that was cut short is a failure.
pub fn lines(file: &Path, request: &Request) -> ExitCode {
    let config = match load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let (mut refused, mut whole) = (None, false);
    let called = blocking(admin::call(&config.data_dir, request, |answer| match answer {
        Ok(Value::Number(_)) => {
            whole = true;
            false
        }
        // A reader that went away ends this, as it does any filter.
        Ok(line) => {
            whole = print(&line, true).is_err();
            !whole
        }
        Err(text) => {
            refused = Some(text);
            false
        }
    }));
    match (called, refused) {
        (Err(e), _) => fail(&e),
        (Ok(()), Some(text)) => fail(&text),
        (Ok(()), None) if whole => ExitCode::SUCCESS,
        (Ok(()), None) => fail(&"the server's answer was cut short"),
    }
}

fn print(event: &Value, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{event}")?,
        false => writeln!(out, "{}", line(event))?,
    }
    out.flush()
}

/// One event as a line.
pub fn line(event: &Value) -> String {
    let text = |key: &str| table::clean(event[key].as_str().unwrap_or_default());
    let time = table::time(event["at"].as_u64().unwrap_or(0));
    let kind = text("type");
    let mut line = format!("{time}  {:<16} {}", kind.trim_start_matches("email."), text("email_id"));
    if let Some(recipient) = event["recipient"].as_u64() {
        line.push_str(&format!("  #{recipient}"));
    }
    if event["class"].is_string() {
        line.push_str(&format!("  {}", text("class")));
    }
    if event["reason"].is_string() {
        line.push_str(&format!(" ({})", text("reason")));
    }
    if let Some(count) = event["count"].as_u64().filter(|count| *count > 1) {
        line.push_str(&format!("  ×{count}"));
    }
    for key in ["to", "link", "reply"] {
        if event[key].is_string() {
            line.push_str("  ");
            line.push_str(&text(key));
        }
    }
    line
}
