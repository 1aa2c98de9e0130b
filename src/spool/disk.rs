//! What the log needs of the file system beside plain reads and writes: the lock, synced folders, free space, the
//! reserve.

use super::OpenError;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Makes the folder `DIR/log`, and takes the lock on `DIR/lock`, which is held for as long as the file is open.
pub(super) fn prepare(dir: &Path) -> Result<File, OpenError> {
    let log = dir.join("log");
    DirBuilder::new().recursive(true).mode(0o700).create(&log).map_err(|e| OpenError::io(&log, &e))?;
    // Files that root leaves behind in another's folder would keep its owner out at the next start.
    let owner = fs::metadata(dir).map_err(|e| OpenError::io(dir, &e))?.uid();
    // SAFETY: a plain system call that cannot fail.
    let user = unsafe { libc::geteuid() };
    if owner != user {
        let message =
            format!("it belongs to user {owner}, and this process runs as user {user}: start it as that user");
        return Err(OpenError::io(dir, &io::Error::new(io::ErrorKind::PermissionDenied, message)));
    }
    for made in [Some(dir), dir.parent()].into_iter().flatten().filter(|d| !d.as_os_str().is_empty()) {
        sync_dir(made).map_err(|e| OpenError::io(made, &e))?;
    }
    let path = dir.join("lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(|e| OpenError::io(&path, &e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(e)) => Err(OpenError::io(&path, &e)),
    }
}

/// Makes names in the folder durable that were made, changed or removed.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Bytes that an ordinary user may still write on the folder's file system.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = file_system(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of the folder's file system, those in use included.
pub fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let found = file_system(dir)?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

fn file_system(dir: &Path) -> io::Result<libc::statvfs> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a value of this plain C struct, and `statvfs` fills it from a path that ends in NUL.
    let (result, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut found), found)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(found)
}

/// True for a disk or a quota that is used up.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file whose blocks are given up when the disk is full, so that outcomes can still be written.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
    /// The file system cannot set blocks aside, so there is nothing to wait for.
    impossible: bool,
}

/// Bytes of the reserve: outcomes of more than 100,000 recipients.
pub(super) const RESERVE: u64 = 16 * 1024 * 1024;

impl Reserve {
    pub fn new(dir: &Path) -> Self {
        let path = dir.join("reserve");
        // From an earlier run, in which it was not needed.
        let held = fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE);
        Self { path, held, impossible: false }
    }

    /// True when nothing is missing: it is held, or cannot be had on this file system.
    pub fn is_held(&self) -> bool {
        self.held || self.impossible
    }

    /// Takes the blocks, if there are so many.
    pub fn take(&mut self) {
        let taken = (|| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
            let len = libc::off_t::try_from(RESERVE).map_err(io::Error::other)?;
            // SAFETY: the descriptor is open for as long as `file` lives, which is past the call.
            match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        })();
        self.held = taken.is_ok();
        if let Err(error) = taken {
            let _ = fs::remove_file(&self.path);
            self.impossible = !is_full(&error);
            if self.impossible {
                tracing::warn!(%error, file = %self.path.display(), "no disk space can be kept in reserve");
            }
        }
    }

    pub fn give_up(&mut self) {
        let _ = fs::remove_file(&self.path);
        self.held = false;
    }
}

/// Operations that a test may let fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Asked after the bytes were written: the failure of a write that got some way.
    Write,
    Sync,
    Create,
}

/// Failures that a test has planned; none outside of tests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    #[cfg(test)]
    pub(super) planned: std::sync::Arc<std::sync::Mutex<Vec<(Op, i32)>>>,
    /// How long each sync takes, in milliseconds.
    #[cfg(test)]
    pub(super) slow: std::sync::Arc<std::sync::atomic::AtomicU64>,
    /// Everything fails.
    #[cfg(test)]
    broken: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Faults {
    /// Has the disk fail from now on, or work again.
    #[cfg(test)]
    pub fn fail(&self, broken: bool) {
        self.broken.store(broken, std::sync::atomic::Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn at(&self, op: Op) -> io::Result<()> {
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let mut planned = super::locked(&self.planned);
        match planned.iter().position(|(at, _)| *at == op) {
            Some(n) => Err(io::Error::from_raw_os_error(planned.remove(n).1)),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub fn delay(&self) {
        let ms = self.slow.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(ms));
    }

    #[cfg(not(test))]
    pub fn delay(&self) {}

    #[cfg(not(test))]
    pub(super) fn at(&self, _: Op) -> io::Result<()> {
        Ok(())
    }
}
