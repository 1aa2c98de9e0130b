//! Makes the next segment before it is needed, on a thread of its own, so that who writes never waits for the disk.

use super::disk::Faults;
use super::locked;
use super::segment::Unbegun;
use super::shared::Shared;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

/// What there is of the segment that comes next.
#[derive(Debug, Default)]
pub(super) enum Next {
    #[default]
    Unasked,
    /// Being made, under this number.
    Asked(u64),
    Made(Unbegun),
    Failed(u64, io::Error),
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Ahead {
    wanted: Sender<u64>,
    thread: JoinHandle<()>,
}

impl Ahead {
    pub fn start(shared: Arc<Shared>, dir: PathBuf, faults: Faults) -> io::Result<Self> {
        let (wanted, asked) = mpsc::channel();
        let thread = thread::Builder::new().name("log ahead".into());
        let thread = thread.spawn(move || make_all(&shared, &dir, &faults, &asked))?;
        Ok(Self { wanted, thread })
    }

    pub fn wanted(&self) -> Sender<u64> {
        self.wanted.clone()
    }

    /// True only after a panic.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until nothing is made any more. The tail's own sender must be gone.
    pub fn stop(self) {
        drop(self.wanted);
        let _ = self.thread.join();
    }
}

fn make_all(shared: &Shared, dir: &Path, faults: &Faults, asked: &Receiver<u64>) {
    while let Ok(number) = asked.recv() {
        faults.delay();
        // A panic is one failure: who asks next gets a segment again.
        let made = std::panic::catch_unwind(|| Unbegun::make(dir, number))
            .unwrap_or_else(|_| Err(std::io::Error::other("making it panicked")));
        let Some(tail) = shared.tail.get() else { return };
        let next = match made {
            Ok(made) => Next::Made(made),
            Err(e) => Next::Failed(number, e),
        };
        locked(tail).is_made(next);
        shared.made.notify_all();
    }
}
