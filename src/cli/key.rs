//! `trackpost key …`

use super::{ask, print_json, table};
use crate::admin::Request;
use crate::ops::{KeyView, NewKey};
use crate::settings::Permission;
use clap::{Subcommand, ValueEnum};
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Make an API key; its token is printed once, alone on stdout
    Create {
        #[arg(long)]
        name: String,
        #[arg(long, value_enum, default_value = "full_access")]
        permission: Allowed,
        /// The key is good for this domain alone; may be given several times
        #[arg(long, value_name = "NAME")]
        domain: Vec<String>,
    },
    /// List the API keys
    List {
        #[arg(long)]
        json: bool,
    },
    /// Revoke one, by its id or the beginning of it
    Revoke { id: String },
    /// Sign links with a new key; links already sent go on working
    Rotate {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Allowed {
    FullAccess,
    SendingAccess,
}

pub fn run(file: &Path, command: Command) -> ExitCode {
    match command {
        Command::Create { name, permission, domain } => {
            let permission = match permission {
                Allowed::FullAccess => Permission::FullAccess,
                Allowed::SendingAccess => Permission::SendingAccess,
            };
            let request = Request::KeyCreate(NewKey { name, permission, domains: domain });
            ask(file, &request, |made| println!("{}", made["token"].as_str().unwrap_or_default()))
        }
        Command::List { json } => {
            ask(file, &Request::KeyList, |answer| match serde_json::from_value::<Vec<KeyView>>(answer.clone()) {
                Ok(keys) if !json => {
                    let rows: Vec<_> = keys.into_iter().map(row).collect();
                    table::print(&["ID", "NAME", "PERMISSION", "DOMAINS", "MADE", "LAST USED"], &rows);
                }
                _ => print_json(answer),
            })
        }
        Command::Revoke { id } => ask(file, &Request::KeyRevoke(id), |answer| {
            println!("revoked {}", table::clean(answer["name"].as_str().unwrap_or_default()));
        }),
        Command::Rotate { json } => ask(file, &Request::KeyRotate, |id| match json {
            true => print_json(&serde_json::json!({ "token_key": id })),
            false => println!("links are signed with token key {id} from now on; the earlier keys go on verifying"),
        }),
    }
}

fn row(key: KeyView) -> Vec<String> {
    let permission = match key.permission {
        Permission::FullAccess => "full_access",
        Permission::SendingAccess => "sending_access",
    };
    let domains = if key.domains.is_empty() { "all".to_owned() } else { key.domains.join(", ") };
    let used = key.last_used_at.map_or("never".to_owned(), table::time);
    vec![key.id, table::clean(&key.name), permission.to_owned(), domains, table::time(key.created_at), used]
}
