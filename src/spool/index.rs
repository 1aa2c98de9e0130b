//! The fold of the log, in memory: unsettled messages, settings in force, and for each segment what of it is live.
//!
//! Holds what is durable and nothing else: the writer applies a record once the sync that covers it is done. Heads and
//! bodies of messages stay on disk: there may be a million of them.

use super::names::Names;
use super::owners::{Owner, Owners};
use super::record::{DAMAGED, Effect, HEADER, Header, SECONDED, Seal};
use super::segment::DATA;
use super::{Cursor, Live, MessageHead, second};
use crate::mail::{ById, Outcome, QueueId, Replies, Status};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u64,
    pub offset: u64,
    pub head_len: u32,
    pub head_crc: u32,
    pub body_len: u32,
    pub body_crc: u32,
    /// As the header has them.
    pub flags: u8,
}

impl Place {
    pub fn new(segment: u64, offset: u64, header: &Header) -> Self {
        let Header { head_len, head_crc, body_len, body_crc, flags, .. } = *header;
        Self { segment, offset, head_len, head_crc, body_len, body_crc, flags }
    }

    /// Bytes of the whole record, with the second head.
    pub fn len(&self) -> u64 {
        self.end() - self.offset + if self.is_seconded() { second::len(self.head_len) } else { 0 }
    }

    /// The body was found damaged when this copy was made.
    pub fn is_damaged(&self) -> bool {
        self.flags & DAMAGED != 0
    }

    /// The head stands behind it once more.
    pub fn is_seconded(&self) -> bool {
        self.flags & SECONDED != 0
    }

    /// Where the body ends.
    pub fn end(&self) -> u64 {
        self.body_offset() + u64::from(self.body_len)
    }

    pub fn head_offset(&self) -> u64 {
        self.offset + HEADER as u64
    }

    pub fn body_offset(&self) -> u64 {
        self.head_offset() + u64::from(self.head_len)
    }
}

/// A place, in half the bytes: a segment is no larger than four gibibytes unless one record fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    segment: u32,
    offset: u32,
    head_len: u32,
    head_crc: u32,
    body_len: u32,
    body_crc: u32,
    flags: u8,
}

/// What the fold keeps of an unsettled message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    place: Packed,
    pub accepted_at: u64,
    /// How many there are.
    pub recipients: u16,
    /// Domains of the first recipient and of the From header, by the names of its segment.
    pub lane: NonZeroU32,
    pub from: Option<NonZeroU32>,
    /// The last outcome of each recipient that has one, by recipient. Behind one pointer, since most have none and there
    /// may be a million messages.
    #[expect(clippy::box_collection, reason = "it is a third of the size, and seldom there")]
    newest: Option<Box<Vec<Kept>>>,
}

/// An outcome whose reply may be that of others too.
#[derive(Clone, Debug)]
struct Kept {
    recipient: u16,
    status: Status,
    at: u64,
    reply: Arc<str>,
}

impl Message {
    pub fn new(place: Place, accepted_at: u64, recipients: u16, names: (NonZeroU32, Option<NonZeroU32>)) -> Self {
        let Place { segment, offset, head_len, head_crc, body_len, body_crc, flags } = place;
        // Neither number is reached: one more is counted for each 64 MiB, the other is bounded by that.
        let (segment, offset) = (u32::try_from(segment).unwrap_or(u32::MAX), u32::try_from(offset).unwrap_or(u32::MAX));
        let place = Packed { segment, offset, head_len, head_crc, body_len, body_crc, flags };
        Self { place, accepted_at, recipients, lane: names.0, from: names.1, newest: None }
    }

    pub fn place(&self) -> Place {
        let Packed { segment, offset, head_len, head_crc, body_len, body_crc, flags } = self.place;
        Place { segment: segment.into(), offset: offset.into(), head_len, head_crc, body_len, body_crc, flags }
    }

    pub fn newest(&self) -> Vec<Outcome> {
        let outcome = |kept: &Kept| Outcome {
            recipient: kept.recipient,
            status: kept.status,
            reply: (*kept.reply).into(),
            at: kept.at,
        };
        self.kept().iter().map(outcome).collect()
    }

    fn kept(&self) -> &[Kept] {
        self.newest.as_deref().map_or(&[], Vec::as_slice)
    }

    pub fn set_newest(&mut self, newest: Vec<Outcome>, replies: &mut Replies) {
        self.newest = None;
        self.fold(newest, replies);
    }

    fn fold(&mut self, outcomes: Vec<Outcome>, replies: &mut Replies) {
        let count = self.recipients;
        for Outcome { recipient, status, reply, at } in outcomes.into_iter().filter(|o| o.recipient < count) {
            let kept = Kept { recipient, status, at, reply: replies.of(&reply) };
            let newest = self.newest.get_or_insert_default();
            match newest.binary_search_by_key(&recipient, |kept| kept.recipient) {
                Ok(at) => newest[at] = kept,
                Err(at) => {
                    if newest.is_empty() {
                        newest.reserve_exact(1);
                    }
                    newest.insert(at, kept);
                }
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.kept().iter().filter(|kept| kept.status.is_settled()).count() == usize::from(self.recipients)
    }
}

/// Puts outcomes in the place of earlier ones of the same recipients.
pub(super) fn fold(newest: &mut Vec<Outcome>, outcomes: Vec<Outcome>, recipients: u16) {
    for outcome in outcomes.into_iter().filter(|outcome| outcome.recipient < recipients) {
        match newest.binary_search_by_key(&outcome.recipient, |o| o.recipient) {
            Ok(at) => newest[at] = outcome,
            Err(at) => newest.insert(at, outcome),
        }
    }
}

pub(super) fn full_statuses(head: &MessageHead, newest: &[Outcome]) -> Vec<Outcome> {
    let mut all: Vec<_> = (0..head.envelope.recipients.len())
        .map_while(|n| u16::try_from(n).ok())
        .map(|recipient| Outcome { recipient, status: Status::Queued, reply: "".into(), at: head.accepted_at })
        .collect();
    for outcome in newest {
        if let Some(slot) = all.get_mut(usize::from(outcome.recipient)) {
            *slot = outcome.clone();
        }
    }
    all
}

/// What the footer of a segment will have to say beside what is live in it.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub records: u64,
    /// Messages that lie in earlier segments and of which something is said here.
    pub touched: BTreeSet<QueueId>,
    /// Settings that were made here.
    pub keys: BTreeSet<Box<str>>,
    /// Records that a later version may know.
    pub unknown: bool,
}

/// A footer that had to name more would take long to write, and its notes much memory.
const MOST_NOTES: usize = 200_000;

impl Notes {
    /// False where a footer would not say all.
    pub fn suffice(&self) -> bool {
        !self.unknown && self.touched.len() + self.keys.len() < MOST_NOTES
    }

    fn touch(&mut self, id: QueueId) {
        if self.suffice() {
            self.touched.insert(id);
        }
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    pub file: Arc<File>,
    pub seal: Seal,
    /// Bytes that are synced; what may lie beyond counts for nothing.
    pub end: u64,
    /// Live records.
    pub live: Owners,
    /// Bytes of these.
    pub live_bytes: u64,
    /// Names that its live messages have.
    pub names: Names,
    /// For its footer, as long as that is not written.
    pub notes: Option<Box<Notes>>,
    /// Damage was found: kept as `.bad` once the log is done with it.
    pub bad: bool,
    /// Begun by an older program, in a format of its own.
    pub old: bool,
}

impl Segment {
    pub fn new(file: Arc<File>, seal: Seal, end: u64) -> Self {
        let notes = Some(Box::default());
        Self {
            file,
            seal,
            end,
            live: Owners::default(),
            live_bytes: 0,
            names: Names::default(),
            notes,
            bad: false,
            old: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub messages: ById<Message>,
    pub settings: BTreeMap<Box<str>, (Bytes, Place)>,
    pub segments: BTreeMap<u64, Segment>,
    pub(super) replies: Replies,
    /// Bytes of live records.
    pub live: u64,
    /// The highest number that recovery found a segment to have, damaged ones included.
    pub highest: u64,
}

impl Index {
    /// Folds in the effect of the record at `place`, which is the newest so far. The segment must be known.
    pub fn apply(&mut self, effect: Effect, place: Place) {
        self.note(&effect, place.segment);
        match effect {
            Effect::Message { id, head, newest } => self.apply_message(id, &head, newest, place),
            Effect::Outcomes { id, outcomes } => {
                let Some(message) = self.messages.get_mut(&id) else { return };
                message.fold(outcomes, &mut self.replies);
                if message.is_settled() {
                    self.forget(&id);
                }
            }
            Effect::Setting { key, value } => self.apply_setting(key, value, place),
            Effect::Settings(all) => all.into_iter().for_each(|(key, value)| self.apply_setting(key, value, place)),
            Effect::Hits(_) | Effect::Unknown => {}
        }
    }

    fn note(&mut self, effect: &Effect, segment: u64) {
        let Some(notes) = self.segments.get_mut(&segment).and_then(|segment| segment.notes.as_deref_mut()) else {
            return;
        };
        notes.records += 1;
        match effect {
            Effect::Message { id, newest: Some(_), .. } => notes.touch(*id),
            Effect::Outcomes { id, .. } => {
                if self.messages.get(id).is_some_and(|message| message.place().segment != segment) {
                    notes.touch(*id);
                }
            }
            Effect::Setting { key, .. } => drop(notes.keys.insert(key.clone())),
            Effect::Settings(all) => notes.keys.extend(all.iter().map(|(key, _)| key.clone())),
            Effect::Unknown => notes.unknown = true,
            Effect::Message { newest: None, .. } | Effect::Hits(_) => {}
        }
    }

    /// A message that is there already, not written again by compaction, is one that was submitted twice under a
    /// derived id (a DSN after a crash): the first stands, with what became of it.
    fn apply_message(&mut self, id: QueueId, head: &MessageHead, newest: Option<Vec<Outcome>>, place: Place) {
        if newest.is_none() && self.messages.contains_key(&id) {
            return;
        }
        if let Some(old) = self.messages.remove(&id) {
            self.remove_live(old.place());
        }
        let names = self.segments.get_mut(&place.segment).map(|segment| &mut segment.names);
        let (lane, from) = names.map_or((NonZeroU32::MIN, None), |names| names.of(head));
        let mut message = Message::new(place, head.accepted_at, head.recipients(), (lane, from));
        message.fold(newest.unwrap_or_default(), &mut self.replies);
        if !message.is_settled() {
            self.messages.insert(id, message);
            self.add_live(place, Owner::Message(id));
        }
    }

    fn apply_setting(&mut self, key: Box<str>, value: Option<Bytes>, place: Place) {
        self.drop_setting(&key);
        if let Some(value) = value {
            self.add_setting(key, value, place);
        }
    }

    pub fn drop_setting(&mut self, key: &str) {
        let Some((_, old)) = self.settings.remove(key) else { return };
        let segment = self.segments.get_mut(&old.segment);
        let others = match segment.and_then(|segment| segment.live.get_mut(old.offset)) {
            Some(Owner::Settings(keys)) => keys.remove(key) && !keys.is_empty(),
            _ => false,
        };
        if !others {
            self.remove_live(old);
        }
    }

    /// Adds a setting that is not there. Several may lie in one record.
    pub fn add_setting(&mut self, key: Box<str>, value: Bytes, place: Place) {
        let segment = self.segments.get_mut(&place.segment);
        match segment.and_then(|segment| segment.live.get_mut(place.offset)) {
            Some(Owner::Settings(keys)) => _ = keys.insert(key.clone()),
            Some(owner @ Owner::Setting(_)) => {
                let mut keys = Box::new(BTreeSet::from([key.clone()]));
                if let Owner::Setting(first) = owner {
                    keys.insert(first.clone());
                }
                *owner = Owner::Settings(keys);
            }
            _ => self.add_live(place, Owner::Setting(key.clone())),
        }
        self.settings.insert(key, (value, place));
    }

    /// Drops a message that nobody can read any more.
    pub fn forget(&mut self, id: &QueueId) {
        if let Some(message) = self.messages.remove(id) {
            self.remove_live(message.place());
        }
    }

    /// Nothing more comes into the segment, and its footer is made.
    pub fn is_full(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live.shrink();
            segment.notes = None;
            segment.names = Names::default();
        }
    }

    pub fn add_live(&mut self, place: Place, owner: Owner) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live.add(place.offset, owner);
            segment.live_bytes += place.len();
            self.live += place.len();
        }
    }

    fn remove_live(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment)
            && segment.live.remove(place.offset)
        {
            segment.live_bytes -= place.len();
            self.live -= place.len();
        }
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|s| s.end).sum()
    }

    /// Bytes of the log behind the cursor.
    pub fn bytes_after(&self, cursor: Cursor) -> u64 {
        let segments = self.segments.range(cursor.segment..);
        segments.map(|(id, s)| s.end - if *id == cursor.segment { cursor.offset.min(s.end) } else { 0 }).sum()
    }

    /// The end of the last segment that holds anything; the beginning where none does.
    pub fn end(&self) -> Cursor {
        let filled = self.segments.iter().rev().find(|(_, s)| s.end > DATA);
        filled.map_or_else(Cursor::default, |(id, s)| Cursor { segment: *id, offset: s.end })
    }

    /// Unsettled messages, the oldest first.
    pub fn live_messages(&self) -> Vec<Live> {
        let mut shared = Names::default();
        let mut all: Vec<_> = self
            .messages
            .iter()
            .map(|(id, message)| {
                let names = self.segments.get(&message.place().segment).map(|segment| &segment.names);
                let mut name =
                    |number| shared.shared(names.and_then(|names| names.get(number)).map_or("", |name| name));
                Live {
                    id: *id,
                    accepted_at: message.accepted_at,
                    lane: name(message.lane),
                    from_domain: message.from.map(&mut name),
                    recipients: message.recipients,
                    newest: message.newest(),
                }
            })
            .collect();
        all.sort_unstable_by_key(|live| (live.accepted_at, live.id));
        all
    }
}
