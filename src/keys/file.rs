//! How a key's file comes to lie on disk: one change of the folder at a time, whole or not at all, read back before
//! anybody relies on it.

use super::KeyError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Files that are not written to their end yet; a backup leaves out what ends in `.new`.
const UNFINISHED: &str = ".unfinished-";

/// The right to change the folder. The lock is the system's, on the folder itself, so that threads and programs wait
/// for each other alike; it ends with the value.
pub(super) struct Turn {
    dir: PathBuf,
    folder: File,
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays, and the write fails with `AlreadyExists`.
    Refused,
    Replaced,
}

impl Turn {
    /// Waits for its turn.
    pub fn take(dir: &Path) -> Result<Self, KeyError> {
        let folder = File::open(dir).and_then(|folder| folder.lock().map(|()| folder));
        match folder {
            Ok(folder) => Ok(Self { dir: dir.to_owned(), folder }),
            Err(e) => Err(KeyError::Io(dir.to_owned(), e)),
        }
    }

    /// Writes a file for its owner's eyes alone, syncs it and its folder, and reads it back.
    pub fn write(&self, path: &Path, bytes: &[u8], existing: Existing) -> Result<(), KeyError> {
        let failed = |e| KeyError::Io(path.to_owned(), e);
        let unfinished = unfinished(&self.dir, bytes).map_err(failed)?;
        let file = match existing {
            Existing::Refused => unfinished.persist_noclobber(path),
            Existing::Replaced => unfinished.persist(path),
        };
        file.map_err(|e| failed(e.error))?;
        self.folder.sync_all().map_err(failed)?;
        if read_private(path)? != bytes {
            return Err(failed(io::Error::other("the disk gives back other bytes than were written")));
        }
        Ok(())
    }

    /// Has a file take the place of another one.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), KeyError> {
        let renamed = fs::rename(from, to).and_then(|()| self.folder.sync_all());
        renamed.map_err(|e| KeyError::Io(to.to_owned(), e))
    }

    /// Takes away what a crash left half written.
    pub fn remove_unfinished(&self) -> Result<(), KeyError> {
        let failed = |e| KeyError::Io(self.dir.clone(), e);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Meets the errors that writing `bytes` to `path` would meet, and leaves nothing there.
pub(super) fn try_out(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        // The file system may not take such a name.
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(there) if there.is_dir() => return Err(io::Error::from(io::ErrorKind::IsADirectory)),
        _ => {}
    }
    let dir = path.parent().ok_or(io::ErrorKind::NotFound)?;
    unfinished(dir, bytes)?.close()
}

/// A file of its own name with these bytes, as far as the disk. It goes when it is dropped.
fn unfinished(dir: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    // Its mode is 0600, whatever the umask says.
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).suffix(".new").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// What tells one state of a file from another: inode, size and time of change.
pub(super) type Stamp = (u64, u64, i64, i64);

/// The state of a file, unless others than its owner may read it.
pub(super) fn private_stamp(path: &Path) -> Result<Stamp, KeyError> {
    let meta = fs::metadata(path).map_err(|e| KeyError::Io(path.to_owned(), e))?;
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed(path.to_owned(), mode));
    }
    Ok((meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
}

/// Reads a file, unless others than its owner may do so too.
pub(super) fn read_private(path: &Path) -> Result<Vec<u8>, KeyError> {
    private_stamp(path)?;
    fs::read(path).map_err(|e| KeyError::Io(path.to_owned(), e))
}
