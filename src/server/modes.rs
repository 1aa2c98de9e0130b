//! Who may read what the server writes: its owner alone.
//!
//! The keys are left out: one that others could read must not be mended in silence, so [`crate::keys`] refuses it.

use std::fs::{self, DirEntry, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Rights of the group and of others.
const OTHERS: u32 = 0o077;
/// What the server makes in the data folder, beside keys. `store.bad` is a store that was put aside.
const OURS: [&str; 8] = ["log", "store", "store.bad", "store.gone", "store.ballast", "lock", "reserve", "admin.sock"];

/// Has everything that this process makes from now on belong to its owner alone.
pub fn owner_alone() {
    // SAFETY: a plain system call that cannot fail.
    unsafe { libc::umask(OTHERS as libc::mode_t) };
}

/// Takes the rights of others away from the data folder and from what earlier versions, or another umask, left open in
/// it. What cannot be changed is said, and keeps nobody from starting.
pub fn narrow(data_dir: &Path) {
    let ours = OURS.map(|name| data_dir.join(name));
    let mut changed = 0;
    for path in std::iter::once(data_dir).chain(ours.iter().map(|path| path.as_path())) {
        // What lies in the data folder itself is named above.
        let result = narrowed(path, path != data_dir, &mut changed);
        match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("{}: others may be able to read it: {e}", path.display());
            }
            _ => {}
        }
    }
    if changed > 0 {
        tracing::warn!(
            files = changed,
            "others could read files or folders in {}, or the folder itself: not any more",
            data_dir.display()
        );
    }
}

fn narrowed(path: &Path, inside: bool, changed: &mut u64) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = meta.permissions().mode();
    if mode & OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS & 0o7777))?;
        *changed += 1;
    }
    if inside && meta.is_dir() {
        let entries: io::Result<Vec<DirEntry>> = fs::read_dir(path)?.collect();
        entries?.iter().try_for_each(|entry| narrowed(&entry.path(), true, changed))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_was_left_open_is_closed_and_keys_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["", "store", "store/blobs", "keys", "mine"] {
            fs::create_dir_all(at(folder)).unwrap();
            fs::set_permissions(at(folder), Permissions::from_mode(0o755)).unwrap();
        }
        for file in ["store/db", "store/blobs/1", "lock", "keys/k", "mine/x"] {
            fs::write(at(file), "x").unwrap();
            fs::set_permissions(at(file), Permissions::from_mode(0o644)).unwrap();
        }
        narrow(dir.path());
        assert_eq!(["", "store", "store/blobs"].map(|name| mode(&at(name))), [0o700; 3]);
        assert_eq!(["store/db", "store/blobs/1", "lock"].map(|name| mode(&at(name))), [0o600; 3]);
        assert_eq!(["keys/k", "mine/x"].map(|name| mode(&at(name))), [0o644; 2]);
        narrow(&at("nothing"));
    }
}
