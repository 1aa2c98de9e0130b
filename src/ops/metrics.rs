//! Counts over time: of all mail, of domains, of single messages.
//!
//! A page reads as many rows as there are hours in which something happened, or days where that is enough. All mail
//! together has rows of its own, so that no sum over domains is needed. A domain's time begins with the hour in which it was added and ends when it was
//! removed: what somebody else sent under the same name is not its own.

use super::periods::{Granularity, Period, Window};
use super::{OpError, Ops};
use crate::domain::SenderDomain;
use crate::mail::{DomainName, QueueId};
use crate::settings::Snapshot;
use crate::store::{self, Counts, Scope, Store, hour_of};
use std::collections::{BTreeMap, BTreeSet};
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
    metrics_of(&store, all_domains(&ops.settings.snapshot()), query, may_see)
}

/// `known` are all domains that there are.
pub(super) fn metrics_of(
    store: &Store,
    known: Vec<DomainHours>,
    query: MetricsQuery,
    may_see: impl Fn(Option<&str>, u64) -> bool,
) -> Result<Metrics, OpError> {
    let mut sums = Sums::new(query, known);
    match sums.query.emails.take() {
        Some(emails) => {
            let messages = messages(store, emails, may_see)?;
            if let Some(first) = messages.iter().map(|(_, _, at)| *at).min() {
                sums.query.window.reach_back_to(first);
            }
            sums.split()?;
            sums.of_messages(store, &messages)?;
        }
        None => {
            sums.split()?;
            sums.of_hours(store)?;
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

/// Counts of a domain in pieces that lie in one period each, with the first hour of each, in no order: days, where a
/// period ends with the day, since there are fewer of them; else hours.
fn domain_rows(
    store: &Store,
    name: &str,
    hours: Range<u32>,
    periods: &[Period],
) -> Result<Vec<(u32, Counts)>, OpError> {
    let day_of = |hour: u32| hour - hour % 24;
    let edges = periods.iter().map(|period| period.hours.start).chain([hours.start, hours.end]);
    let within = edges.filter(|hour| hour % 24 != 0 && (hours.start..=hours.end).contains(hour));
    let cut: BTreeSet<u32> = within.map(day_of).collect();
    if cut.len() * 2 >= hours.len() / 24 {
        return Ok(store::counts_by_hour(store, Scope::Domain(name), hours)?);
    }
    let mut rows = store::counts_by_hour(store, Scope::DomainDays(name), hours.clone())?;
    rows.retain(|(day, _)| !cut.contains(day));
    for day in cut {
        let of_day = day.max(hours.start)..day.saturating_add(24).min(hours.end);
        rows.extend(store::counts_by_hour(store, Scope::Domain(name), of_day)?);
    }
    Ok(rows)
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
    fn new(query: MetricsQuery, known: Vec<DomainHours>) -> Self {
        let domains = query.domains.clone().unwrap_or(known);
        let (periods, emails) = (Vec::new(), Vec::new());
        Self { query, periods, domains, emails, rows: BTreeMap::new(), totals: Counts::default() }
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
            for (hour, counts) in domain_rows(store, name.as_str(), hours, &self.periods)? {
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
            let mut counts = store::counts(store, Scope::Message(*id))?;
            if let Some((row, _)) = store::message(store, id)? {
                counts.add(&row.counts());
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Envelope;
    use crate::spool::MessageHead;
    use crate::store::{Counter, MessageRow, Write, message_writes};
    use std::sync::Arc;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    /// Midnight.
    const START: u64 = 20_000 * DAY;

    fn counts(of: &[(Counter, i64)]) -> Counts {
        let mut counts = Counts::default();
        of.iter().for_each(|(counter, more)| counts.count(*counter, *more));
        counts
    }

    fn domain(n: u128, name: &str, since: u64) -> DomainHours {
        DomainHours { id: Uuid::from_u128(n), name: DomainName::parse(name).unwrap(), hours: hour_of(since)..u32::MAX }
    }

    fn query(days: u64) -> MetricsQuery {
        let (start, end) = (jiff_text(START), jiff_text(START + days * DAY));
        MetricsQuery {
            window: Window::new(Some(&start), Some(&end), None, 0).unwrap(),
            by_period: None,
            by_domain: false,
            by_email: false,
            domains: None,
            emails: None,
        }
    }

    fn jiff_text(at: u64) -> String {
        jiff::Timestamp::from_millisecond(at as i64).unwrap().to_string()
    }

    fn sent(counts: &Counts) -> u64 {
        counts.get(Counter::Sent)
    }

    /// Three days: five copies a day of all mail; three of a, one of b, one of a domain that is not set up.
    fn mail() -> Vec<Write> {
        let mut writes = Vec::new();
        for day in 0..3 {
            let at = START + day * DAY + 10 * HOUR;
            writes.push(Scope::All.add(at, counts(&[(Counter::Sent, 5)])));
            writes.push(Scope::Domain("a.example.com").add(at, counts(&[(Counter::Sent, 3)])));
            writes.push(Scope::Domain("b.example.com").add(at, counts(&[(Counter::Sent, 1)])));
        }
        writes
    }

    fn message_of(id: QueueId, from: &str, at: u64, opens: i64) -> Vec<Write> {
        let envelope = Envelope {
            sender: None,
            recipients: Vec::new(),
            body: Default::default(),
            smtputf8: false,
            ret: None,
            envid: None,
        };
        let head = MessageHead {
            envelope,
            accepted_at: at,
            from_domain: Some(from.into()),
            from: from.into(),
            subject: "x".into(),
            message_id: "x@example.com".into(),
            size: 1,
            tags: Vec::new(),
            role: crate::mail::Role::Submission,
        };
        let row = MessageRow { head: Arc::new(head), recipients: Vec::new(), report: None };
        let mut writes = Vec::new();
        message_writes(&id, &row, 0, &mut writes);
        writes.push(Scope::Message(id).add(at, counts(&[(Counter::OpensHuman, opens), (Counter::Sent, 1)])));
        writes
    }

    async fn store(writes: Vec<Write>) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.commit(writes).await.unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn by_period_and_domain() {
        let (_dir, store) = store(mail()).await;
        let (a, b) = (domain(1, "a.example.com", 0), domain(2, "b.example.com", START + DAY));
        let ask = |query| metrics_of(&store, vec![a.clone(), b.clone()], query, |_, _| true).unwrap();

        let all = ask(query(3));
        assert_eq!((sent(&all.totals), all.rows.len()), (15, 0));
        assert_eq!(sent(&ask(query(2)).totals), 10, "of two days");
        // A row for each period, also where there was nothing.
        let days = ask(MetricsQuery { by_period: Some(Granularity::Daily), ..query(5) });
        let got: Vec<_> = days.rows.iter().map(|row| (row.period.as_deref().unwrap(), sent(&row.counts))).collect();
        assert_eq!(
            got,
            [("2024-10-04", 5), ("2024-10-05", 5), ("2024-10-06", 5), ("2024-10-07", 0), ("2024-10-08", 0)]
        );
        // All mail in the totals, domains in the rows; b's time begins on the second day.
        let domains = ask(MetricsQuery { by_domain: true, ..query(3) });
        let rows = |found: &Metrics| -> Vec<_> {
            found.rows.iter().map(|row| (row.domain.clone().unwrap().1.to_string(), sent(&row.counts))).collect()
        };
        assert_eq!(rows(&domains), [("a.example.com".to_owned(), 9), ("b.example.com".to_owned(), 2)]);
        assert_eq!(sent(&domains.totals), 15);
        // Of some domains alone.
        let of_b = MetricsQuery { domains: Some(vec![b.clone()]), by_domain: true, ..query(3) };
        let of_b = ask(MetricsQuery { by_period: Some(Granularity::Monthly), ..of_b });
        assert_eq!((rows(&of_b), sent(&of_b.totals)), (vec![("b.example.com".to_owned(), 2)], 2));
        assert_eq!(of_b.rows[0].period.as_deref(), Some("2024-10-01"));
        let nobody = ask(MetricsQuery { domains: Some(Vec::new()), by_period: Some(Granularity::Daily), ..query(3) });
        assert_eq!((sent(&nobody.totals), nobody.rows.len()), (0, 3));
    }

    #[tokio::test]
    async fn days_are_read_where_no_period_ends_within_them() {
        let name = "a.example.com";
        let writes = (0..40 * 24 / 5).map(|n| {
            let at = START - 10 * DAY + n * 5 * HOUR;
            Scope::Domain(name).add(at, counts(&[(Counter::Sent, 1 << (n % 30))]))
        });
        let (_dir, store) = store(writes.collect()).await;
        let by_hour = store::counts_by_hour(&store, Scope::Domain(name), 0..u32::MAX).unwrap();
        assert!(domain_rows(&store, name, hour_of(START)..hour_of(START + 20 * DAY), &[]).unwrap().len() == 20);
        let since = START - 3 * DAY + 7 * HOUR;
        let a = domain(1, name, since);
        for (start, end, zone) in [
            ("2024-09-20", "2024-10-30", "UTC"),
            ("2024-09-20T05:00:00Z", "2024-10-20T22:00:00Z", "UTC"),
            ("2024-09-20", "2024-10-30", "Asia/Kolkata"),
            ("2024-10-03", "2024-10-05", "America/New_York"),
        ] {
            let window = Window::new(Some(start), Some(end), Some(zone), 0).unwrap();
            for by_period in [None, Some(Granularity::Daily), Some(Granularity::Weekly), Some(Granularity::Monthly)] {
                let asked =
                    MetricsQuery { window: window.clone(), by_period, domains: Some(vec![a.clone()]), ..query(1) };
                let found = metrics_of(&store, Vec::new(), asked, |_, _| true).unwrap();
                let sum = |hours: Range<u32>| -> u64 {
                    let within = |hour: &u32| hours.contains(hour) && a.hours.contains(hour);
                    by_hour.iter().filter(|(hour, _)| within(hour)).map(|(_, counts)| sent(counts)).sum()
                };
                assert!(sum(window.hours()) > 0);
                assert_eq!(sent(&found.totals), sum(window.hours()), "{start} {zone} {by_period:?}");
                let periods = by_period.map_or(Vec::new(), |by| window.periods(by).unwrap());
                let want: Vec<_> = periods.iter().map(|period| sum(period.hours.clone())).collect();
                let got: Vec<_> = found.rows.iter().map(|row| sent(&row.counts)).collect();
                assert_eq!(got, want, "{start} {zone} {by_period:?}");
            }
        }
    }

    #[tokio::test]
    async fn single_messages() {
        let id = |n: u8| QueueId::new(u64::from(n), [n; 10]);
        let old = START - 30 * DAY;
        let mut writes = message_of(id(1), "a.example.com", START + HOUR, 4);
        writes.extend(message_of(id(2), "b.example.com", START + DAY, 2));
        writes.extend(message_of(id(3), "a.example.com", old, 1));
        let (_dir, store) = store(writes).await;
        let known = vec![domain(1, "a.example.com", 0), domain(2, "b.example.com", 0)];
        let emails = Some(vec![id(1), id(2), id(1), id(3), id(9)]);
        let by_email = MetricsQuery { by_email: true, by_domain: true, emails: emails.clone(), ..query(3) };
        let opens = |found: &Metrics| found.totals.get(Counter::OpensHuman);

        let found = metrics_of(&store, known.clone(), by_email.clone(), |_, _| true).unwrap();
        let rows: Vec<_> =
            found.rows.iter().map(|row| (row.email.unwrap(), row.domain.clone().unwrap().0.as_u128())).collect();
        assert_eq!((rows, opens(&found)), (vec![(id(1), 1), (id(2), 2)], 6), "the third lies before the range");
        // From the first of them on, where nobody says from when.
        let open = Window::new(None, Some(&jiff_text(START + 3 * DAY)), None, 0).unwrap();
        let found = metrics_of(&store, known.clone(), MetricsQuery { window: open, ..by_email.clone() }, |_, _| true);
        let found = found.unwrap();
        assert_eq!((opens(&found), found.window.hours().start), (7, hour_of(old)));
        // Those that the caller may not see are not there.
        let only_b = |from: Option<&str>, _| from == Some("b.example.com");
        let found = metrics_of(&store, known.clone(), by_email.clone(), only_b).unwrap();
        assert_eq!((found.rows.len(), opens(&found)), (1, 2));
        let of_a = MetricsQuery { domains: Some(vec![known[0].clone()]), ..by_email };
        assert_eq!(opens(&metrics_of(&store, known, of_a, |_, _| true).unwrap()), 4);
    }

    #[tokio::test]
    async fn an_answer_is_bounded() {
        let (names, hours) = (0..30, 0..800u64);
        let name = |n: u32| format!("d{n}.example.com");
        let writes = names.clone().flat_map(|n| {
            let name = name(n);
            hours.clone().map(move |h| Scope::Domain(&name).add(START + h * HOUR, counts(&[(Counter::Sent, 1)])))
        });
        let (_dir, store) = store(writes.collect()).await;
        let known: Vec<_> = names.map(|n| domain(u128::from(n), &name(n), 0)).collect();
        let rows = |by_period| {
            let query = MetricsQuery { by_domain: true, by_period: Some(by_period), ..query(34) };
            metrics_of(&store, known.clone(), query, |_, _| true)
        };
        assert!(matches!(rows(Granularity::Hourly), Err(OpError::TooManyRows(MAX_ROWS))));
        assert_eq!(rows(Granularity::Daily).unwrap().rows.len(), 30 * 34);
    }
}
