//! The program: the crypto provider, then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only where one is installed already, and ring is the only one in the tree.
    let _ = rustls::crypto::ring::default_provider().install_default();
    trackpost::cli::run()
}
