//! Opens and clicks, people and machines, over time, by domain and by destination: as a picture, as a table, and as a
//! file.
//!
//! An address says everything: whose mail (`domain`), the range ([`Span`]), and what is shown (`show`). Only what is
//! shown is read, in rows of hours and days, never a message.

use super::csv::Csv;
use super::error::Error;
use super::form::{Asked, Form};
use super::frame::{Frame, Section, Signed, page, page_again};
use super::measured::{self, Measured, Whose};
use super::shown::{Picture, Row, Table, share};
use super::span::{self, PERIODS, RANGES, Span, WrongSpan};
use super::{Dashboard, filters};
use crate::clock;
use crate::domain::unicode;
use crate::ops::{self, DomainHours};
use crate::settings::{ApiKey, Snapshot};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

const PATH: &str = "/dashboard/metrics";
/// Rows of a table on one page.
const PAGE: usize = 50;
/// Domains to choose from in a list; where there are more, a name is typed.
const MOST_CHOICES: usize = 200;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    Opens,
    Clicks,
    Rates,
    Domains,
    Links,
}

/// As an address says it, and as its tab does.
const SHOWS: [(Show, &str, &str); 5] = [
    (Show::Opens, "opens", "Opens"),
    (Show::Clicks, "clicks", "Clicks"),
    (Show::Rates, "rates", "Rates"),
    (Show::Domains, "domains", "By domain"),
    (Show::Links, "links", "By link"),
];

#[derive(Template)]
#[template(path = "metrics.html")]
struct Page {
    frame: Frame,
    domains: Domains,
    from: String,
    to: String,
    by: String,
    show: &'static str,
    last: &'static str,
    periods: &'static [(&'static str, &'static str, ops::Granularity)],
    wrong: Option<WrongSpan>,
    ranges: Vec<Link>,
    found: Option<Found>,
}

/// What was found, where the range was one.
struct Found {
    tabs: Vec<Link>,
    csv: String,
    /// Sentences about what is shown and what is not.
    notes: Vec<String>,
    totals: Totals,
    title: &'static str,
    meaning: &'static str,
    said: String,
    picture: Picture,
    table: Table,
    /// Which rows of how many, and the pages with newer and older ones.
    rows: String,
    newer: Option<String>,
    older: Option<String>,
}

struct Totals {
    delivered: u64,
    opened: u64,
    opened_machine: u64,
    open_rate: String,
    clicked: u64,
    clicked_machine: u64,
    click_rate: String,
}

struct Link {
    name: String,
    href: String,
    here: bool,
}

/// How a domain is chosen.
enum Domains {
    List(Vec<(Uuid, String, bool)>),
    /// There are too many for a list.
    Typed(String),
}

/// The page.
pub async fn show(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let settings = dashboard.ops.settings.snapshot();
    let chosen = chosen(&settings, &signed.key, asked.text("domain"))?;
    let frame = dashboard.frame(&signed, Section::Metrics, "Metrics");
    let mut it = Page::empty(frame, &asked, choices(&settings, &signed.key, chosen.as_ref()));
    let span = match Span::read(&asked, clock::unix_ms()) {
        Ok(span) => span,
        Err(wrong) => {
            it.wrong = Some(wrong);
            return page_again(&it);
        }
    };
    let address = Address { domain: chosen.as_ref().map(|domain| domain.id), span: &span, show: show_of(&asked) };
    it.ranges = address.ranges();
    it.last = span.last.unwrap_or("");
    if span.last.is_none() {
        (it.from, it.to) = (span.first_day().to_string(), span.last_day().to_string());
    }
    let whose = Whose::of(&settings, &signed.key, chosen.clone());
    let measured = measure(&dashboard, whose, &span, address.show, false).await?;
    let number = asked.text("page").parse().unwrap_or(1).clamp(1, 1_000);
    it.found = Some(found(&address, measured, number));
    page(&it)
}

/// The same as a file, all rows of it.
pub async fn file(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let settings = dashboard.ops.settings.snapshot();
    let chosen = chosen(&settings, &signed.key, asked.text("domain"))?;
    let span = Span::read(&asked, clock::unix_ms()).map_err(|wrong| Error::Refused(wrong.text))?;
    let show = show_of(&asked);
    let measured = measure(&dashboard, Whose::of(&settings, &signed.key, chosen), &span, show, true).await?;
    let (names, rows) = measured.as_rows();
    let mut csv = Csv::new(names.iter().copied());
    rows.iter().for_each(|row| csv.row(row.iter().map(String::as_str)));
    Ok(csv.into_file(&format!("trackpost-{}-{}-{}.csv", name_of(show), span.first_day(), span.last_day())))
}

async fn measure(dashboard: &Dashboard, whose: Whose, span: &Span, show: Show, whole: bool) -> Result<Measured, Error> {
    let (ops, span) = (Arc::clone(&dashboard.ops), span.clone());
    Ok(ops::aside(&dashboard.ops, move || measured::measure(&ops, &whose, &span, show, whole)).await?)
}

/// The domain that was asked for, by its id or name. Those that are not the key's are not there.
fn chosen(settings: &Snapshot, key: &ApiKey, text: &str) -> Result<Option<DomainHours>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let found = match Uuid::parse_str(text) {
        Ok(id) => settings.domain(id),
        Err(_) => crate::mail::DomainName::parse(text).ok().and_then(|name| settings.domains.get(&name)),
    };
    found.filter(|domain| key.reaches(domain)).map(|domain| Some(DomainHours::of(domain))).ok_or(Error::NotThere)
}

fn choices(settings: &Snapshot, key: &ApiKey, chosen: Option<&DomainHours>) -> Domains {
    let own = || settings.domains.values().filter(|domain| key.reaches(domain));
    if own().nth(MOST_CHOICES).is_some() {
        return Domains::Typed(chosen.map_or(String::new(), |domain| domain.name.to_string()));
    }
    let is_chosen = |id: Uuid| chosen.is_some_and(|domain| domain.id == id);
    Domains::List(own().map(|d| (d.id, unicode(d.name.as_str()), is_chosen(d.id))).collect())
}

fn show_of(asked: &Form) -> Show {
    SHOWS.iter().find(|(_, name, _)| *name == asked.text("show")).map_or(Show::Opens, |(show, ..)| *show)
}

fn name_of(show: Show) -> &'static str {
    SHOWS.iter().find(|(known, ..)| *known == show).map_or("", |(_, name, _)| name)
}

/// Makes addresses of this page.
pub struct Address<'a> {
    pub domain: Option<Uuid>,
    pub span: &'a Span,
    pub show: Show,
}

impl Page {
    /// With what was typed, and nothing found.
    fn empty(frame: Frame, asked: &Form, domains: Domains) -> Self {
        Self {
            frame,
            domains,
            from: asked.text("from").to_owned(),
            to: asked.text("to").to_owned(),
            by: asked.text("by").to_owned(),
            show: name_of(show_of(asked)),
            last: "",
            periods: &PERIODS,
            wrong: None,
            ranges: Vec::new(),
            found: None,
        }
    }

    fn wrong(&self, field: &str) -> Option<&str> {
        self.wrong.as_ref().filter(|wrong| wrong.field == field).map(|wrong| wrong.text.as_str())
    }
}

impl Address<'_> {
    fn to(&self, path: &str, show: Show, range: &[(&str, String)], page: usize) -> String {
        let mut query = Serializer::new(String::new());
        if let Some(id) = self.domain {
            query.append_pair("domain", &id.to_string());
        }
        query.extend_pairs(range);
        if show != Show::Opens {
            query.append_pair("show", name_of(show));
        }
        if page > 1 {
            query.append_pair("page", &page.to_string());
        }
        match query.finish() {
            query if query.is_empty() => path.to_owned(),
            query => format!("{path}?{query}"),
        }
    }

    fn ranges(&self) -> Vec<Link> {
        let range = |(last, name, _): (&'static str, &str, Option<u32>)| Link {
            name: name.to_owned(),
            href: self.to(PATH, self.show, &[("last", last.to_owned())], 1),
            here: self.span.last == Some(last),
        };
        RANGES.into_iter().map(range).collect()
    }

    fn tabs(&self) -> Vec<Link> {
        let tab = |(show, _, name): (Show, &str, &str)| Link {
            name: name.to_owned(),
            href: self.to(PATH, show, &self.span.fields(), 1),
            here: show == self.show,
        };
        SHOWS.into_iter().map(tab).collect()
    }

    fn page(&self, number: usize) -> String {
        self.to(PATH, self.show, &self.span.fields(), number)
    }

    /// Into one period.
    pub fn of_period(&self, named: &span::Named) -> Option<String> {
        let (from, to, by) = named.into.as_ref()?;
        let range = [("from", from.to_string()), ("to", to.to_string()), ("by", (*by).to_owned())];
        Some(self.to(PATH, self.show, &range, 1))
    }

    /// The same of one domain, over time.
    pub fn of_domain(&self, id: Uuid) -> String {
        Address { domain: Some(id), ..*self }.to(PATH, Show::Opens, &self.span.fields(), 1)
    }
}

fn found(address: &Address<'_>, measured: Measured, number: usize) -> Found {
    let notes: Vec<String> = address.span.note.iter().chain(&measured.left_out).cloned().collect();
    let (open_rate, click_rate) = Measured::rates(&measured.totals);
    let count = |name| ops::figure_count(name, &measured.totals);
    let totals = Totals {
        delivered: count("delivered"),
        opened: count("opened_human"),
        opened_machine: count("opened_machine"),
        open_rate: share(open_rate),
        clicked: count("clicked_human"),
        clicked_machine: count("clicked_machine"),
        click_rate: share(click_rate),
    };
    let said = address.span.said();
    let picture = measured.picture(&said);
    let mut table = measured.table(address);
    let all = table.rows.len();
    let pages = all.div_ceil(PAGE).max(1);
    let number = number.min(pages);
    let page: Vec<Row> = table.rows.drain(..).skip((number - 1) * PAGE).take(PAGE).collect();
    table.rows = page;
    Found {
        tabs: address.tabs(),
        csv: address.to("/dashboard/metrics.csv", address.show, &address.span.fields(), 1),
        notes,
        totals,
        title: measured.title(),
        meaning: measured.meaning(),
        said,
        picture,
        table,
        rows: format!("Page {number} of {pages}, {all} rows in all. The CSV file has every one of them."),
        newer: (number > 1).then(|| address.page(number - 1)),
        older: (number < pages).then(|| address.page(number + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SenderDomain;
    use crate::mail::DomainName;
    use crate::settings::{Permission, Tie};

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn settings(count: u128) -> Snapshot {
        let mut settings = Snapshot::default();
        for n in 1..=count {
            let domain = SenderDomain::new(name(&format!("d{n}.example.com")), Uuid::from_u128(n), 0);
            settings.domains.insert(domain.name.clone(), domain);
        }
        settings
    }

    fn key(ties: &[u128]) -> ApiKey {
        let tie = |n: &u128| Tie { id: Uuid::from_u128(*n), name: name(&format!("d{n}.example.com")) };
        let ties = ties.iter().map(tie).collect();
        ApiKey::new(Uuid::nil(), "k".into(), "re_a", Permission::FullAccess, ties, 0)
    }

    #[test]
    fn a_key_finds_its_domains_alone() {
        let (settings, all, one) = (settings(2), key(&[]), key(&[1]));
        let id = Uuid::from_u128(2).to_string();
        for (key, text, want) in [
            (&all, "", Ok(None)),
            (&all, "d2.example.com", Ok(Some(2))),
            (&all, &*id, Ok(Some(2))),
            (&one, "D1.example.com", Ok(Some(1))),
            (&one, &*id, Err(Error::NotThere)),
            (&one, "d2.example.com", Err(Error::NotThere)),
            (&all, "d3.example.com", Err(Error::NotThere)),
            (&all, "<b>", Err(Error::NotThere)),
        ] {
            let found = chosen(&settings, key, text).map(|domain| domain.map(|domain| domain.id.as_u128()));
            assert_eq!(found, want, "{text}");
        }
    }

    #[test]
    fn many_domains_are_no_list() {
        let chosen = DomainHours { id: Uuid::from_u128(2), name: name("d2.example.com"), hours: 0..9 };
        let list = |count, key: &ApiKey| match choices(&settings(count), key, Some(&chosen)) {
            Domains::List(all) => Ok(all.into_iter().map(|(_, name, chosen)| (name, chosen)).collect::<Vec<_>>()),
            Domains::Typed(name) => Err(name),
        };
        let row = |name: &str, chosen| (name.to_owned(), chosen);
        assert_eq!(list(2, &key(&[])), Ok(vec![row("d1.example.com", false), row("d2.example.com", true)]));
        assert_eq!(list(500, &key(&[])), Err("d2.example.com".to_owned()));
        assert_eq!(list(500, &key(&[2])), Ok(vec![row("d2.example.com", true)]));
    }

    #[test]
    fn addresses_keep_what_was_chosen() {
        /// 2026-11-24 10:30 UTC.
        const NOW: u64 = 1_795_516_200_000;
        let span = Span::read(&Form::read(b"from=2026-11-01&to=2026-11-20&by=week"), NOW).unwrap();
        let id = Uuid::from_u128(1);
        let address = Address { domain: Some(id), span: &span, show: Show::Rates };
        let query = format!("domain={id}&from=2026-11-01&to=2026-11-20&by=week&show=rates");
        assert_eq!(address.page(1), format!("{PATH}?{query}"));
        assert_eq!(address.page(2), format!("{PATH}?{query}&page=2"));
        assert_eq!(address.ranges()[0].href, format!("{PATH}?domain={id}&last=24h&show=rates"));
        assert_eq!(address.tabs().iter().filter(|tab| tab.here).count(), 1);
        let week = span::named("2026-11-02", ops::Granularity::Weekly, 0);
        let into = address.of_period(&week).unwrap();
        assert_eq!(into, format!("{PATH}?domain={id}&from=2026-11-02&to=2026-11-08&by=day&show=rates"));
        let plain = Span::read(&Form::default(), NOW).unwrap();
        let plain = Address { domain: None, span: &plain, show: Show::Opens };
        assert_eq!(plain.page(1), format!("{PATH}?last=7d"));
        assert_eq!(plain.of_domain(id), format!("{PATH}?domain={id}&last=7d"));
    }
}
