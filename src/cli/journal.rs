//! Log lines as journald wants them: the priority in front (sd-daemon(3)), one line an entry, no time of our own.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// True when stderr is the journal, which systemd says by device and inode (systemd.exec(5), JOURNAL_STREAM).
pub fn is_stderr() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    let meta = std::fs::File::from(stderr).metadata();
    meta.is_ok_and(|meta| named == format!("{}:{}", meta.dev(), meta.ino()))
}

/// Writes to stderr with the priority of each event.
pub struct Journal;

pub struct Entry(u8);

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Entry;

    fn make_writer(&'a self) -> Entry {
        Entry(6)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Entry {
        Entry(match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        })
    }
}

impl Write for Entry {
    /// Takes a whole event, as the formatter gives it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&line(self.0, event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The text begins where the formatter leaves room for what is switched off, and a line end inside would be an entry.
fn line(priority: u8, event: &[u8]) -> Vec<u8> {
    let mut line = format!("<{priority}>").into_bytes();
    for byte in event.trim_ascii() {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(line(4, b" two\nlines\r\n"), b"<4>two\\nlines\n");
        assert_eq!(line(6, b"queued queue_id=1\n"), b"<6>queued queue_id=1\n");
    }
}
