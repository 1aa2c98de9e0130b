//! A small file system that can be filled up.

use super::until;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A tmpfs of its own, which only root may mount.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    pub fn mount(mib: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("trackpost-disk-").tempdir().unwrap();
        let (target, options) = (c_path(folder.path()), CString::new(format!("size={mib}m")).unwrap());
        // SAFETY: all strings end in NUL and live past the call.
        let mounted =
            unsafe { libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) };
        assert_eq!(mounted, 0, "mounting a small disk needs root: {}", std::io::Error::last_os_error());
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all space but `left` bytes.
    pub fn fill(&self, left: u64) {
        let file = File::create(self.filler()).unwrap();
        // Others take some as well, between the look and the taking.
        until("the disk to be full", || {
            file.set_len(0).unwrap();
            let size = libc::off_t::try_from(self.space().saturating_sub(left).max(1)).unwrap();
            // SAFETY: the descriptor is open for as long as `file` lives, which is past the call.
            (unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size) } == 0).then_some(())
        });
    }

    fn space(&self) -> u64 {
        let path = c_path(self.path());
        // SAFETY: all-zero is a value of this plain C struct, and `statvfs` fills it from a path that ends in NUL.
        let (result, found) = unsafe {
            let mut found: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(path.as_ptr(), &mut found), found)
        };
        assert_eq!(result, 0);
        found.f_bavail * found.f_frsize
    }

    pub fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target = c_path(self.path());
        // SAFETY: the path ends in NUL and lives past the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}
