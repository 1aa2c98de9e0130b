//! `trackpost demo`.

mod browser;
mod sink;
mod tour;
mod visitor;

use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct Options {
    /// End at once instead of waiting for Ctrl-C
    #[arg(long)]
    exit: bool,
}

pub fn run(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return super::fail(&e),
    };
    match runtime.block_on(tour::run(options.exit)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!();
            super::fail(&format!("the demo failed: {e}"))
        }
    }
}
