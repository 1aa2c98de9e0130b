//! `trackpost backup` and `trackpost restore`: configuration, keys, and the settings (domains, API keys, switches, the
//! kill list, opt-outs).
//!
//! Not in a backup, on purpose: queued mail and history. An old copy of the queue, put back beside a smarthost that has
//! taken mail since, would send that mail again.

mod archive;

use super::{blocking, fail, load_alone};
use crate::admin::{self, CallError, Request};
use crate::clock;
use crate::config::{Config, TrackingTls};
use crate::spool::{Entry, Log, Options};
use archive::Archive;
use bytes::Bytes;
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub struct Target {
    /// The archive
    #[arg(value_name = "FILE")]
    archive: PathBuf,
}

/// Works beside a running server and without one.
pub fn backup(file: &Path, target: &Target) -> ExitCode {
    let config = match load_alone(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let made = gather(file, &config).and_then(|archive| {
        archive.write(&target.archive, clock::unix_ms()).map_err(|e| format!("{}: {e}", target.archive.display()))?;
        Ok(archive)
    });
    match made {
        Ok(archive) => {
            println!(
                "{}: configuration, {} keys, {} settings; keep it as secret as the keys in it",
                target.archive.display(),
                archive.keys.len(),
                archive.settings.len()
            );
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
        let text = String::from_utf8(value.to_vec()).map_err(|_| format!("the setting {key} cannot be read"))?;
        settings.insert(key.into(), text);
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

/// Makes the configuration file and a data folder that are not there yet.
pub fn restore(file: &Path, target: &Target) -> ExitCode {
    match restored(file, &target.archive) {
        Ok((config, archive)) => {
            println!("{}: restored", file.display());
            println!("{}: {} keys, {} settings", config.data_dir.display(), archive.keys.len(), archive.settings.len());
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

fn restored(file: &Path, from: &Path) -> Result<(Config, Archive), String> {
    let archive = Archive::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    match fs::read(file) {
        Ok(there) if there == archive.config => {}
        Ok(_) => {
            return Err(format!(
                "{} is there already, and is another: move it away, or name a new file with --config",
                file.display()
            ));
        }
        Err(_) => write_new(file, &archive.config, 0o640)?,
    }
    let config = Config::load_alone(file).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        format!("the configuration was restored, but not the data: mend it, then restore again\n{}", faults.join("\n"))
    })?;
    for part in ["keys", "log", "store"] {
        let path = config.data_dir.join(part);
        if path.exists() {
            return Err(format!("{} is there already: a backup is restored into a new data folder", path.display()));
        }
    }
    let keys = config.data_dir.join("keys");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys).map_err(|e| format!("{}: {e}", keys.display()))?;
    for (name, bytes) in &archive.keys {
        write_new(&keys.join(name), bytes, 0o600)?;
    }
    let (log, _) = Log::open(Options::new(&config.data_dir)).map_err(|e| e.to_string())?;
    for (key, value) in &archive.settings {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        log.append(Entry::Setting { key: key.as_str().into(), value }).wait().map_err(|e| e.to_string())?;
    }
    log.close();
    Ok((config, archive))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|e| format!("{}: {e}", path.display()))
}
