//! `trackpost test`

use super::{fail, load_alone, print_json, queue};
use crate::admin::{self, Request};
use crate::ops::MessageView;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

#[derive(Args)]
pub struct Options {
    /// Whom to send it to
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// Sender; without one, postmaster of the first tracked domain, or of this host
    #[arg(long, value_name = "ADDR")]
    from: Option<String>,
    #[arg(long)]
    json: bool,
}

/// Fails unless the smarthost has taken the message.
pub fn run(file: &Path, options: Options) -> ExitCode {
    let Options { to, from, json } = options;
    let config = match load_alone(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let answer = match super::blocking(admin::ask(&config.data_dir, &Request::Test { to, from })) {
        Ok(answer) => answer,
        Err(e) => return fail(&e),
    };
    let Ok(message) = serde_json::from_value::<MessageView>(answer.clone()) else {
        print_json(&answer);
        return fail(&"the answer cannot be read");
    };
    let taken = message.recipients.iter().all(|r| matches!(&*r.status, "delivered" | "relayed"));
    match json {
        true => print_json(&answer),
        false => queue::show(message),
    }
    if taken { ExitCode::SUCCESS } else { fail(&"the smarthost has not taken the message") }
}
