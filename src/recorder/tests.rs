//! The fold on a real log and a real store.

use super::*;
use crate::event::{Hit, HitKind};
use crate::mail::{Body, Envelope, Outcome, QueueId, Recipient, Status};
use crate::rewrite::{Pixel, Report};
use crate::settings::Settings;
use crate::spool::{Entry, MessageHead, Options};
use crate::store::{self, Counter, Counts, Scope, Store};
use std::path::Path;

pub(super) const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
pub(super) const DELIVERED: u64 = 1_700_000_000_000;
pub(super) const FOREVER: Keeping =
    Keeping { all: Duration::from_hours(1 << 30), traces: Duration::from_hours(1 << 30), size: u64::MAX };

pub(super) fn id(n: u64) -> QueueId {
    QueueId::new(DELIVERED - 1_000 + n, [7; 10])
}

pub(super) fn head(n: u64, recipients: usize) -> Arc<MessageHead> {
    let recipient = |place| Recipient::from(Address::parse(&format!("person{place}@example.net")).unwrap());
    let (sender, body) = (None, Body::default());
    let recipients = (0..recipients).map(recipient).collect();
    Arc::new(MessageHead {
        envelope: Envelope { sender, recipients, body, smtputf8: false, ret: None, envid: None },
        accepted_at: DELIVERED - 1_000 + n,
        from_domain: Some("example.com".into()),
        from: "News <news@example.com>".into(),
        subject: "Hello".into(),
        message_id: format!("<{n}@example.com>").into(),
        size: 5,
        tags: vec![("kind".into(), "news".into())],
        role: crate::mail::Role::Submission,
    })
}

pub(super) fn report() -> bytes::Bytes {
    let plan = crate::rewrite::plan(
        b"From: a@example.com\r\n\r\nhi\r\n",
        &crate::rewrite::Tracking::Off(crate::rewrite::OffReason::Disabled),
        1,
    );
    let report = Report { skipped: None, links_rewritten: 3, pixel: Pixel::Inserted, ..plan.report().clone() };
    report.to_kept().unwrap().into()
}

pub(super) fn delivered(recipient: u16, at: u64) -> Outcome {
    Outcome { recipient, status: Status::Relayed, reply: "250 2.0.0 Ok".into(), at }
}

pub(super) fn hit(message: u64, recipient: u16, link: Option<u16>, at: u64, agent: &str) -> Hit {
    let kind = match link {
        None => HitKind::Open,
        Some(link) => HitKind::Click { link, url: format!("https://example.com/{link}?to={recipient}").into() },
    };
    Hit {
        id: id(message),
        recipient,
        kind,
        at,
        count: 1,
        address: [192, 0, 2, recipient as u8].into(),
        agent: agent.into(),
        head: false,
        repeat: false,
    }
}

pub(super) fn recorder(
    dir: &Path,
    log: &Log,
    keeping: Keeping,
    settings: Arc<Settings>,
) -> (Recorder, mpsc::Sender<Forget>) {
    let (forget, asked) = mpsc::channel(4);
    let recorder = Recorder {
        data_dir: dir.to_owned(),
        log: log.clone(),
        store: MaybeStore::default(),
        events: broadcast::channel(1_000).0,
        machines: Arc::new(ArcSwap::from_pointee(MachineList::builtin())),
        left_alone: Box::new(|_, address| address.as_str().starts_with("person9@")),
        webhooks: Webhooks { settings, kick: Arc::default() },
        keeping: Arc::new(ArcSwap::from_pointee(keeping)),
        limits: Limits {
            messages: 20,
            recipients: 200,
            unwritten_messages: 40,
            unwritten_recipients: 400,
            ..Limits::default()
        },
        asked,
    };
    (recorder, forget)
}

/// As if the store had been in use all the time up to now.
async fn believes_the_clock(dir: &Path) {
    let now = today::Kept { believed: clock::unix_ms(), first: 0, last: 0 };
    // sled gives its lock back a moment after the last handle is gone.
    let store = loop {
        match Store::open(dir) {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    store.commit(vec![store::today_write(postcard::to_stdvec(&now).unwrap())]).await.unwrap();
}

/// Folds what the log has into the store until nothing is left, and gives the store back, shut by nobody.
async fn folded(
    dir: &Path,
    log: &Log,
    keeping: Keeping,
    while_running: impl AsyncFnOnce(&mpsc::Sender<Forget>),
) -> Arc<Store> {
    let (stop, stopped) = watch::channel(false);
    let settings = Arc::new(Settings::new(log.clone(), &Default::default()).0);
    let (recorder, forget) = recorder(dir, log, keeping, settings);
    let store = Arc::clone(&recorder.store);
    let running = tokio::spawn(run(recorder, stopped));
    let opened = async {
        while store.load().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, opened).await.expect("the store opens");
    tokio::time::timeout(patience, while_running(&forget)).await.expect("it is answered");
    stop.send(true).unwrap();
    tokio::time::timeout(patience, running).await.expect("the recorder stops").unwrap();
    store.load_full().unwrap()
}

async fn nothing(_: &mpsc::Sender<Forget>) {}

pub(super) fn all(store: &Store, scope: Scope<'_>) -> Counts {
    let mut sum = Counts::default();
    store::counts_by_hour(store, scope, 0..u32::MAX).unwrap().iter().for_each(|(_, counts)| sum.add(counts));
    sum
}

pub(super) async fn append(log: &Log, entry: Entry) {
    log.append(entry).await.unwrap();
}

async fn some_mail(log: &Log) {
    append(log, Entry::Message { id: id(1), head: head(1, 3), body: vec!["hello".into()] }).await;
    let deferred = Status::Deferred { attempts: 1, next: 0, age: 0, told: false };
    let put_off = Outcome { recipient: 2, status: deferred, reply: "451 later".into(), at: DELIVERED };
    let outcomes = vec![delivered(0, DELIVERED), delivered(1, DELIVERED), put_off.clone()];
    append(log, Entry::Outcomes { id: id(1), outcomes, report: Some(report()) }).await;
    append(log, Entry::Outcomes { id: id(1), outcomes: vec![Outcome { at: DELIVERED + 1, ..put_off }], report: None })
        .await;
    let bounced = Outcome { recipient: 2, status: Status::Bounced, reply: "550 no".into(), at: DELIVERED + 9_000 };
    append(log, Entry::Outcomes { id: id(1), outcomes: vec![bounced], report: None }).await;
    let late = DELIVERED + 60_000;
    append(
        log,
        Entry::Hits(vec![
            hit(1, 0, None, late, FIREFOX),
            hit(1, 0, Some(1), late + 10, FIREFOX),
            hit(1, 0, Some(2), late + 9_000, FIREFOX),
            hit(1, 1, None, late, "Mozilla/5.0 (via ggpht.com GoogleImageProxy)"),
            hit(1, 1, Some(1), DELIVERED + 500, FIREFOX),
        ]),
    )
    .await;
    append(
        log,
        Entry::Hits(vec![
            Hit { count: 4, repeat: true, ..hit(1, 0, None, late + 700, FIREFOX) },
            hit(1, 0, None, late + 3_600_000, FIREFOX),
            // Of a message that nobody knows, and of somebody who does not want to be seen.
            hit(77, 0, None, late, FIREFOX),
        ]),
    )
    .await;
}

#[tokio::test]
async fn everything_is_counted_once_also_when_it_is_folded_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Options::new(dir.path())).unwrap();
    some_mail(&log).await;
    for turn in 0..3 {
        let store = folded(dir.path(), &log, FOREVER, nothing).await;
        for scope in [Scope::Domain("example.com"), Scope::Tag { domain: "example.com", tag: "kind=news" }] {
            let counts = all(&store, scope);
            let table = [
                (Counter::Messages, 1),
                (Counter::Sent, 3),
                (Counter::Delivered, 2),
                (Counter::Delayed, 1),
                (Counter::BouncedPermanent, 1),
                (Counter::PixelCopies, 2),
                (Counter::LinkCopies, 2),
                (Counter::Tracked, 1),
                (Counter::OpensHuman, 6),
                (Counter::OpensMachine, 1),
                (Counter::OpenedAny, 2),
                (Counter::OpenedHuman, 1),
                (Counter::ClicksHuman, 2),
                (Counter::ClicksMachine, 1),
                (Counter::ClickedAny, 2),
                (Counter::ClickedHuman, 1),
                (Counter::DeliveredOpenedAny, 2),
                (Counter::DeliveredClickedHuman, 1),
            ];
            for (counter, wanted) in table {
                assert_eq!(counts.get(counter), wanted, "{counter:?} in {scope:?}, turn {turn}");
            }
        }
        assert_eq!(all(&store, Scope::All).get(Counter::OpensHuman), 7, "that of the unknown message too");
        let first = store::counts(&store, Scope::MessageLink(id(1), 1)).unwrap();
        assert_eq!((first.get(Counter::ClickedAny), first.get(Counter::ClickedHuman)), (2, 1));
        let links = store::counts_by_link(&store, "example.com", 0..u32::MAX, 99).unwrap();
        assert_eq!(links.len(), 2, "personal queries are one destination");
        let (seen, _) = store::seen(&store, &id(1), 0).unwrap().unwrap();
        let entries: Vec<_> = seen.entries.iter().map(|entry| (entry.link(), entry.count, entry.number)).collect();
        assert_eq!(entries, [(None, 5, 0), (Some(1), 1, 1), (Some(2), 1, 2), (None, 1, 3)]);
        assert!(store::seen(&store, &id(77), 0).unwrap().is_none());
        let (row, _) = store::message(&store, &id(1)).unwrap().unwrap();
        assert_eq!(row.recipients[2].delay.as_ref().map(|delay| delay.at), Some(DELIVERED));
        // As after a crash before the cursor was written: all of it is read again.
        store.commit(vec![store::cursor_write(Default::default())]).await.unwrap();
    }
}

#[tokio::test]
async fn who_is_left_alone_is_neither_counted_nor_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Options::new(dir.path())).unwrap();
    append(&log, Entry::Message { id: id(1), head: head(1, 10), body: vec!["hello".into()] }).await;
    let outcomes = vec![delivered(8, DELIVERED), delivered(9, DELIVERED)];
    append(&log, Entry::Outcomes { id: id(1), outcomes, report: Some(report()) }).await;
    append(&log, Entry::Hits((8..10).map(|place| hit(1, place, None, DELIVERED + 5_000, FIREFOX)).collect())).await;
    let store = folded(dir.path(), &log, FOREVER, nothing).await;
    let counts = all(&store, Scope::Domain("example.com"));
    let of = |counter| counts.get(counter);
    assert_eq!((of(Counter::Delivered), of(Counter::PixelCopies), of(Counter::OpensHuman)), (2, 1, 1));
    assert_eq!(store::seen_by_all(&store, &id(1)).unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_past_its_time_is_forgotten_first_the_traces_and_then_all() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Options::new(dir.path())).unwrap();
    some_mail(&log).await;
    let traces = Keeping { traces: Duration::from_secs(1), ..FOREVER };
    drop(folded(dir.path(), &log, FOREVER, nothing).await);
    let a_turn = async |_: &mpsc::Sender<Forget>| tokio::time::sleep(Duration::from_millis(500)).await;
    believes_the_clock(dir.path()).await;
    let store = folded(dir.path(), &log, traces, a_turn).await;
    let (seen, _) = store::seen(&store, &id(1), 0).unwrap().unwrap();
    assert_eq!(seen.entries.len(), 4);
    // The hits lie in the past of this machine's clock.
    assert!(seen.entries.iter().all(|entry| entry.address.is_none() && entry.agent.is_empty()), "{seen:?}");
    assert_eq!(all(&store, Scope::Domain("example.com")).get(Counter::OpensHuman), 6);

    drop(store);
    let none = Keeping { all: Duration::from_secs(1), ..traces };
    let store = folded(dir.path(), &log, none, a_turn).await;
    assert!(store::message(&store, &id(1)).unwrap().is_none());
    assert!(store::seen_by_all(&store, &id(1)).unwrap().is_empty());
    assert!(store::messages_with(&store, "person0@example.net", None, 9).unwrap().is_empty());
    assert!(all(&store, Scope::All).is_empty());
    assert!(store::counts(&store, Scope::Message(id(1))).unwrap().is_empty());
    assert!(store::latest_hits(&store, 9).unwrap().is_empty());
}

#[tokio::test]
async fn a_recipient_is_forgotten_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Options::new(dir.path())).unwrap();
    some_mail(&log).await;
    let ask = async |forget: &mpsc::Sender<Forget>| {
        // Once all is folded.
        tokio::time::sleep(Duration::from_millis(800)).await;
        let (answer, done) = tokio::sync::oneshot::channel();
        let messages = vec![id(1), id(5)];
        forget.send(Forget { address: "PERSON0@example.net".into(), messages, answer }).await.unwrap();
        assert_eq!(done.await.unwrap(), 1);
    };
    let store = folded(dir.path(), &log, FOREVER, ask).await;
    let (row, _) = store::message(&store, &id(1)).unwrap().unwrap();
    let addresses: Vec<_> = row.head.envelope.recipients.iter().map(|r| r.address.as_str()).collect();
    assert_eq!(addresses, [store::ERASED, "person1@example.net", "person2@example.net"]);
    let left: Vec<_> = store::seen_by_all(&store, &id(1)).unwrap().iter().map(|(place, ..)| *place).collect();
    assert_eq!(left, [1]);
    assert!(store::messages_with(&store, "person0@example.net", None, 9).unwrap().is_empty());
    assert_eq!(store::messages_with(&store, "person1@example.net", None, 9).unwrap(), [id(1)]);
    assert_eq!(all(&store, Scope::Domain("example.com")).get(Counter::OpensHuman), 6, "counts name nobody");
}

#[tokio::test]
async fn a_burst_makes_machines_of_those_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Options::new(dir.path())).unwrap();
    append(&log, Entry::Message { id: id(1), head: head(1, 2), body: vec!["hello".into()] }).await;
    let outcomes = vec![delivered(0, DELIVERED), delivered(1, DELIVERED)];
    append(&log, Entry::Outcomes { id: id(1), outcomes, report: Some(report()) }).await;
    let at = DELIVERED + 60_000;
    append(
        &log,
        Entry::Hits(vec![
            hit(1, 1, Some(0), at, FIREFOX),
            hit(1, 0, None, at, FIREFOX),
            hit(1, 0, Some(0), at + 100, FIREFOX),
            hit(1, 0, Some(1), at + 200, FIREFOX),
        ]),
    )
    .await;
    let store = folded(dir.path(), &log, FOREVER, nothing).await;
    assert_eq!(all(&store, Scope::Domain("example.com")).get(Counter::ClickedHuman), 2);
    // The last of the message's three links shows what it was; in another record, and after a restart it is not known
    // any more what came before, so all of the burst is read by one process.
    store.commit(vec![store::cursor_write(Default::default())]).await.unwrap();
    drop(store);
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    append(&log, Entry::Hits(vec![hit(1, 0, Some(2), at + 300, FIREFOX)])).await;
    let store = folded(dir.path(), &log, FOREVER, nothing).await;
    let counts = all(&store, Scope::Domain("example.com"));
    let of = |counter| counts.get(counter);
    assert_eq!((of(Counter::ClicksHuman), of(Counter::ClicksMachine)), (1, 3));
    assert_eq!((of(Counter::OpensHuman), of(Counter::OpensMachine)), (0, 1));
    assert_eq!((of(Counter::ClickedAny), of(Counter::ClickedHuman), of(Counter::OpenedHuman)), (2, 1, 0));
    assert_eq!((of(Counter::DeliveredClickedHuman), of(Counter::DeliveredOpenedAny)), (1, 1));
    let link = store::counts(&store, Scope::MessageLink(id(1), 0)).unwrap();
    assert_eq!((link.get(Counter::ClickedAny), link.get(Counter::ClickedHuman)), (2, 1));
    let (seen, _) = store::seen(&store, &id(1), 0).unwrap().unwrap();
    assert!(seen.entries.iter().all(|entry| entry.class.reason().as_deref() == Some("burst")), "{seen:?}");
}

#[tokio::test]
async fn what_takes_too_much_of_the_disk_loses_its_oldest_tenth_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Options::new(dir.path())).unwrap();
    for hour in 0..40 {
        let at = DELIVERED + hour * 3_600_000;
        let mut head = head(hour, 1);
        Arc::make_mut(&mut head).accepted_at = at;
        append(&log, Entry::Message { id: QueueId::new(at, [1; 10]), head, body: vec!["hello".into()] }).await;
    }
    drop(folded(dir.path(), &log, FOREVER, nothing).await);
    let a_turn = async |_: &mpsc::Sender<Forget>| tokio::time::sleep(Duration::from_millis(500)).await;
    for start in 0..3 {
        let store = folded(dir.path(), &log, Keeping { size: 1, ..FOREVER }, a_turn).await;
        let ids = store::message_ids(&store, None, None, None, 99, false).unwrap();
        assert_eq!(ids.len(), 36, "start {start}");
        assert!(ids[0].unix_ms() > DELIVERED + 3 * 3_600_000);
    }
}

#[tokio::test]
async fn outcomes_are_counted_however_many_recipients_wait_for_theirs() {
    const MESSAGES: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Options { min_free: 0, ..Options::new(dir.path()) }).unwrap();
    for n in 0..MESSAGES {
        append(&log, Entry::Message { id: id(n), head: head(n, 100), body: vec!["hello".into()] }).await;
    }
    for n in 0..MESSAGES {
        let outcomes = (0..100).map(|place| delivered(place, DELIVERED + n)).collect();
        append(&log, Entry::Outcomes { id: id(n), outcomes, report: Some(report()) }).await;
    }
    let store = folded(dir.path(), &log, FOREVER, nothing).await;
    let counts = all(&store, Scope::All);
    assert_eq!((counts.get(Counter::Sent), counts.get(Counter::Delivered)), (MESSAGES * 100, MESSAGES * 100));
}

#[tokio::test]
async fn after_a_start_the_log_is_told_at_once_what_the_view_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Options { min_free: 0, ..Options::new(dir.path()) }).unwrap();
    append(&log, Entry::Message { id: id(1), head: head(1, 1), body: vec!["hello".into()] }).await;
    drop(folded(dir.path(), &log, FOREVER, nothing).await);
    drop(log);
    let (log, _) = Log::open(Options { min_free: 0, ..Options::new(dir.path()) }).unwrap();
    assert!(log.stats().unread_bytes > 0, "nobody has said anything");
    let told = async |_: &mpsc::Sender<Forget>| {
        for _ in 0..60 {
            if log.stats().unread_bytes == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the log is not told for 3 s");
    };
    drop(folded(dir.path(), &log, FOREVER, told).await);
}
