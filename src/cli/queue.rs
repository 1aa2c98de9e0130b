//! `trackpost queue …`

use super::{ask, print_json, table};
use crate::admin::Request;
use crate::ops::{MessageView, QueueView};
use clap::Subcommand;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// List what waits, and what was given up
    List {
        /// Messages shown at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[arg(long)]
        json: bool,
    },
    /// Show one message with its recipients, the last replies and the report of rewriting
    Show {
        id: String,
        #[arg(long)]
        json: bool,
    },
    /// Try a message now, or `all` that wait
    Retry {
        id: String,
        #[arg(long)]
        json: bool,
    },
    /// Take a message out of the queue for good; its sender is told nothing
    Remove {
        id: String,
        #[arg(long)]
        json: bool,
    },
    /// Keep all mail back: it is accepted and waits, also over a restart
    Hold {
        #[arg(long)]
        json: bool,
    },
    /// Let mail go again
    Release {
        #[arg(long)]
        json: bool,
    },
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    match command {
        Command::List { limit, json } => {
            ask(file, &Request::QueueList { limit }, |answer| {
                match serde_json::from_value::<QueueView>(answer.clone()) {
                    Ok(queue) if !json => list(&queue),
                    _ => print_json(answer),
                }
            })
        }
        Command::Show { id, json } => {
            ask(file, &Request::QueueShow(id), |answer| match serde_json::from_value::<MessageView>(answer.clone()) {
                Ok(message) if !json => show(message),
                _ => print_json(answer),
            })
        }
        Command::Retry { id, json } => {
            let id = (id != "all").then_some(id);
            ask(file, &Request::QueueRetry(id), |count| match json {
                true => print_json(&json!({ "due": count })),
                false => println!("{} due now", counted(count, "message")),
            })
        }
        Command::Remove { id, json } => ask(file, &Request::QueueRemove(id), |count| match json {
            true => print_json(&json!({ "removed_recipients": count })),
            false => println!("removed; {} had not been served", counted(count, "recipient")),
        }),
        Command::Hold { json } => ask(file, &Request::QueueHold(true), |changed| {
            let before = if changed == true { "" } else { " already" };
            match json {
                true => print_json(&json!({ "held": true, "changed": changed })),
                false => {
                    println!("the queue is held{before}: mail is accepted and waits until `trackpost queue release`")
                }
            }
        }),
        Command::Release { json } => ask(file, &Request::QueueHold(false), |changed| match json {
            true => print_json(&json!({ "held": false, "changed": changed })),
            false => println!("{}", if changed == true { "mail goes out again" } else { "the queue was not held" }),
        }),
    }
}

fn counted(count: &serde_json::Value, what: &str) -> String {
    match count.as_u64() {
        Some(1) => format!("1 {what}"),
        Some(count) => format!("{count} {what}s"),
        None => format!("no {what}"),
    }
}

fn list(queue: &QueueView) {
    if queue.held {
        eprintln!("the queue is held: nothing is delivered until `trackpost queue release`");
    }
    if let Some(why) = &queue.smarthost {
        eprintln!("the smarthost cannot be reached, mail waits: {}", table::clean(why));
    }
    if queue.messages.is_empty() {
        eprintln!("the queue is empty");
    } else {
        println!("{} in the queue", queue.queued);
        rows(&queue.messages);
    }
    match &queue.failed {
        Some(failed) if !failed.is_empty() => {
            println!("\n{} failed", failed.len());
            rows(failed);
        }
        Some(_) => {}
        None => eprintln!(
            "the store is not open, so failed messages cannot be listed; if it stays so, the server's log says why"
        ),
    }
}

pub fn rows(messages: &[MessageView]) {
    let mut rows = Vec::new();
    for message in messages {
        for recipient in message.recipients.iter().filter(|r| !matches!(&*r.status, "delivered" | "relayed")) {
            let next = recipient.next.map_or_else(String::new, table::time);
            let reply = table::clean(&recipient.reply);
            rows.push(vec![message.id.clone(), recipient.address.clone(), recipient.status.clone(), next, reply]);
        }
    }
    table::print(&["ID", "RECIPIENT", "STATUS", "NEXT TRY", "LAST REPLY"], &rows);
}

pub fn show(message: MessageView) {
    println!("{}", message.id);
    println!("  accepted  {}", table::time(message.accepted_at));
    println!("  sender    {}", message.sender);
    println!("  from      {}", table::clean(&message.from));
    println!("  subject   {}", table::clean(&message.subject));
    println!("  size      {} bytes", message.size);
    for recipient in &message.recipients {
        println!("  to        {}  {}", recipient.address, recipient.status);
        if let Some(next) = recipient.next {
            println!("            attempts {}, next {}", recipient.attempts, table::time(next));
        }
        if !recipient.reply.is_empty() {
            println!("            {}", table::clean(&recipient.reply));
        }
    }
    if let Some(report) = message.report {
        println!();
        report.to_string().lines().for_each(|line| println!("  {}", table::clean(line)));
    }
}
