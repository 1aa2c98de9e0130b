//! What the log tells of messages whose own record comes later in it.
//!
//! | key | value |
//! | --- | --- |
//! | `p` id, place in the log (16), number within the record (4), piece (2) | a piece of the postcard of [`Waiting`] |
//!
//! A message that waited for long was written again at the end of the log when its segment was freed, so a log that is
//! read from its beginning has hits and outcomes before the message. They lie here until it comes, or until it is clear
//! that it does not.

use super::{Store, StoreError, Write, chunks, prefix_end};
use crate::event::Hit;
use crate::mail::{Outcome, QueueId};
use crate::spool::Cursor;
use serde::{Deserialize, Serialize};

/// Something that was told of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waiting {
    Hit(Hit),
    Outcomes { outcomes: Vec<Outcome>, report: Option<Vec<u8>> },
}

/// Where in the log it stands: the message, the record, and its number within the record.
pub type WaitingPlace = (QueueId, Cursor, u32);

/// One that lies in the store, with the pieces that it takes there.
pub type StoredWaiting = (WaitingPlace, Waiting, usize);

/// The write that lets it lie.
pub fn waiting_writes(place: WaitingPlace, what: &Waiting, out: &mut Vec<Write>) {
    let bytes = postcard::to_stdvec(what).expect("rows hold no type that postcard refuses");
    chunks::put(&prefix(place), &bytes, 0, out);
}

/// The writes that take it away.
pub fn waiting_deletes((place, _, pieces): &StoredWaiting, out: &mut Vec<Write>) {
    chunks::delete(&prefix(*place), 0..*pieces, out);
}

/// What waits for a message, or for any, in the order of messages and then of the log. Up to `rows` rows are read, which
/// hold at least one where there is one.
pub fn waiting(store: &Store, id: Option<&QueueId>, rows: usize) -> Result<Vec<StoredWaiting>, StoreError> {
    let from = id.map_or_else(|| b"p".to_vec(), |id| [b"p", &id.as_bytes()[..]].concat());
    let mut found = Vec::new();
    for (key, _) in store.scan(&from, &prefix_end(&from), rows, false)? {
        let Some((prefix, [0, 0])) = key.split_last_chunk::<2>() else { continue };
        let place = place_of(prefix).ok_or(StoreError::Malformed)?;
        let Some((bytes, pieces)) = chunks::get(store, prefix)? else { continue };
        let what = postcard::from_bytes(&bytes).map_err(|_| StoreError::Malformed)?;
        found.push((place, what, pieces));
    }
    Ok(found)
}

fn prefix((id, place, number): WaitingPlace) -> Vec<u8> {
    let (segment, offset) = (place.segment.to_be_bytes(), place.offset.to_be_bytes());
    [b"p", &id.as_bytes()[..], &segment, &offset, &number.to_be_bytes()].concat()
}

fn place_of(prefix: &[u8]) -> Option<WaitingPlace> {
    let (id, rest) = prefix.get(1..)?.split_first_chunk::<16>()?;
    let (segment, rest) = rest.split_first_chunk::<8>()?;
    let (offset, number) = rest.split_first_chunk::<8>()?;
    let place = Cursor { segment: u64::from_be_bytes(*segment), offset: u64::from_be_bytes(*offset) };
    Some((QueueId::from_bytes(*id), place, u32::from_be_bytes(number.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::super::commit_now;
    use super::*;
    use crate::mail::Status;

    #[test]
    fn what_waits_comes_back_in_the_order_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let reply = "x".repeat(500);
        let outcome = |recipient| Outcome { recipient, status: Status::Bounced, reply: (&*reply).into(), at: 5 };
        let long = Waiting::Outcomes { outcomes: (0..20).map(outcome).collect(), report: Some(vec![1; 3_000]) };
        let short = Waiting::Outcomes { outcomes: Vec::new(), report: None };
        let place = |id: u8, offset| (QueueId::from_bytes([id; 16]), Cursor { segment: 1, offset }, 0);
        let mut writes = Vec::new();
        for (place, what) in [(place(1, 300), &short), (place(1, 20), &long), (place(2, 1), &short)] {
            waiting_writes(place, what, &mut writes);
        }
        commit_now(&store, std::mem::take(&mut writes)).unwrap();
        let of_one = waiting(&store, Some(&QueueId::from_bytes([1; 16])), 999).unwrap();
        assert_eq!(
            of_one.iter().map(|(place, what, _)| (*place, what)).collect::<Vec<_>>(),
            [(place(1, 20), &long), (place(1, 300), &short)]
        );
        // One after the other, however few rows are read.
        for left in [2, 1, 0] {
            let some = waiting(&store, None, 1).unwrap();
            assert_eq!(some.len(), 1);
            waiting_deletes(&some[0], &mut writes);
            commit_now(&store, std::mem::take(&mut writes)).unwrap();
            assert_eq!(waiting(&store, None, 999).unwrap().len(), left);
        }
        assert!(store.scan(b"p", b"q", 9, false).unwrap().is_empty());
    }
}
