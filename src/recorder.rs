//! Folds the log into the store: one row a message when it settles, or after two seconds if it has not, and again on
//! later changes; rows of hits; and a stream of events for those who watch.
//!
//! The cursor that goes with each batch lies before the first record whose row is not written yet. After a crash the
//! records behind it are folded again, and since every row's key comes from the record, that changes nothing. The
//! log frees segments only behind the cursor.
//!
//! A store that does not open takes history away, and nothing else: this module then goes on folding for those who
//! watch, and tries again to open it.

use crate::clock;
use crate::event::{Class, Event, Hit, MachineList, classify};
use crate::mail::{Outcome, QueueId, Status};
use crate::spool::{Cursor, Log, MessageHead, Stored};
use crate::store::{
    HitRow, MaybeStore, MessageRow, RecipientRow, Store, Write, cursor_write, hit_rows, message, message_writes,
};
use arc_swap::ArcSwap;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// An unsettled message is written after this time.
const UNSETTLED_MS: u64 = 2_000;
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// Rows that are waiting force a commit.
const MAX_WAITING: usize = 2_000;
/// Writes in one batch of the store.
const MAX_BATCH: usize = 1_000;
/// Records of the log that are read at once.
const READ_RECORDS: usize = 2_000;
/// Without anything to do.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Pauses before a store that failed is opened again: twice as long each time, until one commit succeeds.
const REOPEN_FIRST: Duration = Duration::from_secs(1);
const REOPEN_LAST: Duration = Duration::from_secs(60);
/// Deliveries are remembered this long, to tell clicks that came within two seconds of them.
const RECENT_MS: u64 = 10_000;
const MAX_RECENT: usize = 200_000;

/// What the recorder needs; made once.
pub struct Recorder {
    pub data_dir: PathBuf,
    pub log: Log,
    /// Set while the view is open, for those who read it.
    pub store: MaybeStore,
    pub events: broadcast::Sender<Arc<Event>>,
    /// Swapped at a reload.
    pub machines: Arc<ArcSwap<MachineList>>,
}

/// Folds until `stop` says so, then writes what it has.
pub async fn run(recorder: Recorder, mut stop: watch::Receiver<bool>) {
    let mut fold = Fold::new(&recorder);
    let mut opened = fold.open().await;
    loop {
        let batch = match recorder.log.read(fold.cursor, READ_RECORDS) {
            Ok(batch) => batch,
            Err(e) => {
                tracing::error!("the log cannot be read for the record: {e}");
                if paused(&mut stop, LOOK_EVERY).await {
                    break;
                }
                continue;
            }
        };
        if batch.lost {
            tracing::error!("history was given up: the log had to free what was not recorded yet");
            metrics::counter!("trackpost_history_lost_total").increment(1);
        }
        let idle = batch.next == fold.cursor;
        let now = clock::unix_ms();
        for (place, record) in batch.records {
            fold.record(place, record, now);
        }
        fold.cursor = batch.next;
        if fold.commit_is_due(now) {
            fold.commit(now, false).await;
        }
        if fold.store().is_none() && opened.elapsed() > fold.reopen_after {
            fold.reopen_after = (fold.reopen_after * 2).min(REOPEN_LAST);
            opened = fold.open().await;
        }
        if *stop.borrow() && idle {
            break;
        }
        if idle {
            // Wakes for something new, or to write what waits.
            let pause = match (fold.store(), fold.is_clean()) {
                (None, _) => fold.reopen_after.saturating_sub(opened.elapsed()).max(COMMIT_EVERY).min(LOOK_EVERY),
                (Some(_), true) => LOOK_EVERY,
                (Some(_), false) => COMMIT_EVERY,
            };
            let _ = tokio::time::timeout(pause, async {
                tokio::select! {
                    () = recorder.log.wait_for(fold.cursor) => {}
                    _ = stop.changed() => {}
                }
            })
            .await;
            // A little more may come with it; folding many records at once costs less.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    fold.commit(clock::unix_ms(), true).await;
}

async fn paused(stop: &mut watch::Receiver<bool>, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok()
}

struct Fold<'a> {
    recorder: &'a Recorder,
    /// Up to where the log has been read.
    cursor: Cursor,
    rows: HashMap<QueueId, Dirty>,
    /// First unwritten record of each dirty row, in order.
    order: VecDeque<(Cursor, QueueId)>,
    hits: Vec<Write>,
    recent: Recent,
    committed: Instant,
    /// How long the store stays shut after it failed.
    reopen_after: Duration,
}

/// A row with changes that the store does not have.
struct Dirty {
    row: MessageRow,
    /// Chunks that the store has of it.
    chunks: usize,
    first: Cursor,
    since: u64,
}

impl<'a> Fold<'a> {
    fn new(recorder: &'a Recorder) -> Self {
        Self {
            recorder,
            cursor: Cursor::default(),
            rows: HashMap::new(),
            order: VecDeque::new(),
            hits: Vec::new(),
            recent: Recent::default(),
            committed: Instant::now(),
            reopen_after: REOPEN_FIRST,
        }
    }

    fn store(&self) -> Option<Arc<Store>> {
        self.recorder.store.load_full()
    }

    /// Opens the view and goes back to where it stands; returns when that was tried.
    async fn open(&mut self) -> Instant {
        let dir = self.recorder.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open(&dir)?;
            let cursor = store.cursor()?;
            Ok::<_, crate::store::StoreError>((store, cursor))
        });
        match opened.await {
            Ok(Ok((store, cursor))) => {
                self.recorder.store.store(Some(Arc::new(store)));
                self.cursor = cursor;
                self.rows.clear();
                self.order.clear();
                self.hits.clear();
            }
            Ok(Err(e)) => {
                let folder = self.recorder.data_dir.join("store");
                tracing::error!(
                    "the store does not open, so history is not written; mail and links go on: {e} \
                     (stop, delete {} and start to have it made anew from the log)",
                    folder.display()
                );
                metrics::counter!("trackpost_store_open_failures_total").increment(1);
            }
            Err(e) => tracing::error!("opening the store was cut short: {e}"),
        }
        Instant::now()
    }

    fn is_clean(&self) -> bool {
        self.rows.is_empty() && self.hits.is_empty()
    }

    fn record(&mut self, place: Cursor, record: Stored, now: u64) {
        match record {
            Stored::Message { id, head, statuses, again } => self.message(place, id, head, statuses, again, now),
            Stored::Outcomes { id, outcomes, report } => self.outcomes(place, &id, outcomes, report, now),
            Stored::Hits(hits) => self.hit_record(place, hits),
            Stored::Setting { .. } => {}
        }
    }

    fn message(
        &mut self,
        place: Cursor,
        id: QueueId,
        head: Arc<MessageHead>,
        statuses: Option<Vec<Outcome>>,
        again: bool,
        now: u64,
    ) {
        if again && self.store().is_some_and(|store| message(&store, &id).is_ok_and(|found| found.is_some())) {
            // Moved on by compaction: the view has it from its first place.
            return;
        }
        let mut recipients: Vec<_> = head
            .envelope
            .recipients
            .iter()
            .map(|_| RecipientRow { status: Status::Queued, reply: Box::default(), at: head.accepted_at })
            .collect();
        statuses.into_iter().flatten().for_each(|outcome| set(&mut recipients, outcome));
        if !again {
            self.recent.accepted(&id, recipients.len(), head.accepted_at);
            self.tell(|| Event::sent(id, head.accepted_at));
        }
        let row = MessageRow { head, recipients, report: None };
        self.dirty(place, id, Dirty { row, chunks: 0, first: place, since: now });
    }

    fn outcomes(
        &mut self,
        place: Cursor,
        id: &QueueId,
        outcomes: Vec<Outcome>,
        report: Option<bytes::Bytes>,
        now: u64,
    ) {
        for outcome in &outcomes {
            if matches!(outcome.status, Status::Delivered | Status::Relayed) {
                self.recent.delivered(id, outcome.recipient, outcome.at);
            }
        }
        self.find_row(place, id, now);
        let head = self.rows.get(id).map(|dirty| Arc::clone(&dirty.row.head));
        if self.recorder.events.receiver_count() > 0 {
            for outcome in &outcomes {
                // Without a store the address is not at hand, and the event is told without it.
                let recipients = head.as_ref().map(|head| &head.envelope.recipients);
                let to = recipients.and_then(|all| all.get(usize::from(outcome.recipient))).map(|r| &r.address);
                if let Some(event) = Event::of_outcome(*id, to, outcome) {
                    let _ = self.recorder.events.send(Arc::new(event));
                }
            }
        }
        let Some(dirty) = self.rows.get_mut(id) else { return };
        if let Some(report) = report {
            dirty.row.report = Some(report.to_vec());
        }
        outcomes.into_iter().for_each(|outcome| set(&mut dirty.row.recipients, outcome));
    }

    /// Takes the row of a message from the store, if it is not at hand and there is one.
    fn find_row(&mut self, place: Cursor, id: &QueueId, now: u64) {
        if self.rows.contains_key(id) {
            return;
        }
        let Some(store) = self.store() else { return };
        match message(&store, id) {
            Ok(Some((row, chunks))) => self.dirty(place, *id, Dirty { row, chunks, first: place, since: now }),
            Ok(None) => {}
            Err(e) => tracing::error!(queue_id = %id, "the store cannot be read: {e}"),
        }
    }

    fn hit_record(&mut self, place: Cursor, hits: Vec<Hit>) {
        let machines = self.recorder.machines.load();
        let rows: Vec<_> = hits
            .into_iter()
            .map(|hit| {
                let class = classify(&hit, Some(self.recent.delivered_at(&hit)), &machines);
                HitRow { hit, class }
            })
            .collect();
        for row in &rows {
            self.tell(|| Event::of_hit(&row.hit, row.class.clone()));
            metrics::counter!("trackpost_hits_total", "class" => class_name(&row.class))
                .increment(u64::from(row.hit.count));
        }
        if self.store().is_some() {
            hit_rows(place, &rows, &mut self.hits);
        }
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if self.recorder.events.receiver_count() > 0 {
            let _ = self.recorder.events.send(Arc::new(event()));
        }
    }

    fn dirty(&mut self, place: Cursor, id: QueueId, dirty: Dirty) {
        if self.store().is_none() {
            return;
        }
        self.order.push_back((place, id));
        self.rows.insert(id, dirty);
    }

    fn commit_is_due(&self, now: u64) -> bool {
        let waiting = self.rows.len() + self.hits.len();
        waiting >= MAX_WAITING && self.committed.elapsed() > COMMIT_EVERY / 2
            || waiting > 0 && self.committed.elapsed() > COMMIT_EVERY && self.has_ripe(now)
            || self.committed.elapsed() > COMMIT_EVERY * 40
    }

    fn has_ripe(&self, now: u64) -> bool {
        !self.hits.is_empty() || self.rows.values().any(|dirty| dirty.is_ripe(now))
    }

    /// Writes what is ripe, or all, and the cursor.
    async fn commit(&mut self, now: u64, all: bool) {
        let Some(store) = self.store() else { return };
        let mut batches = vec![std::mem::take(&mut self.hits)];
        let ripe: Vec<_> = self.rows.iter().filter(|(_, d)| all || d.is_ripe(now)).map(|(id, _)| *id).collect();
        for id in ripe {
            if let Some(dirty) = self.rows.remove(&id) {
                if batches.last().is_none_or(|batch| batch.len() > MAX_BATCH) {
                    batches.push(Vec::new());
                }
                let Some(batch) = batches.last_mut() else { continue };
                message_writes(&id, &dirty.row, dirty.chunks, batch);
            }
        }
        while let Some((place, id)) = self.order.front() {
            if self.rows.get(id).is_some_and(|dirty| dirty.first == *place) {
                break;
            }
            self.order.pop_front();
        }
        let cursor = self.order.front().map_or(self.cursor, |(place, _)| *place);
        // Last, since what comes before it may be written twice but not be missed.
        batches.push(vec![cursor_write(cursor)]);
        match store.commit_in_order(batches).await {
            Ok(()) => {
                self.recorder.log.release(cursor);
                self.reopen_after = REOPEN_FIRST;
            }
            Err(e) => {
                tracing::error!("the store cannot be written, so history stops; mail and links go on: {e}");
                metrics::counter!("trackpost_store_write_failures_total").increment(1);
                // Shut it: opening it again goes back to its cursor, and folds again what was not written.
                self.recorder.store.store(None);
                self.rows.clear();
                self.order.clear();
            }
        }
        self.committed = Instant::now();
    }
}

impl Dirty {
    fn is_ripe(&self, now: u64) -> bool {
        let settled = self.row.recipients.iter().all(|recipient| recipient.status.is_settled());
        settled || now.saturating_sub(self.since) >= UNSETTLED_MS
    }
}

fn class_name(class: &Class) -> &'static str {
    match class {
        Class::Human => "human",
        Class::Machine(_) => "machine",
        Class::Unknown(_) => "unknown",
    }
}

fn set(recipients: &mut [RecipientRow], outcome: Outcome) {
    if let Some(recipient) = recipients.get_mut(usize::from(outcome.recipient)) {
        *recipient = RecipientRow { status: outcome.status, reply: outcome.reply, at: outcome.at };
    }
}

/// Deliveries of the last seconds.
#[derive(Default)]
struct Recent {
    deliveries: HashMap<(QueueId, u16), Lately>,
    order: VecDeque<(u64, QueueId, u16)>,
}

#[derive(Clone, Copy)]
struct Lately {
    noted_at: u64,
    /// `None`: accepted, and not delivered as far as the log tells.
    delivered: Option<u64>,
}

impl Recent {
    fn accepted(&mut self, id: &QueueId, recipients: usize, at: u64) {
        for recipient in 0..u16::try_from(recipients).unwrap_or(u16::MAX) {
            self.put(id, recipient, Lately { noted_at: at, delivered: None });
        }
    }

    fn delivered(&mut self, id: &QueueId, recipient: u16, at: u64) {
        self.put(id, recipient, Lately { noted_at: at, delivered: Some(at) });
    }

    fn put(&mut self, id: &QueueId, recipient: u16, lately: Lately) {
        let at = lately.noted_at;
        self.deliveries.insert((*id, recipient), lately);
        self.order.push_back((at, *id, recipient));
        while self.order.len() > MAX_RECENT
            || self.order.front().is_some_and(|(first, ..)| first.saturating_add(RECENT_MS) < at)
        {
            let Some((noted_at, id, recipient)) = self.order.pop_front() else { break };
            // A later entry of the same recipient keeps it.
            if self.deliveries.get(&(id, recipient)).is_some_and(|lately| lately.noted_at <= noted_at) {
                self.deliveries.remove(&(id, recipient));
            }
        }
    }

    /// When the copy that was hit had been delivered. A hit on a copy that was just accepted, whose delivery the log
    /// does not have yet, counts as one at the very moment of it; what is not remembered was delivered long ago.
    fn delivered_at(&self, hit: &Hit) -> u64 {
        match self.deliveries.get(&(hit.id, hit.recipient)) {
            Some(Lately { delivered: Some(at), .. }) => *at,
            Some(Lately { noted_at, .. }) if hit.at <= noted_at.saturating_add(RECENT_MS) => hit.at,
            _ => 0,
        }
    }
}
