//! The command line: one file per subject. Results go to stdout, everything else to stderr; 0 done, 1 failed, 2 wrong
//! usage, 3 `serve` could not write its log to the end.

mod backup;
mod check;
mod demo;
mod domain;
mod erasures;
mod events;
mod key;
mod kill;
mod machines;
mod queue;
mod recipient;
mod rewrite;
mod search;
mod serve;
mod stats;
mod stderr;
mod table;
mod test;
mod tracking;

use crate::admin::{self, CallError, Request};
use crate::config::Config;
use clap::{Parser, Subcommand};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// SMTP relay that adds open and click tracking to outgoing mail.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Arguments {
    /// Configuration (also TRACKPOST_CONFIG; config/trackpost.toml if neither is given)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the relay and the tracking host
    Serve,
    /// Read the configuration and say every fault, with file, line and key
    Check(check::Options),
    /// Show the whole thing on this machine, with nothing set up
    Demo(demo::Options),
    /// Rewrite one message offline: the message on stdout, the report on stderr
    Rewrite(rewrite::Options),
    /// Sender domains
    #[command(subcommand)]
    Domain(domain::Command),
    /// API keys, and the key that signs links
    #[command(subcommand)]
    Key(key::Command),
    /// Links that are switched off: they answer 410 from now on
    #[command(subcommand)]
    Kill(kill::Command),
    /// What is done for single recipients
    #[command(subcommand)]
    Recipient(recipient::Command),
    /// Messages that wait
    #[command(subcommand)]
    Queue(queue::Command),
    /// Write configuration, keys, domains and API keys to a file
    Backup(backup::Target),
    /// Make a configuration and a new data folder from such a file
    Restore(backup::Restore),
    /// Find messages by queue id, recipient or Message-ID
    Search(search::Options),
    /// Send one message through everything, and say what became of it
    Test(test::Options),
    /// The panic switch: relay mail untouched, from this second on
    #[command(subcommand)]
    Tracking(tracking::Command),
    /// What happened to messages
    #[command(subcommand)]
    Events(events::Command),
    /// Whose opens and clicks are no person's
    #[command(subcommand)]
    Machines(machines::Command),
}

/// Runs the program.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let file = Config::find(arguments.config.as_deref());
    match arguments.command {
        Command::Serve => serve::run(&file),
        Command::Check(options) => check::run(&file, &options),
        Command::Demo(options) => demo::run(&options),
        Command::Rewrite(options) => rewrite::run(&options),
        Command::Domain(command) => domain::run(&file, command),
        Command::Key(command) => key::run(&file, command),
        Command::Kill(command) => kill::run(&file, command),
        Command::Recipient(command) => recipient::run(&file, command),
        Command::Queue(command) => queue::run(&file, command),
        Command::Backup(target) => backup::backup(&file, &target),
        Command::Restore(options) => backup::restore(&file, &options),
        Command::Search(options) => search::run(&file, options),
        Command::Test(options) => test::run(&file, options),
        Command::Tracking(command) => tracking::run(&file, command),
        Command::Events(command) => events::run(&file, command),
        Command::Machines(command) => machines::run(&command),
    }
}

/// The configuration, or its faults on stderr.
fn load(file: &Path) -> Result<Config, ExitCode> {
    Config::load(file).map_err(|faults| {
        faults.iter().for_each(|fault| eprintln!("{fault}"));
        ExitCode::FAILURE
    })
}

/// As [`load`], without the files that the configuration names: the operator need not be able to read them.
fn load_alone(file: &Path) -> Result<Config, ExitCode> {
    Config::load_alone(file).map_err(|faults| {
        faults.iter().for_each(|fault| eprintln!("{fault}"));
        ExitCode::FAILURE
    })
}

/// Asks the server and hands its answer to `show`.
fn ask(file: &Path, request: &Request, show: impl FnOnce(&Value)) -> ExitCode {
    let config = match load_alone(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match blocking(admin::ask(&config.data_dir, request)) {
        Ok(answer) => {
            show(&answer);
            ExitCode::SUCCESS
        }
        Err(e) => fail(&e),
    }
}

/// Runs a future on a small runtime of its own.
fn blocking<T>(future: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| CallError::Broken(e.to_string()))?.block_on(future)
}

fn fail(why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("trackpost: {why}");
    ExitCode::FAILURE
}

/// JSON on stdout.
fn print_json(value: &Value) {
    // Pretty, since people read it as often as programs, and programs do not mind.
    println!("{value:#}");
}
