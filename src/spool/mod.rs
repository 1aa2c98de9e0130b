//! The log: the truth about mail and settings. Append-only segments under `DIR/log`, one writer thread, one
//! fdatasync for all who wait.
//!
//! Owns: [`Log::append`] and the promise behind its future; the fold of the log into unsettled messages and settings
//! in force; recovery after a crash; freeing old segments; reading on from a cursor for those who build views.
//! Does not: decide anything about mail, know the store, or keep history. A settled message is gone from here as soon
//! as its segment is freed.
//!
//! Reading order: `record` and `second` (one record), `segment` (one file) and its `footer`, `walk` (from record to
//! record), `index` (the fold) with its `names` and `owners`, `queue` → `writer` → `tail` and `ahead` (the way in),
//! `compact`, `recover` and `mend`, `fetch`, `read` and `find` (the way out); `shared` and `disk` beneath them, and
//! `stuck` and `asked` beside.
//!
//! ```text
//!  append ─┐
//!  append ─┼─► queue ─► writer: writev, fdatasync ─► index ─► wake all who wait
//!  append ─┘               │                           │
//!            log/0000000000000001.log …          body, read, stats
//! ```
//!
//! **What is promised.** An entry whose [`Durable`] resolved with `Ok` is found by every later [`Log::open`], whatever
//! happened to the machine, short of damage to its own bytes on disk; damage to one record hides no other.
//! What was answered with an error may or may not be found. Entries given to [`Log::append_soon`] are written within
//! 5 ms, so that they outlive the process, and synced with the next entry somebody waits for, or after
//! [`Options::lazy`], so that they outlive the machine.
//!
//! **When the disk fails.** A failed fdatasync says nothing about what is on disk, so that segment is never written
//! again: it counts as ending where it was last synced, which the next segment's first block says too. All who wait
//! get [`AppendError::Failed`]. On a full disk they get [`AppendError::Full`]; a reserve is given up, in whose space
//! outcomes can still be written; messages are taken again when space is back, without a restart.
//!
//! **What only the oldest segment knows** is never lost by freeing it: `compact` says how.

mod ahead;
mod asked;
mod compact;
mod disk;
mod error;
mod fetch;
mod find;
mod footer;
mod index;
mod mend;
mod names;
mod owners;
mod queue;
mod read;
mod record;
mod recover;
mod second;
mod segment;
mod shared;
mod stuck;
mod tail;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

#[cfg(test)]
pub(crate) use disk::Faults;
pub use disk::disk_bytes;
pub use error::{AppendError, BodyError, OpenError, ReadError};
pub use queue::Durable;
pub use read::{Batch, Stored};
#[doc(hidden)]
pub use recover::fuzz_recover;

use crate::event::Hit;
use crate::mail::{Envelope, Outcome, QueueId, Role, Status};
use bytes::Bytes;
use queue::{Item, Want};
use record::{Effect, Encoded};
use serde::{Deserialize, Serialize};
use shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where the log lies and how large it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Holds `log/`, `lock` and `reserve`; made where it is missing.
    pub dir: PathBuf,
    /// Bytes after which a segment is followed by the next. A larger record gets a segment of its own.
    pub segment_size: u64,
    /// How long an entry for which nobody waits may stay unsynced.
    pub lazy: Duration,
    /// Bytes that the log may hold beyond twice its live bytes before its oldest segment is freed.
    pub slack: u64,
    /// Free bytes on the file system below which no more messages are taken.
    pub min_free: u64,
    /// A segment is freed at this age even where the log is small, and the active one is followed by the next in time
    /// for that, so that nothing in it but what is live grows older. `None`: size alone decides.
    pub max_age: Option<Duration>,
    /// Bytes of log kept for a reader that has not released them; past it, history is given up and mail goes first.
    pub max_behind: u64,
}

impl Options {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            dir: dir.into(),
            segment_size: 64 * MIB,
            lazy: Duration::from_millis(200),
            slack: 256 * MIB,
            min_free: 256 * MIB,
            max_age: None,
            max_behind: 4096 * MIB,
        }
    }
}

/// What is appended.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// An accepted message. One under an id that is already in the queue changes nothing, so that a derived id makes a
    /// message at most once; a settled one is forgotten, so its id would make it anew.
    Message {
        id: QueueId,
        head: Arc<MessageHead>,
        /// The message in pieces, which are joined on disk and copied nowhere before.
        body: Vec<Bytes>,
    },
    /// What became of recipients of a message in the queue. Once all are settled, the message is gone from it.
    Outcomes {
        id: QueueId,
        outcomes: Vec<Outcome>,
        /// Anything; rides along for the reader.
        report: Option<Bytes>,
    },
    Hits(Vec<Hit>),
    /// The last value of a key is in force; `None` deletes.
    Setting {
        key: Box<str>,
        value: Option<Bytes>,
    },
    /// Several settings that change together: after a crash either all are in force or none.
    Settings(Vec<(Box<str>, Option<Bytes>)>),
}

/// What is known of a message beside its bytes. The strings are as the header block has them, `""` where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageHead {
    pub envelope: Envelope,
    /// Milliseconds since 1970.
    pub accepted_at: u64,
    /// The domain of the From header, which names the sender domain.
    pub from_domain: Option<Box<str>>,
    pub from: Box<str>,
    pub subject: Box<str>,
    pub message_id: Box<str>,
    /// Bytes of the body as it was appended.
    pub size: u64,
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// Of the listener that took it. In the log a flag of the record says so; the store does not keep it.
    #[serde(skip)]
    pub role: Role,
}

impl MessageHead {
    /// How many recipients are counted: a record for more than can be numbered never gets settled, and none is accepted.
    pub fn recipients(&self) -> u16 {
        u16::try_from(self.envelope.recipients.len()).unwrap_or(u16::MAX)
    }

    /// The domain of the first recipient in lower case, by which messages take turns; empty where there is none.
    pub fn lane(&self) -> String {
        let first = self.envelope.recipients.first().and_then(|recipient| recipient.address.domain());
        first.unwrap_or_default().to_ascii_lowercase()
    }
}

/// An unsettled message, as a queue needs it that may hold a million: [`Log::head`] and [`Log::message`] give the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    pub id: QueueId,
    /// Milliseconds since 1970.
    pub accepted_at: u64,
    /// [`MessageHead::lane`]. One text for all messages that have the same.
    pub lane: Arc<str>,
    /// [`MessageHead::from_domain`]. One text for all messages that have the same.
    pub from_domain: Option<Arc<str>>,
    /// How many there are.
    pub recipients: u16,
    /// The last outcome of each recipient that has one, by recipient.
    pub newest: Vec<Outcome>,
}

/// What was found by [`Log::open`].
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Unsettled messages, the oldest first.
    pub messages: Vec<Live>,
    pub settings: BTreeMap<Box<str>, Bytes>,
    /// Bytes behind the last sync that were not written to their end, and were cut.
    pub cut_bytes: u64,
    /// Records, or stretches in which none could be told apart, that were synced and are damaged.
    pub bad_records: u64,
    /// Segments with such damage.
    pub bad_segments: u64,
    /// Messages of which no head is left. They may have been settled.
    pub lost: Vec<QueueId>,
    /// Records read.
    pub records: u64,
    pub took: Duration,
}

/// A place in the log. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cursor {
    pub segment: u64,
    pub offset: u64,
}

/// How far the one who reads the log on is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    pub reads_from: Cursor,
    /// The end of what is durable.
    pub end: Cursor,
}

/// Numbers for metrics. Counters run from [`Log::open`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all segments, and those of them that compaction would have to keep.
    pub bytes: u64,
    pub live_bytes: u64,
    pub segments: u64,
    /// Segments and records with damage, found by recovery or since.
    pub bad_segments: u64,
    pub bad_records: u64,
    pub messages_live: u64,
    pub syncs: u64,
    pub sync_time: Duration,
    pub sync_time_max: Duration,
    pub failed_syncs: u64,
    /// Segments freed before the reader had released them.
    pub segments_given_up: u64,
    /// Entries that could not be written yet, for which nobody waits.
    pub waiting_for_disk: u64,
    /// Bytes behind what the reader has released: all, before it has said anything.
    pub unread_bytes: u64,
    /// Free bytes on the file system when last looked at, a second ago at most.
    pub free_bytes: u64,
    /// How many of them are missing before mail is taken.
    pub missing_bytes: u64,
}

/// What could not be written when the log was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    pub entries: usize,
    /// Copies among them that were delivered: the next start knows nothing of that, and sends them again.
    pub deliveries: usize,
}

impl Unwritten {
    fn of(items: &[Item]) -> Self {
        let mut delivered = BTreeSet::new();
        for item in items {
            if let Effect::Outcomes { id, outcomes } = &item.record.effect {
                let taken = outcomes.iter().filter(|o| matches!(o.status, Status::Delivered | Status::Relayed));
                delivered.extend(taken.map(|outcome| (*id, outcome.recipient)));
            }
        }
        Self { entries: items.len(), deliveries: delivered.len() }
    }
}

/// The open log. Cloning is cheap; the last clone that is dropped closes it.
#[derive(Clone, Debug)]
pub struct Log(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    /// Where the segments are.
    dir: PathBuf,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log, alone, and folds it.
    pub fn open(options: Options) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(options, disk::Faults::default())
    }

    pub(crate) fn open_with(options: Options, faults: disk::Faults) -> Result<(Self, Recovered), OpenError> {
        let lock = disk::prepare(&options.dir)?;
        let (index, recovered) = recover::recover(&options.dir.join("log"))?;
        let shared = Arc::new(Shared::new(index, &recovered));
        let path = options.dir.clone();
        let writer = writer::spawn(shared.clone(), options, lock, faults).map_err(|e| OpenError::io(&path, &e))?;
        Ok((Self(Arc::new(Handle { shared, dir: path.join("log"), writer: Mutex::new(Some(writer)) })), recovered))
    }

    /// Appends an entry; the future resolves once it is durable. It is written whether or not the future is awaited.
    ///
    /// Entries are written in the order of the calls. Messages and hits are refused with `Full` while [`Log::is_full`]:
    /// what space is left is for what becomes of the mail that was accepted.
    pub fn append(&self, entry: Entry) -> Durable {
        if matches!(entry, Entry::Message { .. } | Entry::Hits(_)) && self.is_full() {
            return Durable::refused(AppendError::Full);
        }
        let (answer, durable) = oneshot::channel();
        let pushed =
            Encoded::new(entry).and_then(|record| self.0.shared.queue.push(Item { record, want: Want::Now(answer) }));
        match pushed {
            Ok(()) => Durable::waiting(durable),
            Err(error) => Durable::refused(error),
        }
    }

    /// Appends an entry for which nobody waits. What cannot be written is kept in memory and tried again, so that
    /// nothing that was delivered is forgotten while the process lives; but messages and hits are refused with `Full`
    /// while [`Log::is_full`].
    pub fn append_soon(&self, entry: Entry) -> Result<(), AppendError> {
        if matches!(entry, Entry::Message { .. } | Entry::Hits(_)) && self.is_full() {
            return Err(AppendError::Full);
        }
        self.0.shared.write_soon(Item { record: Encoded::new(entry)?, want: Want::Soon })
    }

    /// Resolves once something durable lies behind `after`, at once if so already, or if `after` is no place in this
    /// log, which [`Log::read`] then says. Does not resolve when the log is closed while a clone of it lives.
    pub fn wait_for(&self, after: Cursor) -> impl Future<Output = ()> + Send + 'static {
        let mut durable = self.0.shared.durable.subscribe();
        async move {
            // An error means that the log is gone, and there is nothing to wait for.
            let _ = durable.wait_for(|end| *end != after).await;
        }
    }

    /// The end of what is durable now.
    pub fn end(&self) -> Cursor {
        *self.0.shared.durable.borrow()
    }

    /// The reader has kept what lies before the cursor: segments wholly before it may be freed. Goes forward only.
    ///
    /// A reader says where it is as soon as it knows, the beginning included. Until it has, nothing is freed, for the
    /// first minute.
    pub fn release(&self, cursor: Cursor) {
        let mut released = locked(&self.0.shared.released);
        *released = (*released).max(Some(cursor));
    }

    pub fn stats(&self) -> Stats {
        self.0.shared.stats()
    }

    /// True while messages are refused because the disk is full or nearly so. An atomic load.
    pub fn is_full(&self) -> bool {
        self.0.shared.is_full()
    }

    /// How long outcomes could not be written, while they cannot: from the first failure until a sync covers them all,
    /// or once one has waited for the disk for more than a second. Nothing may be delivered meanwhile, since the next
    /// start would deliver it again. Atomic loads.
    pub fn stuck_for(&self) -> Option<Duration> {
        self.0.shared.queue.stuck.since()
    }

    /// Writes and syncs what was appended, and stops the writer; what could not be written. Later entries are refused
    /// with `Closed`; reading goes on working. Blocks until done.
    pub fn close(&self) -> Unwritten {
        self.0.close();
        self.0.shared.unwritten.get().copied().unwrap_or_default()
    }
}

impl Handle {
    fn close(&self) {
        self.shared.queue.close();
        // Whoever closes second waits here for the first.
        let mut writer = locked(&self.writer);
        if let Some(thread) = writer.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's writer had panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// Locks, also after a panic elsewhere: all that is kept under locks here is valid between any two statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
