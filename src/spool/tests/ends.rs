//! How a segment ends: its footer, the roll to the next one, and what a crash between the two leaves.

use super::*;
use crate::spool::footer::Footer;
use crate::spool::index::Index;
use crate::spool::owners::Owner;
use crate::spool::recover::recover;
use crate::spool::segment::UNBEGUN;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Numbers and files of the segments.
fn segments(dir: &Path) -> Vec<(u64, std::path::PathBuf)> {
    let log = dir.join("log");
    segment::list(&log).unwrap().segments.into_iter().map(|n| (n, segment::path(&log, n))).collect()
}

/// Where the footer of a segment begins, if it has one.
fn footer_at(path: &Path) -> Option<u64> {
    let bytes = fs::read(path).unwrap();
    let source = &bytes[..];
    let start = Start::read(&source, drop).unwrap().unwrap();
    Footer::read(&source, start.seal, bytes.len() as u64).unwrap().map(|footer| footer.covers)
}

pub(super) fn cut_footer(path: &Path) {
    if let Some(at) = footer_at(path) {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(at).unwrap();
    }
}

/// The fold, and all that the log knows of where its parts lie.
fn state(index: &Index, recovered: &Recovered) -> String {
    let messages: Vec<_> = index.messages.iter().map(|(id, m)| (id, m.place(), m.recipients, m.newest())).collect();
    // One key that is left of several is one key.
    let owner = |owner: &Owner| match owner {
        Owner::Settings(keys) if keys.len() == 1 => Owner::Setting(keys.first().unwrap().clone()),
        owner => owner.clone(),
    };
    let live: Vec<_> =
        index.segments.values().map(|s| (s.end, s.live_bytes, s.live.iter().map(owner).collect::<Vec<_>>())).collect();
    let Recovered { messages: queued, settings, cut_bytes, bad_records, bad_segments, lost: _, records, took: _ } =
        recovered;
    format!(
        "{messages:?} {live:?} {:?} {queued:?} {settings:?} {cut_bytes} {bad_records} {bad_segments} {records}",
        index.settings
    )
}

fn recovered(dir: &Path) -> String {
    let (index, recovered) = recover(&dir.join("log")).unwrap();
    state(&index, &recovered)
}

fn copy_of(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    fs::create_dir(copy.path().join("log")).unwrap();
    for (number, path) in segments(dir) {
        fs::copy(path, segment::path(&copy.path().join("log"), number)).unwrap();
    }
    copy
}

/// A log that has freed some of its segments, where asked. No id comes twice then: one that came again while the first
/// was in the queue changed nothing, and once the first is freed a walk takes it for a message.
fn filled(dir: &Path, batches: &[Vec<(u8, u64)>], compacted: bool) {
    let slack = if compacted { 0 } else { u64::MAX };
    let (log, _) = Log::open(Options { slack, ..options(dir) }).unwrap();
    let mut accepted = BTreeSet::new();
    for batch in batches {
        let entries = batch.iter().map(|&(kind, n)| match kind {
            0 | 1 if compacted && !accepted.insert(n) => Entry::Hits(vec![hit()]),
            0 | 1 => message(n, 2),
            2 => outcome(n, 0, Status::Deferred { attempts: 2, next: n, age: 3, told: false }),
            3 => outcome(n, 1, Status::Delivered),
            4 => setting(&format!("{}", n % 5), Some(&format!("{n}"))),
            5 => setting(&format!("{}", n % 5), None),
            6 => outcome(n, 0, Status::Bounced),
            7 => Entry::Settings(several(n)),
            _ => Entry::Hits(vec![hit()]),
        });
        let waiting: Vec<_> = entries.map(|entry| log.append(entry)).collect();
        waiting.into_iter().for_each(|durable| durable.wait().unwrap());
        let end = log.0.shared.index().end();
        log.release(end);
    }
    let _ = log.append(setting("last", Some("x"))).wait();
}

fn many_batches() -> impl Strategy<Value = Vec<Vec<(u8, u64)>>> {
    prop::collection::vec(prop::collection::vec((0u8..9, 1u64..30), 1..12), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// With all footers, with none, with a damaged one: a start comes to the same fold, and writes the same footers
    /// again, byte for byte.
    #[test]
    fn a_start_comes_to_the_same_fold_with_and_without_footers(
        batches in many_batches(), compacted in any::<bool>(), one in any::<prop::sample::Index>(), at in 0.0f64..1.0, bit in 0u8..8,
    ) {
        let dir = TempDir::new().unwrap();
        filled(dir.path(), &batches, compacted);
        let all = segments(dir.path());
        let (_, last) = all.last().unwrap();
        prop_assert!(all.iter().all(|(_, path)| footer_at(path).is_some()), "one each");
        let (none, damaged) = (copy_of(dir.path()), copy_of(dir.path()));
        segments(none.path()).iter().for_each(|(_, path)| cut_footer(path));
        let (number, _) = *one.get(&all.iter().map(|(n, _)| (*n, ())).collect::<Vec<_>>());
        let path = segment::path(&damaged.path().join("log"), number);
        let from = footer_at(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let place = usize::try_from(from).unwrap();
        let place = place + ((bytes.len() - place - 1) as f64 * at) as usize;
        bytes[place] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();

        let want = recovered(dir.path());
        prop_assert_eq!(recovered(none.path()), want.clone());
        // The last one's counts as a torn end, and is cut.
        let found = recovered(damaged.path());
        if path.file_name() != last.file_name() {
            prop_assert_eq!(found, want);
        }
        // Of messages that lay in segments that are gone, a new one need say nothing.
        for (number, path) in all[..all.len() - 1].iter().filter(|_| !compacted) {
            let again = segment::path(&none.path().join("log"), *number);
            prop_assert!(fs::read(again).unwrap() == fs::read(path).unwrap(), "the footer of segment {}", number);
        }
    }

    /// A crash may leave the next segment begun and never synced, and the full one before it torn.
    #[test]
    fn a_segment_that_was_never_synced_loses_nothing_sound(batches in many_batches(), torn in any::<bool>(), emptied in any::<bool>()) {
        let dir = TempDir::new().unwrap();
        filled(dir.path(), &batches, false);
        let all = segments(dir.path());
        let (number, path) = all.last().unwrap();
        cut_footer(path);
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let seal = Start::read(&file, drop).unwrap().unwrap().seal;
        segment::begin(&file, seal, UNBEGUN).unwrap();
        if emptied {
            file.set_len(DATA).unwrap();
        }
        if let Some((_, before)) = all.iter().rev().nth(1) {
            cut_footer(before);
            if torn {
                let before = fs::OpenOptions::new().append(true).open(before).unwrap();
                std::io::Write::write_all(&mut &before, &[0xa7; 300]).unwrap();
            }
        }
        let whole = TempDir::new().unwrap();
        filled(whole.path(), &batches, false);
        if emptied {
            let (_, last) = segments(whole.path()).pop().unwrap();
            fs::remove_file(last).unwrap();
        }
        let (_, want) = recover(&whole.path().join("log")).unwrap();
        for _ in 0..2 {
            let (log, got) = open(dir.path());
            prop_assert_eq!(got.bad_records, 0);
            prop_assert_eq!(&got.settings, &want.settings);
            prop_assert_eq!(&got.messages, &want.messages);
            log.append(setting("more", Some("x"))).wait().unwrap();
            log.append(setting("more", None)).wait().unwrap();
            let highest = log.0.shared.index().end().segment;
            prop_assert!(highest <= number + 1);
        }
    }
}

/// Delivery asks for it: what goes out meanwhile would go out again after the machine has lost its power.
#[test]
fn outcomes_that_wait_for_a_sync_are_said_until_it_is_done() {
    let dir = TempDir::new().unwrap();
    let faults = Faults::default();
    let (log, _) = Log::open_with(options(dir.path()), faults.clone()).unwrap();
    log.append(message(1, 1)).wait().unwrap();
    faults.slow.store(4_000, Ordering::Relaxed);
    let durable = log.append(outcome(1, 0, Status::Deferred { attempts: 1, next: 9, age: 0, told: false }));
    let started = Instant::now();
    let until = |wanted: bool| {
        while log.stuck_for().is_some() != wanted {
            assert!(started.elapsed() < Duration::from_secs(30), "{:?}", log.stuck_for());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    until(true);
    assert!(log.stuck_for().is_some_and(|stuck| stuck > Duration::from_secs(1)));
    faults.slow.store(0, Ordering::Relaxed);
    durable.wait().unwrap();
    until(false);
}

#[test]
fn a_roll_on_a_slow_disk_keeps_nobody_waiting() {
    let dir = TempDir::new().unwrap();
    let faults = Faults::default();
    let (log, _) = Log::open_with(options(dir.path()), faults.clone()).unwrap();
    log.append(message(1, 2)).wait().unwrap();
    // Each sync, and each segment that is made, now takes longer than all of what follows may.
    faults.slow.store(1500, Ordering::Relaxed);
    let started = Instant::now();
    for attempts in 0..400 {
        log.append_soon(outcome(1, 0, Status::Deferred { attempts, next: 9, age: 0, told: false })).unwrap();
    }
    let took = started.elapsed();
    faults.slow.store(0, Ordering::Relaxed);
    assert!(took < Duration::from_millis(1000), "{took:?}");
    settle(&log);
    assert!(log.stats().segments > 3);
    drop(log);
    let (_, recovered) = open(dir.path());
    assert!(matches!(recovered.messages[0].newest[0].status, Status::Deferred { attempts: 399, .. }));
}

/// What was written to the next segment while the full one could not be synced goes back with it, in order.
#[test]
fn a_full_segment_that_cannot_be_synced_takes_the_next_one_back() {
    let dir = TempDir::new().unwrap();
    let faults = Faults::default();
    let lazy = Duration::from_secs(3600);
    let (log, _) = Log::open_with(Options { lazy, ..options(dir.path()) }, faults.clone()).unwrap();
    log.append(message(1, 2)).wait().unwrap();
    for attempts in 0..90 {
        log.append_soon(outcome(1, 0, Status::Deferred { attempts, next: 9, age: 0, told: false })).unwrap();
    }
    eventually("some to lie in either", || log.stats().segments == 2);
    locked(&faults.planned).push((Op::Sync, libc::EIO));
    assert!(matches!(log.append(message(2, 1)).wait(), Err(AppendError::Failed(_))));
    log.append(message(3, 1)).wait().unwrap();
    log.close();
    drop(log);
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.bad_records, 0);
    assert_eq!(recovered.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [id(1), id(3)]);
    let attempts = everything(&log, Cursor::default()).into_iter().filter_map(|stored| match stored {
        Stored::Outcomes { outcomes, .. } => match outcomes[0].status {
            Status::Deferred { attempts, .. } => Some(attempts),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(attempts.collect::<Vec<_>>(), (0..90).collect::<Vec<_>>());
}

/// No reader says where it is, as when the store does not open; nor is there anything to write.
#[test]
fn on_a_full_disk_history_gives_way_to_mail() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    for n in 1..=60 {
        log.append(message(n, 1)).wait().unwrap();
        if n != 30 {
            log.append(outcome(n, 0, Status::Delivered)).wait().unwrap();
        }
    }
    let before = log.stats();
    drop(log);
    let (log, _) = Log::open(Options { min_free: u64::MAX, ..options(dir.path()) }).unwrap();
    eventually("freeing what is settled", || log.stats().bytes < before.bytes / 5);
    assert!(log.stats().segments_given_up > 0);
    assert_eq!(log.message(&id(30), 9_999), Ok(((*head(30, 1)).clone(), Some(body(30)))));
    drop(log);
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [id(30)]);
}
