//! What the command line shows of a domain: its days, and what stands out in them.

use super::figures::{figure_count as count, figure_rate as rate};
use super::metrics::{DomainHours, MetricsQuery, metrics_of};
use super::periods::{Granularity, Window};
use super::{OpError, Ops};
use crate::clock;
use crate::store::{self, Counts, Store};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use uuid::Uuid;

/// What `domain stats` shows: counts of a domain's mail by day of UTC, and what stands out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainStats {
    pub domain: String,
    /// The oldest first, today last.
    pub days: Vec<DayStats>,
    pub total: DayStats,
    /// Destinations without their queries, the most clicked first.
    pub links: Vec<LinkStats>,
    /// Tags as `name=value`, the most used first.
    pub tags: Vec<TagStats>,
    /// Why messages were not tracked, the most frequent first.
    pub untracked: Vec<SkipStats>,
}

/// Hits are counted when they happen; rates are those of the copies delivered on the day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DayStats {
    /// `2026-11-24`; of the sum nothing.
    pub day: Option<String>,
    pub messages: u64,
    pub sent: u64,
    pub delivered: u64,
    pub bounced: u64,
    pub opened_human: u64,
    pub opened_machine: u64,
    pub clicked_human: u64,
    pub clicked_machine: u64,
    pub unique_opened_human: u64,
    pub unique_clicked_human: u64,
    /// From 0 to 1.
    pub open_rate: f64,
    pub click_rate: f64,
    pub open_rate_human: f64,
    pub click_rate_human: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStats {
    /// Nothing where it is not known any more.
    pub url: Option<String>,
    pub clicked_human: u64,
    pub clicked_machine: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TagStats {
    pub tag: String,
    pub sent: u64,
    pub opened_human: u64,
    pub clicked_human: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipStats {
    pub reason: String,
    pub messages: u64,
}

/// Links, tags and reasons that are shown.
const TOP: usize = 10;
/// Rows by day that are read for each of them.
const MAX_READ: usize = 200_000;
/// Days at most: no history is longer.
const MAX_DAYS: u32 = 3_660;

/// The last `days` days of a domain, today included. Reads the disk.
pub fn domain_stats(ops: &Ops, id: Uuid, days: u32) -> Result<DomainStats, OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    let settings = ops.settings.snapshot();
    let domain = DomainHours::of(settings.domain(id).ok_or(OpError::NoSuchDomain)?);
    stats_of(&store, domain, days, clock::unix_ms())
}

fn stats_of(store: &Store, domain: DomainHours, days: u32, now: u64) -> Result<DomainStats, OpError> {
    let window = Window::of_days(days.clamp(1, MAX_DAYS), now)?;
    let mut hours = window.hours();
    // What is kept by day has the day on which the domain was added whole.
    hours.start = hours.start.max(domain.hours.start - domain.hours.start % 24);
    let name = domain.name.to_string();
    let query = MetricsQuery {
        window,
        by_period: Some(Granularity::Daily),
        by_domain: false,
        by_email: false,
        domains: Some(vec![domain]),
        emails: None,
    };
    let counted = metrics_of(store, Vec::new(), query, |_, _| true)?;
    let days = counted.rows.into_iter().map(|row| DayStats::of(row.period, &row.counts)).collect();
    let mut links: Vec<_> = store::counts_by_link(store, &name, hours.clone(), MAX_READ)?
        .into_iter()
        .map(|(_, url, c)| LinkStats {
            url,
            clicked_human: count("clicked_human", &c),
            clicked_machine: count("clicked_machine", &c),
        })
        .collect();
    links.sort_by_key(|link| Reverse((link.clicked_human, link.clicked_machine)));
    links.truncate(TOP);
    let mut tags: Vec<_> = store::counts_by_tag(store, &name, hours.clone(), MAX_READ)?
        .into_iter()
        .map(|(tag, c)| TagStats {
            tag,
            sent: count("sent", &c),
            opened_human: count("unique_opened_human", &c),
            clicked_human: count("unique_clicked_human", &c),
        })
        .collect();
    tags.sort_by_key(|tag| Reverse(tag.sent));
    tags.truncate(TOP);
    let skipped = store::counts_by_skip(store, &name, hours, MAX_READ)?;
    let mut untracked: Vec<_> =
        skipped.into_iter().map(|(reason, c)| SkipStats { reason, messages: count("untracked", &c) }).collect();
    untracked.sort_by_key(|skip| Reverse(skip.messages));
    untracked.truncate(TOP);
    let total = DayStats::of(None, &counted.totals);
    Ok(DomainStats { domain: name, days, total, links, tags, untracked })
}

impl DayStats {
    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        *self == Self { day: self.day.clone(), ..Self::default() }
    }

    fn of(day: Option<String>, counts: &Counts) -> Self {
        let (count, rate) = (|name: &str| count(name, counts), |name: &str| rate(name, counts));
        Self {
            day,
            messages: count("messages"),
            sent: count("sent"),
            delivered: count("delivered"),
            bounced: count("bounced"),
            opened_human: count("opened_human"),
            opened_machine: count("opened_machine"),
            clicked_human: count("clicked_human"),
            clicked_machine: count("clicked_machine"),
            unique_opened_human: count("unique_opened_human"),
            unique_clicked_human: count("unique_clicked_human"),
            open_rate: rate("open_rate"),
            click_rate: rate("click_rate"),
            open_rate_human: rate("open_rate_human"),
            click_rate_human: rate("click_rate_human"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::DomainName;
    use crate::store::{Counter, Scope, hour_of, link_hash};

    #[tokio::test]
    async fn what_stands_out() {
        const HOUR: u64 = 3_600_000;
        let now = 20_002 * 24 * HOUR + 5 * HOUR;
        let added = now - 40 * HOUR;
        let one = |counter: Counter, more: i64| {
            let mut counts = Counts::default();
            counts.count(counter, more);
            counts
        };
        let domain = "example.com";
        let scope = Scope::Domain(domain);
        let mut writes = vec![
            scope.add(added - 2 * HOUR, one(Counter::Sent, 1_000)),
            scope.add(added + HOUR, one(Counter::Sent, 4)),
            scope.add(now, one(Counter::Sent, 2)),
            scope.add(now, one(Counter::PixelCopies, 4)),
            scope.add(now, one(Counter::DeliveredOpenedAny, 2)),
            scope.add(now, one(Counter::OpensUnknown, 3)),
        ];
        for n in 0..15 {
            let (hash, text) = link_hash(&format!("https://example.net/{n}?who=me"));
            let (tag, reason) = (format!("kind={n}"), format!("reason-{n}"));
            writes.push(text);
            writes.push(Scope::Link { domain, hash }.add(now, one(Counter::ClicksHuman, n)));
            writes.push(Scope::Tag { domain, tag: &tag }.add(now, one(Counter::Sent, n)));
            writes.push(Scope::Skip { domain, reason: &reason }.add(now, one(Counter::Untracked, n)));
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.commit(writes).await.unwrap();
        let hours = hour_of(added)..u32::MAX;
        let domain = DomainHours { id: Uuid::nil(), name: DomainName::parse(domain).unwrap(), hours };
        let stats = stats_of(&store, domain, 3, now + 1).unwrap();
        let sent: Vec<_> = stats.days.iter().map(|day| (day.day.as_deref().unwrap(), day.sent)).collect();
        assert_eq!(sent, [("2024-10-04", 4), ("2024-10-05", 0), ("2024-10-06", 2)]);
        let total = (stats.total.sent, stats.total.open_rate, stats.total.opened_human);
        assert_eq!(total, (6, 0.5, 3));
        let (link, tag, skip) = (&stats.links[0], &stats.tags[0], &stats.untracked[0]);
        assert_eq!((link.url.as_deref(), link.clicked_human), (Some("https://example.net/14"), 14));
        assert_eq!((&*tag.tag, tag.sent, &*skip.reason, skip.messages), ("kind=14", 14, "reason-14", 14));
        assert_eq!((stats.links.len(), stats.tags.len(), stats.untracked.len()), (TOP, TOP, TOP));
    }
}
