//! Sums of counts by name over a range of time, however long the history is.
//!
//! A name's rows lie behind each other in order of time, so what is long before the range or behind it is stepped over.
//! Whoever asks gives a budget of rows, since there can be any number of names.

use super::counts::{Counts, by_hour};
use super::{Store, StoreError, prefix_end};
use std::ops::Range;

/// The clicks on every destination of a domain within `hours`, by its hash: for [`super::link_url`]. See `within`.
pub fn links_within(
    store: &Store,
    domain: &str,
    hours: Range<u32>,
    budget: &mut usize,
) -> Result<Vec<(u64, Counts)>, StoreError> {
    let sums = within(store, &[b"cl", domain.as_bytes(), &[0]].concat(), hours, budget)?;
    let hashed = |(name, counts): (Vec<u8>, Counts)| {
        let hash = name.try_into().map_err(|_| StoreError::Malformed)?;
        Ok((u64::from_be_bytes(hash), counts))
    };
    sums.into_iter().map(hashed).collect()
}

/// How many messages were not tracked within `hours`, as domain, reason and counts: of one domain or, without one, of
/// all domains, known or not. See `within`.
pub fn skips_within(
    store: &Store,
    domain: Option<&str>,
    hours: Range<u32>,
    budget: &mut usize,
) -> Result<Vec<(String, String, Counts)>, StoreError> {
    let prefix = domain.map_or(b"cs".to_vec(), |domain| [b"cs", domain.as_bytes(), &[0]].concat());
    let named = |(name, counts): (Vec<u8>, Counts)| {
        let name = String::from_utf8_lossy(name.strip_suffix(&[0]).ok_or(StoreError::Malformed)?).into_owned();
        match domain {
            Some(domain) => Ok((domain.to_owned(), name, counts)),
            None => {
                let (domain, reason) = name.split_once('\0').ok_or(StoreError::Malformed)?;
                Ok((domain.to_owned(), reason.to_owned(), counts))
            }
        }
    };
    within(store, &prefix, hours, budget)?.into_iter().map(named).collect()
}

/// Rows read in one go: what lies outside of the range is stepped over by no less.
const CHUNK: usize = 64;

/// The sums of every name under `prefix` whose rows end with an hour or a day. Each row that is read is taken off
/// `budget`, and the sums end where it is used up.
fn within(
    store: &Store,
    prefix: &[u8],
    hours: Range<u32>,
    budget: &mut usize,
) -> Result<Vec<(Vec<u8>, Counts)>, StoreError> {
    let (mut from, end) = (prefix.to_vec(), prefix_end(prefix));
    let mut sums: Vec<(Vec<u8>, Counts)> = Vec::new();
    while *budget > 0 {
        let rows = store.scan(&from, &end, CHUNK.min(*budget), false)?;
        let Some((last, _)) = rows.last() else { break };
        *budget -= rows.len();
        for row in &rows {
            let (hour, counts) = by_hour(row)?;
            if hours.contains(&hour) {
                let name = row.0.get(prefix.len()..row.0.len() - 4).ok_or(StoreError::Malformed)?;
                match sums.last_mut().filter(|(known, _)| known == name) {
                    Some((_, sum)) => sum.add(&counts),
                    None => sums.push((name.to_vec(), counts)),
                }
            }
        }
        let (name, hour) = last.split_last_chunk::<4>().ok_or(StoreError::Malformed)?;
        let hour = u32::from_be_bytes(*hour);
        from = match hour {
            // On to the range, or past the last row of this name.
            _ if hour < hours.start => [name, &hours.start.to_be_bytes()].concat(),
            _ if hour >= hours.end => [name, &u32::MAX.to_be_bytes(), &[0]].concat(),
            _ => [&last[..], &[0]].concat(),
        };
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::super::{Counter, Scope, commit_now};
    use super::*;

    const DAY: u64 = 24 * 3_600_000;

    fn one(counter: Counter, more: i64) -> Counts {
        let mut counts = Counts::default();
        counts.count(counter, more);
        counts
    }

    #[test]
    fn what_lies_outside_is_stepped_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writes = Vec::new();
        for day in 0..200 {
            for (domain, reason) in [("a.test", "disabled"), ("a.test", "no-html"), ("b.test", "disabled"), ("", "x")] {
                let skip = Scope::Skip { domain, reason };
                writes.push(skip.add(day * DAY, one(Counter::Untracked, 1)));
            }
            for n in 0..3 {
                let link = Scope::Link { domain: "a.test", hash: u64::MAX - n };
                writes.push(link.add(day * DAY, one(Counter::ClicksHuman, 2)));
            }
        }
        commit_now(&store, writes).unwrap();
        let skips = |domain, hours, budget: &mut usize| -> Vec<_> {
            let found = skips_within(&store, domain, hours, budget).unwrap();
            found.into_iter().map(|(domain, reason, c)| (domain, reason, c.get(Counter::Untracked))).collect()
        };
        let named = |domain: &str, reason: &str, count| (domain.to_owned(), reason.to_owned(), count);
        let mut budget = 10_000;
        let three_days = 2_400..2_472;
        assert_eq!(
            skips(None, three_days.clone(), &mut budget),
            [
                named("", "x", 3),
                named("a.test", "disabled", 3),
                named("a.test", "no-html", 3),
                named("b.test", "disabled", 3)
            ]
        );
        assert_eq!(skips(Some("b.test"), three_days.clone(), &mut budget), [named("b.test", "disabled", 3)]);
        assert!(skips(None, 90_000..90_999, &mut budget).is_empty());
        let links = links_within(&store, "a.test", three_days.clone(), &mut budget).unwrap();
        let clicks: Vec<_> = links.iter().map(|(hash, c)| (u64::MAX - hash, c.get(Counter::ClicksHuman))).collect();
        assert_eq!(clicks, [(2, 6), (1, 6), (0, 6)]);
        // Of 800 rows, those that are far from the range are not read.
        let mut budget = 700;
        assert_eq!(skips(None, three_days.clone(), &mut budget).len(), 4);
        assert!(budget > 0);
        let mut budget = 200;
        assert_eq!(skips(None, three_days, &mut budget).len(), 2);
        assert_eq!(budget, 0);
    }
}
