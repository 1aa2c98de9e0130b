//! What the disk does not give now is not damaged: it may give it the next time.

use super::*;
use crate::spool::fetch::head_at;
use crate::spool::walk::ReadAt;
use std::io;
use std::ops::Range;

/// Bytes, some of which cannot be read.
struct Holes<'a>(&'a [u8], Vec<Range<u64>>);

impl ReadAt for Holes<'_> {
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset + buf.len() as u64;
        match self.1.iter().any(|hole| hole.start < end && offset < hole.end) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => self.0.read_some(buf, offset),
        }
    }
}

#[test]
fn an_envelope_is_damaged_only_where_both_copies_were_read() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    log.append(message(1, 2)).wait().unwrap();
    let (place, seal) = {
        let index = log.0.shared.index();
        (index.messages.get(&id(1)).unwrap().place(), index.segments[&1].seal)
    };
    let good = fs::read(segment::path(&dir.path().join("log"), 1)).unwrap();
    let copies = [place.head_offset(), place.end() + place.head_offset() - place.offset + 20];
    let found = |damaged: &[u64], unreadable: &[u64]| {
        let mut bytes = good.clone();
        damaged.iter().for_each(|at| bytes[usize::try_from(*at).unwrap()] ^= 1);
        let holes = unreadable.iter().map(|at| *at..*at + 1).collect();
        let mut healed = None;
        let found = head_at(&Holes(&bytes, holes), seal, &place, |error| healed = Some(error.clone()));
        (found, healed)
    };
    let [first, second] = copies;
    let right = Ok((*head(1, 2)).clone());
    let error = BodyError::Io(io::Error::from_raw_os_error(libc::EIO).to_string());
    for (damaged, unreadable, healed) in [
        (vec![], vec![], None),
        (vec![first], vec![], Some(BodyError::Damaged)),
        (vec![], vec![first], Some(error)),
        (vec![second], vec![], None),
    ] {
        assert_eq!(found(&damaged, &unreadable), (right.clone(), healed), "{damaged:?} {unreadable:?}");
    }
    assert_eq!(found(&copies, &[]), (Err(BodyError::Damaged), None));
    for (damaged, unreadable) in
        [(vec![], vec![first, second]), (vec![first], vec![second]), (vec![second], vec![first])]
    {
        let found = found(&damaged, &unreadable);
        assert!(matches!(found, (Err(BodyError::Io(_)), None)), "{damaged:?} {unreadable:?}: {found:?}");
    }
}

#[test]
fn a_segment_that_cannot_be_read_now_is_freed_later_and_nothing_in_it_is_forgotten() {
    let dir = TempDir::new().unwrap();
    let (log, _) = Log::open(Options { slack: 0, ..options(dir.path()) }).unwrap();
    (1..=30).for_each(|n| log.append(message(n, 1)).wait().unwrap());
    (2..=30).for_each(|n| log.append(outcome(n, 0, Status::Bounced)).wait().unwrap());
    let path = segment::path(&dir.path().join("log"), 1);
    // Reading fails on a file that was opened for writing alone.
    let blind = Arc::new(fs::OpenOptions::new().write(true).open(&path).unwrap());
    let file = std::mem::replace(&mut log.0.shared.index().segments.get_mut(&1).unwrap().file, blind);
    let bad = || log.0.shared.index().segments.get(&1).map(|segment| segment.bad);
    // Nothing is freed before this.
    log.release(log.end());
    std::thread::sleep(10 * writer::TICK);
    assert_eq!((log.stats().messages_live, bad()), (1, Some(false)), "it stays as it is");
    assert!(matches!(log.head(&id(1)), Err(BodyError::Io(_))));
    // Others are written meanwhile.
    log.append(message(31, 1)).wait().unwrap();
    log.0.shared.index().segments.get_mut(&1).unwrap().file = file;
    eventually("compaction", || {
        log.release(log.end());
        bad().is_none()
    });
    assert!(!path.exists() && !path.with_extension("bad").exists());
    assert_eq!(log.message(&id(1), 9_999), Ok(((*head(1, 1)).clone(), Some(body(1)))));
    assert_eq!(log.stats().bad_segments, 0);
}
