//! Reads the counts that the metrics page shows: rows of hours and days alone, within bounds.

use super::metrics::Show;
use super::span::{self, Span};
use crate::domain::unicode;
use crate::ops::{self, DomainHours, LinkStats, MetricsQuery, OpError, Ops};
use crate::settings::{ApiKey, Snapshot};
use crate::store::{Counter, Counts};
use std::cmp::Reverse;
use uuid::Uuid;

/// Whose mail is counted.
#[derive(Clone, Debug)]
pub struct Whose {
    /// The domains whose sum is wanted; nothing: all mail, of known domains or not.
    pub domains: Option<Vec<DomainHours>>,
    /// Those that can be told apart.
    each: Vec<DomainHours>,
}

/// What was read for one way to show it.
#[derive(Clone, Debug)]
pub struct Measured {
    pub show: Show,
    pub totals: Counts,
    /// In order of time.
    pub periods: Vec<(span::Named, String, Counts)>,
    /// The one with the most mail first; those without any are left out.
    pub domains: Vec<DomainRow>,
    /// What of the totals belongs to none of these, where all mail was asked for.
    pub others: Option<Counts>,
    /// The most clicked first.
    pub links: Vec<LinkStats>,
    /// What is not in it, in sentences.
    pub left_out: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainRow {
    pub id: Uuid,
    pub name: String,
    pub counts: Counts,
}

/// Domains that are told apart at most, and rows by day that are read for them.
const MOST_DOMAINS: usize = 1_000;
const MOST_DAYS: usize = 100_000;
/// Domains whose destinations are looked at.
const MOST_LINKED: usize = 50;
/// Destinations that are shown, and that a file has.
pub const TOP: usize = 10;
const MOST_LINKS: usize = 1_000;

impl Whose {
    /// The mail that a key sees, or that of one domain.
    pub fn of(settings: &Snapshot, key: &ApiKey, chosen: Option<DomainHours>) -> Self {
        if let Some(chosen) = chosen {
            return Self { domains: Some(vec![chosen.clone()]), each: vec![chosen] };
        }
        let own = settings.domains.values().filter(|domain| key.reaches(domain));
        let each: Vec<_> = own.map(DomainHours::of).collect();
        let is_operator = key.domains.is_empty();
        Self { domains: (!is_operator).then(|| each.clone()), each }
    }

    /// So many of its domains that reading a range of them stays quick.
    fn some(&self, span: &Span) -> &[DomainHours] {
        let days = span.window.hours().len() / 24 + 1;
        let most = (MOST_DAYS / days).clamp(MOST_LINKED, MOST_DOMAINS);
        &self.each[..most.min(self.each.len())]
    }

    fn query(&self, span: &Span) -> MetricsQuery {
        MetricsQuery {
            window: span.window.clone(),
            by_period: None,
            by_domain: false,
            by_email: false,
            domains: self.domains.clone(),
            emails: None,
        }
    }
}

/// Reads what `show` needs. `whole`: for a file. Reads the disk.
pub fn measure(ops: &Ops, whose: &Whose, span: &Span, show: Show, whole: bool) -> Result<Measured, OpError> {
    let is_by_period = matches!(show, Show::Opens | Show::Clicks | Show::Rates);
    let query = MetricsQuery { by_period: is_by_period.then_some(span.by), ..whose.query(span) };
    // No message is asked for, so none is to be hidden.
    let found = ops::metrics(ops, query, |_, _| false)?;
    let period = |(n, row): (usize, ops::MetricsRow)| {
        let name = row.period.unwrap_or_default();
        (span::named(&name, span.by, n), name, row.counts)
    };
    let mut it = Measured {
        show,
        totals: found.totals,
        periods: found.rows.into_iter().enumerate().map(period).collect(),
        domains: Vec::new(),
        others: None,
        links: Vec::new(),
        left_out: Vec::new(),
    };
    match show {
        Show::Opens | Show::Clicks | Show::Rates => {}
        Show::Domains => it.read_domains(ops, whose, span)?,
        Show::Links => it.read_links(ops, whose, span, if whole { MOST_LINKS } else { TOP })?,
    }
    Ok(it)
}

impl Measured {
    fn read_domains(&mut self, ops: &Ops, whose: &Whose, span: &Span) -> Result<(), OpError> {
        let some = whose.some(span);
        self.domains = by_domain(ops, whose, span, some)?;
        if whose.domains.is_none() || some.len() < whose.each.len() {
            let known = self.domains.iter().fold(Counts::default(), |mut sum, row| {
                sum.add(&row.counts);
                sum
            });
            self.others = Some(self.totals.without(&known)).filter(|rest| !rest.is_empty());
        }
        if some.len() < whose.each.len() {
            self.left_out.push(format!(
                "Only {} of {} domains are told apart over so long a range; choose one, or a shorter range.",
                some.len(),
                whose.each.len()
            ));
        }
        Ok(())
    }

    fn read_links(&mut self, ops: &Ops, whose: &Whose, span: &Span, most: usize) -> Result<(), OpError> {
        let mut looked_at = whose.each.clone();
        if looked_at.len() > MOST_LINKED {
            let busy = by_domain(ops, whose, span, whose.some(span))?;
            let busy: Vec<Uuid> = busy.into_iter().take(MOST_LINKED).map(|row| row.id).collect();
            looked_at.retain(|domain| busy.contains(&domain.id));
            self.left_out.push(format!(
                "These are the destinations of the {} domains with the most mail, of {}. Choose one to see its own.",
                looked_at.len(),
                whose.each.len()
            ));
        }
        let tops = ops::link_tops(ops, &looked_at, &span.window, most)?;
        self.links = tops.rows;
        if !tops.is_whole {
            let text = "There are more destinations than can be looked at in one go, so others may have more clicks. \
                        Choose a domain, or a shorter range.";
            self.left_out.push(text.to_owned());
        }
        Ok(())
    }

    /// The shares of copies that people have opened and clicked, where there is something to have a share of.
    pub fn rates(counts: &Counts) -> (Option<f64>, Option<f64>) {
        let rate = |name, of| (counts.get(of) > 0).then(|| ops::figure_rate(name, counts));
        (rate("open_rate_human", Counter::PixelCopies), rate("click_rate_human", Counter::LinkCopies))
    }
}

fn by_domain(ops: &Ops, whose: &Whose, span: &Span, some: &[DomainHours]) -> Result<Vec<DomainRow>, OpError> {
    let query = MetricsQuery { by_domain: true, domains: Some(some.to_vec()), ..whose.query(span) };
    let found = ops::metrics(ops, query, |_, _| false)?;
    let row = |row: ops::MetricsRow| {
        let (id, name) = row.domain?;
        Some(DomainRow { id, name: unicode(name.as_str()), counts: row.counts })
    };
    let mut rows: Vec<_> = found.rows.into_iter().filter_map(row).filter(|row| !row.counts.is_empty()).collect();
    rows.sort_by_key(|row| Reverse(ops::figure_count("sent", &row.counts)));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::form::Form;
    use super::*;
    use crate::domain::SenderDomain;
    use crate::mail::DomainName;
    use crate::settings::{Permission, Tie};

    fn settings(count: u128) -> Snapshot {
        let mut settings = Snapshot::default();
        for n in 1..=count {
            let name = DomainName::parse(&format!("d{n}.example.com")).unwrap();
            settings.domains.insert(name.clone(), SenderDomain::new(name, Uuid::from_u128(n), 0));
        }
        settings
    }

    fn key(ties: Vec<Tie>) -> ApiKey {
        ApiKey::new(Uuid::nil(), "k".into(), "re_a", Permission::FullAccess, ties, 0)
    }

    #[test]
    fn a_tied_key_counts_its_own_mail() {
        let settings = settings(3);
        let tie = |n| Tie { id: Uuid::from_u128(n), name: DomainName::parse(&format!("d{n}.example.com")).unwrap() };
        let ids = |domains: &[DomainHours]| domains.iter().map(|domain| domain.id.as_u128()).collect::<Vec<_>>();
        let all = Whose::of(&settings, &key(vec![]), None);
        assert_eq!((all.domains.is_none(), ids(&all.each)), (true, vec![1, 2, 3]));
        // The tie to a domain that was removed, of which another has the name now, leads to nothing.
        let tied = Whose::of(&settings, &key(vec![tie(2), Tie { id: Uuid::from_u128(9), ..tie(3) }]), None);
        assert_eq!((tied.domains.as_deref().map(ids), ids(&tied.each)), (Some(vec![2]), vec![2]));
        let chosen = Whose::of(&settings, &key(vec![]), all.each.first().cloned());
        assert_eq!((chosen.domains.as_deref().map(ids), ids(&chosen.each)), (Some(vec![1]), vec![1]));
    }

    #[test]
    fn the_longer_the_range_the_fewer_domains() {
        /// 2026-11-24 10:30 UTC.
        const NOW: u64 = 1_795_516_200_000;
        let whose = Whose::of(&settings(1_500), &key(vec![]), None);
        for (query, count) in
            [("last=24h", 1_000), ("last=90d", 1_000), ("from=2025-11-24", 273), ("from=2022-01-01", 55)]
        {
            let span = Span::read(&Form::read(query.as_bytes()), NOW).unwrap();
            assert_eq!(whose.some(&span).len(), count, "{query}");
        }
    }

    #[test]
    fn no_rate_of_nothing() {
        let mut counts = Counts::default();
        assert_eq!(Measured::rates(&counts), (None, None));
        counts.count(Counter::PixelCopies, 4);
        counts.count(Counter::DeliveredOpenedHuman, 1);
        assert_eq!(Measured::rates(&counts), (Some(0.25), None));
    }
}
