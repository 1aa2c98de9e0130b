//! Reading on from a cursor, for those who build views of the log. Bodies of messages are not read, and second heads only
//! where the first is damaged.

use super::index::full_statuses;
use super::record::{Effect, HEADER, HeadError, Header, Seal, kind};
use super::second::Firsts;
use super::segment::DATA;
use super::walk::{Step, Walk};
use super::{Cursor, Log, MessageHead, ReadError, Reader, locked, second};
use crate::event::Hit;
use crate::mail::{Outcome, QueueId};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Records in the order of the log, each with its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub records: Vec<(Cursor, Stored)>,
    /// Where to read on. Equal to where this batch was read from when there is nothing new.
    pub next: Cursor,
    /// The cursor's segment was freed, or the cursor is none of this log: this begins at the oldest record there is.
    pub lost: bool,
}

/// A durable record.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    Message {
        id: QueueId,
        head: Arc<MessageHead>,
        /// Written again by compaction: the message was in the log before, and so was what became of it.
        again: bool,
        /// With `again`, one for each recipient, as they were folded then.
        statuses: Option<Vec<Outcome>>,
    },
    Outcomes {
        id: QueueId,
        outcomes: Vec<Outcome>,
        /// `None` as well if it is damaged.
        report: Option<Bytes>,
    },
    Hits(Vec<Hit>),
    /// Also one written again: it says what is in force.
    Setting {
        key: Box<str>,
        value: Option<Bytes>,
    },
    /// Several that changed together.
    Settings(Vec<(Box<str>, Option<Bytes>)>),
}

/// Bytes of heads and reports after which a batch ends.
const ENOUGH: u64 = 4 * 1024 * 1024;

impl Log {
    /// How far the reader is. Touches no disk.
    pub fn reader(&self) -> Reader {
        Reader { reads_from: *locked(&self.0.shared.reads_from), end: *self.0.shared.durable.borrow() }
    }

    /// Up to `max` durable records from the cursor on. Damaged ones are passed over, as recovery does.
    ///
    /// Reads the disk, one segment at a time: a batch with no records and another `next` is not the end.
    pub fn read(&self, from: Cursor, max: usize) -> Result<Batch, ReadError> {
        *locked(&self.0.shared.reads_from) = from;
        let part = match self.part(from) {
            Ok(part) => part,
            Err(nothing) => return Ok(nothing),
        };
        let mut batch = Batch { records: Vec::new(), next: part.from, lost: part.lost };
        match part.read_into(&mut batch, max) {
            Ok(()) => Ok(batch),
            Err(e) => Err(ReadError { segment: part.from.segment, reason: e.to_string() }),
        }
    }

    /// What can be read next, or a batch that says that there is nothing.
    fn part(&self, from: Cursor) -> Result<Part, Batch> {
        let index = self.0.shared.index();
        let end = *self.0.shared.durable.borrow();
        let oldest = index.segments.first_key_value().map_or(1, |(oldest, _)| *oldest);
        // The first segment of a log is number 1, so its beginning is lost once that is gone.
        let lost = from != end && (from > end || from.segment.max(1) < oldest);
        let from = if lost { Cursor::default() } else { from };
        let next = index.segments.range(from.segment..).find_map(|(id, segment)| {
            let offset = if *id == from.segment { from.offset.max(DATA) } else { DATA };
            (offset < segment.end).then_some((Cursor { segment: *id, offset }, segment))
        });
        match next {
            Some((from, s)) => Ok(Part { file: s.file.clone(), seal: s.seal, from, end: s.end, lost }),
            None => Err(Batch { records: Vec::new(), next: end, lost }),
        }
    }
}

/// A stretch of one segment.
struct Part {
    file: Arc<File>,
    seal: Seal,
    from: Cursor,
    end: u64,
    lost: bool,
}

impl Part {
    fn read_into(&self, batch: &mut Batch, max: usize) -> io::Result<()> {
        let mut walk = Walk::new(&*self.file, self.seal, self.from.offset, self.end);
        let mut firsts = Firsts::default();
        let mut bytes = 0;
        while batch.records.len() < max
            && bytes < ENOUGH
            && let Some(step) = walk.step()?
        {
            if let Step::Record { offset, header } = step {
                bytes += u64::from(header.head_len) + u64::from(if is_report(&header) { header.body_len } else { 0 });
                let place = Cursor { segment: self.from.segment, offset };
                let stored = match header.kind {
                    kind::SECOND => self.second(&mut walk, &firsts, offset, &header)?,
                    _ => self.stored(&mut walk, offset, &header)?,
                };
                if header.kind == kind::MESSAGE && stored.is_some() {
                    firsts.is_sound(offset, &header);
                }
                batch.records.extend(stored.map(|stored| (place, stored)));
            }
            batch.next.offset = walk.at();
        }
        Ok(())
    }

    fn stored(&self, walk: &mut Walk<'_>, offset: u64, header: &Header) -> io::Result<Option<Stored>> {
        let Some(head) = walk.head(offset, header)? else { return Ok(None) };
        Ok(match Effect::decode(header, head) {
            Ok(Effect::Message { id, head, newest }) => Some(message(header, id, head, newest)),
            Ok(Effect::Outcomes { id, outcomes }) => {
                Some(Stored::Outcomes { id, outcomes, report: self.report(offset, header)? })
            }
            Ok(Effect::Hits(hits)) => Some(Stored::Hits(hits)),
            Ok(Effect::Setting { key, value }) => Some(Stored::Setting { key, value }),
            Ok(Effect::Settings(all)) => Some(Stored::Settings(all)),
            Ok(Effect::Unknown) | Err(HeadError::Damaged | HeadError::Newer(_)) => None,
        })
    }

    /// The message whose own record is damaged.
    fn second(&self, walk: &mut Walk<'_>, firsts: &Firsts, offset: u64, header: &Header) -> io::Result<Option<Stored>> {
        let Some(first) = firsts.lost(walk, offset, header)? else { return Ok(None) };
        // It may have been read in the batch before.
        if second::first_is_sound(&self.file, self.seal, &first)? {
            return Ok(None);
        }
        Ok(match Effect::decode(&first.header, first.head) {
            Ok(Effect::Message { id, head, newest }) => Some(message(&first.header, id, head, newest)),
            _ => None,
        })
    }

    fn report(&self, offset: u64, header: &Header) -> io::Result<Option<Bytes>> {
        if !is_report(header) {
            return Ok(None);
        }
        let mut report = vec![0; header.body_len as usize];
        self.file.read_exact_at(&mut report, offset + HEADER as u64 + u64::from(header.head_len))?;
        Ok((crc32fast::hash(&report) == header.body_crc).then(|| report.into()))
    }
}

fn message(header: &Header, id: QueueId, head: Arc<MessageHead>, newest: Option<Vec<Outcome>>) -> Stored {
    let statuses = newest.map(|newest| full_statuses(&head, &newest));
    Stored::Message { id, head, again: header.is_again(), statuses }
}

fn is_report(header: &Header) -> bool {
    header.kind == kind::OUTCOMES && header.body_len > 0
}
