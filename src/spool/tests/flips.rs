//! One bit that is wrong anywhere in the record of a message loses nobody's mail.

use super::ends::cut_footer;
use super::*;
use crate::spool::fetch::head_at;
use crate::spool::recover::recover;

/// Head and body, as far as they are right.
fn found(dir: &Path, id: &QueueId) -> Option<(Result<MessageHead, BodyError>, bool)> {
    let (index, _) = recover(&dir.join("log")).unwrap();
    let message = index.messages.get(id)?;
    let segment = &index.segments[&message.place().segment];
    let mut body = vec![0; message.place().body_len as usize];
    segment.file.read_exact_at(&mut body, message.place().body_offset()).unwrap();
    let right = crc32fast::hash(&body) == message.place().body_crc;
    Some((head_at(&*segment.file, segment.seal, &message.place(), |_| ()), right))
}

#[test]
fn one_wrong_bit_in_a_message_never_loses_it() {
    for with_footer in [true, false] {
        let dir = TempDir::new().unwrap();
        let (log, _) = open(dir.path());
        // The last ones that were synced, of which no later record tells.
        let waiting: Vec<_> = [7, 8, 9].map(|n| log.append(message(n, 2))).into();
        waiting.into_iter().for_each(|durable| durable.wait().unwrap());
        let (place, wanted) = (log.0.shared.index().messages.get(&id(8)).unwrap().place(), head(8, 2));
        drop(log);
        let path = segment::path(&dir.path().join("log"), 1);
        if !with_footer {
            cut_footer(&path);
        }
        let good = fs::read(&path).unwrap();
        let (from, body, end) = (place.offset, place.body_offset(), place.offset + place.len());
        // All bits of what is not body, and one of each byte that is.
        let bits = (from..end).flat_map(|at| {
            let in_body = (body..place.end()).contains(&at);
            let bits = if in_body { vec![at % 8] } else { (0..8).collect() };
            bits.into_iter().map(move |bit| (at, bit, in_body))
        });
        for (at, bit, in_body) in bits.step_by(3) {
            fs::remove_file(segment::path(&dir.path().join("log"), 2)).ok();
            let mut bytes = good.clone();
            bytes[usize::try_from(at).unwrap()] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            let (got, body_is_right) = found(dir.path(), &id(8)).unwrap_or_else(|| panic!("lost by bit {bit} of {at}"));
            assert_eq!(got.as_ref(), Ok(&*wanted), "bit {bit} of {at}");
            assert_eq!(body_is_right, !in_body, "bit {bit} of {at}");
        }
    }
}

#[test]
fn readers_meet_a_message_whose_own_record_is_damaged_once() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    (1..=3).for_each(|n| log.append(message(n, 2)).wait().unwrap());
    let place = log.0.shared.index().messages.get(&id(2)).unwrap().place();
    let (path, all) = (segment::path(&dir.path().join("log"), 1), everything(&log, Cursor::default()));
    assert_eq!(all.len(), 3);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for at in [place.offset + 9, place.head_offset() + 5] {
        file.write_all_at(&[0xaa], at).unwrap();
        assert_eq!(everything(&log, Cursor::default()), all);
        assert_eq!(log.read(Cursor::default(), 9).unwrap().records.len(), 3);
        assert_eq!(log.message(&id(2), 9_999), Ok(((*head(2, 2)).clone(), Some(body(2)))));
        assert_eq!(log.find_body(&id(2), 0..9, 100), Ok(body(2)));
    }
    // A settled one is found by its second head alone.
    log.append(Entry::Outcomes {
        id: id(2),
        outcomes: vec![newest(0, Status::Delivered), newest(1, Status::Delivered)],
        report: None,
    })
    .wait()
    .unwrap();
    assert_eq!(log.find_body(&id(2), 0..9, 100), Ok(body(2)));
}
