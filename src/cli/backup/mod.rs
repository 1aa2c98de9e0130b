//! `trackpost backup` and `trackpost restore`: configuration, keys, and the settings (domains, API keys, switches, the
//! kill list, opt-outs, erasures).
//!
//! Not in a backup, on purpose: queued mail and history. An old copy of the queue, put back beside a smarthost that has
//! taken mail since, would send that mail again.

mod archive;
mod restore;

pub use restore::{Restore, restore};

use super::{blocking, erasures, fail, load_alone};
use crate::admin::{self, CallError, Request};
use crate::clock;
use crate::config::{Config, TrackingTls};
use crate::settings::{erasure_elsewhere, erasure_of, is_of_this_log};
use crate::spool::{Log, Options};
use archive::Archive;
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub struct Target {
    /// The archive; `-` writes it to standard output
    #[arg(value_name = "FILE")]
    archive: PathBuf,
}

/// The name that stands for standard input or output.
const STANDARD: &str = "-";

/// Works beside a running server and without one.
pub fn backup(file: &Path, target: &Target) -> ExitCode {
    let config = match load_alone(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let to_output = target.archive.as_os_str() == STANDARD;
    if to_output && io::stdout().is_terminal() {
        return fail(&"standard output is a terminal: a backup holds keys, send it to a file or a program");
    }
    let made = gather(file, &config).and_then(|archive| {
        let written = match to_output {
            true => archive.write_to(&mut io::stdout().lock(), clock::unix_ms()),
            false => archive.write(&target.archive, clock::unix_ms()),
        };
        written.map_err(|e| format!("{}: {e}", target.archive.display()))?;
        Ok(archive)
    });
    match made {
        Ok(archive) => {
            let (keys, settings) = (archive.keys.len(), archive.settings.len());
            let said = format!("configuration, {keys} keys, {settings} settings; keep it as secret as the keys in it");
            match to_output {
                true => eprintln!("{said}"),
                false => println!("{}: {said}", target.archive.display()),
            }
            for named in files_named(&config) {
                eprintln!("not in it, since it lies elsewhere: {}", named.display());
            }
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

fn gather(file: &Path, config: &Config) -> Result<Archive, String> {
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let folder = config.data_dir.join("keys");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut keys = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_file() && !name.ends_with(".new") {
            keys.insert(name, read(&path)?);
        }
    }
    Ok(Archive { config: read(file)?, settings: settings(config)?, keys })
}

/// From the server, or, where none runs, from the log.
fn settings(config: &Config) -> Result<BTreeMap<String, String>, String> {
    match blocking(admin::ask(&config.data_dir, &Request::Settings)) {
        Ok(answer) => return serde_json::from_value(answer).map_err(|e| e.to_string()),
        Err(CallError::NoServer(..)) => {}
        Err(e) => return Err(e.to_string()),
    }
    let (log, recovered) = Log::open(Options::new(&config.data_dir)).map_err(|e| e.to_string())?;
    log.close();
    let mut settings = BTreeMap::new();
    for (key, value) in recovered.settings {
        if let Some((erased, erasure)) = erasure_of(&key, &value) {
            settings.extend([erasure_elsewhere(erased, erasure.at)]);
        } else if !is_of_this_log(&key) {
            let text = String::from_utf8(value.to_vec()).map_err(|_| format!("the setting {key} cannot be read"))?;
            settings.insert(key.into(), text);
        }
    }
    Ok(settings)
}

fn files_named(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for pair in [&config.smtp.certificate, &config.api.certificate].into_iter().flatten() {
        files.extend([pair.certificate.clone(), pair.key.clone()]);
    }
    files.extend(config.smarthosts.iter().filter_map(|smarthost| smarthost.password_file.clone()));
    files.extend(config.smarthosts.iter().filter_map(|smarthost| smarthost.ca_file.clone()));
    if let TrackingTls::Files(folder) = &config.tracking.tls {
        files.push(folder.clone());
    }
    files
}
