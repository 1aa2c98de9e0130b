//! The log as a whole, on real files: what goes in comes out, through crashes, damage, full disks and compaction.
//!
//! One long file, since all of it plays on the same few helpers, which say what a log is given and what it must give back;
//! beside it `ends`, `flips` and `unread`.

mod ends;
mod flips;
mod unread;

use super::disk::{Faults, Op};
use super::segment::{self, DATA, Start, VERSION};
use super::*;
use crate::event::HitKind;
use crate::mail::{Address, Body, Recipient, Role, Status};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// Small segments, so that a test has many of them, and no compaction unless it is asked for.
fn options(dir: &Path) -> Options {
    Options { segment_size: 16 * 1024, lazy: Duration::from_millis(10), min_free: 0, ..Options::new(dir) }
}

fn open(dir: &Path) -> (Log, Recovered) {
    Log::open(options(dir)).unwrap()
}

fn id(n: u64) -> QueueId {
    QueueId::new(1_700_000_000_000 + n, [7; 10])
}

fn head(n: u64, recipients: u16) -> Arc<MessageHead> {
    let recipient = |r| Recipient::from(Address::parse(&format!("r{r}@example.net")).unwrap());
    Arc::new(MessageHead {
        envelope: Envelope {
            sender: None,
            recipients: (0..recipients).map(recipient).collect(),
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        accepted_at: n,
        from_domain: Some("example.com".into()),
        from: "Ann <ann@example.com>".into(),
        subject: format!("number {n}").into(),
        message_id: "<1@example.com>".into(),
        size: body(n).len() as u64,
        tags: vec![("kind".into(), "test".into())],
        role: if n % 3 == 1 { Role::Inbound } else { Role::Submission },
    })
}

fn body(n: u64) -> Vec<u8> {
    let len = usize::try_from(n * 709 % 5000).unwrap();
    (0..len).map(|at| u8::try_from((at as u64 * 31 + n) % 251).unwrap()).collect()
}

fn message(n: u64, recipients: u16) -> Entry {
    let body = Bytes::from(body(n));
    let pieces = vec![Bytes::new(), body.slice(..body.len() / 3), body.slice(body.len() / 3..)];
    Entry::Message { id: id(n), head: head(n, recipients), body: pieces }
}

fn outcome(n: u64, recipient: u16, status: Status) -> Entry {
    Entry::Outcomes {
        id: id(n),
        outcomes: vec![newest(recipient, status)],
        report: Some(Bytes::from_static(b"report")),
    }
}

fn newest(recipient: u16, status: Status) -> Outcome {
    Outcome { recipient, status, reply: "250 2.0.0 Ok".into(), at: 5 }
}

fn setting(key: &str, value: Option<&str>) -> Entry {
    Entry::Setting { key: key.into(), value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())) }
}

fn hit() -> Hit {
    Hit {
        id: id(1),
        recipient: 0,
        kind: HitKind::Click { link: 3, url: "https://example.com/".into() },
        at: 9,
        count: 1,
        address: "192.0.2.1".parse().unwrap(),
        agent: "test".into(),
        head: false,
        repeat: false,
    }
}

fn settle(log: &Log) {
    log.append(setting("settled", Some(""))).wait().unwrap();
}

/// Waits for something that the writer does on its own; never for long.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn everything(log: &Log, mut from: Cursor) -> Vec<Stored> {
    let mut all = Vec::new();
    loop {
        let batch = log.read(from, 3).unwrap();
        all.extend(batch.records.into_iter().map(|(_, stored)| stored));
        if batch.next == from {
            return all;
        }
        from = batch.next;
    }
}

fn statuses(live: &Live) -> Vec<Status> {
    let newest = |recipient| live.newest.iter().find(|o| o.recipient == recipient);
    (0..live.recipients).map(|recipient| newest(recipient).map_or(Status::Queued, |o| o.status)).collect()
}

#[test]
fn what_goes_in_comes_out() {
    let dir = TempDir::new().unwrap();
    let (log, recovered) = open(dir.path());
    assert_eq!(
        (recovered.messages.len(), recovered.records, log.read(Cursor::default(), 9).unwrap().next),
        (0, 0, Cursor::default())
    );
    for n in 1..=20 {
        log.append(message(n, 2)).wait().unwrap();
    }
    let deferred = Status::Deferred { attempts: 1, next: 77, age: 9, told: true };
    log.append_soon(outcome(3, 0, Status::Delivered)).unwrap();
    log.append_soon(outcome(3, 1, Status::Bounced)).unwrap();
    log.append_soon(outcome(4, 1, deferred)).unwrap();
    log.append_soon(outcome(5, 0, Status::Held)).unwrap();
    log.append_soon(outcome(5, 0, Status::Relayed)).unwrap();
    log.append_soon(outcome(6, 9, Status::Relayed)).unwrap();
    log.append_soon(Entry::Hits(vec![hit(), hit()])).unwrap();
    log.append_soon(setting("a", Some("1"))).unwrap();
    log.append_soon(setting("b", Some("2"))).unwrap();
    log.append_soon(setting("a", None)).unwrap();
    log.append(setting("b", Some("3"))).wait().unwrap();

    assert_eq!(log.body(&id(3)), Err(BodyError::NotFound));
    assert!((4..=20).all(|n| log.body(&id(n)).unwrap() == body(n)));
    assert!(log.stats().segments > 2);
    let stored = everything(&log, Cursor::default());
    assert_eq!(stored.len(), 31);
    assert_eq!(stored[0], Stored::Message { id: id(1), head: head(1, 2), again: false, statuses: None });
    let outcomes = vec![newest(0, Status::Delivered)];
    assert_eq!(stored[20], Stored::Outcomes { id: id(3), outcomes, report: Some(Bytes::from_static(b"report")) });
    assert_eq!(stored[26], Stored::Hits(vec![hit(), hit()]));
    assert_eq!(stored[29], Stored::Setting { key: "a".into(), value: None });
    drop(log);

    for _ in 0..3 {
        let (log, recovered) = open(dir.path());
        assert_eq!((recovered.records, recovered.bad_records, recovered.cut_bytes), (31, 0, 0));
        assert_eq!(recovered.settings, BTreeMap::from([("b".into(), Bytes::from_static(b"3"))]));
        let ids: Vec<_> = recovered.messages.iter().map(|m| m.id).collect();
        assert_eq!(ids, (1..=20).filter(|n| *n != 3).map(id).collect::<Vec<_>>());
        assert_eq!(log.head(&id(1)).as_ref(), Ok(&*head(1, 2)));
        assert_eq!(log.message(&id(7), 9_999), Ok(((*head(7, 2)).clone(), Some(body(7)))));
        assert_eq!(log.message(&id(7), body(7).len() - 1), Ok(((*head(7, 2)).clone(), None)));
        let (lane, from) = (&recovered.messages[0].lane, recovered.messages[0].from_domain.as_ref());
        assert_eq!(
            (&**lane, from.map(|from| &**from), recovered.messages[0].accepted_at),
            ("example.net", Some("example.com"), 1)
        );
        assert!(recovered.messages.iter().all(|m| Arc::ptr_eq(&m.lane, lane)));
        assert_eq!(statuses(&recovered.messages[2]), [Status::Queued, deferred]);
        assert_eq!(statuses(&recovered.messages[3]), [Status::Relayed, Status::Queued]);
        assert_eq!(statuses(&recovered.messages[4]), [Status::Queued, Status::Queued]);
        assert!((4..=20).all(|n| log.body(&id(n)).unwrap() == body(n)));
        assert_eq!(everything(&log, Cursor::default()), stored);
    }
}

#[test]
fn one_sync_for_all_and_none_for_who_does_not_wait() {
    let dir = TempDir::new().unwrap();
    let lazy = Duration::from_secs(3600);
    let options = Options { lazy, segment_size: 64 << 20, ..options(dir.path()) };
    let (log, _) = Log::open(options.clone()).unwrap();
    (0..100).for_each(|n| log.append_soon(message(n, 1)).unwrap());
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(log.stats().syncs, 0);
    settle(&log);
    assert_eq!((log.stats().syncs, log.stats().messages_live), (1, 100));
    let waiting: Vec<_> = (100..1100).map(|n| log.append(message(n, 1))).collect();
    waiting.into_iter().for_each(|durable| durable.wait().unwrap());
    assert!(log.stats().syncs < 900, "{:?}", log.stats());

    log.append_soon(outcome(1, 0, Status::Delivered)).unwrap();
    log.close();
    assert_eq!(log.append(message(1, 1)).wait(), Err(AppendError::Closed));
    assert_eq!(log.append_soon(message(1, 1)), Err(AppendError::Closed));
    assert!(log.body(&id(2)).is_ok());
    assert_eq!(Log::open(options).unwrap().1.messages.len(), 1099);
}

#[tokio::test]
async fn the_reader_is_told_of_what_is_durable() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    let end = log.read(Cursor::default(), 9).unwrap().next;
    log.append_soon(message(1, 1)).unwrap();
    log.wait_for(end).await;
    let batch = log.read(end, 9).unwrap();
    assert_eq!((batch.records.len(), batch.lost), (1, false));
    let waiting = tokio::spawn(log.wait_for(batch.next));
    assert!(!waiting.is_finished());
    log.append(message(2, 1)).await.unwrap();
    waiting.await.unwrap();
    assert_eq!(log.read(batch.next, 9).unwrap().records.len(), 1);

    // A cursor that this log cannot have given: the log was put in place of another.
    let foreign = Cursor { segment: 50, offset: 9000 };
    log.wait_for(foreign).await;
    let batch = log.read(foreign, 9).unwrap();
    assert_eq!((batch.records.len(), batch.lost), (2, true));
}

#[test]
fn a_second_process_and_a_later_format_are_refused() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    assert_eq!(Log::open(options(dir.path())).unwrap_err(), OpenError::InUse(dir.path().to_owned()));
    settle(&log);
    log.close();
    let file = segment::path(&dir.path().join("log"), 1);
    let opened = fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let start = Start::read(&opened, drop).unwrap().unwrap();
    let later = Start { version: VERSION + 1, ..start }.encode();
    opened.write_all_at(&later, 0).unwrap();
    opened.write_all_at(&later, 4096).unwrap();
    let error = Log::open(options(dir.path())).unwrap_err();
    assert_eq!(error, OpenError::Newer { file: file.clone(), version: VERSION + 1 });
    assert_eq!(error.to_string(), format!("{}: format 3 is newer than this program knows (2)", file.display()));
}

#[test]
fn what_an_older_program_wrote_is_read_and_not_written_on() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    log.append(message(1, 1)).wait().unwrap();
    log.close();
    let file = segment::path(&dir.path().join("log"), 1);
    let opened = fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let older = Start { version: VERSION - 1, ..Start::read(&opened, drop).unwrap().unwrap() }.encode();
    opened.write_all_at(&older, 0).unwrap();
    opened.write_all_at(&older, 4096).unwrap();
    let before = fs::read(&file).unwrap().len();
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.messages.len(), 1);
    log.append(message(2, 1)).wait().unwrap();
    log.close();
    assert!(fs::read(&file).unwrap().len() <= before);
    let (_log, recovered) = open(dir.path());
    assert_eq!(recovered.messages.len(), 2);
}

#[test]
fn a_message_under_a_derived_id_is_made_once() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    log.append(message(1, 2)).wait().unwrap();
    log.append(outcome(1, 0, Status::Delivered)).wait().unwrap();
    log.append(message(1, 2)).wait().unwrap();
    drop(log);
    let (_log, recovered) = open(dir.path());
    assert_eq!(recovered.messages.len(), 1);
    assert_eq!(statuses(&recovered.messages[0]), [Status::Delivered, Status::Queued]);
}

#[test]
fn after_a_failed_sync_a_new_segment_is_begun() {
    let dir = TempDir::new().unwrap();
    let faults = Faults::default();
    let lazy = Duration::from_secs(3600);
    let (log, _) = Log::open_with(Options { lazy, ..options(dir.path()) }, faults.clone()).unwrap();
    log.append(message(1, 1)).wait().unwrap();
    log.append(message(2, 1)).wait().unwrap();
    let before = log.stats();
    locked(&faults.planned).push((Op::Sync, libc::EIO));
    log.append_soon(outcome(1, 0, Status::Delivered)).unwrap();
    assert!(matches!(log.append(message(3, 1)).wait(), Err(AppendError::Failed(_))));
    assert!(!log.is_full());
    assert_eq!(log.body(&id(3)), Err(BodyError::NotFound));
    log.append(message(4, 1)).wait().unwrap();
    let after = log.stats();
    assert_eq!((after.failed_syncs, after.segments, after.messages_live), (1, before.segments + 1, 2));
    let first = fs::metadata(segment::path(&dir.path().join("log"), 1)).unwrap().len();
    assert_eq!(first, before.bytes);

    // Whatever may still stand behind the last sync of the old segment counts for nothing.
    log.close();
    let old = fs::OpenOptions::new().append(true).open(segment::path(&dir.path().join("log"), 1)).unwrap();
    std::io::Write::write_all(&mut &old, &[0xee; 777]).unwrap();
    let (log, recovered) = open(dir.path());
    assert_eq!((recovered.bad_records, recovered.records), (0, 4));
    assert_eq!(recovered.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [id(2), id(4)]);
    assert_eq!(everything(&log, Cursor::default()).len(), 4);
}

#[test]
fn a_full_disk_refuses_mail_and_keeps_outcomes() {
    let dir = TempDir::new().unwrap();
    let faults = Faults::default();
    let (log, _) = Log::open_with(options(dir.path()), faults.clone()).unwrap();
    assert!(dir.path().join("reserve").exists());
    log.append(message(1, 1)).wait().unwrap();
    log.append(message(2, 1)).wait().unwrap();
    for op in [Op::Write, Op::Sync, Op::Create] {
        let before = log.stats().messages_live;
        // Something lies in the active segment, and the next record begins a new one, so that each of the three is met.
        settle(&log);
        let big = Entry::Message { id: id(99), head: head(99, 1), body: vec![Bytes::from(vec![1; 20_000])] };
        locked(&faults.planned).extend([(op, libc::ENOSPC), (Op::Write, libc::ENOSPC)]);
        let waiting = log.append(big);
        log.append_soon(setting(&format!("{op:?}"), Some("kept"))).unwrap();
        assert_eq!(waiting.wait(), Err(AppendError::Full), "{op:?}");
        eventually("a second failure", || locked(&faults.planned).is_empty());
        settle(&log);
        eventually("space", || !log.is_full() && dir.path().join("reserve").exists());
        assert_eq!(log.stats().waiting_for_disk, 0);
        assert_eq!(log.stats().messages_live, before);
    }
    log.append(message(3, 1)).wait().unwrap();
    drop(log);
    let (_log, recovered) = open(dir.path());
    assert_eq!((recovered.messages.len(), recovered.bad_records, recovered.cut_bytes), (3, 0, 0));
    let keys: Vec<_> = recovered.settings.keys().map(|key| &**key).collect();
    assert_eq!(keys, ["Create", "Sync", "Write", "settled"]);
}

#[test]
fn outcomes_that_cannot_be_written_are_said_until_all_are() {
    let dir = TempDir::new().unwrap();
    let faults = Faults::default();
    let (log, _) = Log::open_with(options(dir.path()), faults.clone()).unwrap();
    log.append(message(1, 3)).wait().unwrap();
    assert_eq!(log.stuck_for(), None);
    // What somebody waits for is answered, and keeps nothing from being delivered.
    locked(&faults.planned).push((Op::Sync, libc::EIO));
    assert!(log.append(message(2, 1)).wait().is_err());
    assert_eq!(log.stuck_for(), None);
    for op in [Op::Sync, Op::Write] {
        // Enough for every try in the meantime.
        locked(&faults.planned).extend([(op, libc::EIO); 10_000]);
        log.append_soon(outcome(1, 0, Status::Delivered)).unwrap();
        eventually("it is stuck", || log.stuck_for().is_some());
        let before = locked(&faults.planned).len();
        eventually("it is tried again", || locked(&faults.planned).len() + 1 < before);
        assert!(log.stuck_for().is_some(), "a write that is not synced yet is no end of it");
        locked(&faults.planned).clear();
        eventually("it is written", || log.stuck_for().is_none());
        assert_eq!(log.stats().waiting_for_disk, 0);
    }
    // What is left at the end is counted: two copies, of which one was delivered.
    locked(&faults.planned).extend([(Op::Sync, libc::EIO); 10_000]);
    log.append_soon(outcome(1, 1, Status::Delivered)).unwrap();
    log.append_soon(outcome(1, 1, Status::Relayed)).unwrap();
    log.append_soon(outcome(1, 2, Status::Bounced)).unwrap();
    assert_eq!(log.close(), Unwritten { entries: 3, deliveries: 1 });
    assert_eq!(log.close(), Unwritten { entries: 3, deliveries: 1 });
}

#[test]
fn a_writer_that_panics_goes_on_and_forgets_no_outcome() {
    use crate::supervise::PLANNED;
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    log.append(message(1, 2)).wait().unwrap();
    let place = dir.path().to_str().unwrap().to_owned();
    let plan = |turns| locked(&PLANNED).push(("log", place.clone(), turns));
    let is_over = || locked(&PLANNED).iter().all(|(_, at, _)| *at != place);
    plan(2);
    log.append_soon(outcome(1, 0, Status::Delivered)).unwrap();
    eventually("two panics", is_over);
    log.append(message(2, 1)).wait().unwrap();
    log.append_soon(outcome(1, 1, Status::Relayed)).unwrap();
    assert_eq!(log.close(), Unwritten::default());
    let (_log, recovered) = open(dir.path());
    assert_eq!(recovered.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [id(2)]);
}

#[test]
fn too_little_free_space_refuses_mail() {
    let dir = TempDir::new().unwrap();
    let (log, _) = Log::open(Options { min_free: u64::MAX, ..options(dir.path()) }).unwrap();
    assert!(log.is_full());
    assert_eq!(log.append(message(1, 1)).wait(), Err(AppendError::Full));
    assert_eq!(log.append_soon(Entry::Hits(vec![hit()])), Err(AppendError::Full));
    settle(&log);
}

#[test]
fn compaction_keeps_what_is_live() {
    let dir = TempDir::new().unwrap();
    let options = Options { slack: 0, ..options(dir.path()) };
    let (mut log, _) = Log::open(options.clone()).unwrap();
    let deferred = Status::Deferred { attempts: 3, next: 4, age: 5, told: false };
    let (mut live, mut kept) = (BTreeSet::new(), BTreeMap::new());
    let mut dice = 1u64;
    for n in 0..1200 {
        log.append_soon(message(n, 2)).unwrap();
        live.insert(n);
        log.append_soon(outcome(n, 1, deferred)).unwrap();
        if n % 50 != 0 {
            log.append_soon(outcome(n, 0, Status::Delivered)).unwrap();
            log.append_soon(outcome(n, 1, Status::Delivered)).unwrap();
            live.remove(&n);
        }
        if n % 7 == 0 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (key, value) = (format!("key {}", (dice >> 33) % 9), (dice >> 40) % 3);
            let value = (value > 0).then(|| format!("{n}"));
            log.append_soon(setting(&key, value.as_deref())).unwrap();
            match value {
                Some(value) => drop(kept.insert(key, value)),
                None => drop(kept.remove(&key)),
            }
        }
        if n % 11 == 0 {
            // Under keys that are changed one by one as well.
            let key = |n: u64| format!("key {}", n % 9);
            let (on, off) = (key(n), key(n + 1));
            let all = vec![(on.as_str().into(), Some(n.to_string().into())), (off.as_str().into(), None)];
            log.append_soon(Entry::Settings(all)).unwrap();
            kept.insert(on, n.to_string());
            kept.remove(&off);
        }
        if n % 40 == 0 {
            let end = log.0.shared.index().end();
            log.release(end);
        }
        if n % 300 == 299 {
            drop(log);
            let (again, recovered) = Log::open(options.clone()).unwrap();
            log = again;
            let found: Vec<_> = recovered.messages.iter().map(|m| m.id).collect();
            assert_eq!(found, live.iter().copied().map(id).collect::<Vec<_>>());
            assert!(recovered.messages.iter().all(|m| statuses(m) == [Status::Queued, deferred]));
            assert!(live.iter().all(|n| log.head(&id(*n)).as_ref() == Ok(&*head(*n, 2))), "roles and all");
            let settings: Vec<_> = kept.iter().map(|(k, v)| (k.as_str(), v.as_bytes())).collect();
            assert_eq!(recovered.settings.iter().map(|(k, v)| (&**k, &v[..])).collect::<Vec<_>>(), settings);
            assert!(live.iter().all(|n| log.body(&id(*n)).unwrap() == body(*n)));
            assert_eq!(recovered.bad_records, 0);
        }
    }
    settle(&log);
    eventually("compaction", || {
        // Copies lie behind what was released before them.
        let end = log.0.shared.index().end();
        log.release(end);
        log.stats().bytes <= 2 * log.stats().live_bytes + 2 * 16 * 1024
    });
    let first = log.0.shared.index().segments.first_key_value().map(|(id, _)| *id).unwrap();
    assert!(first > 50, "{first}");
    let batch = log.read(Cursor::default(), 1000).unwrap();
    assert!(batch.lost);
    let again =
        |r: &Stored| matches!(r, Stored::Message { again: true, statuses: Some(s), .. } if s[1].status == deferred);
    assert!(everything(&log, Cursor::default()).iter().any(again));
}

#[test]
fn what_is_old_is_freed_though_the_log_is_small() {
    let dir = TempDir::new().unwrap();
    let max_age = Some(Duration::from_millis(400));
    let (log, _) = Log::open(Options { max_age, ..options(dir.path()) }).unwrap();
    log.append_soon(setting("kept", Some("yes"))).unwrap();
    log.append_soon(message(1, 1)).unwrap();
    settle(&log);
    let segments = || log.0.shared.index().segments.keys().copied().collect::<Vec<_>>();
    assert_eq!(segments(), [1]);
    eventually("the first segment to go", || {
        // Something new now and then, as from a relay that has little to do.
        log.append_soon(setting("beat", Some("x"))).unwrap();
        let end = log.0.shared.index().end();
        log.release(end);
        segments().first() > Some(&1)
    });
    assert_eq!(log.body(&id(1)).unwrap(), body(1));
    drop(log);
    let (_, recovered) = Log::open(options(dir.path())).unwrap();
    assert_eq!(recovered.messages.len(), 1);
    assert!(recovered.settings.contains_key("kept"));
}

/// An outcome that overtook an earlier one would be undone by it at the next start.
#[test]
fn what_somebody_wants_gone_is_freed_though_the_log_is_small() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    let holds = |text: &str| {
        let files = fs::read_dir(dir.path().join("log")).unwrap();
        let bytes: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        bytes.iter().any(|bytes| memchr::memmem::find(bytes, text.as_bytes()).is_some())
    };
    let secret = |n: u64, text: &'static str| Entry::Message { id: id(n), head: head(n, 1), body: vec![text.into()] };
    log.append(secret(1, "what ada was sent")).wait().unwrap();
    log.append(outcome(1, 0, Status::Delivered)).wait().unwrap();
    log.append(secret(2, "what is still on its way to her")).wait().unwrap();
    log.compact_before(log.end());
    let mut n = 10;
    eventually("freeing", || {
        // The segment that is written is followed by the next when something comes.
        n += 1;
        log.append(setting("later", Some("1"))).wait().unwrap();
        log.release(log.end());
        !holds("what ada was sent")
    });
    assert!(holds("what is still on its way to her"), "mail in the queue stays");
    assert_eq!(log.body(&id(2)).unwrap(), b"what is still on its way to her");
    let first = log.0.shared.index().segments.first_key_value().map(|(id, _)| *id);
    std::thread::sleep(5 * writer::TICK);
    log.append(setting("later", Some("2"))).wait().unwrap();
    log.release(log.end());
    std::thread::sleep(5 * writer::TICK);
    assert_eq!(log.0.shared.index().segments.first_key_value().map(|(id, _)| *id), first, "once for each wish");
}

#[test]
fn an_outcome_never_overtakes_an_earlier_one() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    log.append(message(1, 1)).wait().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Somebody who waits keeps the writer busy.
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                settle(&log);
            }
        });
        for attempts in 1..=4000 {
            log.append_soon(outcome(1, 0, Status::Deferred { attempts, next: 9, age: 0, told: false })).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    settle(&log);
    let attempts = everything(&log, Cursor::default()).into_iter().filter_map(|stored| match stored {
        Stored::Outcomes { outcomes, .. } => match outcomes[0].status {
            Status::Deferred { attempts, .. } => Some(attempts),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(attempts.collect::<Vec<_>>(), (1..=4000).collect::<Vec<_>>());
}

#[test]
fn nothing_is_freed_before_it_was_read_unless_the_reader_is_far_behind() {
    for (max_behind, given_up) in [(u64::MAX, false), (30_000, true)] {
        let dir = TempDir::new().unwrap();
        let (log, _) = Log::open(Options { slack: 0, max_behind, ..options(dir.path()) }).unwrap();
        for n in 0..100 {
            log.append_soon(message(n, 1)).unwrap();
            log.append_soon(outcome(n, 0, Status::Delivered)).unwrap();
        }
        settle(&log);
        // The reader has not said where it is.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(log.stats().segments_given_up, 0);
        log.release(Cursor { segment: 3, offset: DATA });
        eventually("freeing what was read", || !log.0.shared.index().segments.contains_key(&2));
        if given_up {
            eventually("giving up", || log.stats().bytes < 50_000);
            assert!(log.stats().segments_given_up > 0);
        } else {
            std::thread::sleep(Duration::from_millis(50));
            assert!(log.0.shared.index().segments.contains_key(&3));
            assert_eq!(log.stats().segments_given_up, 0);
        }
    }
}

#[test]
fn a_damaged_segment_is_kept_aside() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    (1..=30).for_each(|n| log.append(message(n, 1)).wait().unwrap());
    let places: Vec<_> = [1, 2].map(|n| log.0.shared.index().messages.get(&id(n)).unwrap().place()).to_vec();
    drop(log);
    let path = segment::path(&dir.path().join("log"), 1);
    ends::cut_footer(&path);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // Of the first message both heads, of the second the body.
    file.write_all_at(&[0xaa, 0xaa], places[0].body_offset() - 2).unwrap();
    file.write_all_at(&[0xaa, 0xaa], places[0].offset + places[0].len() - 2).unwrap();
    file.write_all_at(&[0xaa, 0xaa], places[1].body_offset() + 5).unwrap();
    let (log, recovered) = Log::open(Options { slack: 0, ..options(dir.path()) }).unwrap();
    assert_eq!((recovered.bad_records, recovered.bad_segments, recovered.cut_bytes), (1, 1, 0));
    assert_eq!(recovered.messages.len(), 29);
    (3..=30).for_each(|n| log.append(outcome(n, 0, Status::Bounced)).wait().unwrap());
    log.release(log.0.shared.index().end());
    eventually("compaction", || path.with_extension("bad").exists() && !path.exists());
    // The copy knows that it is not what was accepted.
    assert_eq!(log.body(&id(2)), Err(BodyError::Damaged));
    assert_eq!((log.stats().bad_segments, log.stats().bad_records), (1, 2));
    drop(log);
    let (log, recovered) = open(dir.path());
    assert_eq!((recovered.messages.len(), recovered.messages[0].id), (1, id(2)));
    assert_eq!(log.body(&id(2)), Err(BodyError::Damaged));
}

/// What a record in a test's log is, and where it lies.
#[derive(Debug)]
struct Known {
    stored: Stored,
    from: Cursor,
    to: u64,
}

/// Settings that change together, one of them to nothing, and a key that is there twice.
fn several(n: u64) -> Vec<(Box<str>, Option<Bytes>)> {
    let value = |n: u64| Some(Bytes::from(n.to_string()));
    let key = |n: u64| (n % 5).to_string().into();
    vec![(key(n), value(n + 1)), (key(n + 1), None), (key(n + 2), value(n)), (key(n), value(n))]
}

/// A log of some batches, closed, and its records.
fn image(dir: &Path, batches: &[Vec<(u8, u64)>]) -> Vec<Known> {
    let (log, _) = open(dir);
    for batch in batches {
        let entries = batch.iter().map(|&(kind, n)| match kind {
            0 | 1 => message(n, 2),
            2 => outcome(n, 0, Status::Held),
            3 => outcome(n, 1, Status::Delivered),
            4 => setting(&format!("{}", n % 5), Some(&format!("{n}"))),
            5 => Entry::Settings(several(n)),
            _ => setting(&format!("{}", n % 5), None),
        });
        let waiting: Vec<_> = entries.map(|entry| log.append(entry)).collect();
        waiting.into_iter().for_each(|durable| durable.wait().unwrap());
    }
    let (mut known, mut at) = (Vec::new(), Cursor::default());
    loop {
        let batch = log.read(at, 1).unwrap();
        let Some((_, stored)) = batch.records.into_iter().next() else {
            if batch.next == at {
                return known;
            }
            at = batch.next;
            continue;
        };
        let from = if at.segment == batch.next.segment { at } else { Cursor { offset: DATA, ..batch.next } };
        let from = Cursor { offset: from.offset.max(DATA), ..from };
        known.push(Known { stored, from, to: batch.next.offset });
        at = batch.next;
    }
}

/// The fold, said once more and as simply as can be.
fn model<'a>(known: impl Iterator<Item = &'a Stored>) -> (BTreeMap<QueueId, Vec<Status>>, BTreeMap<Box<str>, Bytes>) {
    let (mut messages, mut settings) = (BTreeMap::new(), BTreeMap::new());
    for stored in known {
        match stored {
            Stored::Message { id, .. } => drop(messages.entry(*id).or_insert(vec![Status::Queued; 2])),
            Stored::Outcomes { id, outcomes, .. } => {
                let Some(statuses) = messages.get_mut(id) else { continue };
                outcomes.iter().for_each(|o| statuses[usize::from(o.recipient)] = o.status);
            }
            Stored::Setting { key, value: Some(value) } => drop(settings.insert(key.clone(), value.clone())),
            Stored::Setting { key, value: None } => drop(settings.remove(key)),
            Stored::Settings(all) => {
                for (key, value) in all {
                    match value {
                        Some(value) => drop(settings.insert(key.clone(), value.clone())),
                        None => drop(settings.remove(key)),
                    }
                }
            }
            Stored::Hits(_) => {}
        }
    }
    (messages, settings)
}

fn batches() -> impl Strategy<Value = Vec<Vec<(u8, u64)>>> {
    prop::collection::vec(prop::collection::vec((0u8..7, 1u64..12), 1..6), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A power cut that loses the end of the last segment loses exactly the records that reach into it.
    #[test]
    fn a_cut_loses_what_was_cut(batches in batches(), cut in 0.0f64..1.0) {
        let dir = TempDir::new().unwrap();
        let known = image(dir.path(), &batches);
        let last = known.last().unwrap().from.segment;
        let file = segment::path(&dir.path().join("log"), last);
        let len = fs::metadata(&file).unwrap().len();
        let cut = DATA + ((len - DATA) as f64 * cut) as u64;
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(cut).unwrap();

        let left: Vec<_> = known.iter().filter(|k| k.from.segment < last || k.to <= cut).map(|k| &k.stored).collect();
        let (messages, settings) = model(left.iter().copied());
        for round in 0..2 {
            let (log, recovered) = open(dir.path());
            prop_assert_eq!(recovered.bad_records, 0);
            prop_assert!(round == 0 || recovered.cut_bytes == 0);
            prop_assert_eq!(recovered.records, left.len() as u64);
            prop_assert_eq!(&recovered.settings, &settings);
            let found: BTreeMap<_, _> = recovered.messages.iter().map(|m| (m.id, statuses(m))).collect();
            prop_assert_eq!(&found, &messages);
            for live in &recovered.messages {
                prop_assert_eq!(log.body(&live.id), Ok(body(live.accepted_at)));
            }
        }
    }

    /// Damage anywhere, of a page or less, costs the records that it touches, and no other.
    #[test]
    fn damage_costs_what_it_touches(
        batches in batches(), file in any::<prop::sample::Index>(), at in 0.0f64..1.0, len in 1u64..4096, with in any::<u8>(),
    ) {
        let dir = TempDir::new().unwrap();
        let known = image(dir.path(), &batches);
        let log_dir = dir.path().join("log");
        let segment = file.index(usize::try_from(known.last().unwrap().from.segment).unwrap()) as u64 + 1;
        let path = segment::path(&log_dir, segment);
        let mut bytes = fs::read(&path).unwrap();
        let from = (bytes.len() as f64 * at) as usize;
        let to = (from + usize::try_from(len).unwrap()).min(bytes.len());
        bytes[from..to].iter_mut().enumerate().for_each(|(n, b)| *b = if with < 128 { 0 } else { with ^ n as u8 });
        fs::write(&path, &bytes).unwrap();

        let touched = |k: &&Known| k.from.segment == segment && k.from.offset < to as u64 && from as u64 <= k.to;
        let doubtful: BTreeSet<_> = known.iter().filter(touched).filter_map(|k| match &k.stored {
            Stored::Message { id, .. } | Stored::Outcomes { id, .. } => Some(*id),
            _ => None,
        }).collect();
        let doubtful_settings: BTreeSet<_> = known.iter().filter(touched).flat_map(|k| match &k.stored {
            Stored::Setting { key, .. } => vec![key.clone()],
            Stored::Settings(all) => all.iter().map(|(key, _)| key.clone()).collect(),
            _ => Vec::new(),
        }).collect();
        let (messages, settings) = model(known.iter().map(|k| &k.stored));
        for _ in 0..2 {
            let (log, recovered) = open(dir.path());
            let found: BTreeMap<_, _> = recovered.messages.iter().map(|m| (m.id, statuses(m))).collect();
            for (id, statuses) in messages.iter().filter(|(id, _)| !doubtful.contains(id)) {
                prop_assert_eq!(found.get(id), Some(statuses));
                let n = id.unix_ms() - 1_700_000_000_000;
                prop_assert_eq!(log.body(id), Ok(body(n)));
            }
            for live in &recovered.messages {
                prop_assert!(messages.contains_key(&live.id), "invented");
                let n = live.accepted_at;
                let got = log.head(&live.id);
                prop_assert!(got == Ok((*head(n, 2)).clone()) || (got == Err(BodyError::Damaged) && doubtful.contains(&live.id)));
                let got = log.body(&live.id);
                prop_assert!(got == Ok(body(n)) || got == Err(BodyError::Damaged));
            }
            for key in settings.keys().chain(recovered.settings.keys()).filter(|key| !doubtful_settings.contains(*key)) {
                prop_assert_eq!(recovered.settings.get(key), settings.get(key));
            }
            log.append(message(1000, 2)).wait().unwrap();
            log.append(Entry::Outcomes {
                id: id(1000),
                outcomes: vec![newest(0, Status::Removed), newest(1, Status::Removed)],
                report: None,
            }).wait().unwrap();
        }
    }

    #[test]
    fn the_fuzz_entry_takes_anything(batches in batches(), at in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = TempDir::new().unwrap();
        image(dir.path(), &batches);
        let mut bytes = fs::read(segment::path(&dir.path().join("log"), 1)).unwrap();
        let at = at.index(bytes.len());
        let to = (at + noise.len()).min(bytes.len());
        bytes.splice(at..to, noise.iter().copied());
        fuzz_recover(&bytes);
        fuzz_recover(&bytes[..at]);
        fuzz_recover(&noise);
    }
}

#[test]
fn the_bytes_of_a_settled_message_are_found_while_they_are_there() {
    // Bodies of different lengths.
    let minute = |n: u64| n * 60_007;
    let dir = TempDir::new().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    for n in 0..200 {
        log.append_soon(message(minute(n), 1)).unwrap();
        // One waits until all others are done.
        if n != 3 {
            log.append_soon(outcome(minute(n), 0, Status::Delivered)).unwrap();
        }
    }
    settle(&log);
    assert!(log.stats().segments > 20);
    let find = |log: &Log, n: u64, until: u64| log.find_body(&id(minute(n)), minute(n)..minute(until), 200);
    for n in 0..200 {
        assert_eq!(find(&log, n, n).unwrap(), body(minute(n)), "{n}");
    }
    log.append_soon(outcome(minute(3), 0, Status::Delivered)).unwrap();
    settle(&log);
    assert_eq!(find(&log, 3, 200).unwrap(), body(minute(3)));
    assert_eq!(find(&log, 777, 777), Err(BodyError::NotFound));
    assert_eq!(log.find_body(&id(1), 0..minute(200), 9), Err(BodyError::NotFound), "within its bounds");
}

#[test]
fn what_was_written_again_is_found_where_it_is_now() {
    // Bodies of different lengths.
    let minute = |n: u64| n * 60_007;
    let dir = TempDir::new().unwrap();
    let (log, _) = Log::open(Options { slack: 0, ..options(dir.path()) }).unwrap();
    let freed = |log: &Log| log.0.shared.index().segments.first_key_value().is_some_and(|(first, _)| *first > 5);
    log.append_soon(message(minute(0), 1)).unwrap();
    for n in 1..100 {
        log.append_soon(message(minute(n), 1)).unwrap();
        log.append_soon(outcome(minute(n), 0, Status::Delivered)).unwrap();
    }
    settle(&log);
    eventually("compaction", || {
        log.release(log.0.shared.index().end());
        freed(&log)
    });
    assert_eq!(log.find_body(&id(minute(1)), minute(1)..minute(1), 1_000), Err(BodyError::NotFound));
    log.append_soon(outcome(minute(0), 0, Status::Delivered)).unwrap();
    settle(&log);
    // It waited until after the last of them.
    assert_eq!(log.find_body(&id(0), 0..minute(100), 10_000).unwrap(), body(0));
}
