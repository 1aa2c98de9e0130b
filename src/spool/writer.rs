//! The one thread that writes messages and syncs: swap the list, `writev`, `fdatasync`, wake all who wait.
//!
//! While a sync runs, entries gather; the next sync is theirs together. Entries for which somebody waits have no
//! timer. A part of what has gathered is 8 MiB at most, so that nobody waits for the sync of everybody's bytes.

use super::ahead::{Ahead, Next};
use super::disk::{self, Faults, Reserve};
use super::footer::{self, Footer};
use super::queue::{Item, Want};
use super::record::Effect;
use super::shared::Shared;
use super::tail::{Part, Room, Tail};
use super::{AppendError, Options, Unwritten, locked};
use crate::supervise::{Panic, failpoint};
use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::vec;

/// How long an entry for which nobody waits lies in memory alone, where it could not be written directly.
const LINGER: Duration = Duration::from_millis(5);

/// Pause between two looks at the disk, and before what failed is tried again.
pub(super) const TICK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// Turns that end by a panic while the log is closed.
const LAST_TURNS: u32 = 3;

/// Starts the writer on what recovery left. The lock is released when the thread ends.
pub(super) fn spawn(shared: Arc<Shared>, options: Options, lock: File, faults: Faults) -> io::Result<JoinHandle<()>> {
    let tail = shared.tail.get_or_init(|| Mutex::new(Tail::new(&shared.index(), &options, faults.clone())));
    let ahead = Ahead::start(Arc::clone(&shared), options.dir.join("log"), faults.clone())?;
    locked(tail).make_ahead(ahead.wanted());
    let now = Instant::now();
    let mut writer = Writer {
        dir: options.dir.join("log"),
        reserve: Reserve::new(&options.dir),
        check_after: now,
        free: u64::MAX,
        full_since: None,
        compact_after: now,
        names_unsynced: false,
        opened: now,
        shared,
        options,
        faults,
        ahead: Some(ahead),
        _lock: lock,
    };
    writer.check_disk();
    thread::Builder::new().name("log".into()).spawn(move || writer.run())
}

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub options: Options,
    pub dir: PathBuf,
    reserve: Reserve,
    check_after: Instant,
    /// Free bytes on the file system when last looked at.
    pub free: u64,
    pub full_since: Option<Instant>,
    pub compact_after: Instant,
    /// A segment was removed, and syncing the folder failed.
    pub names_unsynced: bool,
    pub opened: Instant,
    faults: Faults,
    ahead: Option<Ahead>,
    _lock: File,
}

impl Writer {
    /// A panic ends one turn of the thread: those who wait get an error, what nobody waits for is kept and written later.
    fn run(mut self) {
        let mut batch = Vec::new();
        let mut last = LAST_TURNS;
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.turns(&mut batch))) {
            Panic::of(&*payload).tell("log");
            let left = mem::take(&mut *locked(&self.shared.in_hand)).into_iter().chain(mem::take(&mut batch));
            self.fail(&AppendError::Failed("the log's writer panicked".into()), left);
            if self.shared.queue.is_closing() {
                last -= 1;
                if last == 0 {
                    return;
                }
            }
            thread::sleep(TICK);
        }
    }

    fn turns(&mut self, batch: &mut Vec<Item>) {
        loop {
            failpoint("log", self.options.dir.to_str().unwrap_or_default());
            let linger = LINGER.min(self.options.lazy);
            let shared = Arc::clone(&self.shared);
            let closing = shared.queue.take(batch, || self.wake_at(), linger);
            self.write(batch, closing);
            if closing || self.tail().sync_at().is_some_and(|at| at <= Instant::now()) {
                // A failure has been logged, counted and answered to whom it concerns.
                let _ = self.sync();
            }
            if closing {
                self.leave_footer();
                let left = Unwritten::of(&self.tail().retry);
                if left.entries > 0 {
                    tracing::error!(entries = left.entries, "the log was closed with entries that it cannot write");
                }
                let _ = self.shared.unwritten.set(left);
                return;
            }
            if self.check_after <= Instant::now() {
                self.check_disk();
            }
            if self.compaction_due() {
                self.compact();
            }
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        locked(self.shared.tail.get().expect("the tail is there before the writer is"))
    }

    /// When to go on even if nothing is appended.
    fn wake_at(&self) -> Instant {
        if self.compaction_due() {
            return Instant::now();
        }
        self.tail().sync_at().map_or(self.check_after, |at| at.min(self.check_after))
    }

    /// Writes what failed before, then `batch`, and syncs behind each part that somebody waits for.
    fn write(&mut self, batch: &mut Vec<Item>, closing: bool) {
        let mut retry = {
            let mut tail = self.tail();
            if tail.retry.is_empty() && batch.is_empty() {
                return;
            }
            if self.shared.is_full() {
                refuse_messages(batch);
            }
            let hurry = closing || batch.iter().any(|item| matches!(item.want, Want::Now(_)));
            if !tail.retry.is_empty() && !hurry && Instant::now() < tail.retry_after {
                tail.retry.append(batch);
                self.shared.queue.set_in_hand(false);
                drop(tail);
                return self.count_waiting();
            }
            if !tail.retry.is_empty() {
                self.shared.queue.set_in_hand(true);
            }
            mem::take(&mut tail.retry)
        };
        retry.append(batch);
        // A failure has been answered.
        let _ = self.write_all(retry);
        self.count_waiting();
    }

    fn write_all(&mut self, items: Vec<Item>) -> Result<(), AppendError> {
        let shared = Arc::clone(&self.shared);
        let mut hand = InHand { items: items.into_iter().peekable(), left: &shared.in_hand };
        while hand.items.peek().is_some() {
            let part = {
                let mut tail = self.tail();
                let part = tail.write_part(&self.shared, &mut hand.items);
                if part.is_ok() && hand.items.peek().is_none() {
                    self.shared.queue.set_in_hand(false);
                }
                part
            };
            let done = part.and_then(|part| match part {
                Part::Written(false) => Ok(()),
                Part::Written(true) => self.sync_pending(),
                Part::Blocked(room) => self.see_to(room),
            });
            if let Err(error) = done {
                // What comes behind must not overtake what failed.
                self.fail(&error, hand.items.by_ref());
                return Err(error);
            }
        }
        Ok(())
    }

    fn count_waiting(&self) {
        let waiting = self.tail().retry.len() as u64;
        self.shared.count(|stats| stats.waiting_for_disk = waiting);
    }

    /// Does what a record waits for that cannot be written now.
    fn see_to(&self, room: Room) -> Result<(), AppendError> {
        match room {
            Room::Here => Ok(()),
            Room::AfterSync => self.sync_pending(),
            Room::AfterNext => {
                let mut tail = self.tail();
                tail.waits = true;
                while tail.is_making() {
                    let made = &self.shared.made;
                    tail = made.wait_timeout(tail, TICK).unwrap_or_else(PoisonError::into_inner).0;
                    if tail.is_making() && self.ahead.as_ref().is_none_or(Ahead::has_ended) {
                        tail.is_made(Next::Unasked);
                        tail.waits = false;
                        return Err(AppendError::Failed("nobody makes segments any more".into()));
                    }
                }
                tail.waits = false;
                Ok(())
            }
        }
    }

    /// Writes copies of what is live in a segment; false when nothing is. On failure they are dropped, and so are those
    /// for which there is no room yet: the originals are still there.
    ///
    /// An outcome that was written since the last sync lies before the copy, and the copy's state wins. So the tail is
    /// held from when that state is put together until it is written; nothing is read from the disk meanwhile.
    pub fn write_copies(&mut self, segment: u64) -> Result<bool, AppendError> {
        let shared = Arc::clone(&self.shared);
        // Also where none of it can be read, which is then no longer live.
        let any = shared.index().segments.get(&segment).is_some_and(|segment| segment.live_bytes > 0);
        // Failing here says nothing about what is written.
        let copies = self.copies(segment)?;
        let written = (|| {
            let mut tail = locked(shared.tail.get().expect("the tail is there before the writer is"));
            let items: Result<Vec<_>, _> = copies.into_iter().map(|copy| copy.into_item(&tail)).collect();
            let mut items = items?.into_iter().peekable();
            while items.peek().is_some() {
                if let Part::Blocked(room) = tail.write_part(&shared, &mut items)? {
                    drop(tail);
                    self.see_to(room)?;
                    break;
                }
            }
            Ok(any)
        })();
        if let Err(error) = &written {
            self.fail(error, std::iter::empty());
        }
        written
    }

    /// Makes durable what is written. On failure, all who wait are answered.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        let synced = self.sync_pending();
        if let Err(error) = &synced {
            self.fail(error, std::iter::empty());
        }
        synced
    }

    /// The tail is not held while the disk works.
    fn sync_pending(&self) -> Result<(), AppendError> {
        let mut full = None;
        loop {
            let Some(pending) = self.tail().pending() else { break };
            let started = Instant::now();
            self.shared.queue.stuck.syncs(Some(started));
            let result = pending.sync(&self.dir, &self.faults);
            self.shared.queue.stuck.syncs(None);
            self.tail().synced(&self.shared, &pending, result, started.elapsed())?;
            if !pending.closes {
                break;
            }
            full = self.footer(pending.segment());
        }
        // After all who wait were told.
        if let Some((file, covers, bytes)) = full {
            footer::write(&file, covers, &bytes);
        }
        Ok(())
    }

    /// The footer of a segment that is full.
    fn footer(&self, segment: u64) -> Option<(Arc<File>, u64, Vec<u8>)> {
        let mut index = self.shared.index();
        let footer = Footer::of(&index, segment);
        index.is_full(segment);
        let segment = index.segments.get(&segment)?;
        let (file, seal) = (segment.file.clone(), segment.seal);
        drop(index);
        let footer = footer?;
        Some((file, footer.covers, footer.encode(seal)?))
    }

    /// So that the next start has as little to read as the one after a crash in a full segment.
    fn leave_footer(&self) {
        let Some(segment) = self.tail().all_synced() else { return };
        if let Some((file, covers, bytes)) = self.footer(segment) {
            footer::write(&file, covers, &bytes);
            let _ = file.sync_data();
        }
    }

    fn fail(&mut self, error: &AppendError, rest: impl Iterator<Item = Item>) {
        let mut tail = self.tail();
        tail.fail(&self.shared, error, rest, TICK);
        if !tail.retry.is_empty() {
            self.shared.queue.stuck.fails();
        }
        self.shared.queue.set_in_hand(false);
        drop(tail);
        self.count_waiting();
        if *error == AppendError::Full {
            self.reserve.give_up();
            self.free = disk::RESERVE;
            self.shared.set_full(true);
            self.check_after = Instant::now() + TICK;
        }
    }

    /// Sees how much space is left, and takes the reserve again when there is enough.
    fn check_disk(&mut self) {
        self.check_after = Instant::now() + TICK;
        self.retire_aged();
        self.see_to_wishes();
        let Ok(free) = disk::free_bytes(&self.dir) else { return };
        self.free = free;
        let missing = self.options.min_free.saturating_sub(free);
        self.shared.count(|stats| (stats.free_bytes, stats.missing_bytes) = (free, missing));
        if !self.reserve.is_held() && free >= self.options.min_free.saturating_add(disk::RESERVE) {
            self.reserve.take();
        }
        let full = free < self.options.min_free || !self.reserve.is_held();
        self.full_since = if full { self.full_since.or_else(|| Some(Instant::now())) } else { None };
        self.retire_settled();
        if self.shared.set_full(full) != full {
            match full {
                true => tracing::error!(free, min_free = self.options.min_free, "disk nearly full: no mail is taken"),
                false => tracing::warn!(free, "disk has space again: mail is taken"),
            }
        }
    }
}

/// Entries on their way to the file. What is left of them outlives a panic.
struct InHand<'a> {
    items: Peekable<vec::IntoIter<Item>>,
    left: &'a Mutex<Vec<Item>>,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            locked(self.left).extend(self.items.by_ref());
        }
    }
}

impl Drop for Writer {
    /// Also on a panic: nobody may wait for a thread that is gone.
    fn drop(&mut self) {
        self.shared.queue.abandon();
        self.tail().stop_ahead();
        if let Some(ahead) = self.ahead.take() {
            ahead.stop();
        }
        // What was made in the meantime.
        self.tail().stop_ahead();
    }
}

/// Messages that came before it was known that the disk is full must not use up what is left for outcomes.
fn refuse_messages(batch: &mut Vec<Item>) {
    let takes_space = |effect: &Effect| matches!(effect, Effect::Message { .. } | Effect::Hits(_));
    let is_refused = |item: &mut Item| matches!(item.want, Want::Now(_)) && takes_space(&item.record.effect);
    for message in batch.extract_if(.., is_refused) {
        if let Want::Now(answer) = message.want {
            let _ = answer.send(Err(AppendError::Full));
        }
    }
}
