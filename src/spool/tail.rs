//! The end of the log: the segment that is written, and what of it is not synced yet.
//!
//! The writer's thread holds it while it writes and lets go of it while it syncs. Meanwhile entries for which nobody
//! waits are written by those who bring them, behind what is being synced: an outcome is in the file before the next
//! message is sent, so a process that is killed has forgotten nothing that it did.
//!
//! Nobody who holds it waits for the disk. A segment that is full is followed at once by the next, which was made
//! ahead; what of the full one is not synced yet is synced before anything of the next one, and then the next one's
//! first block says how much that was.

use super::ahead::Next;
use super::disk::{self, Faults, Op};
use super::index::{Index, Place, Segment};
use super::queue::{Item, Want};
use super::record::{Effect, Seal};
use super::segment::Unbegun;
use super::shared::Shared;
use super::{AppendError, Cursor, Options, segment};
use crate::mail::{Outcome, QueueId};
use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::iter::Peekable;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
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
    /// The full one before that, as long as the writer has not closed it.
    closing: Option<Active>,
    next: Next,
    /// `None` when the log is closing.
    ahead: Option<Sender<u64>>,
    /// The writer waits for the next segment.
    pub waits: bool,
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
    /// Its first block says how much of the segment before was synced; so it was synced once.
    begun: bool,
}

#[derive(Debug)]
struct Written {
    item: Item,
    place: Place,
}

/// Whether a record can be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Here,
    /// Once the full segment was synced.
    AfterSync,
    /// Once the next segment was made.
    AfterNext,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Written; true when somebody waits for it.
    Written(bool),
    /// Not yet.
    Blocked(Room),
}

/// What a sync is to make durable. The file is synced without the tail being held.
pub(super) struct Pending {
    file: Arc<File>,
    seal: Seal,
    end: u64,
    /// Nothing of it is unsynced.
    done: bool,
    /// What its first block is to say of the segment before.
    begin: Option<u64>,
    /// It is full.
    pub closes: bool,
}

impl Pending {
    pub fn segment(&self) -> u64 {
        self.seal.segment
    }

    pub fn sync(&self, dir: &Path, faults: &Faults) -> io::Result<()> {
        if self.done {
            return Ok(());
        }
        faults.delay();
        match self.begin {
            Some(previous) => {
                segment::begin(&self.file, self.seal, previous)?;
                self.file.sync_data()?;
                // Its name is as new as it is.
                disk::sync_dir(dir)
            }
            None => self.file.sync_data(),
        }
    }
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
            closing: None,
            next: Next::Unasked,
            ahead: None,
            waits: false,
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
    pub fn write_directly(&mut self, shared: &Shared, item: Item) -> Result<bool, Box<Item>> {
        let len = item.record.len();
        if self.active.is_none() || !self.retry.is_empty() || len > MAX_DIRECT {
            return Err(Box::new(item));
        }
        // Where that fails, the writer's thread meets the error itself.
        let room = self.room(shared, len);
        let Some(active) = self.active.as_mut().filter(|_| room == Ok(Room::Here)) else { return Err(Box::new(item)) };
        let header = item.record.header(active.synced);
        let headers = item.record.headers(active.seal, active.written, active.synced);
        let place = Place::new(active.id, active.written, &header);
        let mut pieces = Vec::with_capacity(8);
        item.record.pieces(&headers, &mut pieces);
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

    /// Writes items until a part or the segment is full.
    pub fn write_part(
        &mut self,
        shared: &Shared,
        items: &mut Peekable<impl Iterator<Item = Item>>,
    ) -> Result<Part, AppendError> {
        let Some(first) = items.peek().map(|item| item.record.len()) else { return Ok(Part::Written(false)) };
        match self.room(shared, first)? {
            Room::Here => {}
            blocked => return Ok(Part::Blocked(blocked)),
        }
        let Some(active) = &mut self.active else { return Err(AppendError::Failed("no segment".into())) };
        let (start, mut end) = (active.written, active.written);
        let (mut headers, mut urgent) = (Vec::new(), false);
        let from = self.written.len();
        while let Some(item) = items.next_if(|next| {
            let behind = end + next.record.len();
            end == start || (behind - start <= PART && behind <= self.segment_size)
        }) {
            let header = item.record.header(active.synced);
            headers.push(item.record.headers(active.seal, end, active.synced));
            let place = Place::new(active.id, end, &header);
            end += item.record.len();
            urgent |= matches!(item.want, Want::Now(_));
            self.written.push(Written { item, place });
        }
        let mut pieces = Vec::with_capacity(headers.len() * 5);
        for (headers, written) in headers.iter().zip(&self.written[from..]) {
            written.item.record.pieces(headers, &mut pieces);
        }
        write_vectored(&mut &*active.file, &mut pieces)
            .and_then(|()| self.faults.at(Op::Write))
            .map_err(|e| failed("writing", active.id, &e))?;
        active.written = end;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(Part::Written(urgent))
    }

    /// Sees to an active segment in which a record of `len` bytes has room, or which is empty, without waiting for
    /// the disk.
    fn room(&mut self, shared: &Shared, len: u64) -> Result<Room, AppendError> {
        if let Some(active) = &self.active {
            let has_room = active.written + len <= self.segment_size && !self.retire;
            if active.written == segment::DATA || has_room {
                return Ok(Room::Here);
            }
        }
        if self.closing.is_some() {
            return Ok(Room::AfterSync);
        }
        let wanted = self.highest + 1;
        match mem::take(&mut self.next) {
            Next::Made(next) if next.seal.segment == wanted => self.begin(shared, next).map(|()| Room::Here),
            Next::Failed(number, e) if number == wanted => Err(failed("beginning", wanted, &e)),
            Next::Asked(number) => {
                self.next = Next::Asked(number);
                Ok(Room::AfterNext)
            }
            _ => {
                self.ask();
                Ok(Room::AfterNext)
            }
        }
    }

    /// Has the active segment followed by the next as soon as that can be, though nothing is to be written.
    pub fn roll(&mut self, shared: &Shared) {
        if self.active.as_ref().is_some_and(|active| active.written > segment::DATA) {
            self.retire = true;
            let _ = self.room(shared, 0);
        }
    }

    /// Goes on in the next segment.
    fn begin(&mut self, shared: &Shared, next: Unbegun) -> Result<(), AppendError> {
        let named = self.faults.at(Op::Create).and_then(|()| next.name(&self.dir));
        let Unbegun { file, seal } = next;
        named.map_err(|e| failed("beginning", seal.segment, &e))?;
        let file = Arc::new(file);
        shared.index().segments.insert(seal.segment, Segment::new(file.clone(), seal, segment::DATA));
        self.retire = false;
        self.closing = self.active.take();
        self.highest = seal.segment;
        let (id, synced, written) = (seal.segment, segment::DATA, segment::DATA);
        self.active = Some(Active { id, file, seal, synced, written, begun: false });
        self.ask();
        Ok(())
    }

    /// Has the next segment made.
    fn ask(&mut self) {
        let number = self.highest + 1;
        let asked = self.ahead.as_ref().is_some_and(|ahead| ahead.send(number).is_ok());
        self.next = match asked {
            true => Next::Asked(number),
            false => Next::Failed(number, io::Error::other("nobody makes segments any more")),
        };
    }

    /// Takes what was made. A failure counts only for who needs the segment now: it may be over by then.
    pub fn is_made(&mut self, next: Next) {
        self.next = match next {
            Next::Failed(..) if !self.waits => Next::Unasked,
            next => next,
        };
    }

    /// True while the next segment is being made.
    pub fn is_making(&self) -> bool {
        matches!(self.next, Next::Asked(_))
    }

    /// From now on the next segment is made ahead.
    pub fn make_ahead(&mut self, ahead: Sender<u64>) {
        self.ahead = Some(ahead);
        self.ask();
    }

    /// Makes none any more, and removes the one that was not needed.
    pub fn stop_ahead(&mut self) {
        self.ahead = None;
        if let Next::Made(next) = mem::take(&mut self.next) {
            next.remove(&self.dir);
        }
    }

    /// What is written and not synced: of the full segment first, then of the active one.
    pub fn pending(&self) -> Option<Pending> {
        if let Some(closing) = &self.closing {
            return Some(closing.pending(self.previous, true));
        }
        let active = self.active.as_ref().filter(|_| !self.written.is_empty())?;
        Some(active.pending(self.previous, false))
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
        let slot = if pending.closes { &mut self.closing } else { &mut self.active };
        let Some(synced) = slot.as_mut().filter(|active| active.id == pending.segment()) else { return Ok(()) };
        let faults = &self.faults;
        if let Err(e) = result.and_then(|()| if pending.done { Ok(()) } else { faults.at(Op::Sync) }) {
            shared.count(|stats| stats.failed_syncs += 1);
            let error = failed("syncing", synced.id, &e);
            if pending.closes && !synced.begun {
                self.give_up(shared, false);
            }
            self.give_up(shared, pending.closes);
            return Err(error);
        }
        synced.synced = pending.end;
        synced.begun = true;
        self.previous = pending.end;
        if pending.closes {
            self.closing = None;
        }
        if pending.done {
            return Ok(());
        }
        // What came meanwhile waits for the next one.
        let more = self.active.as_ref().is_some_and(|active| active.written > active.synced);
        self.unsynced_since = more.then(Instant::now);
        shared.count(|stats| {
            stats.syncs += 1;
            stats.sync_time += took;
            stats.sync_time_max = stats.sync_time_max.max(took);
        });
        metrics::histogram!("trackpost_log_sync_seconds").record(took.as_secs_f64());
        if !more && shared.queue.stuck.is_failing() && self.retry.is_empty() && !shared.queue.is_in_hand() {
            shared.queue.stuck.works();
        }
        self.commit(shared, Cursor { segment: pending.segment(), offset: pending.end });
        Ok(())
    }

    /// Ends a segment where it was last synced. Of one that was never synced nothing is left, and its number is given again.
    fn give_up(&mut self, shared: &Shared, closing: bool) {
        let Some(active) = (if closing { self.closing.take() } else { self.active.take() }) else { return };
        let _ = active.file.set_len(active.synced);
        if active.begun {
            self.previous = active.synced;
            return;
        }
        shared.index().segments.remove(&active.id);
        let _ = fs::remove_file(segment::path(&self.dir, active.id));
        self.highest = active.id - 1;
    }

    fn commit(&mut self, shared: &Shared, end: Cursor) {
        let mut waiting = Vec::with_capacity(self.written.len());
        let durable = self
            .written
            .partition_point(|Written { place, .. }| (Cursor { segment: place.segment, offset: place.offset }) < end);
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
    pub fn fail(&mut self, shared: &Shared, error: &AppendError, rest: impl Iterator<Item = Item>, pause: Duration) {
        let follows_nothing = self.closing.as_ref().is_some_and(|closing| !closing.begun);
        if let Some(active) = &mut self.active {
            let back = active.file.set_len(active.synced);
            let back = back.and_then(|()| (&*active.file).seek(SeekFrom::Start(active.synced)));
            active.written = active.synced;
            if *error != AppendError::Full || back.is_err() || follows_nothing {
                // The next segment's first block declares what lies behind the last sync void.
                self.give_up(shared, false);
            }
        }
        self.give_up(shared, true);
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

impl Active {
    fn pending(&self, previous: u64, closes: bool) -> Pending {
        Pending {
            file: self.file.clone(),
            seal: self.seal,
            end: self.written,
            done: self.begun && self.written == self.synced,
            begin: (!self.begun).then_some(previous),
            closes,
        }
    }
}

impl Tail {
    /// Outcomes of a message that are written and not folded in yet.
    pub fn unsynced_outcomes(&self, id: &QueueId) -> impl Iterator<Item = &Vec<Outcome>> {
        self.written.iter().filter_map(move |written| match &written.item.record.effect {
            Effect::Outcomes { id: whose, outcomes } if whose == id => Some(outcomes),
            _ => None,
        })
    }

    /// The active segment and its end, where all that it holds is synced.
    pub fn all_synced(&self) -> Option<u64> {
        let active = self.active.as_ref().filter(|_| self.closing.is_none() && self.written.is_empty())?;
        (active.synced == active.written && active.begun).then_some(active.id)
    }
}

/// The last segment, where it can be written on: damaged ones are left as they are.
fn continued(index: &Index, options: &Options) -> Option<Active> {
    let (&id, segment) = index.segments.last_key_value()?;
    // An older program would read on in one of its own, past what it does not know.
    if segment.bad || segment.old || id != index.highest || segment.end >= options.segment_size {
        return None;
    }
    let file = segment.file.clone();
    // Where that fails, the next segment is begun. A footer is cut off.
    file.set_len(segment.end).and_then(|()| (&*file).seek(SeekFrom::Start(segment.end))).ok()?;
    Some(Active { id, file, seal: segment.seal, synced: segment.end, written: segment.end, begun: true })
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
