//! Log lines on stderr, which hold nobody up: a bounded queue, and a thread that writes. When nobody reads stderr the
//! queue fills, and lines beyond it are dropped and counted; once it flows again, a line says how many.
//!
//! Where stderr is the journal, lines are as it wants them: the priority in front (sd-daemon(3)), one line an entry, no
//! time of our own.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written.
const MOST_LINES: usize = 8_192;
/// Bytes of lines that are written at once.
const TOGETHER: usize = 32 * 1024;
/// Between two looks at a full queue, at the end.
const LOOK: Duration = Duration::from_millis(10);

/// True when stderr is the journal, which systemd says by device and inode (systemd.exec(5), JOURNAL_STREAM).
pub fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let meta = opened().and_then(|stderr| stderr.metadata());
    meta.is_ok_and(|meta| named == format!("{}:{}", meta.dev(), meta.ino()))
}

/// A descriptor of its own: who writes to `io::stderr` would wait for the lock of one that is stuck.
fn opened() -> io::Result<File> {
    io::stderr().as_fd().try_clone_to_owned().map(File::from)
}

/// Where lines go in. Clones feed the same queue.
#[derive(Clone)]
pub struct Lines {
    queue: SyncSender<Piece>,
    dropped: Arc<AtomicU64>,
    is_journal: bool,
}

enum Piece {
    Line(Vec<u8>),
    /// All before it is written.
    Flushed(Sender<()>),
}

impl Lines {
    pub fn start(is_journal: bool) -> io::Result<Self> {
        Self::to(opened()?, MOST_LINES, is_journal)
    }

    fn to(output: impl Write + Send + 'static, places: usize, is_journal: bool) -> io::Result<Self> {
        let (queue, lines) = sync_channel(places);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        thread::Builder::new().name("stderr".into()).spawn(move || write(output, &lines, &counted))?;
        Ok(Self { queue, dropped, is_journal })
    }

    fn push(&self, line: Vec<u8>) {
        if self.queue.try_send(Piece::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("trackpost_log_lines_dropped_total").increment(1);
        }
    }

    /// The last words, behind all that was logged; waits so long at most for somebody to read them.
    pub fn end(&self, words: Option<&str>, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (flushed, done) = channel();
        let words = words.map(|words| Piece::Line(format!("trackpost: {words}\n").into_bytes()));
        for mut piece in words.into_iter().chain([Piece::Flushed(flushed)]) {
            while let Err(TrySendError::Full(back)) = self.queue.try_send(piece) {
                if Instant::now() >= deadline {
                    return;
                }
                piece = back;
                thread::sleep(LOOK);
            }
        }
        let _ = done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// The thread. Ends with the last of those who feed it.
fn write(mut output: impl Write, lines: &Receiver<Piece>, dropped: &AtomicU64) {
    let mut told = 0;
    while let Ok(first) = lines.recv() {
        let (mut together, mut next) = (Vec::new(), Some(first));
        let (mut waiting, mut is_drained) = (Vec::new(), false);
        while let Some(piece) = next.take() {
            match piece {
                Piece::Line(line) => together.extend_from_slice(&line),
                Piece::Flushed(done) => waiting.push(done),
            }
            if together.len() < TOGETHER {
                next = match lines.try_recv() {
                    Ok(piece) => Some(piece),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                        is_drained = true;
                        None
                    }
                };
            }
        }
        // A log that cannot be written stops nothing.
        let _ = output.write_all(&together);
        for done in waiting {
            let _ = done.send(());
        }
        let lost = dropped.load(Ordering::Relaxed);
        if is_drained && lost > told {
            // By the way of all lines, so that it looks like one; where that has no room, it is said later.
            tracing::warn!(lines = lost, "lines of this log were dropped since the start: nobody read stderr");
            if dropped.load(Ordering::Relaxed) == lost {
                told = lost;
            }
        }
    }
}

pub struct Entry<'a>(&'a Lines, u8);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Entry<'a>;

    fn make_writer(&'a self) -> Entry<'a> {
        Entry(self, 6)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Entry<'a> {
        let priority = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        Entry(self, priority)
    }
}

impl Write for Entry<'_> {
    /// Takes a whole event, as the formatter gives it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.push(if self.0.is_journal { line(self.1, event) } else { event.to_vec() });
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
    use std::sync::{Condvar, Mutex};

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(line(4, b" two\nlines\r\n"), b"<4>two\\nlines\n");
        assert_eq!(line(6, b"queued queue_id=1\n"), b"<6>queued queue_id=1\n");
    }

    /// Takes nothing until it is opened.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        is_open: bool,
        somebody_waits: bool,
        text: String,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.0.lock().unwrap();
            state.somebody_waits = true;
            let mut state = self.0.1.wait_while(state, |state| !state.is_open).unwrap();
            state.text += std::str::from_utf8(bytes).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_is_dropped_is_counted() {
        let pipe = Pipe::default();
        let lines = Lines::to(pipe.clone(), 100, false).unwrap();
        lines.push(b"first\n".to_vec());
        let began = Instant::now();
        while !pipe.0.0.lock().unwrap().somebody_waits {
            assert!(began.elapsed() < Duration::from_secs(20));
            thread::sleep(LOOK);
        }
        for n in 0..1_000 {
            lines.push(format!("{n}\n").into_bytes());
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 900);
        lines.end(Some("nobody reads this"), Duration::from_millis(50));
        pipe.0.0.lock().unwrap().is_open = true;
        pipe.0.1.notify_all();
        lines.end(Some("the end"), Duration::from_secs(20));
        let kept: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(pipe.0.0.lock().unwrap().text, format!("first\n{kept}trackpost: the end\n"));
    }
}
