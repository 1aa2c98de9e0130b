//! What the command line shows of a domain: its days, and what stands out in them.

use super::figures::{Figure, Value};
use super::periods::{Granularity, Window};
use super::{DomainHours, MetricsQuery, OpError, Ops, metrics};
use crate::clock;
use crate::store::{self, Counts};
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
    let window = Window::of_days(days.clamp(1, MAX_DAYS), clock::unix_ms())?;
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
    let counted = metrics(ops, query, |_, _| true)?;
    let days = counted.rows.into_iter().map(|row| DayStats::of(row.period, &row.counts)).collect();
    let mut links: Vec<_> = store::counts_by_link(&store, &name, hours.clone(), MAX_READ)?
        .into_iter()
        .map(|(_, url, c)| LinkStats {
            url,
            clicked_human: count("clicked_human", &c),
            clicked_machine: count("clicked_machine", &c),
        })
        .collect();
    links.sort_by_key(|link| Reverse((link.clicked_human, link.clicked_machine)));
    links.truncate(TOP);
    let mut tags: Vec<_> = store::counts_by_tag(&store, &name, hours.clone(), MAX_READ)?
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
    let skipped = store::counts_by_skip(&store, &name, hours, MAX_READ)?;
    let mut untracked: Vec<_> =
        skipped.into_iter().map(|(reason, c)| SkipStats { reason, messages: count("untracked", &c) }).collect();
    untracked.sort_by_key(|skip| Reverse(skip.messages));
    untracked.truncate(TOP);
    let total = DayStats::of(None, &counted.totals);
    Ok(DomainStats { domain: name, days, total, links, tags, untracked })
}

fn value(name: &str, counts: &Counts) -> Value {
    Figure::named(name).map_or(Value::Count(0), |figure| figure.of(counts))
}

fn count(name: &str, counts: &Counts) -> u64 {
    match value(name, counts) {
        Value::Count(count) => count,
        Value::Rate(_) => 0,
    }
}

fn rate(name: &str, counts: &Counts) -> f64 {
    match value(name, counts) {
        Value::Rate(rate) => rate,
        Value::Count(_) => 0.0,
    }
}

impl DayStats {
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
