//! The end of the log: the segment that is written, and what of it is not synced yet.
//!
//! The writer's thread holds it while it writes and lets go of it while it syncs. Meanwhile entries for which nobody
//! waits are written by those who bring them, behind what is being synced: an outcome is in the file before the next
//! message is sent, so a process that is killed has forgotten nothing that it did.

use super::disk::{self, Faults, Op};
use super::index::{Index, Place, Segment};
use super::queue::{Item, Want};
use super::record::Seal;
use super::shared::Shared;
use super::{AppendError, Cursor, Options, segment};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::iter::Peekable;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes written between two syncs.
const PART: u64 = 8 * 1024 * 1024;
/// Entries larger than this are left to the writer's thread.
const MAX_DIRECT: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Tail {
    dir: PathBuf,
    segment_size: u64,
    lazy: Duration,
    /// The highest number that a segment ever had, and how much of that segment was synced.
    highest: u64,
    previous: u64,
    /// The segment that is written. `None` when there is none yet, or when the last one is not to be written again.
    active: Option<Active>,
    /// The active one is to be followed by the next, however much room it has.
    pub retire: bool,
    /// Written and not yet synced, in the order of the file.
    written: Vec<Written>,
    unsynced_since: Option<Instant>,
    /// Nobody waits for these and they could not be written; older than all in the queue.
    pub retry: Vec<Item>,
    pub retry_after: Instant,
    faults: Faults,
}

#[derive(Debug)]
struct Active {
    id: u64,
    file: Arc<File>,
    seal: Seal,
    synced: u64,
    written: u64,
}

#[derive(Debug)]
struct Written {
    item: Item,
    place: Place,
}

/// What a sync is to make durable. The file is synced without the tail being held.
pub(super) struct Pending {
    pub file: Arc<File>,
    segment: u64,
    end: u64,
}

impl Tail {
    pub fn new(index: &Index, options: &Options, faults: Faults) -> Self {
        Self {
            dir: options.dir.join("log"),
            segment_size: options.segment_size,
            lazy: options.lazy,
            highest: index.highest,
            previous: index.segments.get(&index.highest).map_or(0, |s| s.end),
            active: continued(index, options),
            retire: false,
            written: Vec::new(),
            unsynced_since: None,
            retry: Vec::new(),
            retry_after: Instant::now(),
            faults,
        }
    }

    /// When what is written must be synced, if there is anything.
    pub fn sync_at(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + self.lazy)
    }

    /// Writes one entry for which nobody waits, without waiting for anything but the file. Gives it back where it
    /// is the writer's to see to: there is no room in the segment, an older one could not be written, the write
    /// failed. The flag says that the writer must be told of a sync that is due later.
    pub fn write_directly(&mut self, item: Item) -> Result<bool, Box<Item>> {
        let len = item.record.len();
        let Some(active) = &mut self.active else { return Err(Box::new(item)) };
        if !self.retry.is_empty() || len > MAX_DIRECT || self.retire || active.written + len > self.segment_size {
            return Err(Box::new(item));
        }
        let header = item.record.header(active.synced);
        let bytes = header.encode(active.seal, active.written);
        let place = Place::new(active.id, active.written, &header);
        let mut pieces = vec![IoSlice::new(&bytes), IoSlice::new(&item.record.head)];
        pieces.extend(item.record.body.iter().map(|piece| IoSlice::new(piece)));
        let mut file = &*active.file;
        if write_vectored(&mut file, &mut pieces).and_then(|()| self.faults.at(Op::Write)).is_err() {
            // Whatever of it arrived is overwritten by the next; the writer's thread meets the error itself.
            let _ = file.set_len(active.written);
            let _ = file.seek(SeekFrom::Start(active.written));
            return Err(Box::new(item));
        }
        active.written += len;
        self.written.push(Written { item, place });
        let first = self.unsynced_since.is_none();
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(first)
    }

    /// Writes items until a part or the segment is full. True when somebody waits for one of them.
    pub fn write_part(
        &mut self,
        shared: &Shared,
        items: &mut Peekable<impl Iterator<Item = Item>>,
    ) -> Result<bool, AppendError> {
        let Some(first) = items.peek().map(|item| item.record.len()) else { return Ok(false) };
        self.make_room(shared, first)?;
        let Some(active) = &mut self.active else { return Err(AppendError::Failed("no segment".into())) };
        let (start, mut end) = (active.written, active.written);
        let (mut headers, mut urgent) = (Vec::new(), false);
        let from = self.written.len();
        while let Some(item) = items.next_if(|next| {
            let behind = end + next.record.len();
            end == start || (behind - start <= PART && behind <= self.segment_size)
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
        write_vectored(&mut &*active.file, &mut pieces)
            .and_then(|()| self.faults.at(Op::Write))
            .map_err(|e| failed("writing", active.id, &e))?;
        active.written = end;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(urgent)
    }

    /// Sees to an active segment in which a record of `len` bytes has room, or which is empty.
    fn make_room(&mut self, shared: &Shared, len: u64) -> Result<(), AppendError> {
        if let Some(active) = &self.active {
            let has_room = active.written + len <= self.segment_size && !self.retire;
            if active.written == segment::DATA || has_room {
                return Ok(());
            }
            // The last of a segment is synced before the next begins, which says how much of it was.
            if let Some(pending) = self.pending() {
                let synced = pending.file.sync_data();
                self.synced(shared, &pending, synced, Duration::ZERO)?;
            }
            self.active = None;
        }
        self.retire = false;
        let id = self.highest + 1;
        let made = self.faults.at(Op::Create).and_then(|()| {
            let (mut file, seal) = segment::create(&self.dir, id, self.previous, &mut |_, _| Ok(()))?;
            file.seek(SeekFrom::Start(segment::DATA))?;
            Ok((Arc::new(file), seal))
        });
        let (file, seal) = made.map_err(|e| failed("beginning", id, &e))?;
        let segment =
            Segment { file: file.clone(), seal, end: segment::DATA, live: BTreeMap::new(), live_bytes: 0, bad: false };
        shared.index().segments.insert(id, segment);
        self.highest = id;
        self.previous = segment::DATA;
        self.active = Some(Active { id, file, seal, synced: segment::DATA, written: segment::DATA });
        Ok(())
    }

    /// What is written and not synced.
    pub fn pending(&self) -> Option<Pending> {
        let active = self.active.as_ref().filter(|_| !self.written.is_empty())?;
        Some(Pending { file: active.file.clone(), segment: active.id, end: active.written })
    }

    /// Folds in what a sync has made durable, and tells all who wait. After a failed one the file is not written
    /// again: the kernel may have dropped the pages that it could not write, and would call the next sync a success.
    pub fn synced(
        &mut self,
        shared: &Shared,
        pending: &Pending,
        result: io::Result<()>,
        took: Duration,
    ) -> Result<(), AppendError> {
        let Some(active) = self.active.as_mut().filter(|active| active.id == pending.segment) else { return Ok(()) };
        if let Err(e) = result.and_then(|()| self.faults.at(Op::Sync)) {
            shared.count(|stats| stats.failed_syncs += 1);
            let error = failed("syncing", active.id, &e);
            let _ = active.file.set_len(active.synced);
            self.active = None;
            return Err(error);
        }
        active.synced = pending.end;
        self.previous = pending.end;
        // What came meanwhile waits for the next one.
        self.unsynced_since = (active.written > pending.end).then(Instant::now);
        shared.count(|stats| {
            stats.syncs += 1;
            stats.sync_time += took;
            stats.sync_time_max = stats.sync_time_max.max(took);
        });
        metrics::histogram!("trackpost_log_sync_seconds").record(took.as_secs_f64());
        if shared.queue.stuck.is_failing() && self.retry.is_empty() && !shared.queue.is_in_hand() {
            shared.queue.stuck.works();
        }
        self.commit(shared, Cursor { segment: pending.segment, offset: pending.end });
        Ok(())
    }

    fn commit(&mut self, shared: &Shared, end: Cursor) {
        let mut waiting = Vec::with_capacity(self.written.len());
        let durable = self.written.partition_point(|written| written.place.offset < end.offset);
        let mut index = shared.index();
        for Written { item, place } in self.written.drain(..durable) {
            index.apply(item.record.effect, place);
            if let Want::Now(answer) = item.want {
                waiting.push(answer);
            }
        }
        if let Some(segment) = index.segments.get_mut(&end.segment) {
            segment.end = end.offset;
        }
        // Under the lock, so that a reader never sees an end before that of what it can read.
        shared.durable.send_replace(end);
        drop(index);
        for answer in waiting {
            // Who has stopped waiting need not know.
            let _ = answer.send(Ok(()));
        }
    }

    /// Goes back to the last sync. Those who wait get the error; what nobody waits for is kept, in order.
    pub fn fail(&mut self, error: &AppendError, rest: impl Iterator<Item = Item>, pause: Duration) {
        if let Some(active) = &mut self.active {
            let back = active.file.set_len(active.synced);
            let back = back.and_then(|()| (&*active.file).seek(SeekFrom::Start(active.synced)));
            active.written = active.synced;
            if *error != AppendError::Full || back.is_err() {
                // The next segment's first block declares what lies behind the last sync void.
                self.active = None;
            }
        }
        self.unsynced_since = None;
        for item in mem::take(&mut self.written).into_iter().map(|w| w.item).chain(rest) {
            match item.want {
                Want::Now(answer) => drop(answer.send(Err(error.clone()))),
                Want::Soon => self.retry.push(item),
                Want::Copy => {}
            }
        }
        self.retry_after = Instant::now() + pause;
    }
}

/// The last segment, where it can be written on: damaged ones are left as they are.
fn continued(index: &Index, options: &Options) -> Option<Active> {
    let (&id, segment) = index.segments.last_key_value()?;
    if segment.bad || id != index.highest || segment.end >= options.segment_size {
        return None;
    }
    let file = segment.file.clone();
    // Where that fails, the next segment is begun.
    (&*file).seek(SeekFrom::Start(segment.end)).ok()?;
    Some(Active { id, file, seal: segment.seal, synced: segment.end, written: segment.end })
}

fn failed(what: &str, segment: u64, error: &io::Error) -> AppendError {
    tracing::error!(segment, %error, "{what} the log failed");
    match disk::is_full(error) {
        true => AppendError::Full,
        false => AppendError::Failed(format!("{what} segment {segment}: {error}")),
    }
}

fn write_vectored(file: &mut impl Write, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
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
