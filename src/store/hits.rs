//! What each recipient did with their copy: opens and clicks.
//!
//! | key | value |
//! | --- | --- |
//! | `h` id, recipient (2), piece (2) | a piece of the postcard of [`Seen`] |
//! | `t` time (8), place in the log (16), piece (2) | hits that one record of the log brought: id, recipient (2), number (4) each |
//!
//! All that belongs to one recipient lies together, so that a message's timeline is one scan, a label can be changed
//! later, and a person can be forgotten. The second row gives the order of time.

use super::{MAX_VALUE, Store, StoreError, Write, chunks, prefix_end};
use crate::event::{Class, Hit, HitKind};
use crate::mail::QueueId;
use crate::spool::Cursor;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What one recipient did with one copy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub tally: Tally,
    /// In the order of the log. [`MAX_ENTRIES`] at most; what comes later is in the counts alone.
    pub entries: Vec<HitEntry>,
}

/// What counts need to know of a recipient, so that a first time is counted once and can be taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Opens of people, machines and of whom it is not known, then clicks likewise; repeats included.
    pub hits: [u32; 6],
    /// When (milliseconds since 1970) each of these was counted: opened by anybody, by no machine, clicked by
    /// anybody, by no machine. 0: it was not.
    pub first: [u64; 4],
    /// When the copy counts as delivered, in milliseconds since 1970; 0 before the first hit.
    pub delivered: u64,
    /// The next entry's number.
    pub next: u32,
}

/// One open or click, with its repeats within a few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitEntry {
    /// Counts a recipient's hits from 0 and never changes.
    pub number: u32,
    pub kind: HitKind,
    /// Milliseconds since 1970.
    pub at: u64,
    pub count: u32,
    pub class: Class,
    /// `None` once it was taken away.
    pub address: Option<IpAddr>,
    /// Empty as well once it was taken away.
    pub agent: Box<str>,
    pub head: bool,
}

/// Entries kept of one recipient.
pub const MAX_ENTRIES: usize = 100;
/// Destinations are kept up to so many bytes; the link's index names a longer one.
const MAX_URL: usize = 1_000;
const REF: usize = 16 + 2 + 4;

impl HitEntry {
    pub fn new(hit: &Hit, number: u32, class: Class) -> Self {
        let kind = match &hit.kind {
            HitKind::Open => HitKind::Open,
            HitKind::Click { link, url } => {
                HitKind::Click { link: *link, url: url[..url.floor_char_boundary(MAX_URL)].into() }
            }
        };
        let (address, agent) = (Some(hit.address), hit.agent.clone());
        Self { number, kind, at: hit.at, count: hit.count, class, address, agent, head: hit.head }
    }

    /// `None` for an open.
    pub fn link(&self) -> Option<u16> {
        match self.kind {
            HitKind::Open => None,
            HitKind::Click { link, .. } => Some(link),
        }
    }
}

impl Seen {
    /// The same without addresses and agents.
    pub fn without_traces(&self) -> Self {
        let bare = |entry: &HitEntry| HitEntry { address: None, agent: Box::default(), ..entry.clone() };
        Self { tally: self.tally, entries: self.entries.iter().map(bare).collect() }
    }
}

/// What a recipient did, and in how many pieces it lies there.
pub fn seen(store: &Store, id: &QueueId, recipient: u16) -> Result<Option<(Seen, usize)>, StoreError> {
    let Some((bytes, pieces)) = chunks::get(store, &prefix(id, recipient))? else { return Ok(None) };
    Ok(Some((postcard::from_bytes(&bytes).map_err(|_| StoreError::Malformed)?, pieces)))
}

/// The writes that put it there; `earlier` is how many pieces lie there already. How many it takes.
pub fn seen_writes(id: &QueueId, recipient: u16, seen: &Seen, earlier: usize, out: &mut Vec<Write>) -> usize {
    let bytes = postcard::to_stdvec(seen).expect("rows hold no type that postcard refuses");
    chunks::put(&prefix(id, recipient), &bytes, earlier, out)
}

/// Forgets what a recipient did.
pub fn forget_seen(id: &QueueId, recipient: u16, pieces: usize, out: &mut Vec<Write>) {
    chunks::delete(&prefix(id, recipient), 0..pieces, out);
}

/// The writes that give hits of one record their place in time.
pub fn time_writes(place: Cursor, mut hits: Vec<(u64, HitRef)>, out: &mut Vec<Write>) {
    hits.sort_unstable();
    for (piece, some) in hits.chunks(MAX_VALUE / REF).enumerate() {
        let Some((first, _)) = some.first() else { continue };
        let piece = u16::try_from(piece).unwrap_or(u16::MAX);
        let (segment, offset) = (place.segment.to_be_bytes(), place.offset.to_be_bytes());
        let key = [b"t", &first.to_be_bytes()[..], &segment, &offset, &piece.to_be_bytes()].concat();
        out.push(Write::Put(key, some.iter().flat_map(|(_, hit)| hit.bytes()).collect()));
    }
}

/// Names one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HitRef {
    pub id: QueueId,
    pub recipient: u16,
    pub number: u32,
}

impl HitRef {
    fn bytes(&self) -> [u8; REF] {
        let mut bytes = [0; REF];
        bytes[..16].copy_from_slice(self.id.as_bytes());
        bytes[16..18].copy_from_slice(&self.recipient.to_be_bytes());
        bytes[18..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let (recipient, number) = rest.split_first_chunk::<2>()?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        Some(Self { id: QueueId::from_bytes(*id), recipient: u16::from_be_bytes(*recipient), number })
    }
}

/// One entry with whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: QueueId,
    pub recipient: u16,
    pub entry: HitEntry,
}

/// The newest `limit` hits, the newest first.
pub fn latest_hits(store: &Store, limit: usize) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    for (_, value) in store.scan(b"t", &prefix_end(b"t"), limit, true)? {
        for hit in value.chunks(REF).rev().filter_map(HitRef::read) {
            // One that was forgotten has left its place in time behind.
            let Some((seen, _)) = seen(store, &hit.id, hit.recipient)? else { continue };
            let entry = seen.entries.into_iter().find(|entry| entry.number == hit.number);
            found.extend(entry.map(|entry| Found { id: hit.id, recipient: hit.recipient, entry }));
        }
        if found.len() >= limit {
            break;
        }
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.entry.at));
    found.truncate(limit);
    Ok(found)
}

/// What each recipient of a message did, by their place in the envelope; with the pieces that it lies in.
pub fn seen_by_all(store: &Store, id: &QueueId) -> Result<Vec<(u16, Seen, usize)>, StoreError> {
    let prefix = [b"h", &id.as_bytes()[..]].concat();
    let mut all = Vec::new();
    let (mut recipient, mut bytes, mut pieces) = (None, Vec::new(), 0);
    let mut close = |recipient: Option<u16>, bytes: &mut Vec<u8>, pieces: usize| {
        let Some(recipient) = recipient else { return Ok(()) };
        let seen = postcard::from_bytes(bytes).map_err(|_| StoreError::Malformed)?;
        bytes.clear();
        all.push((recipient, seen, pieces));
        Ok::<_, StoreError>(())
    };
    for (key, value) in store.scan(&prefix, &prefix_end(&prefix), usize::MAX, false)? {
        let place = key.get(17..).and_then(<[u8]>::first_chunk::<4>).ok_or(StoreError::Malformed)?;
        let (whose, piece) = (u16::from_be_bytes([place[0], place[1]]), [place[2], place[3]]);
        if piece == [0, 0] {
            close(recipient, &mut bytes, pieces)?;
            (recipient, pieces) = (Some(whose), 0);
            bytes.extend_from_slice(value.get(2..).ok_or(StoreError::Malformed)?);
        } else {
            bytes.extend_from_slice(&value);
        }
        pieces += 1;
    }
    close(recipient, &mut bytes, pieces)?;
    Ok(all)
}

/// Hits whose place in time lies before `before` and at or after `from`, a few rows of them, and where to go on; `None`
/// when there are no more.
pub fn hits_between(
    store: &Store,
    from: &[u8],
    before: u64,
    rows: usize,
) -> Result<(Vec<HitRef>, Option<Vec<u8>>), StoreError> {
    let start = if from.is_empty() { b"t".to_vec() } else { from.to_vec() };
    let end = [b"t", &before.to_be_bytes()[..]].concat();
    if start >= end {
        return Ok((Vec::new(), None));
    }
    let found = store.scan(&start, &end, rows, false)?;
    let next = found.last().filter(|_| found.len() == rows).map(|(key, _)| [&key[..], &[0]].concat());
    Ok((found.iter().flat_map(|(_, value)| value.chunks(REF).filter_map(HitRef::read)).collect(), next))
}

/// Keys of up to `rows` rows that gave hits before `before` their place in time.
pub fn times_before(store: &Store, before: u64, rows: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let found = store.scan(b"t", &[b"t", &before.to_be_bytes()[..]].concat(), rows, false)?;
    Ok(found.into_iter().map(|(key, _)| key).collect())
}

const STRIPPED_KEY: &[u8] = b"\0stripped";

/// Up to where in time addresses were taken from hits: for [`hits_between`]. Empty at first.
pub fn stripped(store: &Store) -> Result<Vec<u8>, StoreError> {
    Ok(store.get(STRIPPED_KEY)?.unwrap_or_default())
}

/// The write that says so.
pub fn stripped_write(place: &[u8]) -> Write {
    Write::Put(STRIPPED_KEY.to_vec(), place.to_vec())
}

const CUT_KEY: &[u8] = b"\0cut";

/// Before when (milliseconds since 1970) everything was forgotten for its size, and how large the view was then.
pub fn cut(store: &Store) -> Result<(u64, u64), StoreError> {
    let kept = store.get(CUT_KEY)?;
    kept.map_or(Ok((0, 0)), |bytes| postcard::from_bytes(&bytes).map_err(|_| StoreError::Malformed))
}

/// The write that says so.
pub fn cut_write(before: u64, size: u64) -> Write {
    Write::Put(CUT_KEY.to_vec(), postcard::to_stdvec(&(before, size)).expect("two integers always serialise"))
}

const TODAY_KEY: &[u8] = b"\0today";

/// What is known of the time by which history is forgotten, as its owner has written it.
pub fn today(store: &Store) -> Result<Option<Vec<u8>>, StoreError> {
    store.get(TODAY_KEY)
}

/// The write that keeps it.
pub fn today_write(bytes: Vec<u8>) -> Write {
    Write::Put(TODAY_KEY.to_vec(), bytes)
}

fn prefix(id: &QueueId, recipient: u16) -> Vec<u8> {
    [b"h", &id.as_bytes()[..], &recipient.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::commit_now;
    use super::*;

    fn hit(recipient: u16, at: u64, url: &str) -> Hit {
        let kind = HitKind::Click { link: 1, url: url.into() };
        let (id, address) = (QueueId::new(1, [2; 10]), [127, 0, 0, 1].into());
        Hit { id, recipient, kind, at, count: 1, address, agent: "agent".into(), head: false, repeat: false }
    }

    #[test]
    fn what_a_recipient_did_comes_back_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = QueueId::new(1, [2; 10]);
        let mut writes = Vec::new();
        let mut times = Vec::new();
        for recipient in 0..3u16 {
            let mut all = Seen::default();
            for number in 0..40u32 {
                let hit =
                    hit(recipient, 1_000 + u64::from(number), &format!("https://example.com/{}", "x".repeat(150)));
                all.entries.push(HitEntry::new(&hit, number, Class::Human));
                times.push((hit.at, HitRef { id, recipient, number }));
            }
            assert!(seen_writes(&id, recipient, &all, 0, &mut writes) > 3);
        }
        time_writes(Cursor { segment: 1, offset: 2 }, times, &mut writes);
        commit_now(&store, writes.clone()).unwrap();
        commit_now(&store, writes).unwrap();
        let all = seen_by_all(&store, &id).unwrap();
        assert_eq!(
            all.iter().map(|(recipient, seen, _)| (*recipient, seen.entries.len())).collect::<Vec<_>>(),
            [(0, 40), (1, 40), (2, 40)]
        );
        for (recipient, whole, pieces) in &all {
            assert_eq!(seen(&store, &id, *recipient).unwrap(), Some((whole.clone(), *pieces)));
        }
        let latest = latest_hits(&store, 5).unwrap();
        assert_eq!(latest.iter().map(|found| found.entry.at).collect::<Vec<_>>(), [1_039, 1_039, 1_039, 1_038, 1_038]);
        let (hits, next) = hits_between(&store, &[], 2_000, 1).unwrap();
        assert_eq!(hits.len(), MAX_VALUE / REF);
        let (rest, end) = hits_between(&store, &next.unwrap(), 2_000, 9).unwrap();
        assert_eq!((hits.len() + rest.len(), end), (120, None));
        assert_eq!(hits_between(&store, &[], 1_000, 9).unwrap(), (Vec::new(), None));

        // Shorter, and then gone.
        let (mut one, pieces) = seen(&store, &id, 1).unwrap().unwrap();
        one.entries.truncate(1);
        let mut writes = Vec::new();
        let left = seen_writes(&id, 1, &one, pieces, &mut writes);
        commit_now(&store, std::mem::take(&mut writes)).unwrap();
        assert_eq!(seen(&store, &id, 1).unwrap(), Some((one, 1)));
        forget_seen(&id, 1, left, &mut writes);
        commit_now(&store, writes).unwrap();
        assert_eq!(seen_by_all(&store, &id).unwrap().len(), 2);
        assert_eq!(latest_hits(&store, 200).unwrap().len(), 80);
    }

    #[test]
    fn a_long_destination_is_cut() {
        let entry = HitEntry::new(&hit(0, 1, &"x".repeat(5_000)), 0, Class::Human);
        assert!(matches!(entry.kind, HitKind::Click { url, .. } if url.len() == MAX_URL));
    }
}
