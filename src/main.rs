//! The program: arguments, logging, exit code.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use trackpost::config::{Config, LogFormat};

/// SMTP relay that adds open and click tracking to outgoing mail.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration (also TRACKPOST_CONFIG; default config/trackpost.toml).
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the relay and the tracking host.
    Serve,
    /// Reads the configuration and says every fault.
    Check,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let path = Config::find(arguments.config.as_deref());
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            return ExitCode::FAILURE;
        }
    };
    config.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    match arguments.command {
        Command::Check => {
            println!("{}: no faults", path.display());
            ExitCode::SUCCESS
        }
        Command::Serve => serve(config),
    }
}

fn serve(config: Config) -> ExitCode {
    // A second installation could only come from a library, and every provider in the tree is ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(config.log.level);
    match config.log.format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(trackpost::server::serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cannot start: {e}");
            ExitCode::FAILURE
        }
    }
}
