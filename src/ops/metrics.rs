//! Counts over time: of all mail, of domains, of single messages.
//!
//! A page reads as many rows as there are hours in which something happened. All mail together has rows of its own, so
//! that no sum over domains is needed. A domain's time begins with the hour in which it was added and ends when it was
//! removed: what somebody else sent under the same name is not its own.

use super::periods::{Granularity, Period, Window};
use super::{OpError, Ops};
use crate::domain::SenderDomain;
use crate::mail::{DomainName, QueueId};
use crate::settings::Snapshot;
use crate::store::{self, Counts, Scope, Store, hour_of};
use std::collections::BTreeMap;
use std::ops::Range;
use uuid::Uuid;

/// What is asked.
#[derive(Clone, Debug)]
pub struct MetricsQuery {
    pub window: Window,
    /// A row for each period.
    pub by_period: Option<Granularity>,
    pub by_domain: bool,
    /// Only with `emails`.
    pub by_email: bool,
    /// These alone; `None`: all mail, of set up domains or not.
    pub domains: Option<Vec<DomainHours>>,
    /// These messages alone. The counts of a message are not kept by time: all stand in the period in which it was
    /// accepted. Those that are not there are left out.
    pub emails: Option<Vec<QueueId>>,
}

/// A domain and the hours since 1970 in which it was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainHours {
    pub id: Uuid,
    pub name: DomainName,
    pub hours: Range<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// As it was asked, or from the first message on where nobody said from when.
    pub window: Window,
    pub totals: Counts,
    /// Empty where no rows were asked for. By period alone there is one for each; else one where there was something.
    /// By period, then domain, then message.
    pub rows: Vec<MetricsRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsRow {
    pub period: Option<String>,
    pub domain: Option<(Uuid, DomainName)>,
    pub email: Option<QueueId>,
    pub counts: Counts,
}

/// Rows of one answer: what a program can still read at once.
const MAX_ROWS: usize = 20_000;

impl DomainHours {
    pub fn of(domain: &SenderDomain) -> Self {
        let end = domain.removed_at.map_or(u32::MAX, |at| hour_of(at).saturating_add(1));
        Self { id: domain.id, name: domain.name.clone(), hours: hour_of(domain.created_at)..end }
    }
}

/// All domains, also those that were removed while their links still work.
fn all_domains(settings: &Snapshot) -> Vec<DomainHours> {
    settings.domains.values().chain(settings.removed.values()).map(DomainHours::of).collect()
}

/// Place of the period, of the domain, of the message: 0 where rows are not by it.
type Place = (usize, usize, usize);

/// `may_see` tells by the From domain and the time of acceptance which messages there are for the caller. Reads the
/// disk: not for the threads that do IO.
pub fn metrics(
    ops: &Ops,
    query: MetricsQuery,
    may_see: impl Fn(Option<&str>, u64) -> bool,
) -> Result<Metrics, OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    let known = all_domains(&ops.settings.snapshot());
    let mut sums = Sums::new(query, known)?;
    match sums.query.emails.take() {
        Some(emails) => {
            let messages = messages(&store, emails, may_see)?;
            if let Some(first) = messages.iter().map(|(_, _, at)| *at).min() {
                sums.query.window.reach_back_to(first);
            }
            sums.split()?;
            sums.of_messages(&store, &messages)?;
        }
        None => {
            sums.split()?;
            sums.of_hours(&store)?;
        }
    }
    let Sums { query, periods, domains, rows, totals, emails, .. } = sums;
    let row = |((period, domain, email), counts): (Place, Counts)| MetricsRow {
        period: periods.get(period).map(|period| period.name.clone()),
        domain: domains.get(domain).filter(|_| query.by_domain).map(|d| (d.id, d.name.clone())),
        email: emails.get(email).copied().filter(|_| query.by_email),
        counts,
    };
    Ok(Metrics { window: query.window, totals, rows: rows.into_iter().map(row).collect() })
}

/// Those that are there and may be seen: id, domain, time of acceptance.
fn messages(
    store: &Store,
    mut ids: Vec<QueueId>,
    may_see: impl Fn(Option<&str>, u64) -> bool,
) -> Result<Vec<(QueueId, Option<String>, u64)>, OpError> {
    ids.sort_unstable();
    ids.dedup();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let Some((row, _)) = store::message(store, &id)? else { continue };
        let (from, at) = (row.head.from_domain.as_deref(), row.head.accepted_at);
        if may_see(from, at) {
            found.push((id, from.map(str::to_owned), at));
        }
    }
    Ok(found)
}

struct Sums {
    query: MetricsQuery,
    /// None where rows are not by period.
    periods: Vec<Period>,
    /// Those asked for, or all.
    domains: Vec<DomainHours>,
    emails: Vec<QueueId>,
    rows: BTreeMap<Place, Counts>,
    totals: Counts,
}

impl Sums {
    fn new(query: MetricsQuery, known: Vec<DomainHours>) -> Result<Self, OpError> {
        let domains = query.domains.clone().unwrap_or(known);
        Ok(Self {
            query,
            periods: Vec::new(),
            domains,
            emails: Vec::new(),
            rows: BTreeMap::new(),
            totals: Counts::default(),
        })
    }

    fn split(&mut self) -> Result<(), OpError> {
        let Some(granularity) = self.query.by_period else { return Ok(()) };
        self.periods = self.query.window.periods(granularity)?;
        if !self.query.by_domain && !self.query.by_email {
            self.rows = (0..self.periods.len()).map(|period| ((period, 0, 0), Counts::default())).collect();
        }
        Ok(())
    }

    fn of_hours(&mut self, store: &Store) -> Result<(), OpError> {
        let window = self.query.window.hours();
        let is_all = self.query.domains.is_none();
        if is_all {
            for (hour, counts) in store::counts_by_hour(store, Scope::All, window.clone())? {
                self.totals.add(&counts);
                if !self.query.by_domain {
                    self.count(hour, 0, 0, &counts)?;
                }
            }
        }
        if is_all && !self.query.by_domain {
            return Ok(());
        }
        for place in 0..self.domains.len() {
            let DomainHours { name, hours, .. } = self.domains[place].clone();
            let hours = hours.start.max(window.start)..hours.end.min(window.end);
            if hours.is_empty() {
                continue;
            }
            for (hour, counts) in store::counts_by_hour(store, Scope::Domain(name.as_str()), hours)? {
                if !is_all {
                    self.totals.add(&counts);
                }
                let place = if self.query.by_domain { place } else { 0 };
                self.count(hour, place, 0, &counts)?;
            }
        }
        Ok(())
    }

    fn of_messages(&mut self, store: &Store, messages: &[(QueueId, Option<String>, u64)]) -> Result<(), OpError> {
        let window = self.query.window.hours();
        for (id, from, at) in messages {
            let hour = hour_of(*at);
            let is_own = |d: &DomainHours| Some(d.name.as_str()) == from.as_deref() && d.hours.contains(&hour);
            let domain = self.domains.iter().position(is_own);
            if !window.contains(&hour) || (domain.is_none() && self.query.domains.is_some()) {
                continue;
            }
            let counts = store::counts(store, Scope::Message(*id))?;
            self.totals.add(&counts);
            self.emails.push(*id);
            let email = if self.query.by_email { self.emails.len() - 1 } else { 0 };
            // Behind all domains: mail of none.
            let domain = if self.query.by_domain { domain.unwrap_or(self.domains.len()) } else { 0 };
            self.count(hour, domain, email, &counts)?;
        }
        Ok(())
    }

    /// Adds to the row of these, if rows are asked for.
    fn count(&mut self, hour: u32, domain: usize, email: usize, counts: &Counts) -> Result<(), OpError> {
        let by = &self.query;
        if by.by_period.is_none() && !by.by_domain && !by.by_email {
            return Ok(());
        }
        let period = self.periods.partition_point(|period| period.hours.end <= hour);
        self.rows.entry((period, domain, email)).or_default().add(counts);
        if self.rows.len() > MAX_ROWS { Err(OpError::TooManyRows(MAX_ROWS)) } else { Ok(()) }
    }
}
