//! Hits and outcomes whose message was not met yet: it may stand later in the log.
//!
//! They are written with the counts, so that what is counted may go past them, and come back when the message does. Once
//! the log was read to its end, no message comes any more.

use crate::mail::QueueId;
use crate::spool::Cursor;
use crate::store::{Store, StoreError, Waiting, WaitingPlace, Write, waiting, waiting_deletes, waiting_writes};
use std::collections::BTreeMap;

/// Rows of the store that are read at once.
const ROWS: usize = 500;

#[derive(Default)]
pub(super) struct WaitingRoom {
    unwritten: BTreeMap<WaitingPlace, Waiting>,
    /// The store may have some.
    stored: bool,
    /// It still has some that do not wait any more.
    outdated: bool,
    /// How many came in since it was empty.
    came: usize,
}

impl WaitingRoom {
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { stored: !waiting(store, None, 1)?.is_empty(), ..Self::default() })
    }

    pub fn is_empty(&self) -> bool {
        self.unwritten.is_empty() && !self.stored
    }

    /// Those that the store does not have.
    pub fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// How many came in since it was empty.
    pub fn came(&self) -> usize {
        self.came
    }

    pub fn put(&mut self, place: WaitingPlace, what: Waiting) {
        self.came += 1;
        self.unwritten.insert(place, what);
    }

    /// What waits for a message, in the order of the log; it does not any more.
    pub fn take(
        &mut self,
        id: &QueueId,
        store: &Store,
        out: &mut Vec<Write>,
    ) -> Result<Vec<(WaitingPlace, Waiting)>, StoreError> {
        let mut found = Vec::new();
        if self.stored {
            for stored in waiting(store, Some(id), usize::MAX)? {
                waiting_deletes(&stored, out);
                found.push((stored.0, stored.1));
                self.outdated = true;
            }
        }
        let unwritten = |id| (id, Cursor::default(), 0);
        let mine: Vec<_> = self
            .unwritten
            .range(unwritten(*id)..)
            .map(|(place, _)| *place)
            .take_while(|place| place.0 == *id)
            .collect();
        found.extend(mine.into_iter().filter_map(|place| self.unwritten.remove_entry(&place)));
        Ok(found)
    }

    /// What is in the store is out of date, and must be written before [`Self::take_some`].
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Some of all that waits.
    pub fn take_some(
        &mut self,
        store: &Store,
        out: &mut Vec<Write>,
    ) -> Result<Vec<(WaitingPlace, Waiting)>, StoreError> {
        let stored = if self.stored { waiting(store, None, ROWS)? } else { Vec::new() };
        self.stored = !stored.is_empty();
        if stored.is_empty() {
            self.came = 0;
            return Ok(std::mem::take(&mut self.unwritten).into_iter().collect());
        }
        stored.iter().for_each(|stored| waiting_deletes(stored, out));
        self.outdated = true;
        Ok(stored.into_iter().map(|(place, what, _)| (place, what)).collect())
    }

    /// The writes that keep what waits.
    pub fn write(&mut self, out: &mut Vec<Write>) {
        self.stored |= !self.unwritten.is_empty();
        self.outdated = false;
        for (place, what) in std::mem::take(&mut self.unwritten) {
            waiting_writes(place, &what, out);
        }
    }
}
