//! The one thread that writes: swap the list, `writev`, `fdatasync`, wake all who wait.
//!
//! While a sync runs, entries gather; the next sync is theirs together. Entries for which somebody waits have no
//! timer. A part of what has gathered is 8 MiB at most, so that nobody waits for the sync of everybody's bytes.

use super::disk::{self, Faults, Op, Reserve};
use super::index::{Index, Place, Segment};
use super::queue::{Item, Want};
use super::record::{Effect, Seal};
use super::shared::Shared;
use super::{AppendError, Cursor, Options, segment};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::iter::Peekable;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes written between two syncs.
const PART: u64 = 8 * 1024 * 1024;

/// How long an entry for which nobody waits lies in memory alone.
const LINGER: Duration = Duration::from_millis(5);

/// Pause between two looks at the disk, and before what failed is tried again.
pub(super) const TICK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// Starts the writer on what recovery left. The lock is released when the thread ends.
pub(super) fn spawn(shared: Arc<Shared>, options: Options, lock: File, faults: Faults) -> io::Result<JoinHandle<()>> {
    let (active, highest) = {
        let index = shared.index();
        (continued(&index, &options)?, index.highest)
    };
    let now = Instant::now();
    let mut writer = Writer {
        dir: options.dir.join("log"),
        reserve: Reserve::new(&options.dir),
        previous: index_end(&shared, highest),
        highest,
        active,
        written: Vec::new(),
        unsynced_since: None,
        retry: Vec::new(),
        retry_after: now,
        check_after: now,
        free: u64::MAX,
        compact_after: now,
        names_unsynced: false,
        opened: now,
        shared,
        options,
        faults,
        _lock: lock,
    };
    writer.check_disk();
    thread::Builder::new().name("log".into()).spawn(move || writer.run())
}

/// The last segment, where it can be written on: damaged ones are left as they are.
fn continued(index: &Index, options: &Options) -> io::Result<Option<Active>> {
    let Some((&id, segment)) = index.segments.last_key_value() else { return Ok(None) };
    if segment.bad || id != index.highest || segment.end >= options.segment_size {
        return Ok(None);
    }
    let mut file = segment.file.try_clone()?;
    file.seek(SeekFrom::Start(segment.end))?;
    Ok(Some(Active { id, file, seal: segment.seal, synced: segment.end, written: segment.end }))
}

/// Synced bytes of a segment; 0 where there is none of that number.
fn index_end(shared: &Shared, segment: u64) -> u64 {
    shared.index().segments.get(&segment).map_or(0, |s| s.end)
}

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub options: Options,
    pub dir: PathBuf,
    /// The highest number that a segment ever had, and how much of that segment was synced.
    highest: u64,
    previous: u64,
    /// The segment that is written. `None` when there is none yet, or when the last one is not to be written again.
    active: Option<Active>,
    /// Written and not yet synced.
    written: Vec<Written>,
    unsynced_since: Option<Instant>,
    /// Nobody waits for these and they could not be written; older than all in the queue.
    retry: Vec<Item>,
    retry_after: Instant,
    reserve: Reserve,
    check_after: Instant,
    /// Free bytes on the file system when last looked at.
    pub free: u64,
    pub compact_after: Instant,
    /// A segment was removed, and syncing the folder failed.
    pub names_unsynced: bool,
    pub opened: Instant,
    faults: Faults,
    _lock: File,
}

struct Active {
    id: u64,
    file: File,
    seal: Seal,
    synced: u64,
    written: u64,
}

struct Written {
    item: Item,
    place: Place,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let linger = LINGER.min(self.options.lazy);
            let closing = self.shared.queue.take(&mut batch, self.wake_at(), linger);
            self.write(&mut batch, closing);
            if closing || self.sync_at().is_some_and(|at| at <= Instant::now()) {
                // A failure has been logged, counted and answered to whom it concerns.
                let _ = self.sync();
            }
            if closing {
                if !self.retry.is_empty() {
                    tracing::error!(entries = self.retry.len(), "the log was closed with entries that it cannot write");
                }
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

    /// When to go on even if nothing is appended.
    fn wake_at(&self) -> Instant {
        if self.compaction_due() {
            return Instant::now();
        }
        self.sync_at().map_or(self.check_after, |at| at.min(self.check_after))
    }

    fn sync_at(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + self.options.lazy)
    }

    /// Writes what failed before, then `batch`, and syncs behind each part that somebody waits for.
    fn write(&mut self, batch: &mut Vec<Item>, closing: bool) {
        if self.retry.is_empty() && batch.is_empty() {
            return;
        }
        if self.shared.is_full() {
            refuse_messages(batch);
        }
        let hurry = closing || batch.iter().any(|item| matches!(item.want, Want::Now(_)));
        if !self.retry.is_empty() && !hurry && Instant::now() < self.retry_after {
            self.retry.append(batch);
            return self.count_waiting();
        }
        let retry = mem::take(&mut self.retry);
        self.write_all(retry.into_iter().chain(batch.drain(..)));
    }

    fn write_all(&mut self, items: impl Iterator<Item = Item>) {
        let mut items = items.peekable();
        while items.peek().is_some() {
            if let Err(error) = self.write_part(&mut items) {
                // What comes behind must not overtake what failed.
                return self.fail(&error, items);
            }
        }
        self.count_waiting();
    }

    fn count_waiting(&self) {
        let waiting = self.retry.len() as u64;
        self.shared.count(|stats| stats.waiting_for_disk = waiting);
    }

    /// Writes copies for compaction and syncs them. On failure they are dropped.
    pub fn write_copies(&mut self, copies: Vec<Item>) -> Result<(), AppendError> {
        let mut copies = copies.into_iter().peekable();
        while copies.peek().is_some() {
            if let Err(error) = self.write_part(&mut copies) {
                self.fail(&error, copies);
                return Err(error);
            }
        }
        self.sync()
    }

    /// Writes items until a part or the segment is full, and syncs if somebody waits for one of them.
    fn write_part(&mut self, items: &mut Peekable<impl Iterator<Item = Item>>) -> Result<(), AppendError> {
        let Some(first) = items.peek().map(|item| item.record.len()) else { return Ok(()) };
        self.make_room(first)?;
        let Some(active) = &mut self.active else { return Err(AppendError::Failed("no segment".into())) };
        let (start, mut end) = (active.written, active.written);
        let (mut headers, mut urgent) = (Vec::new(), false);
        let from = self.written.len();
        while let Some(item) = items.next_if(|next| {
            let behind = end + next.record.len();
            end == start || (behind - start <= PART && behind <= self.options.segment_size)
        }) {
            let header = item.record.header(active.synced);
            headers.push(header.encode(active.seal, end));
            let place = Place::new(active.id, end, &header);
            end += item.record.len();
            urgent |= matches!(item.want, Want::Now(_));
            self.written.push(Written { item, place });
        }
        let mut pieces = Vec::with_capacity(headers.len() * 3);
        for (header, written) in headers.iter().zip(&self.written[from..]) {
            let record = &written.item.record;
            pieces.extend([IoSlice::new(header), IoSlice::new(&record.head)]);
            pieces.extend(record.body.iter().map(|piece| IoSlice::new(piece)));
        }
        write_vectored(&mut active.file, &mut pieces)
            .and_then(|()| self.faults.at(Op::Write))
            .map_err(|e| failed("writing", active.id, &e))?;
        active.written = end;
        self.unsynced_since.get_or_insert_with(Instant::now);
        if urgent { self.sync_active() } else { Ok(()) }
    }

    /// Sees to an active segment in which a record of `len` bytes has room, or which is empty.
    fn make_room(&mut self, len: u64) -> Result<(), AppendError> {
        if let Some(active) = &self.active {
            if active.written == segment::DATA || active.written + len <= self.options.segment_size {
                return Ok(());
            }
            self.sync_active()?;
            self.active = None;
        }
        let id = self.highest + 1;
        let made = self.faults.at(Op::Create).and_then(|()| {
            let (mut file, seal) = segment::create(&self.dir, id, self.previous, &mut |_, _| Ok(()))?;
            file.seek(SeekFrom::Start(segment::DATA))?;
            let shared = Arc::new(file.try_clone()?);
            Ok((file, seal, shared))
        });
        let (file, seal, shared) = made.map_err(|e| failed("beginning", id, &e))?;
        let segment =
            Segment { file: shared, seal, end: segment::DATA, live: BTreeMap::new(), live_bytes: 0, bad: false };
        self.shared.index().segments.insert(id, segment);
        self.highest = id;
        self.previous = segment::DATA;
        self.active = Some(Active { id, file, seal, synced: segment::DATA, written: segment::DATA });
        Ok(())
    }

    /// Makes durable what is written. On failure, all who wait are answered.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        let synced = self.sync_active();
        if let Err(error) = &synced {
            self.fail(error, std::iter::empty());
        }
        synced
    }

    fn sync_active(&mut self) -> Result<(), AppendError> {
        let Some(active) = self.active.as_mut().filter(|_| !self.written.is_empty()) else { return Ok(()) };
        let started = Instant::now();
        if let Err(e) = active.file.sync_data().and_then(|()| self.faults.at(Op::Sync)) {
            self.shared.count(|stats| stats.failed_syncs += 1);
            let error = failed("syncing", active.id, &e);
            // The kernel may have dropped the pages that it could not write, and would call the next sync a success.
            let _ = active.file.set_len(active.synced);
            self.active = None;
            return Err(error);
        }
        let took = started.elapsed();
        active.synced = active.written;
        self.previous = active.synced;
        let end = Cursor { segment: active.id, offset: active.synced };
        self.unsynced_since = None;
        self.shared.count(|stats| {
            stats.syncs += 1;
            stats.sync_time += took;
            stats.sync_time_max = stats.sync_time_max.max(took);
        });
        self.commit(end);
        Ok(())
    }

    /// Folds in what has become durable, then tells all who wait.
    fn commit(&mut self, end: Cursor) {
        let mut waiting = Vec::with_capacity(self.written.len());
        let mut index = self.shared.index();
        for Written { item, place } in self.written.drain(..) {
            index.apply(item.record.effect, place);
            if let Want::Now(answer) = item.want {
                waiting.push(answer);
            }
        }
        if let Some(segment) = index.segments.get_mut(&end.segment) {
            segment.end = end.offset;
        }
        // Under the lock, so that a reader never sees an end before that of what it can read.
        self.shared.durable.send_replace(end);
        drop(index);
        for answer in waiting {
            // Who has stopped waiting need not know.
            let _ = answer.send(Ok(()));
        }
    }

    /// Goes back to the last sync. Those who wait get the error; what nobody waits for is kept, in order.
    fn fail(&mut self, error: &AppendError, rest: impl Iterator<Item = Item>) {
        let full = *error == AppendError::Full;
        if let Some(active) = &mut self.active {
            let back = active.file.set_len(active.synced);
            let back = back.and_then(|()| active.file.seek(SeekFrom::Start(active.synced)));
            active.written = active.synced;
            if !full || back.is_err() {
                // The next segment's first block declares what lies behind the last sync void.
                self.active = None;
            }
        }
        self.unsynced_since = None;
        for item in self.written.drain(..).map(|w| w.item).chain(rest) {
            match item.want {
                Want::Now(answer) => drop(answer.send(Err(error.clone()))),
                Want::Soon => self.retry.push(item),
                Want::Copy => {}
            }
        }
        self.count_waiting();
        self.retry_after = Instant::now() + TICK;
        if full {
            self.reserve.give_up();
            self.free = disk::RESERVE;
            self.shared.set_full(true);
            self.check_after = Instant::now() + TICK;
        }
    }

    /// Sees how much space is left, and takes the reserve again when there is enough.
    fn check_disk(&mut self) {
        self.check_after = Instant::now() + TICK;
        let Ok(free) = disk::free_bytes(&self.dir) else { return };
        self.free = free;
        if !self.reserve.is_held() && free >= self.options.min_free.saturating_add(disk::RESERVE) {
            self.reserve.take();
        }
        let full = free < self.options.min_free || !self.reserve.is_held();
        if self.shared.set_full(full) != full {
            match full {
                true => tracing::error!(free, min_free = self.options.min_free, "disk nearly full: no mail is taken"),
                false => tracing::warn!(free, "disk has space again: mail is taken"),
            }
        }
    }
}

impl Drop for Writer {
    /// Also on a panic: nobody may wait for a thread that is gone.
    fn drop(&mut self) {
        self.shared.queue.abandon();
    }
}

/// Messages that came before it was known that the disk is full must not use up what is left for outcomes.
fn refuse_messages(batch: &mut Vec<Item>) {
    let is_message =
        |item: &mut Item| matches!(item.want, Want::Now(_)) && matches!(item.record.effect, Effect::Message { .. });
    for message in batch.extract_if(.., is_message) {
        if let Want::Now(answer) = message.want {
            let _ = answer.send(Err(AppendError::Full));
        }
    }
}

fn failed(what: &str, segment: u64, error: &io::Error) -> AppendError {
    tracing::error!(segment, %error, "{what} the log failed");
    match disk::is_full(error) {
        true => AppendError::Full,
        false => AppendError::Failed(format!("{what} segment {segment}: {error}")),
    }
}

fn write_vectored(file: &mut File, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Empty pieces at the front would look like a file that takes no more.
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        match file.write_vectored(pieces) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut pieces, written),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
