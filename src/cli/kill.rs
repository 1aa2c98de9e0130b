//! `trackpost kill …`

use super::{ask, print_json, table};
use crate::admin::Request;
use crate::kill::KillKind;
use crate::ops::KillView;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Switch links off
    Add(Entry),
    /// Let links redirect again
    Remove(Entry),
    /// List what is switched off, the newest first
    List {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub struct Entry {
    /// All links of a message, all links to a destination, or all links to a domain and in mail of it
    #[arg(value_enum)]
    kind: Kind,
    /// The message's id, the destination's URL, the domain's name
    value: String,
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Message,
    Link,
    Domain,
}

impl From<Kind> for KillKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Message => Self::Message,
            Kind::Link => Self::Link,
            Kind::Domain => Self::Domain,
        }
    }
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    match command {
        Command::Add(Entry { kind, value, json }) => {
            let request = Request::KillAdd { kind: kind.into(), value };
            ask(file, &request, |answer| tell(answer, json, "links are answered 410 from now on"))
        }
        Command::Remove(Entry { kind, value, json }) => {
            let request = Request::KillRemove { kind: kind.into(), value };
            ask(file, &request, |answer| tell(answer, json, "links redirect again"))
        }
        Command::List { json } => {
            ask(file, &Request::KillList, |answer| match serde_json::from_value::<Vec<KillView>>(answer.clone()) {
                Ok(kills) if !json && kills.is_empty() => println!("the kill list is empty"),
                Ok(kills) if !json => {
                    let rows: Vec<_> = kills.into_iter().map(row).collect();
                    table::print(&["KIND", "VALUE", "SINCE"], &rows);
                }
                _ => print_json(answer),
            })
        }
    }
}

fn tell(answer: &Value, json: bool, what: &str) {
    match serde_json::from_value::<KillView>(answer.clone()) {
        Ok(kill) if !json => println!("{} {}: {what}", kill.kind, table::clean(&kill.value)),
        _ => print_json(answer),
    }
}

fn row(kill: KillView) -> Vec<String> {
    vec![kill.kind.to_string(), table::clean(&kill.value), table::time(kill.created_at)]
}
