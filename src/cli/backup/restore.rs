//! `trackpost restore`: a configuration file and a data folder out of a backup, both or neither.
//!
//! Everything that can be known is looked at before the first write. The data is made in a folder of its own beside its
//! place and moved there once it is whole and the configuration file is written. What a restore that failed has made
//! goes again, so the next one finds things as this one did.

use super::archive::Archive;
use super::{STANDARD, erasures, fail};
use crate::config::Config;
use crate::privacy::Erased;
use crate::spool::{Entry, Log, Options};
use bytes::Bytes;
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub struct Restore {
    /// The archive; `-` reads it from standard input
    #[arg(value_name = "FILE")]
    archive: PathBuf,
    /// A new data folder; the configuration file will name it instead of the one in the archive
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// A list of erasures that is newer than the archive, as `recipient erased` prints it
    #[arg(long, value_name = "LIST")]
    erasures: Option<PathBuf>,
}

/// What lies in a data folder that was used.
const PARTS: [&str; 3] = ["keys", "log", "store"];
/// Where the data is made.
const UNFINISHED: &str = "restore.new";

/// Makes the configuration file and a data folder that are not there yet.
pub fn restore(file: &Path, options: &Restore) -> ExitCode {
    match restored(file, options) {
        Ok((config, archive)) => {
            println!("{}: restored", file.display());
            println!("{}: {} keys, {} settings", config.data_dir.display(), archive.keys.len(), archive.settings.len());
            if options.erasures.is_none() {
                eprintln!(
                    "recipients who were erased after this backup was made are not known here: a newer list (recipient \
                     erased) is taken with --erasures LIST, or by recipient erased --add LIST before the start"
                );
            }
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

fn restored(file: &Path, options: &Restore) -> Result<(Config, Archive), String> {
    let from = &options.archive;
    let read = if from.as_os_str() == STANDARD { Archive::read_from(io::stdin().lock()) } else { Archive::read(from) };
    let archive = read.map_err(|e| format!("{}: {e}", from.display()))?;
    let erased = options.erasures.as_deref().map(erasures::read).transpose()?.unwrap_or_default();
    let text = match &options.data_dir {
        Some(folder) => with_data_dir(&archive.config, folder)?,
        None => archive.config.clone(),
    };
    let config = Config::parse_alone(file, &text).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        format!(
            "nothing was restored: unpack the archive, mend its trackpost.toml, and pack it again with \
             trackpost-backup.json first\n{}",
            faults.join("\n")
        )
    })?;
    let is_there = look_first(file, &text, &config.data_dir)?;

    let mut made = Made::default();
    let done = put(&mut made, (&archive, &erased), (!is_there).then_some((file, &text[..])), &config.data_dir);
    match done {
        Ok(()) => Ok((config, archive)),
        Err(why) => {
            made.undo();
            Err(why)
        }
    }
}

/// Whether the configuration file is there already and is the same. Says what stands in the way of a restore.
fn look_first(file: &Path, text: &[u8], data_dir: &Path) -> Result<bool, String> {
    for part in PARTS {
        let path = data_dir.join(part);
        if path.symlink_metadata().is_ok() {
            return Err(format!(
                "{} is there already: a backup is restored into a new data folder, which --data-dir can name",
                path.display()
            ));
        }
    }
    let existing = data_dir.ancestors().find(|folder| folder.exists());
    if let Some(other) = existing.filter(|folder| !folder.is_dir()) {
        return Err(format!("{} is no folder", other.display()));
    }
    match fs::read(file) {
        Ok(there) if there == text => return Ok(true),
        Ok(_) => {
            return Err(format!(
                "{} is there already, and is another: move it away, or name a new file with --config",
                file.display()
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(format!("{}: {e}", file.display())),
    }
    match folder_of(file) {
        folder if !folder.is_dir() => Err(format!("{}: there is no such folder", folder.display())),
        _ => Ok(false),
    }
}

/// The configuration with another `data_dir`; all else stays as it was written.
fn with_data_dir(config: &[u8], folder: &Path) -> Result<Vec<u8>, String> {
    let folder = std::path::absolute(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let name = folder.to_str().ok_or_else(|| format!("{}: the name is not UTF-8", folder.display()))?;
    // What JSON escapes, TOML reads the same.
    let value = serde_json::Value::from(name).to_string();
    let bad = |why: String| format!("the configuration in the archive: {why}");
    let text = str::from_utf8(config).map_err(|e| bad(e.to_string()))?;
    let document = toml_edit::ImDocument::parse(text).map_err(|e| bad(e.to_string()))?;
    let span = document.get("data_dir").and_then(|item| item.span());
    Ok(match span {
        Some(span) => [&text[..span.start], &value, &text[span.end..]].concat(),
        // Before the first section, wherever that is.
        None => format!("data_dir = {value}\n{text}"),
    }
    .into_bytes())
}

/// What a restore has made so far.
#[derive(Default)]
struct Made {
    folders: Vec<PathBuf>,
    parts: Vec<PathBuf>,
    file: Option<PathBuf>,
}

impl Made {
    fn undo(&self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
        for part in &self.parts {
            let _ = fs::remove_dir_all(part);
        }
        // Those that are empty, the innermost first.
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Makes keys and log, and the configuration file where it is not there.
fn put(
    made: &mut Made,
    (archive, erased): (&Archive, &[(Erased, u64)]),
    file: Option<(&Path, &[u8])>,
    data_dir: &Path,
) -> Result<(), String> {
    let missing: Vec<_> = data_dir.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists()).collect();
    for folder in missing.into_iter().rev() {
        new_folder(folder)?;
        made.folders.push(folder.to_owned());
        sync(folder_of(folder))?;
    }
    let unfinished = data_dir.join(UNFINISHED);
    if unfinished.symlink_metadata().is_ok() {
        fs::remove_dir_all(&unfinished).map_err(|e| format!("{}: {e}", unfinished.display()))?;
    }
    made.parts.push(unfinished.clone());
    let keys = unfinished.join("keys");
    new_folder(&unfinished).and_then(|()| new_folder(&keys))?;
    for (name, bytes) in &archive.keys {
        write_new(&keys.join(name), bytes, 0o600)?;
    }
    sync(&keys)?;
    let (log, _) = Log::open(Options::new(&unfinished)).map_err(|e| e.to_string())?;
    let settings = archive.settings.iter();
    let settings = settings.map(|(key, value)| (key.as_str().into(), Bytes::copy_from_slice(value.as_bytes())));
    let settings: BTreeMap<Box<str>, Bytes> = settings.collect();
    let mut written = Ok(());
    for (key, value) in &settings {
        let setting = Entry::Setting { key: key.clone(), value: Some(value.clone()) };
        written = log.append(setting).wait().map_err(|e| e.to_string());
        if written.is_err() {
            break;
        }
    }
    let written = written.and_then(|()| erasures::write(&log, &settings, erased));
    log.close();
    written?;
    if let Some((file, text)) = file {
        write_new(file, text, 0o640)?;
        made.file = Some(file.to_owned());
        sync(folder_of(file))?;
    }
    for part in ["keys", "log"] {
        let place = data_dir.join(part);
        fs::rename(unfinished.join(part), &place).map_err(|e| format!("{}: {e}", place.display()))?;
        made.parts.push(place);
    }
    // What the log keeps beside itself is made again where it is needed.
    fs::remove_dir_all(&unfinished).map_err(|e| format!("{}: {e}", unfinished.display()))?;
    sync(data_dir)
}

fn new_folder(path: &Path) -> Result<(), String> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Where a file or folder lies, whose name may be of the working folder.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> Result<(), String> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| format!("{}: {e}", folder.display()))
}

/// A new file with these bytes on the disk, or none.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let named = |e: io::Error| format!("{}: {e}", path.display());
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(named)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| {
        let _ = fs::remove_file(path);
        named(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, folder: &str) -> String {
        String::from_utf8(with_data_dir(text.as_bytes(), Path::new(folder)).unwrap()).unwrap()
    }

    #[test]
    fn the_data_folder_alone_is_changed() {
        let table = [
            ("# a\ndata_dir = \"data\" # here\n[api]\n", "# a\ndata_dir = \"/new\" # here\n[api]\n"),
            ("hostname = \"a.test\"\ndata_dir = 'x y'\n", "hostname = \"a.test\"\ndata_dir = \"/new\"\n"),
            ("# a\n[api]\ndata_dir = 1\n", "data_dir = \"/new\"\n# a\n[api]\ndata_dir = 1\n"),
            ("", "data_dir = \"/new\"\n"),
        ];
        for (text, want) in table {
            assert_eq!(changed(text, "/new"), want);
        }
        let odd = changed("", "/a \"b\"\\c\td");
        let read: toml::Table = toml::from_str(&odd).unwrap();
        assert_eq!(read["data_dir"].as_str(), Some("/a \"b\"\\c\td"));
        assert!(with_data_dir(b"data_dir =", Path::new("/new")).is_err());
    }
}
