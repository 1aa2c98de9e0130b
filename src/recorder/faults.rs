//! The recorder among panics, errors of the store and clocks that are set wrong.

use super::fold::Fold;
use super::model::{HOOK, memory_dir, webhook};
use super::sweep::Sweep;
use super::tests::{DELIVERED, FIREFOX, FOREVER, all, append, delivered, head, hit, id, recorder, report};
use super::*;
use crate::mail::QueueId;
use crate::settings::{Change, Settings};
use crate::spool::{AppendError, Entry, Options, Stored};
use crate::store::{self, Counter, Scope, Store};
use std::sync::atomic::Ordering;

const DAY: u64 = 24 * 3_600_000;

fn a_log(dir: &std::path::Path) -> Log {
    Log::open(Options { min_free: 0, ..Options::new(dir) }).unwrap().0
}

fn without_webhooks(log: &Log) -> Arc<Settings> {
    Arc::new(Settings::new(log.clone(), &Default::default()).0)
}

async fn with_a_webhook(log: &Log) -> Arc<Settings> {
    let settings = Settings::new(log.clone(), &Default::default()).0;
    settings.change(|_| Ok::<_, AppendError>((vec![Change::Webhook(webhook())], ()))).await.unwrap();
    Arc::new(settings)
}

async fn begun<'a>(recorder: &'a Recorder, store: &Arc<Store>) -> Fold<'a> {
    let mut fold = Fold::new(recorder);
    fold.begin(Arc::clone(store)).await.unwrap();
    fold
}

async fn take_all(fold: &mut Fold<'_>) -> bool {
    let batch = fold.recorder.log.read(fold.cursor, 9_999).unwrap();
    fold.take_all(batch, 1_000).await
}

#[tokio::test]
async fn a_panic_leaves_its_record_out_and_nothing_else() {
    let dir = memory_dir();
    let log = a_log(dir.path());
    for n in 0..2 {
        append(&log, Entry::Message { id: id(n), head: head(n, 7), body: vec!["hello".into()] }).await;
        for place in 0..7 {
            let (outcomes, report) = (vec![delivered(place, DELIVERED)], Some(report()));
            append(&log, Entry::Outcomes { id: id(n), outcomes, report }).await;
        }
    }
    let (recorder, _forget) = recorder(dir.path(), &log, FOREVER, without_webhooks(&log));
    let panics = |_: &str, address: &Address| {
        assert!(!address.as_str().starts_with("person5@"), "somebody's fault");
        false
    };
    let recorder = Recorder { left_alone: Box::new(panics), ..recorder };
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let mut fold = begun(&recorder, &store).await;
    // Each panic sends the fold back to what is written, from where all is read once more.
    assert_eq!([take_all(&mut fold).await, take_all(&mut fold).await, take_all(&mut fold).await], [false, false, true]);
    assert!(fold.commit(1_000, true).await);
    let counts = all(&store, Scope::All);
    assert_eq!((counts.get(Counter::Messages), counts.get(Counter::Delivered)), (2, 12));
    let (row, _) = store::message(&store, &id(1)).unwrap().unwrap();
    let settled: Vec<_> = row.recipients.iter().map(|recipient| recipient.status.is_settled()).collect();
    assert_eq!(settled, [true, true, true, true, true, false, true]);
}

#[tokio::test]
async fn what_cannot_be_read_is_waited_for() {
    let dir = memory_dir();
    let log = a_log(dir.path());
    append(&log, Entry::Message { id: id(1), head: head(1, 2), body: vec!["hello".into()] }).await;
    let (recorder, _forget) = recorder(dir.path(), &log, FOREVER, without_webhooks(&log));
    let recorder = Recorder { limits: Limits { messages: 0, ..Limits::default() }, ..recorder };
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let mut fold = begun(&recorder, &store).await;
    assert!(take_all(&mut fold).await && fold.commit(1_000, true).await);
    append(&log, Entry::Message { id: id(2), head: head(2, 1), body: vec!["hello".into()] }).await;
    append(&log, Entry::Outcomes { id: id(1), outcomes: vec![delivered(0, DELIVERED)], report: None }).await;
    append(&log, Entry::Hits(vec![hit(1, 0, None, DELIVERED + 60_000, FIREFOX)])).await;
    for reads in 0..3 {
        store.faults.reads.store(reads, Ordering::Relaxed);
        assert!(!take_all(&mut fold).await, "after {reads} reads");
        assert!(recorder.store.load().is_none(), "the view is shut");
        // Without the view the fold goes on for those who watch, and counts nothing.
        assert!(take_all(&mut fold).await);
        store.faults.mend();
        fold.begin(Arc::clone(&store)).await.unwrap();
    }
    assert!(take_all(&mut fold).await && fold.commit(1_000, true).await);
    let counts = all(&store, Scope::All);
    let of = |counter| counts.get(counter);
    assert_eq!((of(Counter::Messages), of(Counter::Delivered), of(Counter::OpensHuman)), (2, 1, 1));
}

#[tokio::test]
async fn a_damaged_row_keeps_nothing_else_from_being_counted() {
    let dir = memory_dir();
    let log = a_log(dir.path());
    let (recorder, _forget) = recorder(dir.path(), &log, FOREVER, without_webhooks(&log));
    let recorder = Recorder { limits: Limits { messages: 0, ..Limits::default() }, ..recorder };
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let mut fold = begun(&recorder, &store).await;
    for n in 1..3 {
        append(&log, Entry::Message { id: id(n), head: head(n, 1), body: vec!["hello".into()] }).await;
    }
    assert!(take_all(&mut fold).await && fold.commit(1_000, true).await);
    let key = [b"m", &id(1).as_bytes()[..], &[0, 0]].concat();
    store.commit(vec![store::Write::Put(key, vec![0, 1, 0xff])]).await.unwrap();
    for n in 1..3 {
        let outcomes = vec![delivered(0, DELIVERED)];
        append(&log, Entry::Outcomes { id: id(n), outcomes, report: None }).await;
        append(&log, Entry::Hits(vec![hit(n, 0, None, DELIVERED + 60_000, FIREFOX)])).await;
    }
    assert!(take_all(&mut fold).await && fold.give_up_waiting(1_000).await && fold.commit(1_000, true).await);
    let counts = all(&store, Scope::All);
    assert_eq!((counts.get(Counter::Delivered), counts.get(Counter::OpensHuman)), (1, 2));
    assert_eq!(all(&store, Scope::Domain("example.com")).get(Counter::OpensHuman), 1);
}

#[tokio::test]
async fn what_waits_for_a_message_is_nobodys_at_the_end_of_the_log() {
    let dir = memory_dir();
    let log = a_log(dir.path());
    let (recorder, _forget) = recorder(dir.path(), &log, FOREVER, without_webhooks(&log));
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let mut fold = begun(&recorder, &store).await;
    let hits = (0..700).map(|n| hit(n, 0, None, DELIVERED + n * 3_600_000, FIREFOX)).collect();
    append(&log, Entry::Hits(hits)).await;
    assert!(take_all(&mut fold).await && fold.commit(1_000, true).await);
    assert!(all(&store, Scope::All).is_empty(), "the message may come");
    let mut fold = begun(&recorder, &store).await;
    let again = Stored::Message { id: id(3), head: head(3, 1), again: true, statuses: None };
    let end = log.end();
    assert!(fold.take(end, again, 1_000).await && fold.give_up_waiting(1_000).await && fold.commit(1_000, true).await);
    assert_eq!(all(&store, Scope::All).get(Counter::OpensHuman), 700);
    assert_eq!(all(&store, Scope::Domain("example.com")).get(Counter::OpensHuman), 1);
    assert!(store::waiting(&store, None, 9).unwrap().is_empty());
    assert_eq!(store::seen_by_all(&store, &id(3)).unwrap().len(), 1);
}

#[tokio::test]
async fn webhooks_are_told_by_the_place_in_the_log_whatever_the_clock_said() {
    let dir = memory_dir();
    let log = a_log(dir.path());
    let settings = with_a_webhook(&log).await;
    let (recorder, _forget) = recorder(dir.path(), &log, FOREVER, Arc::clone(&settings));
    let told = |store: &Store| store::deliveries(store, HOOK, None, 99).unwrap().len();
    let message = |n| Entry::Message { id: id(n), head: head(n, 1), body: vec!["hello".into()] };
    // The view is made years after what happens then, as by a clock that was ahead.
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let mut fold = begun(&recorder, &store).await;
    append(&log, message(1)).await;
    assert!(take_all(&mut fold).await && fold.commit(1_000, true).await);
    assert_eq!(told(&store), 1);

    // A view that is made anew tells nothing of what was there before, though it lies in the future of its clock.
    append(&log, Entry::Message { id: id(2), head: late_head(2), body: vec!["hello".into()] }).await;
    let other = memory_dir();
    let store = Arc::new(Store::open(other.path()).unwrap());
    let mut fold = begun(&recorder, &store).await;
    assert!(take_all(&mut fold).await && fold.commit(1_000, true).await);
    assert_eq!((told(&store), all(&store, Scope::All).get(Counter::Messages)), (0, 2));
    append(&log, message(3)).await;
    assert!(take_all(&mut fold).await && fold.commit(1_000, true).await);
    assert_eq!(told(&store), 1);
}

fn late_head(n: u64) -> Arc<crate::spool::MessageHead> {
    let mut head = head(n, 1);
    Arc::make_mut(&mut head).accepted_at = clock::unix_ms() + 400 * DAY;
    head
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_forgets_nothing() {
    let dir = memory_dir();
    let log = a_log(dir.path());
    let now = clock::unix_ms();
    let at = |days: u64| QueueId::new(now - days * DAY, [1; 10]);
    for days in [300, 200, 0] {
        let mut head = head(days, 1);
        Arc::make_mut(&mut head).accepted_at = now - days * DAY;
        append(&log, Entry::Message { id: at(days), head, body: vec!["hello".into()] }).await;
    }
    let keeping = Keeping { all: Duration::from_hours(24 * 250), ..FOREVER };
    let (recorder, _forget) = recorder(dir.path(), &log, keeping, without_webhooks(&log));
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let left = || store::message_ids(&store, None, None, None, 99, false).unwrap();
    let mut fold = begun(&recorder, &store).await;
    assert!(take_all(&mut fold).await && fold.commit(1_000, true).await);
    // At a start and after one; what is past its time all the same goes.
    for _ in 0..2 {
        let mut sweep = Sweep::default();
        while sweep.turn(&mut fold, now + 401 * DAY).await {}
        assert!(fold.commit(1_000, true).await);
        assert_eq!(left(), [at(200), at(0)]);
    }
    // Set right again, it goes on.
    let mut sweep = Sweep::default();
    while sweep.turn(&mut fold, now + DAY).await {}
    assert_eq!(left(), [at(200), at(0)]);
    // Day after day.
    for days in 2..60 {
        let mut sweep = Sweep::default();
        while sweep.turn(&mut fold, now + days * DAY).await {}
        assert!(fold.commit(1_000, true).await);
    }
    assert_eq!(left(), [at(0)]);
}
