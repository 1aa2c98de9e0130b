//! What stands out in the mail of several domains: the destinations most clicked, and why mail is not tracked.
//!
//! Both are kept by domain and day of UTC, so a range takes whole days here. Reading ends after [`MOST_ROWS`] rows,
//! and what is given says so.

use super::metrics::DomainHours;
use super::periods::Window;
use super::stats::LinkStats;
use super::{OpError, Ops, figure_count};
use crate::store::{self, Counts, Store};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

/// The first of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tops<T> {
    /// The greatest first.
    pub rows: Vec<T>,
    /// Everything was read. If not, there may be greater ones.
    pub is_whole: bool,
}

/// One reason for which messages were not tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkipTop {
    /// As reports have it: `no-html`.
    pub reason: String,
    pub messages: u64,
    /// The domains of the From headers with the most of them, the greatest first; empty where there was none.
    pub domains: Vec<(String, u64)>,
}

/// Rows that are read for one answer: some hundredths of a second.
const MOST_ROWS: usize = 30_000;
/// Domains that are named for a reason.
const NAMED: usize = 3;

/// The destinations most clicked in mail of these domains, `most` of them. Reads the disk, as the other one does.
pub fn link_tops(ops: &Ops, domains: &[DomainHours], window: &Window, most: usize) -> Result<Tops<LinkStats>, OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    links_of(&store, domains, window, most, MOST_ROWS)
}

fn links_of(
    store: &Store,
    domains: &[DomainHours],
    window: &Window,
    most: usize,
    mut budget: usize,
) -> Result<Tops<LinkStats>, OpError> {
    let mut sums = HashMap::<u64, Counts>::new();
    for domain in domains {
        for (hash, counts) in store::links_within(store, domain.name.as_str(), days(domain, window), &mut budget)? {
            sums.entry(hash).or_default().add(&counts);
        }
    }
    let clicked = |counts: &Counts| (figure_count("clicked_human", counts), figure_count("clicked_machine", counts));
    let mut sums: Vec<_> = sums.into_iter().map(|(hash, counts)| (hash, clicked(&counts))).collect();
    sums.sort_by_key(|(hash, clicked)| (Reverse(*clicked), *hash));
    sums.truncate(most);
    let row = |(hash, (clicked_human, clicked_machine))| {
        Ok::<_, OpError>(LinkStats { url: store::link_url(store, hash)?, clicked_human, clicked_machine })
    };
    Ok(Tops { rows: sums.into_iter().map(row).collect::<Result<_, _>>()?, is_whole: budget > 0 })
}

/// Why mail was not tracked, all reasons: that of these domains or, without any named, all mail, of known domains or
/// not.
pub fn skip_tops(ops: &Ops, domains: Option<&[DomainHours]>, window: &Window) -> Result<Tops<SkipTop>, OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    skips_of(&store, domains, window, MOST_ROWS)
}

fn skips_of(
    store: &Store,
    domains: Option<&[DomainHours]>,
    window: &Window,
    mut budget: usize,
) -> Result<Tops<SkipTop>, OpError> {
    let found = match domains {
        None => store::skips_within(store, None, of_days(window.hours()), &mut budget)?,
        Some(domains) => {
            let mut found = Vec::new();
            for domain in domains {
                let days = days(domain, window);
                found.extend(store::skips_within(store, Some(domain.name.as_str()), days, &mut budget)?);
            }
            found
        }
    };
    let mut reasons = HashMap::<String, Vec<(String, u64)>>::new();
    for (domain, reason, counts) in found {
        reasons.entry(reason).or_default().push((domain, figure_count("untracked", &counts)));
    }
    let top = |(reason, mut domains): (String, Vec<(String, u64)>)| {
        let messages = domains.iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
        domains.retain(|(domain, count)| !domain.is_empty() && *count > 0);
        domains.sort_by(|(a, many), (b, more)| more.cmp(many).then_with(|| a.cmp(b)));
        domains.truncate(NAMED);
        SkipTop { reason, messages, domains }
    };
    let mut rows: Vec<_> = reasons.into_iter().map(top).filter(|top| top.messages > 0).collect();
    rows.sort_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.reason.cmp(&b.reason)));
    Ok(Tops { rows, is_whole: budget > 0 })
}

/// Whole days: rows of a day stand at its first hour.
fn of_days(hours: Range<u32>) -> Range<u32> {
    hours.start - hours.start % 24..hours.end
}

/// The days of a window on which the domain was there.
fn days(domain: &DomainHours, window: &Window) -> Range<u32> {
    let asked = window.hours();
    of_days(asked.start.max(domain.hours.start)..asked.end.min(domain.hours.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::DomainName;
    use crate::store::{Counter, Scope, commit_now, hour_of, link_hash};
    use uuid::Uuid;

    const DAY: u64 = 24 * 3_600_000;
    const NOW: u64 = 20_000 * DAY + 5 * 3_600_000;

    fn one(counter: Counter, more: i64) -> Counts {
        let mut counts = Counts::default();
        counts.count(counter, more);
        counts
    }

    fn domain(name: &str, since: u64) -> DomainHours {
        DomainHours { id: Uuid::nil(), name: DomainName::parse(name).unwrap(), hours: hour_of(since)..u32::MAX }
    }

    #[test]
    fn destinations_of_several_domains_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writes = Vec::new();
        for (url, domain, at, clicks) in [
            ("https://example.net/a", "a.test", NOW, 3),
            ("https://example.net/a?who=me", "b.test", NOW - DAY, 4),
            ("https://example.net/b", "a.test", NOW, 5),
            ("https://example.net/b", "c.test", NOW, 50),
            ("https://example.net/b", "a.test", NOW - 9 * DAY, 50),
            // Before b.test was added.
            ("https://example.net/b", "b.test", NOW - 3 * DAY, 50),
        ] {
            let (hash, text) = link_hash(url);
            writes.extend([text, Scope::Link { domain, hash }.add(at, one(Counter::ClicksHuman, clicks))]);
        }
        commit_now(&store, writes).unwrap();
        let window = Window::of_days(7, NOW).unwrap();
        let domains = [domain("a.test", 0), domain("b.test", NOW - 2 * DAY)];
        let top = |most, budget| {
            let tops = links_of(&store, &domains, &window, most, budget).unwrap();
            let rows: Vec<_> = tops.rows.into_iter().map(|row| (row.url.unwrap(), row.clicked_human)).collect();
            (rows, tops.is_whole)
        };
        let (a, b) = (("https://example.net/a".to_owned(), 7), ("https://example.net/b".to_owned(), 5));
        assert_eq!(top(9, 100), (vec![a.clone(), b], true));
        assert_eq!(top(1, 100), (vec![a], true));
        assert!(!top(9, 2).1);
    }

    #[test]
    fn reasons_of_all_mail_and_of_some() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writes = Vec::new();
        for (domain, reason, count) in [
            ("a.test", "no-html", 2),
            ("b.test", "no-html", 3),
            ("x.test", "unknown-domain", 40),
            ("", "no-sender", 1),
            ("b.test", "disabled", 0),
        ] {
            writes.push(Scope::Skip { domain, reason }.add(NOW, one(Counter::Untracked, count)));
        }
        commit_now(&store, writes).unwrap();
        let window = Window::of_days(1, NOW).unwrap();
        let told = |domains: Option<&[DomainHours]>| -> Vec<_> {
            let tops = skips_of(&store, domains, &window, 100).unwrap();
            tops.rows.into_iter().map(|top| (top.reason, top.messages, top.domains.len())).collect()
        };
        let row = |reason: &str, messages, domains| (reason.to_owned(), messages, domains);
        assert_eq!(told(None), [row("unknown-domain", 40, 1), row("no-html", 5, 2), row("no-sender", 1, 0)]);
        assert_eq!(told(Some(&[domain("a.test", 0)])), [row("no-html", 2, 1)]);
        assert!(told(Some(&[])).is_empty());
    }
}
