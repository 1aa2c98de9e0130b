//! The file that `trackpost backup` writes: a tar archive with a first entry that says its format.
//!
//! | entry | what |
//! | --- | --- |
//! | `trackpost-backup.json` | format, version of the program, when |
//! | `trackpost.toml` | the configuration as it was |
//! | `settings.json` | domains, API keys, switches: an object of the log's keys and values |
//! | `keys/NAME` | the files of `DATA_DIR/keys` |
//!
//! Any tar can read it, and write it anew once something in it is mended. This reader takes regular files of these
//! names, each once, and the folder `keys/`; no link, no device and no other path.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The format that this version writes; it reads no later one.
const FORMAT: u32 = 1;
/// No entry is larger than this, and all together are no larger than four of them.
const LARGEST: u64 = 64 * 1024 * 1024;

const HEAD: &str = "trackpost-backup.json";
const CONFIG: &str = "trackpost.toml";
const SETTINGS: &str = "settings.json";
const KEYS: &str = "keys/";

/// All that a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    pub config: Vec<u8>,
    /// The log's settings by key; every value is JSON.
    pub settings: BTreeMap<String, String>,
    /// Contents by file name.
    pub keys: BTreeMap<String, Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    version: String,
    /// Milliseconds since 1970.
    at: u64,
}

/// Why an archive cannot be read.
#[derive(Debug)]
pub enum ArchiveError {
    Io(io::Error),
    /// It is no backup, or not all of one.
    Malformed(String),
    /// Written by a later version.
    Newer {
        format: u32,
        version: String,
    },
}

impl Archive {
    /// Writes a new file, for its owner's eyes alone, which is whole or not there.
    pub fn write(&self, file: &Path, now: u64) -> io::Result<()> {
        if file.exists() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already"));
        }
        let mut name = file.as_os_str().to_owned();
        name.push(".new");
        let unfinished = Path::new(&name);
        let _ = fs::remove_file(unfinished);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished)?;
        self.write_to(&mut out, now)?;
        out.sync_all()?;
        fs::rename(unfinished, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    pub fn write_to(&self, out: &mut impl Write, now: u64) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now / 1000);
            header.set_cksum();
            tar.append_data(&mut header, name, bytes)
        };
        let head = Head { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), at: now };
        add(HEAD, &serde_json::to_vec_pretty(&head)?)?;
        add(CONFIG, &self.config)?;
        add(SETTINGS, &serde_json::to_vec_pretty(&self.settings)?)?;
        for (name, bytes) in &self.keys {
            add(&format!("{KEYS}{name}"), bytes)?;
        }
        tar.into_inner()?.flush()
    }

    pub fn read(file: &Path) -> Result<Self, ArchiveError> {
        Self::read_from(File::open(file).map_err(ArchiveError::Io)?)
    }

    pub fn read_from(input: impl Read) -> Result<Self, ArchiveError> {
        let bad = |why: &str| ArchiveError::Malformed(why.to_owned());
        let mut archive = Self::default();
        let (mut seen_head, mut seen_config, mut seen_settings) = (false, false, false);
        let mut left = 4 * LARGEST;
        let mut tar = tar::Archive::new(input);
        for entry in tar.entries().map_err(|_| bad("it is no archive"))? {
            let mut entry = entry.map_err(|e| ArchiveError::Malformed(e.to_string()))?;
            let name = entry.path().ok().and_then(|path| path.to_str().map(str::to_owned));
            let name = name.ok_or_else(|| bad("an entry has no name"))?;
            let kind = entry.header().entry_type();
            if kind.is_dir() && name == KEYS && seen_head {
                continue;
            }
            if !kind.is_file() {
                return Err(ArchiveError::Malformed(format!("{name:?} is no regular file")));
            }
            if entry.size() > LARGEST.min(left) {
                return Err(ArchiveError::Malformed(format!("{name:?} is too large")));
            }
            left -= entry.size();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|e| ArchiveError::Malformed(e.to_string()))?;
            if !seen_head {
                check_head(&name, &bytes)?;
                seen_head = true;
                continue;
            }
            let key = name.strip_prefix(KEYS).filter(|key| is_plain(key));
            match (&*name, key) {
                (CONFIG, _) if seen_config => return Err(bad("it holds a file twice")),
                (SETTINGS, _) if seen_settings => return Err(bad("it holds a file twice")),
                (_, Some(key)) if archive.keys.contains_key(key) => return Err(bad("it holds a file twice")),
                (CONFIG, _) => (archive.config, seen_config) = (bytes, true),
                (SETTINGS, _) => {
                    archive.settings = serde_json::from_slice(&bytes).map_err(|e| bad(&format!("{SETTINGS}: {e}")))?;
                    seen_settings = true;
                }
                (_, Some(key)) => drop(archive.keys.insert(key.to_owned(), bytes)),
                _ => return Err(ArchiveError::Malformed(format!("{name:?} has no place in a backup"))),
            }
        }
        match seen_config && seen_settings && !archive.keys.is_empty() {
            true => Ok(archive),
            false => Err(bad("it is not all there")),
        }
    }
}

fn check_head(name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    if name != HEAD {
        return Err(ArchiveError::Malformed("it is no backup of trackpost".to_owned()));
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|e| ArchiveError::Malformed(format!("{HEAD}: {e}")))?;
    match head.format {
        FORMAT => Ok(()),
        format => Err(ArchiveError::Newer { format, version: head.version }),
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "{e}"),
            Self::Malformed(why) => write!(f, "not a backup that can be restored: {why}"),
            Self::Newer { format, version } => {
                write!(f, "backup format {format}, written by trackpost {version}; this version reads format {FORMAT}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        Archive {
            config: b"hostname = \"relay.example.net\"\n".to_vec(),
            settings: [("domain/example.com".to_owned(), "{}".to_owned())].into(),
            keys: [("token-1.key".to_owned(), b"00".to_vec())].into(),
        }
    }

    fn written(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes, 1_700_000_000_000).unwrap();
        bytes
    }

    fn reason(bytes: &[u8]) -> String {
        Archive::read_from(bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_goes_in_comes_out() {
        assert_eq!(Archive::read_from(&written(&archive())[..]).unwrap(), archive());
    }

    #[test]
    fn what_is_no_whole_backup_is_refused() {
        assert!(reason(b"").contains("not all there"));
        assert!(reason(&[7; 4096]).contains("not a backup"));
        let whole = written(&archive());
        for cut in (0..whole.len() - 1024).step_by(512) {
            assert!(Archive::read_from(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let hostile = Archive { keys: [("../../evil".to_owned(), Vec::new())].into(), ..archive() };
        let mut bytes = Vec::new();
        assert!(hostile.write_to(&mut bytes, 0).is_err() || reason(&bytes).contains("no place"));
        let hidden = Archive { keys: [(".profile".to_owned(), Vec::new())].into(), ..archive() };
        assert!(reason(&written(&hidden)).contains("no place"));
    }

    /// A backup with one more entry, of this kind and name.
    fn with_entry(kind: tar::EntryType, name: &[u8], link: &str) -> Vec<u8> {
        let mut bytes = written(&archive());
        bytes.truncate(bytes.len() - 1024);
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o600);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 1024]);
        bytes
    }

    #[test]
    fn regular_files_alone_are_taken() {
        use tar::EntryType as Kind;
        let kinds = [
            (Kind::Symlink, "no regular file"),
            (Kind::Link, "no regular file"),
            (Kind::Char, "no regular file"),
            (Kind::Block, "no regular file"),
            (Kind::Fifo, "no regular file"),
            (Kind::Directory, "no regular file"),
            (Kind::GNUSparse, "not a backup"),
        ];
        for (kind, why) in kinds {
            let said = reason(&with_entry(kind, b"keys/token-2.key", "/etc/shadow"));
            assert!(said.contains(why), "{kind:?}: {said}");
        }
        for name in
            ["/etc/passwd", "../evil", "keys/../evil", "keys/a/b", "keys/.", "log/1", "./trackpost.toml", "keys"]
        {
            let said = reason(&with_entry(Kind::Regular, name.as_bytes(), ""));
            assert!(said.contains("no place in a backup"), "{name}: {said}");
        }
        assert!(reason(&with_entry(Kind::Regular, b"keys/token-1.key", "")).contains("twice"));
        assert!(reason(&with_entry(Kind::Regular, b"settings.json", "")).contains("twice"));
        // A tar that packs a folder names it too.
        assert_eq!(Archive::read_from(&with_entry(Kind::Directory, b"keys/", "")[..]).unwrap(), archive());
        assert!(Archive::read_from(&with_entry(Kind::Regular, b"keys/token-2.key", "")[..]).is_ok());
    }

    #[test]
    fn a_later_format_is_refused_by_name() {
        let mut bytes = written(&archive());
        let at = memchr::memmem::find(&bytes, b"\"format\": 1").unwrap();
        bytes[at + 10] = b'2';
        assert!(reason(&bytes).contains("backup format 2, written by trackpost"), "{}", reason(&bytes));
    }
}
