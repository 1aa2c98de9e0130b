//! `trackpost search`

use super::{ask, print_json, table};
use crate::admin::Request;
use crate::ops::MessageView;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

#[derive(Args)]
pub struct Options {
    /// A queue id, the address of a recipient, or a Message-ID
    text: String,
    /// Messages shown at most, the newest first
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[arg(long)]
    json: bool,
}

pub fn run(file: &Path, options: Options) -> ExitCode {
    let Options { text, limit, json } = options;
    ask(file, &Request::Search { text, limit }, |answer| {
        match serde_json::from_value::<Vec<MessageView>>(answer.clone()) {
            Ok(found) if !json => print(&found),
            _ => print_json(answer),
        }
    })
}

fn print(found: &[MessageView]) {
    if found.is_empty() {
        return eprintln!("nothing found");
    }
    let mut rows = Vec::new();
    for message in found {
        for recipient in &message.recipients {
            let accepted = table::time(message.accepted_at);
            let subject = table::clean(&message.subject);
            rows.push(vec![message.id.clone(), accepted, recipient.address.clone(), recipient.status.clone(), subject]);
        }
    }
    table::print(&["ID", "ACCEPTED", "RECIPIENT", "STATUS", "SUBJECT"], &rows);
}
