//! Rows of opens and clicks, in order of time. One row holds hits that the log brought in one record, as many as go
//! into a value, since a row each would cost more than all the rest of a click.
//!
//! Beside them, `e` message id (16) kind (1 byte, `o` or `c`) says that a message was opened or clicked at all.
//!
//! Key: `h`, time of the row's first hit (8 bytes), place of the record in the log (16), piece (2).

use super::{MAX_VALUE, Store, StoreError, Write, prefix_end};
use crate::event::Class;
use crate::event::{Hit, HitKind};
use crate::mail::QueueId;
use crate::spool::Cursor;
use serde::{Deserialize, Serialize};

/// A hit with what was made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HitRow {
    pub hit: Hit,
    pub class: Class,
}

/// The writes for the hits of one log record. The keys come from the record's place, so writing twice changes nothing.
pub fn hit_rows(place: Cursor, hits: &[HitRow], out: &mut Vec<Write>) {
    let kind = |hit: &Hit| if matches!(hit.kind, HitKind::Open) { b'o' } else { b'c' };
    let mut noted: Vec<_> = hits.iter().filter(|row| !row.hit.repeat).map(|row| (row.hit.id, kind(&row.hit))).collect();
    noted.sort_unstable();
    noted.dedup();
    out.extend(noted.iter().map(|(id, kind)| Write::Put(interest_key(id, *kind), Vec::new())));
    let mut piece = 0u16;
    let mut value = Vec::with_capacity(MAX_VALUE);
    let mut first = 0;
    for row in hits {
        let bytes = postcard::to_stdvec(row).expect("rows hold no type that postcard refuses");
        // A hit with a destination longer than a row is kept without it: the link's index still names it.
        let bytes =
            if bytes.len() > MAX_VALUE { postcard::to_stdvec(&shortened(row)).unwrap_or_default() } else { bytes };
        if value.len() + bytes.len() > MAX_VALUE {
            out.push(Write::Put(
                key(first, place, piece),
                std::mem::replace(&mut value, Vec::with_capacity(MAX_VALUE)),
            ));
            piece = piece.saturating_add(1);
        }
        if value.is_empty() {
            first = row.hit.at;
        }
        value.extend_from_slice(&bytes);
    }
    if !value.is_empty() {
        out.push(Write::Put(key(first, place, piece), value));
    }
}

/// Whether a message was opened or clicked, by whomever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub opened: bool,
    pub clicked: bool,
}

/// Whether this message was opened or clicked.
pub fn interest(store: &Store, id: &QueueId) -> Result<Interest, StoreError> {
    let there = |kind: u8| Ok::<_, StoreError>(store.get(&interest_key(id, kind))?.is_some());
    Ok(Interest { opened: there(b'o')?, clicked: there(b'c')? })
}

fn interest_key(id: &QueueId, kind: u8) -> Vec<u8> {
    [b"e", &id.as_bytes()[..], &[kind]].concat()
}

/// The newest `limit` hits, the newest first.
pub fn hits_before(store: &Store, limit: usize) -> Result<Vec<HitRow>, StoreError> {
    let mut found = Vec::new();
    for (_, value) in store.scan(b"h", &prefix_end(b"h"), limit, true)? {
        let mut rest = &value[..];
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let (row, after) = postcard::take_from_bytes::<HitRow>(rest).map_err(|_| StoreError::Malformed)?;
            rows.push(row);
            rest = after;
        }
        found.extend(rows.into_iter().rev());
        if found.len() >= limit {
            break;
        }
    }
    found.sort_by_key(|row| std::cmp::Reverse(row.hit.at));
    found.truncate(limit);
    Ok(found)
}

fn shortened(row: &HitRow) -> HitRow {
    let mut row = row.clone();
    if let crate::event::HitKind::Click { url, .. } = &mut row.hit.kind {
        let mut end = url.len().min(1_000);
        while !url.is_char_boundary(end) {
            end -= 1;
        }
        *url = url[..end].into();
    }
    row
}

fn key(first: u64, place: Cursor, piece: u16) -> Vec<u8> {
    [b"h", &first.to_be_bytes()[..], &place.segment.to_be_bytes(), &place.offset.to_be_bytes(), &piece.to_be_bytes()]
        .concat()
}

#[cfg(test)]
mod tests {
    use super::super::commit_now;
    use super::*;

    #[test]
    fn many_hits_share_rows_and_come_back_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let row = |at: u64, url: String| HitRow {
            hit: Hit {
                id: QueueId::new(1, [2; 10]),
                recipient: 0,
                kind: HitKind::Click { link: 1, url: url.into() },
                at,
                count: 1,
                address: "127.0.0.1".parse().unwrap(),
                agent: "agent".into(),
                head: false,
                repeat: false,
            },
            class: Class::Human,
        };
        let hits: Vec<_> = (0..100).map(|at| row(at, "https://example.com/".repeat(3))).collect();
        let mut writes = Vec::new();
        hit_rows(Cursor { segment: 1, offset: 2 }, &hits, &mut writes);
        assert!(writes.len() < 13, "{} rows", writes.len());
        hit_rows(Cursor { segment: 1, offset: 3 }, &[row(500, "x".repeat(5_000))], &mut writes);
        commit_now(&store, writes.clone()).unwrap();
        commit_now(&store, writes).unwrap();
        let found = hits_before(&store, 1_000).unwrap();
        assert_eq!(found.len(), 101);
        assert_eq!(found[0].hit.at, 500);
        assert_eq!(found[1], hits[99]);
        assert_eq!(hits_before(&store, 3).unwrap().len(), 3);
        let seen = interest(&store, &QueueId::new(1, [2; 10])).unwrap();
        assert_eq!(seen, Interest { opened: false, clicked: true });
        assert_eq!(interest(&store, &QueueId::new(2, [2; 10])).unwrap(), Interest::default());
    }
}
