//! `trackpost machines print`

use super::print_json;
use crate::event::BUILTIN_MACHINES;
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Write the list that comes with the program, to start a file for events.machines_file from
    Print {
        /// The same text as a JSON string
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: &Command) -> ExitCode {
    match command {
        Command::Print { json: true } => print_json(&json!({ "machines": BUILTIN_MACHINES })),
        Command::Print { json: false } => print!("{BUILTIN_MACHINES}"),
    }
    ExitCode::SUCCESS
}
