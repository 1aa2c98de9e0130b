//! The fold: where it stands in the log, and what of it is not written yet. What records do is `records`'.
//!
//! Rows of messages may be written twice, and the cursor lies before the first record whose row is not written. What
//! is added up may not: it goes into one batch with the place of the last record that was counted, and records up to
//! there are not counted again. After an error all that is not written is forgotten, and the log is read again from the
//! cursor, so that nothing is counted past a record that was not.

use super::messages::Messages;
use super::people::People;
use super::sums::Sums;
use super::waiting::WaitingRoom;
use super::{COMMIT_EVERY, REOPEN_FIRST, Recorder};
use crate::event::{Bursts, Event, Floods};
use crate::spool::{Batch, Cursor, Stored};
use crate::store::{Begun, Store, StoreError, Write, begun_write, counted_write, cursor_write, message_writes};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// Rows that are waiting force a commit.
const MAX_WAITING: usize = 2_000;
/// Writes in one batch of the store.
const MAX_BATCH: usize = 1_000;

pub(super) struct Fold<'a> {
    pub recorder: &'a Recorder,
    /// Up to where the log has been read.
    pub cursor: Cursor,
    /// The last record that is in the counts.
    pub counted: Option<Cursor>,
    /// The same as the store has it.
    counted_written: Option<Cursor>,
    /// The last record that watchers were told of.
    pub shown: Option<Cursor>,
    /// Watchers know what is folded now.
    pub quiet: bool,
    pub messages: Messages,
    pub people: People,
    pub waiting: WaitingRoom,
    pub bursts: Bursts,
    pub floods: Floods,
    pub sums: Sums,
    /// Counts how often the view was opened.
    pub opening: u64,
    /// Where the view's news begin.
    pub begun: Begun,
    /// Webhooks have something to send once that is written.
    pub told: bool,
    /// What webhooks are told. It may be written twice.
    pub deliveries: Vec<Write>,
    /// What else goes with the counts.
    pub writes: Vec<Write>,
    /// Records that are passed over, since handling them panicked.
    skipped: BTreeSet<Cursor>,
    /// What waits for messages that do not come is not counted, since counting it panicked.
    drops_waiting: bool,
    committed: Instant,
    /// How long the store stays shut after it failed.
    pub reopen_after: std::time::Duration,
}

impl<'a> Fold<'a> {
    pub fn new(recorder: &'a Recorder) -> Self {
        Self {
            recorder,
            cursor: Cursor::default(),
            counted: None,
            counted_written: None,
            shown: None,
            quiet: false,
            messages: Messages::new(recorder.limits),
            people: People::new(recorder.limits),
            waiting: WaitingRoom::default(),
            bursts: Bursts::default(),
            floods: Floods::default(),
            sums: Sums::default(),
            opening: 0,
            begun: Begun::default(),
            told: false,
            deliveries: Vec::new(),
            writes: Vec::new(),
            skipped: BTreeSet::new(),
            drops_waiting: false,
            committed: Instant::now(),
            reopen_after: REOPEN_FIRST,
        }
    }

    pub fn store(&self) -> Option<Arc<Store>> {
        self.recorder.store.load_full()
    }

    /// Opens the view and goes back to where it stands; returns when that was tried.
    pub async fn open(&mut self) -> Instant {
        let dir = self.recorder.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir));
        let begun = match opened.await {
            Ok(Ok(store)) => self.begin(Arc::new(store)).await,
            Ok(Err(e)) => Err(e),
            Err(e) => Err(StoreError::Failed(format!("opening it was cut short: {e}"))),
        };
        if let Err(e) = begun {
            let folder = self.recorder.data_dir.join("store");
            tracing::error!(
                "the store does not open, so history is not written; mail and links go on: {e} \
                 (stop, delete {} and start to have it made anew from the log)",
                folder.display()
            );
            metrics::counter!("trackpost_store_open_failures_total").increment(1);
        }
        Instant::now()
    }

    /// Goes on with a view where it stands.
    pub async fn begin(&mut self, store: Arc<Store>) -> Result<(), StoreError> {
        let begun = match store.begun()? {
            Some(begun) => begun,
            None => {
                // A view of a version that did not know the place goes by its time for what the log has already.
                let is_new = store.counted()?.is_none() && store.cursor()? == Cursor::default();
                let since = if is_new { u64::MAX } else { store.made_at()? };
                let begun = Begun { place: self.recorder.log.end(), since };
                store.commit(vec![begun_write(begun)]).await?;
                begun
            }
        };
        self.go_back(&store)?;
        // At once: on a full disk the log waits a few seconds for it before it frees what nobody may have read.
        self.recorder.log.release(self.cursor);
        self.begun = begun;
        self.opening += 1;
        self.recorder.store.store(Some(store));
        Ok(())
    }

    /// Forgets all that is not written, and goes back to what is.
    fn go_back(&mut self, store: &Store) -> Result<(), StoreError> {
        self.forget();
        self.waiting = WaitingRoom::open(store)?;
        (self.cursor, self.counted) = (store.cursor()?, store.counted()?);
        self.counted_written = self.counted;
        Ok(())
    }

    /// All that is not written.
    fn forget(&mut self) {
        self.messages.clear();
        self.people.clear();
        self.waiting = WaitingRoom::default();
        self.bursts = Bursts::default();
        self.floods = Floods::default();
        self.sums.clear();
        self.deliveries.clear();
        self.writes.clear();
    }

    /// Shuts the store: opening it again goes back to its cursor, and folds again what was not written.
    fn shut(&mut self) {
        self.recorder.store.store(None);
        self.forget();
    }

    pub fn is_clean(&self) -> bool {
        self.messages.is_clean() && self.waiting() == 0
    }

    /// Writes of what is counted, about.
    fn waiting(&self) -> usize {
        self.people.changed() + self.sums.len() + self.writes.len() + self.deliveries.len() + self.waiting.unwritten()
    }

    /// No more may be folded before a commit.
    pub fn is_full(&self) -> bool {
        self.waiting() >= self.recorder.limits.counted || self.messages.is_full()
    }

    /// Folds in what was read from the log, up to its end. False when the fold had to go back.
    pub async fn take_all(&mut self, batch: Batch, now: u64) -> bool {
        for (place, record) in batch.records {
            if !self.take(place, record, now).await {
                return false;
            }
        }
        self.cursor = batch.next;
        true
    }

    /// Folds a record in, and commits where there is much to write. False when the fold had to go back: what follows in
    /// the log must be read again.
    pub async fn take(&mut self, place: Cursor, record: Stored, now: u64) -> bool {
        if self.skipped.contains(&place) {
            self.pass(place);
            return true;
        }
        let name = Name::of(&record);
        let folded = catch_unwind(AssertUnwindSafe(|| self.record(place, record, now)));
        if !self.ended_well(folded, Some((place, name))) {
            return false;
        }
        if self.is_full() {
            self.commit(now, false).await;
        }
        // Too many wait to go on with: most are of messages that were forgotten.
        self.waiting.came() < self.recorder.limits.waiting || self.give_up_waiting(now).await
    }

    /// Counts what waited for messages that did not come: the log was read to its end. False when the fold had to go
    /// back.
    pub async fn give_up_waiting(&mut self, now: u64) -> bool {
        while !self.waiting.is_empty() && self.store().is_some() {
            if self.waiting.is_outdated() && !self.commit(now, false).await {
                return false;
            }
            let counts = !std::mem::take(&mut self.drops_waiting);
            let given_up = catch_unwind(AssertUnwindSafe(|| self.take_from_waiting(counts)));
            if !self.ended_well(given_up, None) {
                return false;
            }
        }
        true
    }

    /// What comes of an error or a panic: the fold goes back, and a record whose handling panicked is passed over from
    /// then on.
    pub fn ended_well(
        &mut self,
        ended: std::thread::Result<Result<(), StoreError>>,
        record: Option<(Cursor, Name)>,
    ) -> bool {
        match ended {
            Ok(Ok(())) => return true,
            Ok(Err(e)) => {
                tracing::error!("the store cannot be read, so history stops; mail and links go on: {e}");
                metrics::counter!("trackpost_store_read_failures_total").increment(1);
                self.shut();
            }
            Err(panic) => {
                let why = panic.downcast_ref::<String>().map(String::as_str);
                let why = why.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
                let (place, name) = record.map_or((self.cursor, Name::default()), |record| record);
                tracing::error!(
                    segment = place.segment, offset = place.offset, kind = name.kind, queue_id = %name.id(),
                    "a record of the log is left out of the history, since handling it panicked: {why}"
                );
                metrics::counter!("trackpost_records_skipped_total").increment(1);
                match record {
                    Some((place, _)) => drop(self.skipped.insert(place)),
                    None => self.drops_waiting = true,
                }
                let back = match self.store() {
                    Some(store) => self.go_back(&store),
                    None => {
                        self.forget();
                        Ok(())
                    }
                };
                if let Err(e) = back {
                    return self.ended_well(Ok(Err(e)), None);
                }
            }
        }
        false
    }

    /// Has `write` go with the counts.
    pub fn with_counts(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Writes what has nothing to do with the log's place. False when it could not be written.
    pub async fn write_aside(&mut self, store: &Store, writes: Vec<Write>) -> bool {
        if writes.is_empty() {
            return true;
        }
        match store.commit(writes).await {
            Ok(()) => true,
            Err(e) => {
                tracing::error!("the store cannot be written: {e}");
                false
            }
        }
    }

    /// Addresses and agents of hits are kept at all.
    pub fn keeps_traces(&self) -> bool {
        !self.recorder.keeping.load().traces.is_zero()
    }

    pub fn is_watched(&self) -> bool {
        !self.quiet && self.recorder.events.receiver_count() > 0
    }

    pub fn tell(&self, event: impl FnOnce() -> Event) {
        if self.is_watched() {
            let _ = self.recorder.events.send(Arc::new(event()));
        }
    }

    pub fn commit_is_due(&self, now: u64) -> bool {
        let waiting = self.messages.changed() + self.waiting();
        waiting >= MAX_WAITING && self.committed.elapsed() > COMMIT_EVERY / 2
            || waiting > 0 && self.committed.elapsed() > COMMIT_EVERY && self.has_ripe(now)
            || self.committed.elapsed() > COMMIT_EVERY * 40
    }

    fn has_ripe(&self, now: u64) -> bool {
        self.waiting() > 0 || self.messages.has_ripe(now)
    }

    /// Writes what is counted, the rows that are ripe, or all, and the cursor. False when it could not be written.
    pub async fn commit(&mut self, now: u64, all: bool) -> bool {
        let Some(store) = self.store() else { return false };
        let mut counted = std::mem::take(&mut self.writes);
        self.people.take(self.keeps_traces(), &mut counted);
        self.sums.take(&mut counted);
        self.waiting.write(&mut counted);
        if let Some(place) = self.counted.filter(|_| self.counted != self.counted_written) {
            counted.push(counted_write(place));
        }
        let mut rows = vec![Vec::new()];
        self.messages.take(now, all, |id, unwritten| {
            if rows.last().is_none_or(|batch| batch.len() > MAX_BATCH) {
                rows.push(Vec::new());
            }
            let batch = if unwritten.with_counts { Some(&mut counted) } else { rows.last_mut() };
            if let Some(batch) = batch {
                message_writes(id, &unwritten.row, unwritten.chunks, batch);
            }
        });
        let mut deliveries = std::mem::take(&mut self.deliveries).into_iter();
        let some = || Some(deliveries.by_ref().take(MAX_BATCH).collect::<Vec<_>>()).filter(|some| !some.is_empty());
        let mut batches: Vec<_> = std::iter::from_fn(some).collect();
        batches.push(counted);
        batches.append(&mut rows);
        let cursor = self.messages.first_unwritten().unwrap_or(self.cursor);
        // Last, since what comes before it may be written twice but not be missed.
        batches.push(vec![cursor_write(cursor)]);
        let written = store.commit_in_order(batches).await;
        match &written {
            Ok(()) => {
                self.counted_written = self.counted;
                self.recorder.log.release(cursor);
                if std::mem::take(&mut self.told) {
                    self.recorder.webhooks.kick.notify_one();
                }
                self.reopen_after = REOPEN_FIRST;
            }
            Err(e) => {
                tracing::error!("the store cannot be written, so history stops; mail and links go on: {e}");
                metrics::counter!("trackpost_store_write_failures_total").increment(1);
                self.shut();
            }
        }
        self.committed = Instant::now();
        written.is_ok()
    }
}

/// Names a record for the operator.
#[derive(Clone, Copy, Default)]
pub(super) struct Name {
    kind: &'static str,
    id: Option<crate::mail::QueueId>,
}

impl Name {
    fn of(record: &Stored) -> Self {
        let (kind, id) = match record {
            Stored::Message { id, .. } => ("message", Some(*id)),
            Stored::Outcomes { id, .. } => ("outcomes", Some(*id)),
            Stored::Hits(hits) => ("hits", hits.first().map(|hit| hit.id)),
            Stored::Setting { .. } | Stored::Settings(_) => ("setting", None),
        };
        Self { kind, id }
    }

    fn id(self) -> String {
        self.id.map_or_else(|| "none".to_owned(), |id| id.to_string())
    }
}
