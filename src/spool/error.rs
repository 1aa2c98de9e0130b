//! What can go wrong with the log, one type for each boundary.

use super::segment;
use std::fmt;
use std::path::{Path, PathBuf};

/// Why there is no log. The operator's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has the folder.
    InUse(PathBuf),
    /// The file was written by a later version of this program, in this format.
    Newer {
        file: PathBuf,
        version: u32,
    },
    Io {
        path: PathBuf,
        reason: String,
    },
}

/// Why an entry is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The disk is full, or nearly so: 452.
    Full,
    /// The disk failed: 451. The text is for the log.
    Failed(String),
    /// The log was closed.
    Closed,
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// No such message is in the queue; it may have been settled.
    NotFound,
    /// The bytes on disk are not those that were accepted.
    Damaged,
    Io(String),
}

/// The segment could not be read. Ours or the disk's fault; reading may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    pub segment: u64,
    pub reason: String,
}

impl OpenError {
    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), reason: error.to_string() }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(dir) => write!(f, "{}: in use by another process", dir.display()),
            Self::Newer { file, version } => {
                write!(
                    f,
                    "{}: format {version} is newer than this program knows ({})",
                    file.display(),
                    segment::VERSION
                )
            }
            Self::Io { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full"),
            Self::Failed(reason) => write!(f, "the log could not be written: {reason}"),
            Self::Closed => f.write_str("the log is closed"),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such message in the queue"),
            Self::Damaged => f.write_str("the message is damaged on disk"),
            Self::Io(reason) => write!(f, "the message could not be read: {reason}"),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} of the log could not be read: {}", self.segment, self.reason)
    }
}

impl std::error::Error for OpenError {}
impl std::error::Error for AppendError {}
impl std::error::Error for BodyError {}
impl std::error::Error for ReadError {}
