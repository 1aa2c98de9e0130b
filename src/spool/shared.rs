//! What the writer's thread shares with those who append and read.

use super::asked::Asked;
use super::index::Index;
use super::queue::{Item, Queue};
use super::tail::Tail;
use super::{AppendError, BodyError, Cursor, Recovered, Stats, Unwritten, locked, segment};
use std::collections::BTreeSet;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct Shared {
    pub queue: Queue,
    /// There from before the writer's thread is.
    pub tail: OnceLock<Mutex<Tail>>,
    /// Told when the next segment was made, or could not be.
    pub made: Condvar,
    index: Mutex<Index>,
    /// The end of what is durable.
    pub durable: watch::Sender<Cursor>,
    /// What the reader has released, once it has said so.
    pub released: Mutex<Option<Cursor>>,
    /// Where it read last.
    pub reads_from: Mutex<Cursor>,
    /// What is to be freed at somebody's wish.
    pub asked: Mutex<Asked>,
    full: AtomicBool,
    /// Segments of which it was told that a second head was used.
    healed: Mutex<BTreeSet<u64>>,
    /// What a writer that panicked had in its hand.
    pub in_hand: Mutex<Vec<Item>>,
    /// What was left when the log was closed.
    pub unwritten: OnceLock<Unwritten>,
    /// The counters among the numbers; the others are taken from the index.
    counters: Mutex<Stats>,
}

impl Shared {
    pub fn new(index: Index, recovered: &Recovered) -> Self {
        let counters =
            Stats { bad_segments: recovered.bad_segments, bad_records: recovered.bad_records, ..Stats::default() };
        Self {
            queue: Queue::default(),
            tail: OnceLock::new(),
            made: Condvar::new(),
            durable: watch::Sender::new(index.end()),
            index: Mutex::new(index),
            released: Mutex::new(None),
            reads_from: Mutex::default(),
            asked: Mutex::default(),
            full: AtomicBool::new(false),
            healed: Mutex::default(),
            in_hand: Mutex::default(),
            unwritten: OnceLock::new(),
            counters: Mutex::new(counters),
        }
    }

    /// Says once for each segment, in this folder, that a head in it could be read in its second place alone.
    pub fn head_healed(&self, dir: &Path, segment: u64, error: &BodyError) {
        if locked(&self.healed).insert(segment) {
            let file = segment::path(dir, segment);
            tracing::warn!(file = %file.display(), %error, "an envelope in this segment of the log is read from its copy");
        }
    }

    /// Writes an entry for which nobody waits at once, where that can be done; otherwise it is queued.
    pub fn write_soon(&self, item: Item) -> Result<(), AppendError> {
        let Some(tail) = self.tail.get() else { return self.queue.push(item) };
        let mut tail = locked(tail);
        // One that is queued already, or in the writer's hand, must not be overtaken: the later outcome wins.
        if !self.queue.nothing_to_overtake() {
            drop(tail);
            return self.queue.push(item);
        }
        let written = tail.write_directly(self, item);
        drop(tail);
        match written {
            Ok(first) => {
                if first {
                    self.queue.wake();
                }
                Ok(())
            }
            Err(item) => self.queue.push(*item),
        }
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        locked(&self.index)
    }

    pub fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut locked(&self.counters));
    }

    pub fn stats(&self) -> Stats {
        let counters = *locked(&self.counters);
        let released = locked(&self.released).unwrap_or_default();
        let index = self.index();
        Stats {
            bytes: index.bytes(),
            unread_bytes: index.bytes_after(released),
            live_bytes: index.live,
            segments: index.segments.len() as u64,
            messages_live: index.messages.len() as u64,
            ..counters
        }
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Gives what was said before.
    pub fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::Relaxed)
    }

    /// Marks a segment as damaged, so that it is kept, and counts it once.
    pub fn found_damage(&self, segment: u64) {
        let mut index = self.index();
        let known = index.segments.get_mut(&segment).is_none_or(|s| mem::replace(&mut s.bad, true));
        drop(index);
        self.count(|stats| {
            stats.bad_records += 1;
            stats.bad_segments += u64::from(!known);
        });
    }
}
