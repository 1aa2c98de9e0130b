//! The messages at hand: those with changes that the store does not have, and beside them the newest others.
//!
//! One that has changes stays until they are written, whatever the limits say: it is in no other place. The others may go
//! at any time, since the store has them.

use super::known::Known;
use crate::mail::{QueueId, Status};
use crate::spool::Cursor;
use crate::store::{MessageRow, Store, StoreError, message};
use std::collections::{BTreeMap, HashMap};

/// How much the recorder holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages that are held though the store has them, and recipients of these.
    pub messages: usize,
    pub recipients: usize,
    /// Messages with changes, and recipients of these, that force them to be written.
    pub unwritten_messages: usize,
    pub unwritten_recipients: usize,
    /// Additions to counts, entries of recipients and the like that force a commit.
    pub counted: usize,
    /// Recipients whose hits are held after they were written, and hits of these.
    pub people: usize,
    pub hits: usize,
    /// What waits for a message that may come later in the log.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages: 10_000,
            recipients: 200_000,
            unwritten_messages: 4_000,
            unwritten_recipients: 40_000,
            counted: 4_000,
            people: 20_000,
            hits: 100_000,
            waiting: 200_000,
        }
    }
}

/// A message's row with changes that the store does not have.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub row: MessageRow,
    /// Chunks that the store has of it.
    pub chunks: usize,
    /// The first record that changed it.
    first: Cursor,
    since: u64,
    /// It must be written in one batch with what is counted.
    pub with_counts: bool,
}

pub(super) struct Messages {
    limits: Limits,
    held: HashMap<QueueId, Held>,
    /// Those with changes, by the first record that the store does not have.
    unwritten: BTreeMap<Cursor, QueueId>,
    unwritten_recipients: usize,
    /// The others: first the one that was not asked for for the longest time.
    written: BTreeMap<u64, QueueId>,
    written_recipients: usize,
    turn: u64,
}

struct Held {
    known: Known,
    state: State,
}

enum State {
    /// Its key in `written`.
    Written(u64),
    Unwritten(Box<Unwritten>),
}

impl Messages {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: HashMap::new(),
            unwritten: BTreeMap::new(),
            unwritten_recipients: 0,
            written: BTreeMap::new(),
            written_recipients: 0,
            turn: 0,
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Whether the message is at hand.
    pub fn holds(&self, id: &QueueId) -> bool {
        self.held.contains_key(id)
    }

    /// The message, read from `store` where it is not at hand; `None` where it is in neither.
    pub fn find(&mut self, id: &QueueId, store: Option<&Store>) -> Result<Option<&mut Known>, StoreError> {
        if !self.held.contains_key(id) {
            let row = store.map(|store| message(store, id)).transpose()?.flatten();
            let Some((row, _)) = row else { return Ok(None) };
            self.hold(*id, Known::of_row(&row));
        }
        Ok(self.held.get_mut(id).map(|held| {
            if let State::Written(turn) = &mut held.state {
                self.turn += 1;
                self.written.remove(&std::mem::replace(turn, self.turn));
                self.written.insert(self.turn, *id);
            }
            &mut held.known
        }))
    }

    /// The message and its row, which the record at `place` changes; `None` where the store does not have it either.
    pub fn change(
        &mut self,
        id: &QueueId,
        store: &Store,
        place: Cursor,
        now: u64,
    ) -> Result<Option<(&mut Known, &mut MessageRow)>, StoreError> {
        if !self.held.get(id).is_some_and(|held| matches!(held.state, State::Unwritten(_))) {
            let Some((row, chunks)) = message(store, id)? else {
                self.remove(id);
                return Ok(None);
            };
            let known = self.remove(id).unwrap_or_else(|| Known::of_row(&row));
            self.insert(*id, known, Unwritten { row, chunks, first: place, since: now, with_counts: false });
        }
        Ok(self.held.get_mut(id).and_then(|held| match &mut held.state {
            State::Unwritten(unwritten) => Some((&mut held.known, &mut unwritten.row)),
            State::Written(_) => None,
        }))
    }

    /// What the row of a message has of each recipient; `None` where there is none.
    pub fn statuses(&self, id: &QueueId, store: &Store) -> Result<Option<Vec<Status>>, StoreError> {
        let of_row = |row: &MessageRow| row.recipients.iter().map(|recipient| recipient.status).collect();
        match self.held.get(id) {
            Some(Held { state: State::Unwritten(unwritten), .. }) => Ok(Some(of_row(&unwritten.row))),
            _ => Ok(message(store, id)?.map(|(row, _)| of_row(&row))),
        }
    }

    /// Takes in a message that the record at `place` brought.
    pub fn put(&mut self, id: QueueId, row: MessageRow, with_counts: bool, place: Cursor, now: u64) {
        self.remove(&id);
        let known = Known::of_row(&row);
        self.insert(id, known, Unwritten { row, chunks: 0, first: place, since: now, with_counts });
    }

    /// Holds a message for which nothing is to be written.
    pub fn hold(&mut self, id: QueueId, known: Known) {
        self.remove(&id);
        self.written_recipients += known.delivered.len();
        self.turn += 1;
        self.written.insert(self.turn, id);
        self.held.insert(id, Held { known, state: State::Written(self.turn) });
        self.shrink(&id);
    }

    /// Forgets one message, with its changes.
    pub fn remove(&mut self, id: &QueueId) -> Option<Known> {
        let Held { known, state } = self.held.remove(id)?;
        let recipients = known.delivered.len();
        match state {
            State::Written(turn) => {
                self.written.remove(&turn);
                self.written_recipients -= recipients;
            }
            State::Unwritten(unwritten) => {
                self.unwritten.remove(&unwritten.first);
                self.unwritten_recipients -= recipients;
            }
        }
        Some(known)
    }

    pub fn is_clean(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Messages with changes.
    pub fn changed(&self) -> usize {
        self.unwritten.len()
    }

    /// Changes must be written now, also of messages that will change again soon.
    pub fn is_full(&self) -> bool {
        self.unwritten.len() >= self.limits.unwritten_messages
            || self.unwritten_recipients >= self.limits.unwritten_recipients
    }

    pub fn has_ripe(&self, now: u64) -> bool {
        self.unwritten.values().any(|id| match self.held.get(id) {
            Some(Held { state: State::Unwritten(unwritten), .. }) => unwritten.is_ripe(now),
            _ => false,
        })
    }

    /// The first record whose change is not written.
    pub fn first_unwritten(&self) -> Option<Cursor> {
        self.unwritten.first_key_value().map(|(place, _)| *place)
    }

    /// Hands over what is to be written now: what is ripe or goes with the counts, all where `all` says so, and where
    /// there is too much the older half. Whoever takes it writes it before anything is asked of this again, or has it
    /// cleared.
    pub fn take(&mut self, now: u64, all: bool, mut write: impl FnMut(&QueueId, &Unwritten)) {
        let (messages, recipients) = match self.is_full() {
            true => (self.limits.unwritten_messages / 2, self.limits.unwritten_recipients / 2),
            false => (usize::MAX, usize::MAX),
        };
        let mut chosen = Vec::new();
        let (mut left, mut recipients_left) = (self.unwritten.len(), self.unwritten_recipients);
        for (place, id) in &self.unwritten {
            let Some(Held { known, state: State::Unwritten(unwritten) }) = self.held.get(id) else { continue };
            let too_many = left > messages || recipients_left > recipients;
            if all || too_many || unwritten.with_counts || unwritten.is_ripe(now) {
                left -= 1;
                recipients_left -= known.delivered.len();
                chosen.push((*place, *id));
            }
        }
        for (place, id) in chosen {
            let Some(held) = self.held.get_mut(&id) else { continue };
            self.turn += 1;
            if let State::Unwritten(unwritten) = std::mem::replace(&mut held.state, State::Written(self.turn)) {
                write(&id, &unwritten);
            }
            let recipients = held.known.delivered.len();
            self.unwritten.remove(&place);
            self.unwritten_recipients -= recipients;
            self.written.insert(self.turn, id);
            self.written_recipients += recipients;
        }
        if let Some((_, newest)) = self.written.last_key_value() {
            let newest = *newest;
            self.shrink(&newest);
        }
    }

    fn insert(&mut self, id: QueueId, known: Known, unwritten: Unwritten) {
        self.unwritten_recipients += known.delivered.len();
        self.unwritten.insert(unwritten.first, id);
        self.held.insert(id, Held { known, state: State::Unwritten(Box::new(unwritten)) });
    }

    /// Lets go of what is over the limits, but not of `newest`.
    fn shrink(&mut self, newest: &QueueId) {
        while self.written.len() > self.limits.messages || self.written_recipients > self.limits.recipients {
            let Some((_, oldest)) = self.written.first_key_value() else { break };
            if oldest == newest {
                break;
            }
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }
}

/// An unsettled message is written after this time.
const UNSETTLED_MS: u64 = 2_000;

impl Unwritten {
    fn is_ripe(&self, now: u64) -> bool {
        let settled = self.row.recipients.iter().all(|recipient| recipient.status.is_settled());
        settled || now.saturating_sub(self.since) >= UNSETTLED_MS
    }
}
