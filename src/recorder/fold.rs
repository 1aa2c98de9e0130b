//! The fold: records of the log become rows of messages, entries of recipients and counts.
//!
//! Rows of messages may be written twice, and the cursor lies before the first record whose row is not written. What
//! is added up may not: it goes into one batch with the place of the last record that was counted, and records up to
//! there are not counted again.

use super::known::{Cache, Known};
use super::news::News;
use super::people::People;
use super::sums::Sums;
use super::{COMMIT_EVERY, REOPEN_FIRST, Recorder};
use crate::event::payload::{Told, Visit};
use crate::event::{Bursts, Class, Event, Hit, HitFacts, HitKind, HitRef as Part, MachineReason, classify};
use crate::mail::{Address, Outcome, QueueId, Status};
use crate::rewrite::ReportFacts;
use crate::spool::{Cursor, MessageHead, Stored};
use crate::store::{
    Counter, Delay, ERASED, HitEntry, HitRef, MessageRow, RecipientRow, Store, StoreError, Write, counted_write,
    cursor_write, message, message_writes, time_writes,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// An unsettled message is written after this time.
const UNSETTLED_MS: u64 = 2_000;
/// Rows that are waiting force a commit.
const MAX_WAITING: usize = 2_000;
/// Rows of what is counted that force one: they are one batch, on which sled spends memory.
const MAX_COUNTED: usize = 4_000;
/// Writes in one batch of the store.
const MAX_BATCH: usize = 1_000;

pub(super) struct Fold<'a> {
    pub recorder: &'a Recorder,
    /// Up to where the log has been read.
    pub cursor: Cursor,
    /// The last record that is in the counts.
    counted: Option<Cursor>,
    rows: HashMap<QueueId, Dirty>,
    /// First unwritten record of each dirty row, in order.
    order: VecDeque<(Cursor, QueueId)>,
    pub messages: Cache,
    pub people: People,
    bursts: Bursts,
    sums: Sums,
    /// Counts how often the view was opened.
    pub opening: u64,
    /// When the view was made.
    made_at: u64,
    /// Webhooks have something to send once that is written.
    told: bool,
    /// What else goes with the counts.
    writes: Vec<Write>,
    committed: Instant,
    /// How long the store stays shut after it failed.
    pub reopen_after: std::time::Duration,
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
    pub fn new(recorder: &'a Recorder) -> Self {
        Self {
            recorder,
            cursor: Cursor::default(),
            counted: None,
            rows: HashMap::new(),
            order: VecDeque::new(),
            messages: Cache::default(),
            people: People::default(),
            bursts: Bursts::default(),
            sums: Sums::default(),
            opening: 0,
            made_at: 0,
            told: false,
            writes: Vec::new(),
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
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open(&dir)?;
            let (cursor, counted, made_at) = (store.cursor()?, store.counted()?, store.made_at()?);
            Ok::<_, StoreError>((store, cursor, counted, made_at))
        });
        match opened.await {
            Ok(Ok((store, cursor, counted, made_at))) => {
                self.forget();
                self.opening += 1;
                self.recorder.store.store(Some(Arc::new(store)));
                (self.cursor, self.counted, self.made_at) = (cursor, counted, made_at);
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

    /// All that is not written.
    fn forget(&mut self) {
        self.rows.clear();
        self.order.clear();
        self.messages.clear();
        self.people.clear();
        self.bursts = Bursts::default();
        self.sums.clear();
        self.writes.clear();
    }

    pub fn is_clean(&self) -> bool {
        self.rows.is_empty() && self.waiting() == 0
    }

    /// Writes of what is counted, about.
    fn waiting(&self) -> usize {
        self.people.changed() + self.sums.len() + self.writes.len()
    }

    /// No more may be folded before a commit.
    pub fn is_full(&self) -> bool {
        self.waiting() >= MAX_COUNTED
    }

    pub fn record(&mut self, place: Cursor, record: Stored, now: u64) {
        let is_new = self.counted.is_none_or(|counted| place > counted);
        match record {
            Stored::Message { id, head, statuses, again } => {
                self.message(place, id, head, (statuses, again), is_new, now);
            }
            Stored::Outcomes { id, outcomes, report } => self.outcomes(place, &id, outcomes, report, is_new, now),
            Stored::Hits(hits) if is_new => self.hits(place, &hits),
            Stored::Hits(_) | Stored::Setting { .. } => {}
        }
        if is_new && self.store().is_some() {
            self.counted = Some(place);
        }
    }

    fn message(
        &mut self,
        place: Cursor,
        id: QueueId,
        head: Arc<MessageHead>,
        (statuses, again): (Option<Vec<Outcome>>, bool),
        is_new: bool,
        now: u64,
    ) {
        if again && self.store().is_some_and(|store| message(&store, &id).is_ok_and(|found| found.is_some())) {
            // Moved on by compaction: the view has it from its first place.
            return;
        }
        let queued =
            |_| RecipientRow { status: Status::Queued, reply: Box::default(), at: head.accepted_at, delay: None };
        let mut recipients: Vec<_> = head.envelope.recipients.iter().map(queued).collect();
        let mut known = Known::new(Arc::clone(&head));
        for outcome in statuses.into_iter().flatten() {
            known.note(&outcome);
            set(&mut recipients, outcome);
        }
        if is_new && !again {
            self.tell(|| Event::sent(id, head.accepted_at));
            if self.store().is_some() {
                self.sums.accepted(&known);
                let mut news = News::new(&self.recorder.webhooks, place, self.made_at);
                for recipient in (0u16..).take(if news.is_idle() { 0 } else { known.delivered.len() }) {
                    let told = (Told::Sent, known.head.accepted_at, 0);
                    news.tell(&known, id, recipient, told, &mut self.writes);
                }
                self.told |= !news.is_idle();
            }
        }
        self.messages.put(id, known);
        let row = MessageRow { head, recipients, report: None };
        self.dirty(place, id, Dirty { row, chunks: 0, first: place, since: now });
    }

    fn outcomes(
        &mut self,
        place: Cursor,
        id: &QueueId,
        outcomes: Vec<Outcome>,
        report: Option<bytes::Bytes>,
        is_new: bool,
        now: u64,
    ) {
        self.find_row(place, id, now);
        let store = self.store();
        let Ok(Some(known)) = self.messages.find(id, store.as_deref()) else {
            // Without the message's record the address is not at hand, and the event is told without it.
            outcomes.iter().filter_map(|outcome| Event::of_outcome(*id, None, outcome)).for_each(|e| self.tell(|| e));
            return;
        };
        outcomes.iter().for_each(|outcome| known.note(outcome));
        if let Some(facts) = report.as_deref().and_then(ReportFacts::from_kept)
            && known.facts.is_none()
        {
            known.facts = Some(facts);
            if is_new && store.is_some() {
                self.sums.planned(known, &facts, outcomes.first().map_or(now, |outcome| outcome.at));
            }
        }
        let dirty = self.rows.get_mut(id);
        let mut news = News::new(&self.recorder.webhooks, place, self.made_at);
        self.told |= is_new && !news.is_idle();
        for outcome in &outcomes {
            let to = known.head.envelope.recipients.get(usize::from(outcome.recipient)).map(|r| &r.address);
            if self.recorder.events.receiver_count() > 0
                && let Some(event) = Event::of_outcome(*id, to, outcome)
            {
                let _ = self.recorder.events.send(Arc::new(event));
            }
            let before = dirty.as_ref().and_then(|d| d.row.recipients.get(usize::from(outcome.recipient)));
            if let (true, Some(before)) = (is_new, before) {
                let tracked = to.is_some_and(|to| !(self.recorder.left_alone)(known.domain(), to));
                self.sums.outcome(known, before, outcome, tracked);
                if let Some(told) = told_of(before, outcome) {
                    news.tell(known, *id, outcome.recipient, (told, outcome.at, 0), &mut self.writes);
                }
            }
        }
        let Some(dirty) = dirty else { return };
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

    fn hits(&mut self, place: Cursor, hits: &[Hit]) {
        let store = self.store();
        let mut times = Vec::new();
        let mut news = News::new(&self.recorder.webhooks, place, self.made_at);
        self.told |= !news.is_idle();
        for hit in hits {
            let recorded = self.hit(store.as_deref(), hit, &mut news);
            match recorded {
                Ok(entry) => times.extend(entry.map(|entry| (hit.at, entry))),
                Err(e) => tracing::error!(queue_id = %hit.id, "the store cannot be read: {e}"),
            }
        }
        time_writes(place, times, &mut self.writes);
    }

    fn hit(&mut self, store: Option<&Store>, hit: &Hit, news: &mut News) -> Result<Option<HitRef>, StoreError> {
        let known = self.messages.find(&hit.id, store)?;
        // Without a word of its delivery it cannot be judged by the time since.
        let delivered = known.as_ref().map(|known| known.delivered_at(hit.recipient, hit.at)).filter(|at| *at > 0);
        let mut class = classify(hit, delivered, &self.recorder.machines.load());
        let links =
            known.as_ref().and_then(|known| known.facts).map(|facts| u16::try_from(facts.links).unwrap_or(u16::MAX));
        let verdict = match (&hit.kind, &class) {
            // An image proxy's opens come from few addresses for many people, and are known for what they are.
            (HitKind::Open, Class::Machine(_)) => None,
            _ => Some(self.bursts.note(hit, links)),
        };
        let (this, earlier) = verdict.map_or((None, Vec::new()), |verdict| (verdict.this, verdict.earlier));
        if let (Some(reason), false) = (this, matches!(class, Class::Machine(_))) {
            class = Class::Machine(reason);
        }
        let to = known.as_ref().and_then(|known| known.head.envelope.recipients.get(usize::from(hit.recipient)));
        let to = to.map(|recipient| recipient.address.clone());
        let mut entry = None;
        let keeps_traces = !self.recorder.keeping.load().traces.is_zero();
        match (known, store) {
            (Some(known), Some(store)) => {
                let is_unseen = |to: &Address| to.as_str() == ERASED || (self.recorder.left_alone)(known.domain(), to);
                if to.as_ref().is_some_and(is_unseen) {
                    // They do not want to be seen, or were forgotten.
                    return Ok(None);
                }
                let noted = self.people.note(store, known, hit, class, &mut self.sums)?;
                (class, entry) = (noted.class, noted.entry);
                if let Some(entry) = entry {
                    let (address, agent) = if keeps_traces { (Some(hit.address), &*hit.agent) } else { (None, "") };
                    let visit = Visit { at: hit.at, address, agent, class: &class };
                    let told = match &hit.kind {
                        HitKind::Open => Told::Opened(visit),
                        HitKind::Click { url, .. } => Told::Clicked { visit, link: url },
                    };
                    let told = (told, hit.at, u64::from(entry.number));
                    news.tell(known, hit.id, hit.recipient, told, &mut self.writes);
                }
                self.relabel(store, earlier)?;
            }
            // The message was forgotten, so this is nobody's; it happened all the same.
            (None, Some(_)) => {
                let counter = match (&hit.kind, &class) {
                    (HitKind::Open, Class::Machine(_)) => Counter::OpensMachine,
                    (HitKind::Open, _) => Counter::OpensHuman,
                    (HitKind::Click { .. }, Class::Machine(_)) => Counter::ClicksMachine,
                    (HitKind::Click { .. }, Class::Human) => Counter::ClicksHuman,
                    (HitKind::Click { .. }, Class::Unknown(_)) => Counter::ClicksUnknown,
                };
                self.sums.add_for(None, hit.at, counter, i64::from(hit.count));
            }
            (_, None) => {}
        }
        metrics::counter!("trackpost_hits_total", "class" => class.word()).increment(u64::from(hit.count));
        if self.recorder.events.receiver_count() > 0 {
            let facts = HitFacts {
                id: hit.id,
                recipient: hit.recipient,
                number: entry.map_or(u32::MAX, |entry| entry.number),
                kind: &hit.kind,
                at: hit.at,
                count: hit.count,
                class: &class,
                address: Some(hit.address).filter(|_| keeps_traces),
                agent: if keeps_traces { &hit.agent } else { "" },
            };
            let _ = self.recorder.events.send(Arc::new(Event::of_hit(facts, to.as_ref())));
        }
        Ok(entry)
    }

    /// Gives hits another label, now that others have shown what they were part of.
    fn relabel(&mut self, store: &Store, hits: Vec<(Part, MachineReason)>) -> Result<(), StoreError> {
        for (hit, reason) in hits {
            let Some(known) = self.messages.find(&hit.id, Some(store))? else { continue };
            let is_it = |entry: &HitEntry| {
                entry.at == hit.at && entry.link() == hit.link && entry.address.is_none_or(|a| a == hit.address)
            };
            let (whose, class) = ((hit.id, hit.recipient), Class::Machine(reason));
            if self.people.relabel(store, known, (whose, &is_it), &class, &mut self.sums)?.is_some() {
                metrics::counter!("trackpost_hits_relabelled_total").increment(1);
            }
        }
        Ok(())
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

    pub fn commit_is_due(&self, now: u64) -> bool {
        let waiting = self.rows.len() + self.waiting();
        waiting >= MAX_WAITING && self.committed.elapsed() > COMMIT_EVERY / 2
            || waiting > 0 && self.committed.elapsed() > COMMIT_EVERY && self.has_ripe(now)
            || self.committed.elapsed() > COMMIT_EVERY * 40
    }

    fn has_ripe(&self, now: u64) -> bool {
        self.waiting() > 0 || self.rows.values().any(|dirty| dirty.is_ripe(now))
    }

    /// Writes what is counted, the rows that are ripe, or all, and the cursor.
    pub async fn commit(&mut self, now: u64, all: bool) {
        let Some(store) = self.store() else { return };
        let mut counted = std::mem::take(&mut self.writes);
        self.people.take(!self.recorder.keeping.load().traces.is_zero(), &mut counted);
        self.sums.take(&mut counted);
        if let (Some(place), false) = (self.counted, counted.is_empty()) {
            counted.push(counted_write(place));
        }
        let mut batches = vec![counted, Vec::new()];
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
                if std::mem::take(&mut self.told) {
                    self.recorder.webhooks.kick.notify_one();
                }
                self.reopen_after = REOPEN_FIRST;
            }
            Err(e) => {
                tracing::error!("the store cannot be written, so history stops; mail and links go on: {e}");
                metrics::counter!("trackpost_store_write_failures_total").increment(1);
                // Shut it: opening it again goes back to its cursor, and folds again what was not written.
                self.recorder.store.store(None);
                self.forget();
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

/// What webhooks are told of an outcome: each step of a copy once.
fn told_of<'a>(before: &RecipientRow, outcome: &'a Outcome) -> Option<Told<'a>> {
    if before.status.is_settled() {
        return None;
    }
    match outcome.status {
        Status::Delivered | Status::Relayed => Some(Told::Delivered),
        Status::Bounced => Some(Told::Bounced { reply: &outcome.reply, gave_up: outcome.reply.starts_with('4') }),
        Status::Removed => Some(Told::Failed { reason: "removed_by_operator" }),
        Status::Suppressed => Some(Told::Failed { reason: "suppressed" }),
        Status::Deferred { .. } => before.delay.is_none().then_some(Told::DeliveryDelayed),
        Status::Queued | Status::Held => None,
    }
}

fn set(recipients: &mut [RecipientRow], outcome: Outcome) {
    let Some(recipient) = recipients.get_mut(usize::from(outcome.recipient)) else { return };
    let delay = match outcome.status {
        Status::Deferred { .. } if recipient.delay.is_none() => {
            Some(Delay { at: outcome.at, reply: outcome.reply.clone() })
        }
        _ => recipient.delay.take(),
    };
    *recipient = RecipientRow { status: outcome.status, reply: outcome.reply, at: outcome.at, delay };
}
