//! Freeing the oldest segment, and only ever the oldest.
//!
//! What of it is live is written again at the end of the log: messages with their folded state, settings with their
//! value. Once that is synced, the segment is removed and the folder synced before the next one may go. So an outcome
//! always outlives the message that it settles, and no message comes back from the dead. A damaged segment is not
//! removed but renamed to `.bad`, for the operator. One of which the disk gives something not now stays as it is, and is
//! tried again: what it cannot be asked for is not known to be damaged.
//!
//! The work is done by the writer, a few MiB between two batches.

use super::index::{Index, Place, Segment, fold};
use super::owners::Owner;
use super::queue::{Item, Want};
use super::record::{Effect, Encoded, Seal};
use super::tail::Tail;
use super::writer::{TICK, Writer};
use super::{AppendError, BodyError, Cursor, Options, disk, fetch, locked, segment};
use crate::mail::{Outcome, QueueId};
use bytes::Bytes;
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes copied between two batches, or one record if it is larger.
const STEP: u64 = 4 * 1024 * 1024;

/// How long a reader that has not said where it is may take to do so.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a disk may be full before what was not read is given up.
const PATIENCE: Duration = TICK.saturating_mul(5);

/// How long a segment that could not be read is left alone.
const READ_AGAIN: Duration = TICK.saturating_mul(30);

/// Bytes in the active segment that are not live, above which it is left where space is short.
const WASTE: u64 = 4 * 1024 * 1024;

impl Writer {
    pub fn compaction_due(&self) -> bool {
        self.compact_after <= Instant::now() && self.to_free().is_some()
    }

    /// The segment to free, if there is one.
    fn to_free(&self) -> Option<u64> {
        let released = *locked(&self.shared.released);
        let index = self.shared.index();
        // On a full disk all that can be freed is wanted, but the copies must leave outcomes some space. History gives
        // way to mail: what was not read in the first seconds goes as well.
        let full = self.shared.is_full();
        let given_up = self.full_since.is_some_and(|since| since.elapsed() >= PATIENCE);
        let slack = if self.is_short() { 0 } else { self.options.slack };
        let behind = if given_up { 0 } else { self.options.max_behind };
        let silent = released.is_none() && self.opened.elapsed() < SILENCE && !given_up;
        let asked = locked(&self.shared.asked).through();
        let oldest = oldest_to_free(&index, &self.options, (slack, behind), released, asked)?;
        let copies = index.segments.get(&oldest)?.live_bytes;
        (!silent && (!full || copies <= self.free / 2)).then_some(oldest)
    }

    /// True when what could be freed should be, although there is room for mail yet.
    fn is_short(&self) -> bool {
        let margin = self.options.segment_size.saturating_add(2 * disk::RESERVE);
        self.shared.is_full() || self.free < self.options.min_free.saturating_add(margin)
    }

    /// Where space is short, has the active segment followed by the next once little of it is live: only full ones can
    /// be freed.
    pub fn retire_settled(&mut self) {
        let waste = self
            .shared
            .index()
            .segments
            .last_key_value()
            .map_or(0, |(_, newest)| newest.end.saturating_sub(newest.live_bytes));
        if self.is_short() && waste > WASTE.min(self.options.segment_size / 4) {
            let shared = Arc::clone(&self.shared);
            locked(shared.tail.get().expect("the tail is there before the writer is")).roll(&shared);
            // A failure was logged, and is met again.
            let _ = self.sync();
        }
    }

    /// Has an active segment that is old enough followed by the next.
    pub fn retire_aged(&mut self) {
        let Some(max) = self.options.max_age else { return };
        let begun = self.shared.index().segments.last_key_value().and_then(|(_, newest)| age(newest));
        if begun.is_some_and(|(begun, _)| begun > max / 4) {
            locked(self.shared.tail.get().expect("the tail is there before the writer is")).retire = true;
        }
    }

    /// One step: copies some of the oldest segment's live records, or removes it when none are left.
    pub fn compact(&mut self) {
        let Some(segment) = self.to_free() else { return };
        if let Err(error) = self.compact_segment(segment) {
            tracing::warn!(segment, %error, "the oldest segment of the log could not be freed yet");
            self.compact_after = self.compact_after.max(Instant::now() + TICK);
        }
    }

    fn compact_segment(&mut self, segment: u64) -> Result<(), AppendError> {
        // So that few outcomes have to be added to the copies.
        self.sync()?;
        if !self.write_copies(segment)? {
            return self.free(segment).map_err(|e| AppendError::Failed(e.to_string()));
        }
        self.sync()
    }

    /// Some of what is live in a segment, read from the disk. Fails where the disk does not give it.
    pub fn copies(&mut self, segment: u64) -> Result<Vec<Copy>, AppendError> {
        let (sources, file, seal) = {
            let index = self.shared.index();
            let Some(oldest) = index.segments.get(&segment) else { return Ok(Vec::new()) };
            (sources(&index, oldest.live.iter()), oldest.file.clone(), oldest.seal)
        };
        let copies = sources.into_iter().filter_map(|source| self.copy(source, &file, seal).transpose());
        copies.collect::<Result<_, _>>().map_err(|error| {
            self.compact_after = Instant::now() + READ_AGAIN;
            AppendError::Failed(error.to_string())
        })
    }

    /// `None` for what is lost.
    fn copy(&self, source: Source, file: &File, seal: Seal) -> Result<Option<Copy>, BodyError> {
        let Source { what, place } = source;
        let (damaged, body) = match fetch::read(file, place.body_offset(), place.body_len as usize) {
            Ok(body) => (crc32fast::hash(&body) != place.body_crc, body),
            Err(BodyError::Damaged) => (true, vec![0; place.body_len as usize]),
            Err(error) => return Err(error),
        };
        if damaged && !place.is_damaged() {
            // The state must go on all the same. The copy keeps the CRC of what was accepted, and so stays damaged.
            tracing::error!(segment = place.segment, offset = place.offset, "a message in the log is damaged");
            self.shared.found_damage(place.segment);
        }
        let healed = |error: &BodyError| self.shared.head_healed(&self.dir, place.segment, error);
        let effect = match what {
            What::Message { id, newest } => match fetch::head_at(file, seal, &place, healed) {
                Ok(head) => Effect::Message { id, head: Arc::new(head), newest: Some(newest) },
                Err(BodyError::Damaged) => {
                    // Nobody could deliver it. The segment is kept for the operator.
                    tracing::error!(queue_id = %id, "a message is lost: its envelope is damaged, twice over");
                    self.shared.found_damage(place.segment);
                    self.shared.index().forget(&id);
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
            What::Settings(effect) => effect,
        };
        let body = if body.is_empty() { Vec::new() } else { vec![Bytes::from(body)] };
        Ok(Some(Copy { effect, body, body_crc: place.body_crc, damaged }))
    }

    fn free(&mut self, segment: u64) -> io::Result<()> {
        if self.names_unsynced {
            disk::sync_dir(&self.dir)?;
            self.names_unsynced = false;
        }
        let unread = locked(&self.shared.released).is_none_or(|cursor| cursor.segment <= segment);
        let bad = self.shared.index().segments.get(&segment).is_some_and(|s| s.bad);
        let path = segment::path(&self.dir, segment);
        match bad {
            true => fs::rename(&path, segment::bad_path(&self.dir, segment))?,
            false => fs::remove_file(&path)?,
        }
        self.shared.index().segments.remove(&segment);
        if unread {
            tracing::warn!(segment, "history was given up: the log was not read in time");
            self.shared.count(|stats| stats.segments_given_up += 1);
        }
        // Were a later segment's removal durable and this one's not, settled messages would be live again.
        self.names_unsynced = true;
        disk::sync_dir(&self.dir)?;
        self.names_unsynced = false;
        Ok(())
    }
}

/// What is written again, but for what became of it since the last sync.
pub(super) struct Copy {
    effect: Effect,
    body: Vec<Bytes>,
    body_crc: u32,
    damaged: bool,
}

impl Copy {
    pub fn into_item(mut self, tail: &Tail) -> Result<Item, AppendError> {
        if let Effect::Message { id, head, newest: Some(newest) } = &mut self.effect {
            for outcomes in tail.unsynced_outcomes(id) {
                fold(newest, outcomes.clone(), head.recipients());
            }
        }
        let record = Encoded::again(self.effect, self.body, self.body_crc, self.damaged)?;
        Ok(Item { record, want: Want::Copy })
    }
}

/// What is to be written again, and where it lies now.
struct Source {
    what: What,
    place: Place,
}

enum What {
    Message { id: QueueId, newest: Vec<Outcome> },
    Settings(Effect),
}

fn sources<'a>(index: &Index, owners: impl Iterator<Item = &'a Owner>) -> Vec<Source> {
    let mut bytes = 0;
    let sources = owners.filter_map(|owner| match owner {
        Owner::Message(id) => index.messages.get(id).map(|message| Source {
            what: What::Message { id: *id, newest: message.newest() },
            place: message.place(),
        }),
        Owner::Setting(key) => index.settings.get(key).map(|(value, place)| Source {
            what: What::Settings(Effect::Setting { key: key.clone(), value: Some(value.clone()) }),
            place: *place,
        }),
        Owner::Settings(keys) => {
            let held: Vec<_> = keys.iter().filter_map(|key| Some((key, index.settings.get(key)?))).collect();
            let place = held.first().map(|(_, (_, place))| *place)?;
            let all = held.into_iter().map(|(key, (value, _))| (key.clone(), Some(value.clone())));
            Some(Source { what: What::Settings(Effect::Settings(all.collect())), place })
        }
    });
    sources
        .take_while(|source| {
            let before = bytes;
            bytes += source.place.len();
            before == 0 || bytes <= STEP
        })
        .collect()
}

/// The oldest segment, if the log is large enough and the reader has what it holds, or is too far behind.
fn oldest_to_free(
    index: &Index,
    options: &Options,
    (slack, behind): (u64, u64),
    released: Option<Cursor>,
    asked: Option<u64>,
) -> Option<u64> {
    let (&oldest, _) = index.segments.first_key_value()?;
    let (&newest, _) = index.segments.last_key_value()?;
    let released = released.unwrap_or_default();
    if oldest == newest {
        return None;
    }
    let large = index.bytes() > index.live.saturating_mul(2).saturating_add(slack);
    // Written to for a quarter of the age at most, and left alone for the rest of it.
    let aged = |max: Duration| index.segments.get(&oldest).and_then(age).is_some_and(|age| age.1 > max * 3 / 4);
    let read = oldest < released.segment || index.bytes_after(released) > behind;
    let wanted = asked.is_some_and(|through| oldest <= through && oldest < released.segment);
    (wanted || read && (large || options.max_age.is_some_and(aged))).then_some(oldest)
}

/// How long ago a segment was begun and last written to, where the file system says so.
fn age(segment: &Segment) -> Option<(Duration, Duration)> {
    let metadata = segment.file.metadata().ok()?;
    let written = metadata.modified().ok()?.elapsed().ok()?;
    let begun = metadata.created().ok().and_then(|at| at.elapsed().ok());
    Some((begun.unwrap_or(written), written))
}
