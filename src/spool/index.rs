//! The fold of the log, in memory: unsettled messages, settings in force, and for each segment what of it is live.
//!
//! Holds what is durable and nothing else: the writer applies a record once the sync that covers it is done. Message
//! bodies stay on disk; heads are shared with whoever delivers the message.

use super::record::{Effect, HEADER, Header, Seal};
use super::segment::DATA;
use super::{Cursor, Live, MessageHead};
use crate::mail::{Outcome, QueueId, Status};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::sync::Arc;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u64,
    pub offset: u64,
    pub head_len: u32,
    pub body_len: u32,
    pub body_crc: u32,
    /// The body was found damaged when this copy was made.
    pub damaged: bool,
}

impl Place {
    pub fn new(segment: u64, offset: u64, header: &Header) -> Self {
        let Header { head_len, body_len, body_crc, .. } = *header;
        Self { segment, offset, head_len, body_len, body_crc, damaged: header.is_damaged() }
    }

    /// Bytes of the whole record.
    pub fn len(&self) -> u64 {
        HEADER as u64 + u64::from(self.head_len) + u64::from(self.body_len)
    }

    pub fn body_offset(&self) -> u64 {
        self.offset + HEADER as u64 + u64::from(self.head_len)
    }
}

/// An unsettled message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub head: Arc<MessageHead>,
    /// The last outcome of each recipient that has one, by recipient.
    pub newest: Vec<Outcome>,
    pub place: Place,
}

impl Message {
    fn fold(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            if usize::from(outcome.recipient) >= self.head.envelope.recipients.len() {
                continue;
            }
            match self.newest.binary_search_by_key(&outcome.recipient, |o| o.recipient) {
                Ok(at) => self.newest[at] = outcome,
                Err(at) => self.newest.insert(at, outcome),
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.newest.iter().filter(|o| o.status.is_settled()).count() == self.head.envelope.recipients.len()
    }

    /// One outcome for each recipient, `Queued` where there was none yet.
    pub fn statuses(&self) -> Vec<Outcome> {
        full_statuses(&self.head, &self.newest)
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

/// Whom a live record belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Message(QueueId),
    Setting(Box<str>),
    /// Of the keys that one record holds those whose value is still the one in it.
    Settings(BTreeSet<Box<str>>),
}

#[derive(Debug)]
pub(super) struct Segment {
    pub file: Arc<File>,
    pub seal: Seal,
    /// Bytes that are synced; what may lie beyond counts for nothing.
    pub end: u64,
    /// Live records by offset.
    pub live: BTreeMap<u64, Owner>,
    /// Bytes of these.
    pub live_bytes: u64,
    /// Damage was found: kept as `.bad` once the log is done with it.
    pub bad: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub messages: HashMap<QueueId, Message>,
    pub settings: BTreeMap<Box<str>, (Bytes, Place)>,
    pub segments: BTreeMap<u64, Segment>,
    /// Bytes of live records.
    pub live: u64,
    /// The highest number that recovery found a segment to have, damaged ones included.
    pub highest: u64,
}

impl Index {
    /// Folds in the effect of the record at `place`, which is the newest so far. The segment must be known.
    pub fn apply(&mut self, effect: Effect, place: Place) {
        match effect {
            Effect::Message { id, head, newest } => self.apply_message(id, head, newest, place),
            Effect::Outcomes { id, outcomes } => {
                let Some(message) = self.messages.get_mut(&id) else { return };
                message.fold(outcomes);
                if message.is_settled() {
                    let place = message.place;
                    self.messages.remove(&id);
                    self.remove_live(place);
                }
            }
            Effect::Setting { key, value } => self.apply_setting(key, value, place),
            Effect::Settings(all) => all.into_iter().for_each(|(key, value)| self.apply_setting(key, value, place)),
            Effect::Hits(_) | Effect::Unknown => {}
        }
    }

    /// A message that is there already, not written again by compaction, is one that was submitted twice under a
    /// derived id (a DSN after a crash): the first stands, with what became of it.
    fn apply_message(&mut self, id: QueueId, head: Arc<MessageHead>, newest: Option<Vec<Outcome>>, place: Place) {
        if newest.is_none() && self.messages.contains_key(&id) {
            return;
        }
        if let Some(old) = self.messages.remove(&id) {
            self.remove_live(old.place);
        }
        let mut message = Message { head, newest: Vec::new(), place };
        message.fold(newest.unwrap_or_default());
        if !message.is_settled() {
            self.messages.insert(id, message);
            self.add_live(place, Owner::Message(id));
        }
    }

    fn apply_setting(&mut self, key: Box<str>, value: Option<Bytes>, place: Place) {
        if let Some((_, old)) = self.settings.remove(&key) {
            let segment = self.segments.get_mut(&old.segment);
            let others = match segment.and_then(|segment| segment.live.get_mut(&old.offset)) {
                Some(Owner::Settings(keys)) => keys.remove(&key) && !keys.is_empty(),
                _ => false,
            };
            if !others {
                self.remove_live(old);
            }
        }
        let Some(value) = value else { return };
        let segment = self.segments.get_mut(&place.segment);
        match segment.and_then(|segment| segment.live.get_mut(&place.offset)) {
            Some(Owner::Settings(keys)) => _ = keys.insert(key.clone()),
            Some(owner @ Owner::Setting(_)) => {
                let mut keys = BTreeSet::from([key.clone()]);
                if let Owner::Setting(first) = owner {
                    keys.insert(first.clone());
                }
                *owner = Owner::Settings(keys);
            }
            _ => self.add_live(place, Owner::Setting(key.clone())),
        }
        self.settings.insert(key, (value, place));
    }

    fn add_live(&mut self, place: Place, owner: Owner) {
        if let Some(segment) = self.segments.get_mut(&place.segment)
            && segment.live.insert(place.offset, owner).is_none()
        {
            segment.live_bytes += place.len();
            self.live += place.len();
        }
    }

    fn remove_live(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment)
            && segment.live.remove(&place.offset).is_some()
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
        let mut all: Vec<_> = self
            .messages
            .iter()
            .map(|(id, message)| Live { id: *id, head: message.head.clone(), statuses: message.statuses() })
            .collect();
        all.sort_unstable_by_key(|live| (live.head.accepted_at, live.id));
        all
    }
}
