//! The overview: what needs a person, whether mail flows, whether it is tracked and if not why, who opens and clicks.

use super::error::Error;
use super::frame::{Frame, Section, Signed, page};
use super::measured::Whose;
use super::needs::{Need, needs};
use super::plot::{Columns, Period};
use super::reasons::explain;
use super::shown::share;
use super::{Dashboard, facts, filters, span, words};
use crate::clock;
use crate::mail::DomainName;
use crate::ops::{self, DomainHours, Granularity, MetricsQuery, OpError, Ops, SkipTop, Tops, Window};
use crate::settings::ApiKey;
use crate::store::Counts;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use url::form_urlencoded::byte_serialize;
use uuid::Uuid;

/// Days of what is tracked and of the pictures.
const DAYS: u32 = 7;
/// Days without any mail after which somebody is told how to send some.
const LONG: u32 = 90;
/// Pixels of the tallest column.
const HIGH: u32 = 110;
/// Reasons that are shown.
const MOST_REASONS: usize = 6;
/// Domains of a key that is tied to some, whose reasons are read.
const MOST_DOMAINS: usize = 200;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    frame: Frame,
    needs: Vec<Need>,
    /// Nothing has come yet: what to do, and which of it is done.
    first: Option<First>,
    /// Or why there are no figures.
    figures: Result<Figures, String>,
    queue: Option<QueueCard>,
}

/// The first steps.
struct First {
    /// Sender domains are set up.
    has_domain: bool,
}

struct QueueCard {
    waiting: u64,
    oldest: Option<String>,
}

struct Figures {
    cards: Vec<Card>,
    tracked: String,
    /// Notices of this relay's own are not among them: nobody wants them tracked.
    judged: u64,
    notices: u64,
    reasons: Vec<Reason>,
    /// Reasons beside those that are shown.
    more_reasons: usize,
    is_whole: bool,
    opens: Option<Columns>,
    clicks: Option<Columns>,
}

/// A number of the last 24 hours beside that of the 24 before.
struct Card {
    name: &'static str,
    now: u64,
    before: u64,
    more: String,
}

struct Reason {
    title: &'static str,
    remedy: &'static str,
    messages: String,
    domains: Vec<Named>,
}

/// A domain with some mail of this reason, and where it is set up or seen.
struct Named {
    name: String,
    messages: u64,
    href: Option<String>,
}

/// What is read from the history.
struct History {
    lately: Counts,
    before: Counts,
    days: Vec<(String, Counts)>,
    week: Counts,
    skips: Tops<SkipTop>,
    /// Messages of the last day that are this relay's own notices.
    notices: u64,
    /// No mail has come for a long time, or ever.
    is_new: bool,
}

pub async fn show(State(dashboard): State<Arc<Dashboard>>, signed: Signed) -> Result<Response, Error> {
    let now = clock::unix_ms();
    let mut facts = facts::gather(&dashboard.ops, &signed.key, now);
    let history = read(&dashboard, &signed.key, now).await;
    if let Ok(history) = &history {
        let count = |name| ops::figure_count(name, &history.lately);
        facts.bounced = count("bounced");
        facts.settled = count("delivered").saturating_add(facts.bounced).saturating_add(count("failed"));
    }
    let mut frame = dashboard.frame(&signed, Section::Overview, "Overview");
    // They are told below, with what to do.
    frame.alarms.clear();
    let settings = dashboard.ops.settings.snapshot();
    let has_domain = settings.domains.values().any(|domain| signed.key.reaches(domain));
    let is_new = history.as_ref().is_ok_and(|history| history.is_new) && facts.waiting == 0;
    let at_home = |name: &str| {
        let known = settings.domains.values().find(|domain| domain.name.as_str() == name);
        match known.filter(|domain| signed.key.reaches(domain)) {
            Some(domain) => Some(format!("/dashboard/domains/{}", domain.id)),
            None if name.is_empty() || known.is_some() => None,
            None => {
                let name: String = byte_serialize(name.as_bytes()).collect();
                Some(format!("/dashboard/domains/new?name={name}"))
            }
        }
    };
    page(&Page {
        frame,
        needs: needs(&facts),
        first: is_new.then_some(First { has_domain }),
        figures: history.map(|history| Figures::of(history, at_home)).map_err(|e| words::sentence(&e.to_string())),
        queue: facts
            .operator
            .then(|| QueueCard { waiting: facts.waiting as u64, oldest: facts.oldest.map(|at| words::away(at, now)) }),
    })
}

async fn read(dashboard: &Dashboard, key: &ApiKey, now: u64) -> Result<History, OpError> {
    let ops = &dashboard.ops;
    if ops.store.load().is_none() {
        // Who looks here wants to know that at once, not after some seconds of waiting.
        return Err(OpError::NoHistory);
    }
    let whose = Whose::of(&ops.settings.snapshot(), key, None).domains;
    let reader = Arc::clone(ops);
    let own = dashboard.setup.hostname.clone();
    ops::aside(ops, move || history(&reader, whose, own, now)).await
}

/// `own` is the relay's name, which its notices come from.
fn history(
    ops: &Ops,
    domains: Option<Vec<DomainHours>>,
    own: Option<DomainName>,
    now: u64,
) -> Result<History, OpError> {
    let (lately, before) = span::last_two_days(now);
    let read_of = |domains, window: Window, by_period| {
        let (by_domain, by_email, emails) = (false, false, None);
        let query = MetricsQuery { window, by_period, by_domain, by_email, domains, emails };
        ops::metrics(ops, query, |_, _| false)
    };
    let read = |window, by_period| read_of(domains.clone(), window, by_period);
    let days = span::last_days(DAYS, now);
    let mut week = read(days.clone(), Some(Granularity::Daily))?;
    let some = domains.as_ref().map(|domains| &domains[..domains.len().min(MOST_DOMAINS)]);
    let is_new = week.totals.is_empty() && read(span::last_days(LONG, now), None)?.totals.is_empty();
    let mut skips = ops::skip_tops(ops, some, &days)?;
    let own = own.filter(|name| domains.is_none() && !ops.settings.snapshot().domains.contains_key(name));
    let own = own.map(|name| vec![DomainHours { id: Uuid::nil(), name, hours: 0..u32::MAX }]);
    let mut notices = 0;
    if let Some(own) = &own {
        notices = ops::figure_count("messages", &read_of(Some(own.clone()), lately.clone(), None)?.totals);
        week.totals = week.totals.without(&read_of(Some(own.clone()), days.clone(), None)?.totals);
        leave_out(&mut skips.rows, &ops::skip_tops(ops, Some(own), &days)?.rows, own[0].name.as_str());
    }
    skips.is_whole &= domains.as_ref().is_none_or(|domains| domains.len() <= MOST_DOMAINS);
    Ok(History {
        lately: read(lately, None)?.totals,
        before: read(before, None)?.totals,
        days: week.rows.into_iter().map(|row| (row.period.unwrap_or_default(), row.counts)).collect(),
        week: week.totals,
        skips,
        notices,
        is_new,
    })
}

/// Takes `less`, which is all of `name`, out of `rows`.
fn leave_out(rows: &mut Vec<SkipTop>, less: &[SkipTop], name: &str) {
    for row in rows.iter_mut() {
        let gone = less.iter().find(|less| less.reason == row.reason).map_or(0, |less| less.messages);
        row.messages = row.messages.saturating_sub(gone);
        row.domains.retain(|(domain, _)| domain != name);
    }
    rows.retain(|row| row.messages > 0);
    rows.sort_by_key(|row| std::cmp::Reverse(row.messages));
}

impl Figures {
    fn of(history: History, at_home: impl Fn(&str) -> Option<String>) -> Self {
        let count = ops::figure_count;
        let card = |name, figure: &str, more: String| Card {
            name,
            now: count(figure, &history.lately),
            before: count(figure, &history.before),
            more,
        };
        let rate = |name| words::percent(ops::figure_rate(name, &history.lately));
        let messages = words::counted(count("messages", &history.lately), "message");
        let cards = vec![
            card("Accepted", "sent", format!("copies of {messages}")),
            card("Delivered", "delivered", format!("{} of copies settled", rate("delivery_rate"))),
            card("Delayed", "delivery_delayed", "put off at least once".to_owned()),
            card("Bounced", "bounced", format!("{} of copies settled", rate("bounce_rate"))),
        ];
        let (tracked, untracked) = (count("tracked", &history.week), count("untracked", &history.week));
        let judged = tracked.saturating_add(untracked);
        let reason = |top: &SkipTop| {
            let (title, remedy) = explain(&top.reason);
            let named = |(name, messages): &(String, u64)| Named {
                href: at_home(name),
                name: crate::domain::unicode(name),
                messages: *messages,
            };
            let messages = words::counted(top.messages, "message");
            Reason { title, remedy, messages, domains: top.domains.iter().map(named).collect() }
        };
        let skips = &history.skips.rows;
        Self {
            cards,
            tracked: share((judged > 0).then(|| tracked as f64 / judged as f64)),
            judged,
            notices: history.notices,
            reasons: skips.iter().take(MOST_REASONS).map(reason).collect(),
            more_reasons: skips.len().saturating_sub(MOST_REASONS),
            is_whole: history.skips.is_whole,
            opens: picture("opens", "Opens", &history, ("opened_human", "opened_machine")),
            clicks: picture("clicks", "Clicks", &history, ("clicked_human", "clicked_machine")),
        }
    }
}

/// Nothing where there is nothing to be seen.
fn picture(class: &'static str, name: &str, history: &History, figures: (&str, &str)) -> Option<Columns> {
    let pair = |counts: &Counts| (ops::figure_count(figures.0, counts), ops::figure_count(figures.1, counts));
    let (people, machines) = pair(&history.week);
    if people == 0 && machines == 0 {
        return None;
    }
    let named = |(n, (name, _)): (usize, &(String, Counts))| Period::from(&span::named(name, Granularity::Daily, n));
    let periods: Vec<_> = history.days.iter().enumerate().map(named).collect();
    let values: Vec<_> = history.days.iter().map(|(_, counts)| pair(counts)).collect();
    let (people, machines) = (words::number(people), words::number(machines));
    let label = format!("{name} of the last {DAYS} days: {people} by people, {machines} by machines");
    Some(Columns::new(class, label, HIGH, &periods, &values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_of_the_relay_are_no_reason() {
        let top = |reason: &str, messages, domains: &[(&str, u64)]| SkipTop {
            reason: reason.to_owned(),
            messages,
            domains: domains.iter().map(|(name, messages)| ((*name).to_owned(), *messages)).collect(),
        };
        let mut rows = vec![
            top("unknown-domain", 9, &[("relay.example.net", 7), ("a.example.com", 2)]),
            top("no-html", 3, &[("a.example.com", 3)]),
            top("too-large", 1, &[("relay.example.net", 1)]),
        ];
        let own = [top("unknown-domain", 7, &[("relay.example.net", 7)]), top("too-large", 1, &[])];
        leave_out(&mut rows, &own, "relay.example.net");
        let want = [top("no-html", 3, &[("a.example.com", 3)]), top("unknown-domain", 2, &[("a.example.com", 2)])];
        assert_eq!(rows, want);
    }
}
