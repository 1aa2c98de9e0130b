//! Rows of counts, kept up while the log is folded so that no page has to count.
//!
//! A row holds all counters of one scope in one hour or day, so that a page reads as many rows as it has periods.
//!
//! | key | counts of |
//! | --- | --- |
//! | `ca` hour | all mail |
//! | `cd` domain, 0, hour | mail whose From header names this domain |
//! | `cy` domain, 0, day | the same by day: written along with `cd`, for whoever reads many domains or a long time |
//! | `ct` domain, 0, `name=value`, 0, day | mail of the domain with this tag |
//! | `cl` domain, 0, destination's hash (8), day | clicks on one destination in mail of the domain |
//! | `cs` domain, 0, reason, 0, day | messages of the domain that were not tracked, by the reason |
//! | `cm` id | one message, all recipients together |
//! | `ck` id, link (2) | one link of a message |
//!
//! Hour and day are hours since 1970 in UTC, big-endian in 4 bytes; a day is its first hour.

use super::{Row, Store, StoreError, Write, prefix_end};
use crate::mail::QueueId;
use std::ops::Range;

/// What is counted. A copy is what one recipient gets. The number is the place in the row, and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Counter {
    /// Messages accepted.
    Messages = 0,
    /// Copies accepted.
    Sent = 1,
    /// Copies that the smarthost took.
    Delivered = 2,
    /// Copies refused for good.
    BouncedPermanent = 3,
    /// Copies given up after they had been put off for too long.
    BouncedTransient = 4,
    /// Copies put off at least once.
    Delayed = 5,
    /// Copies that the operator removed, or that were suppressed.
    Failed = 6,
    /// Delivered copies with a pixel.
    PixelCopies = 7,
    /// Delivered copies with at least one tracked link.
    LinkCopies = 8,
    /// Opens, repeats included, by what they were taken for; in the hour of the open.
    OpensHuman = 9,
    OpensMachine = 10,
    OpensUnknown = 11,
    ClicksHuman = 12,
    ClicksMachine = 13,
    ClicksUnknown = 14,
    /// Copies opened at least once by whomever, in the hour of the first time.
    OpenedAny = 15,
    /// Copies opened at least once by no machine.
    OpenedHuman = 16,
    ClickedAny = 17,
    ClickedHuman = 18,
    /// Messages that were tracked: with a pixel, or a link rewritten.
    Tracked = 19,
    /// Messages that were not, for whatever reason.
    Untracked = 20,
    /// The same as [`Self::OpenedAny`] and its like, in the hour of the copy's delivery: what rates are made of.
    DeliveredOpenedAny = 21,
    DeliveredOpenedHuman = 22,
    DeliveredClickedAny = 23,
    DeliveredClickedHuman = 24,
}

/// How many there are.
const COUNTERS: usize = 25;

/// Whose counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    All,
    Domain(&'a str),
    /// The same by day. Nothing is added to it: what is added to the domain is.
    DomainDays(&'a str),
    /// `tag` is `name=value`.
    Tag {
        domain: &'a str,
        tag: &'a str,
    },
    /// A destination, by the hash that [`link_hash`] makes.
    Link {
        domain: &'a str,
        hash: u64,
    },
    Skip {
        domain: &'a str,
        reason: &'a str,
    },
    Message(QueueId),
    MessageLink(QueueId, u16),
}

/// The counters of one scope, of one period or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([i64; COUNTERS]);

/// The key of a row.
type Key = Vec<u8>;

/// Milliseconds in an hour.
const HOUR_MS: u64 = 3_600_000;

/// The hour since 1970 in which a time (milliseconds) lies.
pub fn hour_of(at: u64) -> u32 {
    u32::try_from(at / HOUR_MS).unwrap_or(u32::MAX)
}

impl Counts {
    /// Never below zero, whatever a fault has subtracted.
    pub fn get(&self, counter: Counter) -> u64 {
        u64::try_from(self.0[counter as usize]).unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
    }

    /// What is left without `other`: none below zero.
    pub fn without(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(rest, less)| *rest = rest.saturating_sub(*less).max(0));
        self
    }

    pub fn count(&mut self, counter: Counter, more: i64) {
        let sum = &mut self.0[counter as usize];
        *sum = sum.saturating_add(more);
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Counters of a later version are left out, those that an earlier one did not have are nothing.
    fn read(value: &[u8]) -> Result<Self, StoreError> {
        let mut counts = Self::default();
        let mut rest = value;
        for place in &mut counts.0 {
            if rest.is_empty() {
                break;
            }
            (*place, rest) = postcard::take_from_bytes(rest).map_err(|_| StoreError::Malformed)?;
        }
        Ok(counts)
    }

    /// As many integers in postcard's form as there are before the last that is not nothing.
    fn write(&self) -> Vec<u8> {
        let used = self.0.iter().rposition(|count| *count != 0).map_or(0, |last| last + 1);
        let bytes = |count: &i64| postcard::to_stdvec(count).expect("an integer always serialises");
        self.0[..used].iter().flat_map(bytes).collect()
    }
}

/// What becomes of a row's old value when `more` is added: for the committer.
pub(super) fn added(old: Option<&[u8]>, more: &Counts) -> Result<Vec<u8>, StoreError> {
    let mut sum = old.map_or(Ok(Counts::default()), Counts::read)?;
    sum.add(more);
    Ok(sum.write())
}

/// The row of the day that goes along with a row by hour, for the committer: domains have one.
pub(super) fn row_of_day(key: &[u8]) -> Option<Vec<u8>> {
    let (domain, hour) = key.strip_prefix(b"cd")?.split_last_chunk::<4>()?;
    let hour = u32::from_be_bytes(*hour);
    Some([b"cy", domain, &(hour - hour % 24).to_be_bytes()].concat())
}

impl Scope<'_> {
    /// The write that adds to this scope's counts at `at`, milliseconds since 1970.
    pub fn add(&self, at: u64, more: Counts) -> Write {
        Write::Add(self.row(at), Box::new(more))
    }

    /// The key of the row that holds this scope's counts at `at`, milliseconds since 1970: for [`Write::Add`].
    pub fn row(&self, at: u64) -> Vec<u8> {
        self.key(hour_of(at))
    }

    fn key(&self, hour: u32) -> Vec<u8> {
        let mut key = self.prefix();
        match self {
            Self::Message(_) | Self::MessageLink(..) => {}
            Self::All | Self::Domain(_) => key.extend_from_slice(&hour.to_be_bytes()),
            Self::DomainDays(_) | Self::Tag { .. } | Self::Link { .. } | Self::Skip { .. } => {
                key.extend_from_slice(&(hour - hour % 24).to_be_bytes());
            }
        }
        key
    }

    fn prefix(&self) -> Vec<u8> {
        match self {
            Self::All => b"ca".to_vec(),
            Self::Domain(domain) => [b"cd", domain.as_bytes(), &[0]].concat(),
            Self::DomainDays(domain) => [b"cy", domain.as_bytes(), &[0]].concat(),
            Self::Tag { domain, tag } => [b"ct", domain.as_bytes(), &[0], tag.as_bytes(), &[0]].concat(),
            Self::Link { domain, hash } => [b"cl", domain.as_bytes(), &[0], &hash.to_be_bytes()].concat(),
            Self::Skip { domain, reason } => [b"cs", domain.as_bytes(), &[0], reason.as_bytes(), &[0]].concat(),
            Self::Message(id) => [b"cm", &id.as_bytes()[..]].concat(),
            Self::MessageLink(id, link) => [b"ck", &id.as_bytes()[..], &link.to_be_bytes()].concat(),
        }
    }
}

/// The counts of one message or one link of it.
pub fn counts(store: &Store, scope: Scope<'_>) -> Result<Counts, StoreError> {
    store.get(&scope.key(0))?.map_or(Ok(Counts::default()), |value| Counts::read(&value))
}

/// The counts of each hour (of each day, for scopes that are kept by day) in which there was something, in order.
/// `hours` are hours since 1970.
pub fn counts_by_hour(store: &Store, scope: Scope<'_>, hours: Range<u32>) -> Result<Vec<(u32, Counts)>, StoreError> {
    let prefix = scope.prefix();
    let (from, to) =
        ([&prefix[..], &hours.start.to_be_bytes()].concat(), [&prefix[..], &hours.end.to_be_bytes()].concat());
    store.scan(&from, &to, usize::MAX, false)?.iter().map(by_hour).collect()
}

pub(super) fn by_hour((key, value): &Row) -> Result<(u32, Counts), StoreError> {
    let hour = key.last_chunk::<4>().ok_or(StoreError::Malformed)?;
    Ok((u32::from_be_bytes(*hour), Counts::read(value)?))
}

/// Looks at up to `rows` rows of counts by the hour or day, from `from` on: the keys of those before `hour`, and where
/// to go on; `None` at the end.
pub fn counts_before(
    store: &Store,
    from: Option<&[u8]>,
    hour: u32,
    rows: usize,
) -> Result<(Vec<Key>, Option<Key>), StoreError> {
    let start = from.unwrap_or(b"c");
    let found = store.scan(start, &prefix_end(b"c"), rows, false)?;
    let next = found.last().filter(|_| found.len() == rows).map(|(key, _)| [&key[..], &[0]].concat());
    let is_old = |(key, _): &Row| {
        let of_time = matches!(key.get(1), Some(b'a' | b'd' | b'y' | b't' | b'l' | b's'));
        of_time && key.last_chunk::<4>().is_some_and(|at| u32::from_be_bytes(*at) < hour)
    };
    Ok((found.into_iter().filter(is_old).map(|(key, _)| key).collect(), next))
}

/// Keys of the counts of one message and its links.
pub fn counts_of_message(store: &Store, id: &QueueId) -> Result<Vec<Vec<u8>>, StoreError> {
    let links = [b"ck", &id.as_bytes()[..]].concat();
    let mut keys: Vec<_> =
        store.scan(&links, &prefix_end(&links), usize::MAX, false)?.into_iter().map(|(key, _)| key).collect();
    keys.push(Scope::Message(*id).row(0));
    Ok(keys)
}

/// The counts of every tag (`name=value`) of a domain within `hours`, in no order. At most `limit` rows are read.
pub fn counts_by_tag(
    store: &Store,
    domain: &str,
    hours: Range<u32>,
    limit: usize,
) -> Result<Vec<(String, Counts)>, StoreError> {
    by_name(store, &[b"ct", domain.as_bytes(), &[0]].concat(), hours, limit)
}

/// How many messages of a domain were not tracked for each reason within `hours`.
pub fn counts_by_skip(
    store: &Store,
    domain: &str,
    hours: Range<u32>,
    limit: usize,
) -> Result<Vec<(String, Counts)>, StoreError> {
    by_name(store, &[b"cs", domain.as_bytes(), &[0]].concat(), hours, limit)
}

fn by_name(store: &Store, prefix: &[u8], hours: Range<u32>, limit: usize) -> Result<Vec<(String, Counts)>, StoreError> {
    let mut sums = std::collections::BTreeMap::<String, Counts>::new();
    for row in store.scan(prefix, &prefix_end(prefix), limit, false)? {
        let (hour, counts) = by_hour(&row)?;
        let name = row.0.get(prefix.len()..row.0.len().saturating_sub(5)).ok_or(StoreError::Malformed)?;
        if hours.contains(&hour) {
            sums.entry(String::from_utf8_lossy(name).into_owned()).or_default().add(&counts);
        }
    }
    Ok(sums.into_iter().collect())
}

/// The clicks on every destination of a domain within `hours`, as its hash and, where it is still known, its URL.
/// At most `limit` rows are read.
pub fn counts_by_link(
    store: &Store,
    domain: &str,
    hours: Range<u32>,
    limit: usize,
) -> Result<Vec<(u64, Option<String>, Counts)>, StoreError> {
    let prefix = [b"cl", domain.as_bytes(), &[0]].concat();
    let mut sums = std::collections::BTreeMap::<u64, Counts>::new();
    for row in store.scan(&prefix, &prefix_end(&prefix), limit, false)? {
        let (hour, counts) = by_hour(&row)?;
        let hash = row.0.get(prefix.len()..).and_then(<[u8]>::first_chunk::<8>).ok_or(StoreError::Malformed)?;
        if hours.contains(&hour) {
            sums.entry(u64::from_be_bytes(*hash)).or_default().add(&counts);
        }
    }
    let named = |(hash, counts)| Ok((hash, link_url(store, hash)?, counts));
    sums.into_iter().map(named).collect()
}

/// A destination without its query and fragment, which often say who clicked: what clicks are counted by.
pub fn counted_url(url: &str) -> &str {
    &url[..url.find(['?', '#']).unwrap_or(url.len())]
}

/// The hash by which a destination is counted, and the write that keeps its text.
pub fn link_hash(url: &str) -> (u64, Write) {
    use sha2::{Digest, Sha256};
    let url = counted_url(url);
    let digest = Sha256::digest(url.as_bytes());
    let hash = u64::from_be_bytes(*digest.first_chunk::<8>().expect("SHA-256 has 32 bytes"));
    let text = &url[..url.floor_char_boundary(super::MAX_VALUE)];
    (hash, Write::Put(link_key(hash), text.as_bytes().to_vec()))
}

fn link_key(hash: u64) -> Vec<u8> {
    [b"u", &hash.to_be_bytes()[..]].concat()
}

/// The destination with this hash, where it is still known.
pub fn link_url(store: &Store, hash: u64) -> Result<Option<String>, StoreError> {
    Ok(store.get(&link_key(hash))?.map(|url| String::from_utf8_lossy(&url).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::commit_now;
    use super::*;

    fn one(counter: Counter, more: i64) -> Counts {
        let mut counts = Counts::default();
        counts.count(counter, more);
        counts
    }

    #[test]
    fn counts_add_up_by_hour_and_by_day() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (domain, day) = (Scope::Domain("example.com"), 24 * HOUR_MS);
        let tag = Scope::Tag { domain: "example.com", tag: "kind=news" };
        let (hash, url) = link_hash("https://example.com/a?who=me#top");
        let link = Scope::Link { domain: "example.com", hash };
        let skip = Scope::Skip { domain: "example.com", reason: "dkim-signed" };
        let message = Scope::Message(QueueId::new(1, [2; 10]));
        let mut writes = vec![url];
        for at in [day, day + 1, day + HOUR_MS, 2 * day] {
            for scope in [domain, tag, link, skip, message, Scope::Domain("example.co")] {
                writes.push(Write::Add(scope.row(at), Box::new(one(Counter::Sent, 2))));
                writes.push(Write::Add(scope.row(at), Box::new(one(Counter::DeliveredClickedHuman, -1))));
            }
        }
        commit_now(&store, writes.split_off(10)).unwrap();
        commit_now(&store, writes).unwrap();
        let sent = |rows: Vec<(u32, Counts)>| -> Vec<_> {
            rows.iter().map(|(hour, counts)| (*hour, counts.get(Counter::Sent))).collect()
        };
        assert_eq!(sent(counts_by_hour(&store, domain, 0..99).unwrap()), [(24, 4), (25, 2), (48, 2)]);
        assert_eq!(sent(counts_by_hour(&store, domain, 25..48).unwrap()), [(25, 2)]);
        assert_eq!(sent(counts_by_hour(&store, tag, 0..99).unwrap()), [(24, 6), (48, 2)]);
        let all = counts(&store, message).unwrap();
        assert_eq!((all.get(Counter::Sent), all.get(Counter::DeliveredClickedHuman)), (8, 0));
        let tags = counts_by_tag(&store, "example.com", 0..48, 99).unwrap();
        assert_eq!((tags.len(), &*tags[0].0, tags[0].1.get(Counter::Sent)), (1, "kind=news", 6));
        assert_eq!(counts_by_skip(&store, "example.com", 0..99, 99).unwrap()[0].0, "dkim-signed");
        let links = counts_by_link(&store, "example.com", 0..99, 99).unwrap();
        assert_eq!(links[0].1.as_deref(), Some("https://example.com/a"));
        assert_eq!(links[0].2.get(Counter::Sent), 8);
    }

    #[test]
    fn rows_of_other_versions_are_read() {
        let shorter = postcard::to_stdvec(&3i64).unwrap();
        assert_eq!(Counts::read(&shorter).unwrap().get(Counter::Messages), 3);
        let longer: Vec<u8> = (0..99i64).flat_map(|n| postcard::to_stdvec(&n).unwrap()).collect();
        assert_eq!(Counts::read(&longer).unwrap().get(Counter::DeliveredClickedHuman), 24);
        assert!(Counts::read(&[0x80]).is_err());
        assert!(Counts::default().write().is_empty());
    }
}
