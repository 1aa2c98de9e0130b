//! What was measured, as a picture, as a table and as rows of a file.

use super::measured::{DomainRow, Measured, TOP};
use super::metrics::{Address, Show};
use super::plot::{Bars, Columns, Lines, Named, Period};
use super::words;
use crate::ops::{self, Figure, Value};
use crate::store::Counts;

/// A picture.
pub enum Picture {
    Columns(Columns),
    Lines(Lines),
    Bars(Bars),
    /// There is nothing; what that means.
    None(&'static str),
}

/// A table whose first column names the rows.
pub struct Table {
    pub label: &'static str,
    /// Names can be long, and wrap.
    pub is_long: bool,
    pub head: Vec<&'static str>,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub name: String,
    /// Where more of it is shown.
    pub href: Option<String>,
    pub cells: Vec<String>,
}

/// Pixels of the tallest column.
const HIGH: u32 = 200;
/// Characters of a name below a picture.
const NAME: usize = 70;
/// Figures of a file, by the names that the API has for them.
const FIGURES: [&str; 12] = [
    "messages",
    "sent",
    "delivered",
    "bounced",
    "opened_human",
    "opened_machine",
    "unique_opened_human",
    "clicked_human",
    "clicked_machine",
    "unique_clicked_human",
    "open_rate_human",
    "click_rate_human",
];

impl Measured {
    pub fn title(&self) -> &'static str {
        match self.show {
            Show::Opens => "Opens",
            Show::Clicks => "Clicks",
            Show::Rates => "Open and click rates",
            Show::Domains => "Opens and clicks by domain",
            Show::Links => "Clicks by destination",
        }
    }

    /// What the numbers mean.
    pub fn meaning(&self) -> &'static str {
        match self.show {
            Show::Opens => {
                "Every load of a pixel counts, in the period in which it happened. Machines are mail scanners, proxies \
                 that load images before anybody looks, and their like. Days and hours are those of UTC."
            }
            Show::Clicks => {
                "Every request for a tracked link counts, in the period in which it happened. Machines are mail \
                 scanners and previews that follow links by themselves. Days and hours are those of UTC."
            }
            Show::Rates => {
                "The share of copies delivered in the period, of those with a pixel or a tracked link, that people \
                 have opened or clicked at any time since. It still grows for a while. Days and hours are those of UTC."
            }
            Show::Domains => {
                "By the domain of the From header, the one with the most mail first. Days are those of UTC."
            }
            Show::Links => {
                "By the address that a link leads to, without what follows ? or #. Kept by day: whole days of UTC count."
            }
        }
    }

    /// `said` is the range.
    pub fn picture(&self, said: &str) -> Picture {
        let periods: Vec<_> = self.periods.iter().map(|(named, ..)| Period::from(named)).collect();
        let pair = |people, machines| -> Vec<(u64, u64)> {
            self.periods.iter().map(|(.., c)| (count(people, c), count(machines, c))).collect()
        };
        let sums = |what: &str, people, machines| {
            let (people, machines) = (count(people, &self.totals), count(machines, &self.totals));
            format!("{what}, {said}: {} by people, {} by machines", words::number(people), words::number(machines))
        };
        match self.show {
            Show::Opens if self.is_nothing() => Picture::None(
                "No pixel was loaded in this range. Opens are counted in HTML mail of a domain with open tracking.",
            ),
            Show::Clicks if self.is_nothing() => Picture::None(
                "No tracked link was followed in this range. Clicks are counted in HTML mail of a domain with click \
                 tracking.",
            ),
            Show::Rates if self.is_nothing() => {
                Picture::None("No copy with a pixel or a tracked link was delivered in this range.")
            }
            Show::Domains if self.is_nothing() => Picture::None("No mail came in during this range."),
            Show::Links if self.is_nothing() => Picture::None("No tracked link was followed on these days."),
            Show::Opens => {
                let label = sums("Opens", "opened_human", "opened_machine");
                let values = pair("opened_human", "opened_machine");
                Picture::Columns(Columns::new("opens", label, HIGH, &periods, &values))
            }
            Show::Clicks => {
                let label = sums("Clicks", "clicked_human", "clicked_machine");
                let values = pair("clicked_human", "clicked_machine");
                Picture::Columns(Columns::new("clicks", label, HIGH, &periods, &values))
            }
            Show::Rates => {
                let (opened, clicked) = self.periods.iter().map(|(.., counts)| Self::rates(counts)).unzip();
                let (open, click) = Self::rates(&self.totals);
                let label =
                    format!("Rates, {said}: {} opened by people, {} clicked by people", share(open), share(click));
                let lines = [("opens", "opened", opened), ("clicks", "clicked", clicked)];
                Picture::Lines(Lines::new(label, HIGH, &periods, &lines))
            }
            Show::Domains => {
                let mut rows: Vec<_> = self.top_domains().iter().map(Shown::bars).collect();
                // Mail that is not tracked has no bars: the table alone has it.
                rows.retain(|row| row.bars.iter().flatten().any(|(_, length)| *length > 0));
                let count = words::counted(rows.len() as u64, "row");
                let label = format!("Opens and clicks by domain, {said}: {count}");
                if rows.is_empty() {
                    return Picture::None("Nobody has opened or clicked mail in this range.");
                }
                Picture::Bars(Bars::new(label, &rows))
            }
            Show::Links => {
                let row = |link: &ops::LinkStats| {
                    let name = destination(link.url.as_deref());
                    let numbers = people_and_machines(link.clicked_human, link.clicked_machine);
                    Named {
                        title: format!("{}: {numbers}", words::cut(name, 300)),
                        name: words::cut(name, NAME),
                        bars: vec![vec![("clicks", link.clicked_human), ("clicks-machine", link.clicked_machine)]],
                    }
                };
                let rows: Vec<_> = self.links.iter().take(TOP).map(row).collect();
                let count = words::counted(rows.len() as u64, "destination");
                Picture::Bars(Bars::new(format!("Clicks, {said}: {count}"), &rows))
            }
        }
    }

    fn is_nothing(&self) -> bool {
        match self.show {
            Show::Opens => count("opened", &self.totals) == 0,
            Show::Clicks => count("clicked", &self.totals) == 0,
            Show::Rates => Self::rates(&self.totals) == (None, None),
            Show::Domains => self.top_domains().is_empty(),
            Show::Links => self.links.is_empty(),
        }
    }

    /// The first of them, what is left of the others as one, and mail of none of them.
    fn top_domains(&self) -> Vec<Shown> {
        let top = |row: &DomainRow| Shown { id: Some(row.id), name: row.name.clone(), counts: row.counts };
        let mut shown: Vec<_> = self.domains.iter().take(TOP).map(top).collect();
        let rest = self.domains.get(TOP..).unwrap_or(&[]);
        if !rest.is_empty() {
            let counts = rest.iter().fold(Counts::default(), |mut sum, row| {
                sum.add(&row.counts);
                sum
            });
            shown.push(Shown { id: None, name: words::counted(rest.len() as u64, "other domain"), counts });
        }
        if let Some(counts) = self.others {
            let name = match self.left_out.is_empty() {
                true => "domains that are not set up",
                false => "all other mail",
            };
            shown.push(Shown { id: None, name: name.to_owned(), counts });
        }
        shown
    }

    /// Periods come with the latest first.
    pub fn table(&self, address: &Address<'_>) -> Table {
        let number = |name: &str, counts: &Counts| words::number(count(name, counts));
        let by_period = |label, head: &[&'static str], cells: &dyn Fn(&Counts) -> Vec<String>| {
            let row = |(named, _, counts): &(super::span::Named, String, Counts)| Row {
                name: named.whole.clone(),
                href: address.of_period(named),
                cells: cells(counts),
            };
            // Where there is nothing, rows of zeros say no more.
            let rows = if self.is_nothing() { Vec::new() } else { self.periods.iter().rev().map(row).collect() };
            Table { label, is_long: false, head: head.to_vec(), rows }
        };
        match self.show {
            Show::Opens => {
                let head = ["Period (UTC)", "By people", "By machines", "All", "Copies first opened by people"];
                let names = ["opened_human", "opened_machine", "opened", "unique_opened_human"];
                by_period("Opens", &head, &|counts| names.map(|name| number(name, counts)).to_vec())
            }
            Show::Clicks => {
                let head = ["Period (UTC)", "By people", "By machines", "All", "Copies first clicked by people"];
                let names = ["clicked_human", "clicked_machine", "clicked", "unique_clicked_human"];
                by_period("Clicks", &head, &|counts| names.map(|name| number(name, counts)).to_vec())
            }
            Show::Rates => {
                let head = ["Period (UTC)", "Delivered", "Opened by people", "Clicked by people"];
                by_period("Rates", &head, &|counts| {
                    let (open, click) = Self::rates(counts);
                    vec![number("delivered", counts), share(open), share(click)]
                })
            }
            Show::Domains => {
                let row = |shown: Shown| {
                    let names = ["delivered", "opened_human", "opened_machine", "clicked_human", "clicked_machine"];
                    let mut cells = names.map(|name| number(name, &shown.counts)).to_vec();
                    let (open, click) = Self::rates(&shown.counts);
                    cells.extend([share(open), share(click)]);
                    Row { name: shown.name, href: shown.id.map(|id| address.of_domain(id)), cells }
                };
                let head = vec![
                    "Domain",
                    "Delivered",
                    "Opens by people",
                    "Opens by machines",
                    "Clicks by people",
                    "Clicks by machines",
                    "Open rate",
                    "Click rate",
                ];
                Table { label: "Domains", is_long: true, head, rows: self.top_domains().into_iter().map(row).collect() }
            }
            Show::Links => {
                let row = |link: &ops::LinkStats| {
                    let all = link.clicked_human.saturating_add(link.clicked_machine);
                    let cells = [link.clicked_human, link.clicked_machine, all].map(words::number).to_vec();
                    Row { name: words::cut(destination(link.url.as_deref()), 160), href: None, cells }
                };
                let head = vec!["Destination", "By people", "By machines", "All"];
                Table {
                    label: "Destinations",
                    is_long: true,
                    head,
                    rows: self.links.iter().take(TOP).map(row).collect(),
                }
            }
        }
    }

    /// The names of columns, and all rows, in order of time or the greatest first.
    pub fn as_rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let figures = |counts: &Counts| FIGURES.iter().map(|name| plain(name, counts)).collect::<Vec<_>>();
        let names = |first: &[&'static str]| first.iter().copied().chain(FIGURES).collect();
        match self.show {
            Show::Opens | Show::Clicks | Show::Rates => {
                let row = |(_, name, counts): &(_, String, Counts)| [vec![name.clone()], figures(counts)].concat();
                (names(&["period"]), self.periods.iter().map(row).collect())
            }
            Show::Domains => {
                let row = |row: &DomainRow| [vec![row.id.to_string(), row.name.clone()], figures(&row.counts)].concat();
                (names(&["domain_id", "domain_name"]), self.domains.iter().map(row).collect())
            }
            Show::Links => {
                let row = |link: &ops::LinkStats| {
                    let url = link.url.clone().unwrap_or_default();
                    vec![url, link.clicked_human.to_string(), link.clicked_machine.to_string()]
                };
                (vec!["destination", "clicked_human", "clicked_machine"], self.links.iter().map(row).collect())
            }
        }
    }
}

/// One row by domain: a domain, or several as one.
struct Shown {
    id: Option<uuid::Uuid>,
    name: String,
    counts: Counts,
}

impl Shown {
    fn bars(&self) -> Named {
        let [opened, by_machines, clicked, followed] =
            ["opened_human", "opened_machine", "clicked_human", "clicked_machine"]
                .map(|name| count(name, &self.counts));
        let (opens, clicks) = (people_and_machines(opened, by_machines), people_and_machines(clicked, followed));
        Named {
            name: words::cut(&self.name, NAME),
            title: format!("{}: opens {opens}; clicks {clicks}", self.name),
            bars: vec![
                vec![("human", opened), ("machine", by_machines)],
                vec![("clicks", clicked), ("clicks-machine", followed)],
            ],
        }
    }
}

impl From<&super::span::Named> for Period {
    fn from(named: &super::span::Named) -> Self {
        Self { whole: named.whole.clone(), short: named.short.clone(), place: named.place }
    }
}

fn count(name: &str, counts: &Counts) -> u64 {
    ops::figure_count(name, counts)
}

/// `12.3 %`, or a dash where there is nothing to have a share of.
pub fn share(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), words::percent)
}

fn people_and_machines(people: u64, machines: u64) -> String {
    format!("{} by people, {} by machines", words::number(people), words::number(machines))
}

fn destination(url: Option<&str>) -> &str {
    url.unwrap_or("a destination that is no longer known")
}

/// For programs.
fn plain(name: &str, counts: &Counts) -> String {
    match Figure::named(name).map(|figure| figure.of(counts)) {
        Some(Value::Count(count)) => count.to_string(),
        Some(Value::Rate(rate)) => format!("{rate:.4}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::form::Form;
    use super::super::span::{self, Span};
    use super::*;
    use crate::ops::Granularity;
    use crate::store::Counter;
    use uuid::Uuid;

    /// 2026-11-24 10:30 UTC.
    const NOW: u64 = 1_795_516_200_000;

    fn counts(of: &[(Counter, i64)]) -> Counts {
        let mut counts = Counts::default();
        of.iter().for_each(|(counter, more)| counts.count(*counter, *more));
        counts
    }

    fn measured(show: Show) -> Measured {
        let totals = counts(&[(Counter::OpensHuman, 5), (Counter::OpensMachine, 2), (Counter::ClicksHuman, 1)]);
        let (periods, domains, links, left_out) = (vec![], vec![], vec![], vec![]);
        Measured { show, totals, periods, domains, others: None, links, left_out }
    }

    fn table(measured: &Measured) -> Vec<(String, bool, String)> {
        let span = Span::read(&Form::default(), NOW).unwrap();
        let address = Address { domain: None, span: &span, show: measured.show };
        let rows = measured.table(&address).rows.into_iter();
        rows.map(|row| (row.name, row.href.is_some(), row.cells.join(" "))).collect()
    }

    #[test]
    fn every_figure_of_a_file_is_one() {
        for name in FIGURES {
            assert!(Figure::named(name).is_some(), "{name}");
        }
        assert_eq!((share(None), share(Some(0.25))), ("–".to_owned(), "25.0 %".to_owned()));
    }

    #[test]
    fn tables_and_files_by_period() {
        let mut opens = measured(Show::Opens);
        let period = |n, name: &str, counts| (span::named(name, Granularity::Daily, n), name.to_owned(), counts);
        opens.periods = vec![
            period(0, "2026-11-23", counts(&[(Counter::OpensUnknown, 1_500), (Counter::OpensMachine, 2)])),
            period(1, "2026-11-24", counts(&[(Counter::PixelCopies, 4), (Counter::DeliveredOpenedHuman, 1)])),
        ];
        let row = |name: &str, cells: &str| (name.to_owned(), true, cells.to_owned());
        assert_eq!(table(&opens), [row("Tue 24 Nov 2026", "0 0 0 0"), row("Mon 23 Nov 2026", "1,500 2 1,502 0")]);
        assert!(matches!(opens.picture("x"), Picture::Columns(_)));
        let (names, rows) = opens.as_rows();
        assert_eq!((names[0], names.len(), rows[0].len()), ("period", 13, 13));
        assert_eq!((&*rows[0][0], &*rows[0][5], &*rows[1][11]), ("2026-11-23", "1500", "0.2500"));
        opens.totals = Counts::default();
        assert!(matches!(opens.picture("x"), Picture::None(_)));
        assert!(table(&opens).is_empty(), "rows of zeros say nothing");
        opens.show = Show::Rates;
        opens.totals = counts(&[(Counter::PixelCopies, 1)]);
        assert_eq!(table(&opens)[0], row("Tue 24 Nov 2026", "0 25.0 % –"));
    }

    #[test]
    fn domains_beyond_the_first_are_one_row() {
        let mut domains = measured(Show::Domains);
        let one = counts(&[(Counter::Delivered, 1), (Counter::OpensHuman, 1)]);
        let row = |n: u128| DomainRow { id: Uuid::from_u128(n), name: format!("d{n}.example.com"), counts: one };
        domains.domains = (0..13).map(row).collect();
        domains.others = Some(counts(&[(Counter::Delivered, 7)]));
        let rows = table(&domains);
        assert_eq!(rows[9], ("d9.example.com".into(), true, "1 1 0 0 0 – –".into()));
        assert_eq!(rows[10], ("3 other domains".into(), false, "3 3 0 0 0 – –".into()));
        assert_eq!(rows[11], ("domains that are not set up".into(), false, "7 0 0 0 0 – –".into()));
        assert_eq!((rows.len(), domains.as_rows().1.len()), (12, 13));
        domains.left_out.push("Only some.".into());
        assert_eq!(table(&domains)[11].0, "all other mail");
        assert!(matches!(domains.picture("x"), Picture::Bars(_)));
        domains.domains.clear();
        assert!(matches!(domains.picture("x"), Picture::None(_)), "nobody has opened anything");
    }

    #[test]
    fn destinations_are_cut_in_tables_and_whole_in_files() {
        let mut links = measured(Show::Links);
        let url = format!("https://example.net/{}", "a".repeat(2_000));
        links.links.push(ops::LinkStats { url: Some(url.clone()), clicked_human: 3, clicked_machine: 4 });
        links.links.push(ops::LinkStats { url: None, clicked_human: 1, clicked_machine: 0 });
        let rows = table(&links);
        assert!(rows[0].0.chars().count() < 200 && rows[0].2 == "3 4 7", "{rows:?}");
        assert_eq!(rows[1].0, "a destination that is no longer known");
        assert_eq!(links.as_rows().1[0], [url, "3".into(), "4".into()]);
    }
}
