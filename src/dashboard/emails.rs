//! Emails: the newest, and searching them. Two forms, since two things are searched in two ways: what names a message
//! whole is found at once, a subject or a tag by looking at one message after the other.

use super::error::Error;
use super::form::{Asked, Form};
use super::frame::{Frame, Section, Signed, page, page_again};
use super::{Dashboard, filters, words};
use crate::clock;
use crate::mail::QueueId;
use crate::ops::{self, Among, Email, Looked, Range, RecipientView, Wanted};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::sync::Arc;
use url::form_urlencoded;

pub const LIST: &str = "/dashboard/emails";
/// Messages of a page.
const PAGE: usize = 50;
/// More sender domains than these are typed and not chosen.
const MOST_CHOICES: usize = 100;
/// Days that a search goes back where nobody says.
const DAYS: u64 = 7;

#[derive(Template)]
#[template(path = "emails.html")]
struct List {
    frame: Frame,
    typed: Typed,
    heading: &'static str,
    emails: Vec<Row>,
    /// How far was looked, for a search.
    looked: Option<String>,
    newer: Option<String>,
    older: Option<String>,
    /// Somebody searches, or goes through pages.
    asked: bool,
    /// The whole of it was looked at.
    whole: bool,
}

/// The fields of both forms.
#[derive(Clone, Default)]
struct Typed {
    q: String,
    subject: String,
    tag: String,
    from: String,
    to: String,
    domain: String,
    /// Sender domains to choose from; where there are too many, one is typed.
    domains: Vec<String>,
    asks_for_domain: bool,
    /// The second form was sent.
    by_head: bool,
    wrong_from: Option<&'static str>,
    wrong_to: Option<&'static str>,
}

/// What is looked for.
enum Search {
    Named(String, Option<Vec<Among>>),
    Where(Wanted),
}

/// One message in the list.
struct Row {
    id: String,
    at: u64,
    subject: String,
    from: String,
    to: String,
    /// Recipients beside the first.
    more: usize,
    state: Badge,
    opened: bool,
    clicked: bool,
}

/// What became of a message in a word, and how that is coloured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Badge {
    pub text: String,
    pub kind: &'static str,
}

impl Badge {
    /// Of all recipients together: what needs attention first.
    pub fn of(recipients: &[RecipientView]) -> Self {
        const WORDS: [(&[&str], &str, &str); 6] = [
            (&["bounced"], "bounced", "bad"),
            (&["deferred"], "deferred", "warn"),
            (&["queued", "sending"], "queued", ""),
            (&["held"], "held", ""),
            (&["removed", "suppressed"], "not sent", ""),
            (&["delivered", "relayed"], "delivered", "good"),
        ];
        let count = |states: &[&str]| recipients.iter().filter(|r| states.contains(&r.status.as_str())).count();
        let found = WORDS.iter().map(|(states, word, kind)| (count(states), word, kind)).find(|(count, ..)| *count > 0);
        let Some((count, word, kind)) = found else { return Self { text: "accepted".to_owned(), kind: "" } };
        let all = recipients.len();
        let text = match count == all {
            true => (*word).to_owned(),
            false => format!("{} of {} {word}", words::number(count as u64), words::number(all as u64)),
        };
        Self { text, kind }
    }
}

impl Row {
    fn of(email: Email) -> Self {
        let message = email.message;
        let state = Badge::of(&message.recipients);
        let more = message.recipients.len().saturating_sub(1);
        let to = message.recipients.into_iter().next().map(|recipient| recipient.address).unwrap_or_default();
        Self {
            id: message.id,
            at: message.accepted_at,
            subject: subject(&message.subject),
            from: if message.from.is_empty() { message.sender } else { message.from },
            to,
            more,
            state,
            opened: email.interest.opened,
            clicked: email.interest.clicked,
        }
    }
}

/// A subject as it is shown.
pub fn subject(subject: &str) -> String {
    if subject.trim().is_empty() { "(no subject)".to_owned() } else { words::cut(subject, 150) }
}

/// The newest mail; `?q=` finds by name, `?subject=&tag=&from=&to=&domain=` by what the head says; `?after=` and
/// `?before=` are pages.
pub async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let settings = dashboard.ops.settings.snapshot();
    let own = ops::domains_of(&settings, &signed.key);
    let names = match &own {
        Some(own) => own.iter().map(|among| among.domain.clone()).collect(),
        None => settings.domains.keys().take(MOST_CHOICES + 1).map(|name| name.as_str().to_owned()).collect(),
    };
    let mut typed = Typed::of(&asked, names);
    let frame = dashboard.frame(&signed, Section::Emails, "Emails");
    let Some(search) = typed.search(own) else {
        return page_again(&List::of(frame, typed, Range::default(), Looked { emails: Vec::new(), stopped: None }));
    };
    let range = Range { after: id(asked.text("after")), before: id(asked.text("before")), limit: PAGE };
    let ops = Arc::clone(&dashboard.ops);
    let work = move || match search {
        Search::Named(text, own) => ops::emails_with(&ops, &text, range.after, own, PAGE),
        Search::Where(wanted) => ops::emails_where(&ops, &wanted, range),
    };
    let looked = ops::aside(&dashboard.ops, work).await?;
    if looked.emails.is_empty() && range.before.is_some() {
        return Ok(Redirect::to(LIST).into_response());
    }
    page(&List::of(frame, typed, range, looked))
}

impl List {
    fn of(frame: Frame, typed: Typed, range: Range, looked: Looked) -> Self {
        let Looked { emails, stopped } = looked;
        let link = |name: &str, id: &str| Some(typed.link(name, id));
        let first = emails.first().map(|email| email.message.id.as_str());
        let last = emails.last().map(|email| email.message.id.as_str());
        let is_search = typed.by_head || !typed.q.is_empty();
        let on = stopped.map(|id| id.to_string());
        let (newer, older) = match range.before {
            Some(_) => (on.and(first).and_then(|id| link("before", id)), last.and_then(|id| link("after", id))),
            None => {
                let newer = first.filter(|_| range.after.is_some() && !is_search);
                (newer.and_then(|id| link("before", id)), on.and_then(|id| link("after", &id)))
            }
        };
        Self {
            heading: match (is_search, range.after.or(range.before)) {
                (true, _) => "Found",
                (false, Some(_)) => "Older mail",
                (false, None) => "Newest mail",
            },
            looked: typed.by_head.then(|| typed.looked(range, stopped)),
            newer,
            older,
            asked: is_search || range.after.is_some(),
            whole: stopped.is_none(),
            emails: emails.into_iter().map(Row::of).collect(),
            frame,
            typed,
        }
    }
}

impl Typed {
    fn of(asked: &Form, domains: Vec<String>) -> Self {
        let text = |name: &str| asked.text(name).to_owned();
        let typed = Self {
            q: text("q"),
            subject: text("subject"),
            tag: text("tag"),
            from: text("from"),
            to: text("to"),
            domain: text("domain"),
            asks_for_domain: domains.len() > 1,
            domains: if domains.len() > MOST_CHOICES { Vec::new() } else { domains },
            by_head: ["subject", "tag", "from", "to", "domain"].iter().any(|name| asked.has(name)),
            ..Self::default()
        };
        if typed.by_head {
            return typed;
        }
        let day = |at: u64| words::time(at).chars().take(10).collect();
        let now = clock::unix_ms();
        Self { from: day(now.saturating_sub((DAYS - 1) * DAY_MS)), to: day(now), ..typed }
    }

    /// What is looked for; `None` where a field is wrong, which is noted beside it.
    fn search(&mut self, own: Option<Vec<Among>>) -> Option<Search> {
        if !self.q.is_empty() {
            return Some(Search::Named(self.q.clone(), own));
        }
        let mut wanted = Wanted { domains: own, ..Wanted::default() };
        if !self.by_head {
            return Some(Search::Where(wanted));
        }
        wanted.subject.clone_from(&self.subject);
        wanted.tag = tag(&self.tag);
        if !self.domain.is_empty() {
            let name = self.domain.to_lowercase();
            wanted.domains = Some(match wanted.domains {
                Some(own) => own.into_iter().filter(|among| among.domain == name).collect(),
                None => vec![Among { domain: name, since: 0 }],
            });
        }
        const WRONG: &str = "Write a day as 2026-11-24, from 1970 to 9998.";
        let (from, to) = (day(&self.from), day(&self.to));
        self.wrong_from = from.is_err().then_some(WRONG);
        self.wrong_to = to.is_err().then_some(WRONG);
        let (from, to) = (from.ok()?, to.ok()?);
        wanted.from = from.unwrap_or_default();
        wanted.until = to.map(|day| day.saturating_add(DAY_MS));
        if wanted.until.is_some_and(|until| until <= wanted.from) {
            self.wrong_to = Some("This day comes before the other.");
            return None;
        }
        Some(Search::Where(wanted))
    }

    /// The same search, from somewhere on.
    fn link(&self, name: &str, id: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.q.is_empty() {
            query.append_pair("q", &self.q);
        } else if self.by_head {
            let fields = [&self.subject, &self.tag, &self.from, &self.to, &self.domain];
            for (name, value) in ["subject", "tag", "from", "to", "domain"].into_iter().zip(fields) {
                query.append_pair(name, value);
            }
        }
        format!("{LIST}?{}", query.append_pair(name, id).finish())
    }

    /// How far was looked.
    fn looked(&self, range: Range, stopped: Option<QueueId>) -> String {
        let top = range.after.map(|id| words::time(id.unix_ms()));
        let top = top.or((!self.to.is_empty()).then(|| self.to.clone())).unwrap_or_else(|| "the newest".to_owned());
        let bottom = stopped.map(|id| words::time(id.unix_ms()));
        let bottom = bottom.or((!self.from.is_empty()).then(|| self.from.clone()));
        format!("Looked at mail from {top} back to {} (UTC).", bottom.unwrap_or_else(|| "the oldest".to_owned()))
    }
}

const DAY_MS: u64 = 86_400_000;

/// `name=value`, or a name alone.
fn tag(text: &str) -> Option<(String, Option<String>)> {
    match text.split_once('=') {
        _ if text.is_empty() => None,
        Some((name, value)) => Some((name.trim().to_owned(), Some(value.trim().to_owned()))),
        None => Some((text.to_owned(), None)),
    }
}

/// The beginning of a day of UTC, in milliseconds since 1970; nothing where no day was typed.
fn day(text: &str) -> Result<Option<u64>, ()> {
    if text.is_empty() {
        return Ok(None);
    }
    let day: Date = text.parse().map_err(|_| ())?;
    let begin = day.to_zoned(TimeZone::UTC).map_err(|_| ())?.timestamp().as_millisecond();
    u64::try_from(begin).map(Some).map_err(|_| ())
}

fn id(text: &str) -> Option<QueueId> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(query: &str, domains: &[&str]) -> Typed {
        Typed::of(&Form::read(query.as_bytes()), domains.iter().map(|name| (*name).to_owned()).collect())
    }

    fn wanted(query: &str, own: Option<Vec<Among>>) -> Option<Wanted> {
        match typed(query, &[]).search(own) {
            Some(Search::Where(wanted)) => Some(wanted),
            Some(Search::Named(..)) => panic!("{query}"),
            None => None,
        }
    }

    #[test]
    fn what_is_typed_is_what_is_looked_for() {
        let day = 1_764_028_800_000;
        assert_eq!(wanted("", None), Some(Wanted::default()));
        let full = wanted("subject=+Sale+&tag=a%3Db&from=2025-11-25&to=2025-11-25&domain=Example.com", None).unwrap();
        assert_eq!((full.subject.as_str(), full.tag), ("Sale", Some(("a".into(), Some("b".into())))));
        assert_eq!((full.from, full.until), (day, Some(day + DAY_MS)));
        assert_eq!(full.domains, Some(vec![Among { domain: "example.com".into(), since: 0 }]));
        assert_eq!(wanted("subject=&tag=news&from=&to=", None).unwrap().tag, Some(("news".into(), None)));
        // A key sees its own domains, whatever is asked for.
        let own = || Some(vec![Among { domain: "example.org".into(), since: 5 }]);
        assert_eq!(wanted("domain=example.com", own()).unwrap().domains, Some(Vec::new()));
        assert_eq!(wanted("domain=example.org", own()).unwrap().domains, own());
        assert_eq!(wanted("subject=x", own()).unwrap().domains, own());
    }

    #[test]
    fn wrong_days_are_said_beside_their_fields() {
        for (query, from, to) in [
            ("from=24.11.2025&to=2025-11-24", true, false),
            ("from=2025-11-24&to=x", false, true),
            ("from=2025-02-30&to=", true, false),
            ("from=2025-11-24&to=2025-11-23", false, true),
            ("from=1969-01-01&to=", true, false),
        ] {
            let mut typed = typed(query, &[]);
            assert!(typed.search(None).is_none(), "{query}");
            assert_eq!((typed.wrong_from.is_some(), typed.wrong_to.is_some()), (from, to), "{query}");
        }
    }

    #[test]
    fn pages_keep_what_was_typed() {
        let typed = typed("subject=a+%26+b&tag=&from=2025-11-01&to=&domain=x", &[]);
        let link = typed.link("after", "ID");
        assert_eq!(link, "/dashboard/emails?subject=a+%26+b&tag=&from=2025-11-01&to=&domain=x&after=ID");
        assert_eq!(self::typed("q=a%40b", &[]).link("after", "ID"), "/dashboard/emails?q=a%40b&after=ID");
        assert_eq!(self::typed("", &[]).link("before", "ID"), "/dashboard/emails?before=ID");
        let range = Range { after: Some(QueueId::new(1_764_028_800_000, [0; 10])), ..Range::default() };
        assert_eq!(
            typed.looked(range, Some(QueueId::new(1_764_028_740_000, [0; 10]))),
            "Looked at mail from 2025-11-25 00:00 back to 2025-11-24 23:59 (UTC)."
        );
        assert_eq!(typed.looked(Range::default(), None), "Looked at mail from the newest back to 2025-11-01 (UTC).");
    }

    #[test]
    fn one_word_for_many_recipients() {
        let state = |status: &str| RecipientView {
            address: String::new(),
            status: status.to_owned(),
            attempts: 0,
            next: None,
            reply: String::new(),
            at: 0,
        };
        for (states, want) in [
            (&["delivered"][..], "delivered"),
            (&["delivered", "relayed"], "delivered"),
            (&["delivered", "bounced", "deferred"], "1 of 3 bounced"),
            (&["deferred", "delivered"], "1 of 2 deferred"),
            (&["sending", "queued"], "queued"),
            (&["removed"], "not sent"),
            (&[], "accepted"),
            (&["of another version"], "accepted"),
        ] {
            let states: Vec<_> = states.iter().map(|status| state(status)).collect();
            assert_eq!(Badge::of(&states).text, want);
        }
    }
}
