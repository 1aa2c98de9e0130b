//! Whatever happens in between, the store holds in the end what a plain fold of the log says: with hardly any room in
//! memory, commits at any moment, a store that cannot be read or written for a while, crashes, a log that loses its
//! oldest part to compaction, and a store that is deleted.
//!
//! One long file, since the steps, the world they happen in and the plain fold beside it read as one argument.

use super::fold::Fold;
use super::tests::{DELIVERED, FIREFOX, FOREVER, head, recorder, report};
use super::*;
use crate::event::{Hit, HitKind, SigningSecret};
use crate::mail::{Outcome, QueueId, Status};
use crate::settings::{Change, Settings, Webhook};
use crate::spool::{AppendError, Batch, Cursor, MessageHead, Options, Stored};
use crate::store::{self, Begun, Counter, Counts, Scope, Store, begun_write};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use uuid::Uuid;

pub(super) const HOOK: Uuid = Uuid::from_u128(7);
const PROXY: &str = "Mozilla/5.0 (via ggpht.com GoogleImageProxy)";
const HOUR: u64 = 3_600_000;
const EVENTS: [&str; 7] = [
    "email.sent",
    "email.delivered",
    "email.delivery_delayed",
    "email.bounced",
    "email.failed",
    "email.opened",
    "email.clicked",
];

#[derive(Clone, Debug)]
enum Step {
    Message(usize),
    /// The same id once more, as a notice after a crash has.
    Twice(usize),
    Outcome(usize, u16, u8),
    Hit(usize, u16, u8),
    Repeat,
    Stranger,
    /// Frees the oldest part of the log, as far as it may, and writes again what of it is in the queue.
    Compact(u8),
    Fold(usize),
    Commit(bool),
    /// So many reads of the store go well, then none.
    Unreadable(usize),
    Unwritable(usize),
    Crash,
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..5).prop_map(Step::Message),
        1 => any::<usize>().prop_map(Step::Twice),
        10 => (any::<usize>(), 0u16..5, any::<u8>()).prop_map(|(n, place, how)| Step::Outcome(n, place, how)),
        8 => (any::<usize>(), 0u16..4, any::<u8>()).prop_map(|(n, place, how)| Step::Hit(n, place, how)),
        2 => Just(Step::Repeat),
        1 => Just(Step::Stranger),
        3 => any::<u8>().prop_map(Step::Compact),
        8 => (1usize..12).prop_map(Step::Fold),
        3 => any::<bool>().prop_map(Step::Commit),
        2 => (0usize..12).prop_map(Step::Unreadable),
        2 => (0usize..5).prop_map(Step::Unwritable),
        2 => Just(Step::Crash),
        2 => Just(Step::Delete),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1usize..4, 1usize..6, 1usize..6, 1usize..8, 1usize..20, 1usize..3, 1usize..5).prop_map(
        |(messages, recipients, unwritten_messages, unwritten_recipients, counted, people, hits)| Limits {
            messages,
            recipients,
            unwritten_messages,
            unwritten_recipients,
            counted,
            people,
            hits,
            waiting: 1_000,
        },
    )
}

/// The log of the model: what it still has, and what a store that was begun now has been told of.
#[derive(Default)]
struct ModelLog {
    kept: Vec<(Cursor, Stored)>,
    told: Vec<(Cursor, Stored)>,
    /// What is in the queue: its head, its statuses, and where it lies.
    queue: BTreeMap<QueueId, (Arc<MessageHead>, Vec<Outcome>, Cursor)>,
    ids: Vec<QueueId>,
    end: u64,
    hits: u64,
    last_hit: Option<Hit>,
}

impl ModelLog {
    fn cursor(offset: u64) -> Cursor {
        Cursor { segment: 1, offset }
    }

    fn append(&mut self, record: Stored) {
        let place = Self::cursor(self.end + 1);
        self.end += 1;
        self.kept.push((place, record.clone()));
        self.told.push((place, record));
    }

    fn any(&self, n: usize) -> Option<QueueId> {
        (!self.ids.is_empty()).then(|| self.ids[n % self.ids.len()])
    }

    fn message(&mut self, recipients: usize) {
        let n = self.ids.len() as u64;
        let (id, head) = (super::tests::id(n), head(n, recipients));
        self.ids.push(id);
        let queued = |recipient| Outcome { recipient, status: Status::Queued, reply: "".into(), at: head.accepted_at };
        let statuses = (0..recipients as u16).map(queued).collect();
        self.queue.insert(id, (Arc::clone(&head), statuses, Self::cursor(self.end + 1)));
        self.append(Stored::Message { id, head, again: false, statuses: None });
    }

    /// Like the log's own fold: a settled message is not in the queue.
    fn outcome(&mut self, id: QueueId, place: u16, how: u8) {
        let Some((_, statuses, _)) = self.queue.get_mut(&id) else { return };
        let Some(before) = statuses.get_mut(usize::from(place)).filter(|o| !o.status.is_settled()) else { return };
        let (status, reply) = match how % 8 {
            0..=2 => (Status::Relayed, "250 ok"),
            3 => (Status::Bounced, "550 no"),
            4 => (Status::Bounced, "451 given up"),
            5 => (Status::Removed, ""),
            6 => (Status::Held, ""),
            _ => (Status::Deferred { attempts: 1, next: 0, age: 0, told: false }, "451 later"),
        };
        let outcome = Outcome { recipient: place, status, reply: reply.into(), at: DELIVERED + self.end };
        *before = outcome.clone();
        if statuses.iter().all(|outcome| outcome.status.is_settled()) {
            self.queue.remove(&id);
        }
        let report = (how & 128 != 0).then(report);
        self.append(Stored::Outcomes { id, outcomes: vec![outcome], report });
    }

    fn hit(&mut self, id: QueueId, recipient: u16, how: u8) {
        // Far from each other, so that none is part of a burst.
        self.hits += 1;
        let kind = match how % 3 {
            0 => HitKind::Click { link: 1, url: "https://example.com/".into() },
            _ => HitKind::Open,
        };
        let agent = if how % 3 == 1 { PROXY } else { FIREFOX };
        let (at, address) = (DELIVERED + self.hits * HOUR, [192, 0, 2, 1].into());
        let hit = Hit { id, recipient, kind, at, count: 1, address, agent: agent.into(), head: false, repeat: false };
        self.last_hit = Some(hit.clone());
        self.append(Stored::Hits(vec![hit]));
    }

    /// Frees what lies before a part of what the reader has released.
    fn compact(&mut self, released: Cursor, part: u8) {
        let cut = Self::cursor(released.offset * u64::from(part) / 255);
        self.kept.retain(|(place, _)| *place >= cut);
        let moved: Vec<_> = self.queue.iter().filter(|(_, live)| live.2 < cut).map(|(id, _)| *id).collect();
        for id in moved {
            let place = Self::cursor(self.end + 1);
            let Some((head, statuses, lies)) = self.queue.get_mut(&id) else { continue };
            *lies = place;
            let (head, statuses) = (Arc::clone(head), Some(statuses.clone()));
            self.append(Stored::Message { id, head, again: true, statuses });
        }
    }
}

/// What the store should have.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    counts: BTreeMap<Counter, i64>,
    statuses: BTreeMap<QueueId, Vec<(Status, Option<u64>)>>,
    /// Counts of the entries of each recipient.
    entries: BTreeMap<(QueueId, u16), Vec<u32>>,
    webhooks: Vec<(String, QueueId, u64)>,
}

/// A plain fold: of each message first its own record, then all that was told of it.
fn plain(log: &ModelLog, begun: Cursor) -> Wanted {
    let mut wanted = Wanted::default();
    let mut about: BTreeMap<QueueId, Vec<(Cursor, &Stored)>> = BTreeMap::new();
    for (place, record) in &log.told {
        let id = match record {
            Stored::Message { id, .. } | Stored::Outcomes { id, .. } => *id,
            Stored::Hits(hits) => hits[0].id,
            Stored::Setting { .. } | Stored::Settings(_) => continue,
        };
        about.entry(id).or_default().push((*place, record));
    }
    for (id, records) in about {
        one_message(id, &records, begun, &mut wanted);
    }
    wanted.counts.retain(|_, count| *count != 0);
    wanted.webhooks.sort();
    wanted
}

/// Something that happened to a message; what its record written again tells is nobody's news.
enum Happened<'a> {
    Outcome { outcome: &'a Outcome, has_report: bool, news: Option<Cursor> },
    Hit(&'a Hit, Cursor),
}

fn one_message(id: QueueId, records: &[(Cursor, &Stored)], begun: Cursor, wanted: &mut Wanted) {
    let mut counts = BTreeMap::<Counter, i64>::new();
    let mut add = |counter, more: u32| *counts.entry(counter).or_default() += i64::from(more);
    let mut tell = |place: Cursor, kind: &str, at: u64| {
        if place >= begun {
            wanted.webhooks.push((kind.to_owned(), id, at));
        }
    };
    let own = records.iter().find_map(|(place, record)| match record {
        Stored::Message { head, statuses, again, .. } => Some((*place, head, statuses, *again)),
        _ => None,
    });
    let mut states = Vec::new();
    let mut all = Vec::new();
    if let Some((place, head, statuses, again)) = own {
        let recipients = head.envelope.recipients.len();
        add(Counter::Messages, 1);
        add(Counter::Sent, recipients as u32);
        states = vec![(Status::Queued, None, false); recipients];
        (0..if again { 0 } else { recipients }).for_each(|_| tell(place, "email.sent", head.accepted_at));
        let is_told = |recipient| {
            records.iter().take_while(|(at, _)| *at < place).any(
                |(_, record)| matches!(record, Stored::Outcomes { outcomes, .. } if outcomes[0].recipient == recipient),
            )
        };
        let folded = statuses.iter().flatten().filter(|outcome| !is_told(outcome.recipient));
        all.extend(folded.map(|outcome| Happened::Outcome { outcome, has_report: false, news: None }));
    }
    for (place, record) in records {
        match record {
            Stored::Message { statuses, .. } if own.is_some_and(|own| own.0 < *place) => {
                let again = statuses.iter().flatten();
                all.extend(again.map(|outcome| Happened::Outcome { outcome, has_report: false, news: None }));
            }
            Stored::Outcomes { outcomes, report, .. } => {
                all.push(Happened::Outcome { outcome: &outcomes[0], has_report: report.is_some(), news: Some(*place) })
            }
            Stored::Hits(hits) => all.push(Happened::Hit(&hits[0], *place)),
            Stored::Message { .. } | Stored::Setting { .. } | Stored::Settings(_) => {}
        }
    }
    let mut is_planned = false;
    let mut entries: BTreeMap<u16, Vec<(u32, Counter, &Hit)>> = BTreeMap::new();
    let mut seen: BTreeSet<(u16, bool, bool)> = BTreeSet::new();
    for happened in all {
        match happened {
            Happened::Outcome { .. } if own.is_none() => {}
            Happened::Outcome { outcome, has_report, news } => {
                if has_report && !std::mem::replace(&mut is_planned, true) {
                    add(Counter::Tracked, 1);
                }
                let (status, delay, delivered) = &mut states[usize::from(outcome.recipient)];
                if status.is_settled() {
                    continue;
                }
                *status = outcome.status;
                let (counter, kind) = match outcome.status {
                    Status::Relayed | Status::Delivered => (Counter::Delivered, "email.delivered"),
                    Status::Bounced if outcome.reply.starts_with('4') => (Counter::BouncedTransient, "email.bounced"),
                    Status::Bounced => (Counter::BouncedPermanent, "email.bounced"),
                    Status::Removed | Status::Suppressed => (Counter::Failed, "email.failed"),
                    Status::Deferred { .. } | Status::Stranded { .. } if delay.is_none() => {
                        *delay = Some(outcome.at);
                        (Counter::Delayed, "email.delivery_delayed")
                    }
                    Status::Deferred { .. } | Status::Stranded { .. } | Status::Queued | Status::Held => continue,
                };
                add(counter, 1);
                if counter == Counter::Delivered {
                    *delivered = true;
                    add(Counter::PixelCopies, u32::from(is_planned));
                    add(Counter::LinkCopies, u32::from(is_planned));
                }
                news.into_iter().for_each(|place| tell(place, kind, outcome.at));
            }
            Happened::Hit(hit, place) => {
                let state = states.get(usize::from(hit.recipient)).copied();
                let is_click = matches!(hit.kind, HitKind::Click { .. });
                let mut counter = match (is_click, &*hit.agent == PROXY) {
                    (true, _) if state.is_some_and(|(_, _, delivered)| delivered) => Counter::ClicksHuman,
                    (true, _) => Counter::ClicksUnknown,
                    (false, true) => Counter::OpensMachine,
                    (false, false) => Counter::OpensHuman,
                };
                let mut mine = Vec::new();
                let mine = if own.is_some() { entries.entry(hit.recipient).or_default() } else { &mut mine };
                let same = mine.iter_mut().rev().find(|(_, _, other)| {
                    hit.repeat && other.kind == hit.kind && other.agent == hit.agent && hit.at - other.at <= 6_000
                });
                match same {
                    Some((count, class, _)) => {
                        *count += hit.count;
                        counter = *class;
                    }
                    None => {
                        mine.push((hit.count, counter, hit));
                        if state.is_some() {
                            tell(place, if is_click { "email.clicked" } else { "email.opened" }, hit.at);
                        }
                    }
                }
                add(counter, hit.count);
                for any in [true, false] {
                    if own.is_some()
                        && (any || counter != Counter::OpensMachine)
                        && seen.insert((hit.recipient, is_click, any))
                    {
                        let first = match (is_click, any) {
                            (false, true) => [Counter::OpenedAny, Counter::DeliveredOpenedAny],
                            (false, false) => [Counter::OpenedHuman, Counter::DeliveredOpenedHuman],
                            (true, true) => [Counter::ClickedAny, Counter::DeliveredClickedAny],
                            (true, false) => [Counter::ClickedHuman, Counter::DeliveredClickedHuman],
                        };
                        first.into_iter().for_each(|counter| add(counter, 1));
                    }
                }
            }
        }
    }
    counts.into_iter().for_each(|(counter, more)| *wanted.counts.entry(counter).or_default() += more);
    if own.is_some() {
        wanted.statuses.insert(id, states.into_iter().map(|(status, delay, _)| (status, delay)).collect());
        let counted = |hits: Vec<(u32, Counter, &Hit)>| hits.into_iter().map(|(count, ..)| count).collect();
        wanted.entries.extend(entries.into_iter().map(|(place, hits)| ((id, place), counted(hits))));
    }
}

const ALL: [Counter; 25] = [
    Counter::Messages,
    Counter::Sent,
    Counter::Delivered,
    Counter::BouncedPermanent,
    Counter::BouncedTransient,
    Counter::Delayed,
    Counter::Failed,
    Counter::PixelCopies,
    Counter::LinkCopies,
    Counter::OpensHuman,
    Counter::OpensMachine,
    Counter::OpensUnknown,
    Counter::ClicksHuman,
    Counter::ClicksMachine,
    Counter::ClicksUnknown,
    Counter::OpenedAny,
    Counter::OpenedHuman,
    Counter::ClickedAny,
    Counter::ClickedHuman,
    Counter::Tracked,
    Counter::Untracked,
    Counter::DeliveredOpenedAny,
    Counter::DeliveredOpenedHuman,
    Counter::DeliveredClickedAny,
    Counter::DeliveredClickedHuman,
];

/// What the store has.
fn found(store: &Store) -> Wanted {
    let mut sum = Counts::default();
    for (_, counts) in store::counts_by_hour(store, Scope::All, 0..u32::MAX).unwrap() {
        sum.add(&counts);
    }
    let counts = ALL.into_iter().map(|counter| (counter, i64::try_from(sum.get(counter)).unwrap()));
    let mut found = Wanted { counts: counts.filter(|(_, count)| *count != 0).collect(), ..Wanted::default() };
    for id in store::message_ids(store, None, None, None, 9_999, false).unwrap() {
        let (row, _) = store::message(store, &id).unwrap().unwrap();
        let states = row.recipients.iter().map(|r| (r.status, r.delay.as_ref().map(|delay| delay.at))).collect();
        found.statuses.insert(id, states);
        for (place, seen, _) in store::seen_by_all(store, &id).unwrap() {
            let numbers: Vec<_> = seen.entries.iter().map(|entry| entry.number).collect();
            assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>());
            found.entries.insert((id, place), seen.entries.iter().map(|entry| entry.count).collect());
        }
    }
    let (mut times, _) = store::hits_between(store, &[], u64::MAX, 9_999).unwrap();
    times.sort_unstable();
    let entries = found.entries.iter();
    let named: Vec<_> = entries
        .flat_map(|((id, recipient), counts)| {
            (0..counts.len() as u32).map(|number| store::HitRef { id: *id, recipient: *recipient, number })
        })
        .collect();
    assert_eq!(times, named, "each entry has its place in time");
    let told = store::deliveries(store, HOOK, None, 9_999).unwrap();
    let ids: BTreeSet<_> = told.iter().map(|told| told.id.clone()).collect();
    assert_eq!(ids.len(), told.len(), "each event is told once");
    found.webhooks = told.into_iter().map(|told| (told.kind, told.email.unwrap(), told.created_at)).collect();
    found.webhooks.sort();
    assert!(store::waiting(store, None, 9).unwrap().is_empty(), "nothing waits");
    found
}

/// The recorder's loop on the model's log, one step at a time.
struct World<'a> {
    recorder: &'a Recorder,
    fold: Fold<'a>,
    log: ModelLog,
    dir: tempfile::TempDir,
    store: Arc<Store>,
    begun: Cursor,
    now: u64,
}

impl<'a> World<'a> {
    async fn new(recorder: &'a Recorder) -> Self {
        let (dir, store) = new_store(Cursor::default()).await;
        let mut fold = Fold::new(recorder);
        fold.begin(Arc::clone(&store)).await.unwrap();
        Self { recorder, fold, log: ModelLog::default(), dir, store, begun: Cursor::default(), now: 1_000 }
    }

    async fn step(&mut self, step: Step) {
        self.now += 300;
        match step {
            Step::Message(recipients) => self.log.message(recipients),
            Step::Twice(n) => {
                let id = self.log.any(n).filter(|id| self.log.queue.contains_key(id));
                if let Some(id) = id {
                    let head = Arc::clone(&self.log.queue[&id].0);
                    self.log.append(Stored::Message { id, head, again: false, statuses: None });
                }
            }
            Step::Outcome(n, place, how) => {
                if let Some(id) = self.log.any(n) {
                    self.log.outcome(id, place, how);
                }
            }
            Step::Hit(n, place, how) => {
                if let Some(id) = self.log.any(n) {
                    self.log.hit(id, place, how);
                }
            }
            Step::Repeat => {
                if let Some(hit) = self.log.last_hit.clone() {
                    self.log.append(Stored::Hits(vec![Hit { count: 3, repeat: true, at: hit.at + 5, ..hit }]));
                }
            }
            Step::Stranger => self.log.hit(QueueId::from_bytes([9; 16]), 0, 1),
            Step::Compact(part) => {
                let reads = self.store.faults.reads.swap(usize::MAX, Ordering::Relaxed);
                let released = self.store.cursor().unwrap();
                self.store.faults.reads.store(reads, Ordering::Relaxed);
                self.log.compact(released, part);
            }
            Step::Fold(records) => self.fold(records).await,
            Step::Commit(all) => {
                self.fold.commit(self.now, all).await;
            }
            Step::Unreadable(reads) => self.store.faults.reads.store(reads, Ordering::Relaxed),
            Step::Unwritable(batches) => self.store.faults.batches.store(batches, Ordering::Relaxed),
            Step::Crash => {
                self.store.faults.mend();
                self.fold = Fold::new(self.recorder);
                self.fold.begin(Arc::clone(&self.store)).await.unwrap();
            }
            Step::Delete => {
                self.begun = ModelLog::cursor(self.log.end + 1);
                (self.dir, self.store) = new_store(self.begun).await;
                self.log.told = self.log.kept.clone();
                self.fold = Fold::new(self.recorder);
                self.fold.begin(Arc::clone(&self.store)).await.unwrap();
            }
        }
    }

    /// Reads on; opens the store again where it was shut.
    async fn fold(&mut self, records: usize) {
        if self.fold.store().is_none() {
            self.store.faults.mend();
            self.fold.begin(Arc::clone(&self.store)).await.unwrap();
        }
        let from = self.fold.cursor;
        let unread = self.log.kept.iter().filter(|(place, _)| *place >= from);
        let records: Vec<_> = unread.take(records).cloned().collect();
        let end = ModelLog::cursor(self.log.end + 1);
        let next = records.last().map_or(from, |(place, _)| ModelLog::cursor(place.offset + 1));
        let batch = Batch { records, next, lost: false };
        if self.fold.take_all(batch, self.now).await && next >= end {
            self.fold.give_up_waiting(self.now).await;
        }
    }

    /// Without faults until all is read and written.
    async fn finish(&mut self) {
        self.store.faults.mend();
        let end = ModelLog::cursor(self.log.end + 1);
        for _ in 0..10_000 {
            self.fold(7).await;
            if self.fold.cursor >= end || self.log.kept.iter().all(|(place, _)| *place < self.fold.cursor) {
                break;
            }
        }
        self.fold.give_up_waiting(self.now).await;
        assert!(self.fold.commit(self.now, true).await);
    }
}

async fn new_store(begun: Cursor) -> (tempfile::TempDir, Arc<Store>) {
    let dir = memory_dir();
    let store = Store::open(dir.path()).unwrap();
    store.commit(vec![begun_write(Begun { place: begun, since: u64::MAX })]).await.unwrap();
    (dir, Arc::new(store))
}

/// A folder in memory where there is such a place, since every commit syncs.
pub(super) fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) fn webhook() -> Webhook {
    let events = EVENTS.map(str::to_owned).to_vec();
    Webhook::new(HOOK, "https://example.com/".into(), events, SigningSecret::new([1; 24]), Vec::new(), 0)
}

fn check(recorder: &Recorder, steps: &[Step]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(recorder).await;
        for step in steps {
            world.step(step.clone()).await;
        }
        world.finish().await;
        prop_assert_eq!(found(&world.store), plain(&world.log, world.begun));
        Ok(())
    })
}

#[test]
fn in_the_end_the_store_has_what_a_plain_fold_has() {
    let dir = memory_dir();
    let (log, _) = Log::open(Options { min_free: 0, ..Options::new(dir.path()) }).unwrap();
    let settings = Settings::new(log.clone(), &Default::default()).0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let change = settings.change(|_| Ok::<_, AppendError>((vec![Change::Webhook(webhook())], ())));
    runtime.block_on(change).unwrap();
    let settings = Arc::new(settings);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let cases = (limits(), proptest::collection::vec(step(), 1..80));
    let checked = runner.run(&cases, |(limits, steps)| {
        let (recorder, _) = recorder(dir.path(), &log, FOREVER, Arc::clone(&settings));
        check(&Recorder { limits, ..recorder }, &steps)
    });
    checked.unwrap_or_else(|e| panic!("{e}"));
}
