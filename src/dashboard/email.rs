//! One mail: its timeline by recipient, and its rewrite report.
//!
//! A message may have a thousand recipients and a hundred thousand events. A page has [`RECIPIENTS`] of them and, of
//! each, as many events as fit into [`ROOM`]; all events of one recipient are a link away.

use super::emails::{Badge, LIST, subject};
use super::error::Error;
use super::form::{Asked, Named};
use super::frame::{Frame, Section, Signed, page};
use super::{Dashboard, filters, reasons, words};
use crate::clock;
use crate::event::{Event, EventKind};
use crate::mail::QueueId;
use crate::ops::{self, CopyEvents, Email, LinkClicks, RecipientView};
use crate::rewrite::{LinkOutcome, Note, Pixel, Report, SkipReason};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::collections::HashMap;
use std::sync::Arc;
use url::form_urlencoded;
use uuid::Uuid;

/// Recipients of a page.
const RECIPIENTS: usize = 25;
/// Events of one recipient on the page of all, and on their own.
const FEW: usize = 10;
const MANY: usize = 50;
/// Recipients of whom a page shows as many events as of one alone.
const HANDFUL: usize = 4;
/// Bytes of a page that events may take.
const ROOM: usize = 110_000;
/// What becomes of a message is news for so long. Milliseconds.
const LIVE_MS: u64 = 3_600_000;

/// What stands above every page of one mail.
pub struct Head {
    pub id: String,
    pub path: String,
    pub subject: String,
    pub from: String,
    pub message_id: String,
    pub size: u64,
    pub at: u64,
    pub recipients: usize,
    pub tags: Vec<(String, String)>,
    pub domain: Option<String>,
    /// Where the domain is set up, if it is and the key sees it.
    pub domain_path: Option<String>,
    pub state: Badge,
    pub opened: bool,
    pub clicked: bool,
    /// It is in the queue.
    pub queued: bool,
    /// More may happen to it.
    pub live: bool,
    pub operator: bool,
    /// `timeline`, `report` or `preview`.
    pub tab: &'static str,
}

impl Head {
    pub fn of(dashboard: &Dashboard, signed: &Signed, id: &QueueId, email: &Email, tab: &'static str) -> Self {
        let message = &email.message;
        let settings = dashboard.ops.settings.snapshot();
        let known = |name: &String| settings.domains.values().find(|domain| domain.name.as_str() == name);
        let domain = message.from_domain.as_ref().and_then(known).filter(|domain| signed.key.reaches(domain));
        let queued = dashboard.ops.queue.contains(id);
        Self {
            id: id.to_string(),
            path: format!("{LIST}/{id}"),
            subject: subject(&message.subject),
            from: if message.from.is_empty() { message.sender.clone() } else { message.from.clone() },
            message_id: message.message_id.clone(),
            size: message.size,
            at: message.accepted_at,
            recipients: message.recipients.len(),
            tags: message.tags.clone(),
            domain: message.from_domain.clone(),
            domain_path: domain.map(|domain| format!("/dashboard/domains/{}/configuration", domain.id)),
            state: Badge::of(&message.recipients),
            opened: email.interest.opened,
            clicked: email.interest.clicked,
            queued,
            live: queued || clock::unix_ms() < message.accepted_at.saturating_add(LIVE_MS),
            operator: signed.is_operator(),
            tab,
        }
    }
}

/// The id in an address; what is none is not there.
pub fn parse(id: &str) -> Result<QueueId, Error> {
    let id = Uuid::try_parse(id).map_err(|_| Error::NotThere)?;
    Ok(QueueId::from_bytes(id.into_bytes()))
}

#[derive(Template)]
#[template(path = "email.html")]
struct Timeline {
    frame: Frame,
    head: Head,
    copies: Vec<Copy>,
    /// The recipient that was asked for.
    only: String,
    /// Which recipients these are, where they are not all.
    range: Option<String>,
    earlier: Option<String>,
    later: Option<String>,
}

/// What one recipient got, and did with it.
struct Copy {
    address: String,
    state: Badge,
    /// When it is tried next.
    next: Option<u64>,
    steps: Vec<Step>,
    /// Events that are not on this page, in words, and where they are.
    more: Option<(String, String)>,
    less: Option<String>,
    /// Opens and clicks that are counted but not kept.
    counted: u64,
}

/// One event.
struct Step {
    at: u64,
    what: Badge,
    /// The smarthost's words, or the destination of a click.
    text: String,
    /// What it was taken for.
    class: String,
    count: u32,
    /// Who asked, and with what.
    client: String,
}

/// The timeline: `?recipients=N` begins with another recipient, `?recipient=ADDRESS` shows one, `&events=N` goes on with
/// theirs.
pub async fn timeline(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<String>,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let id = parse(&id)?;
    let number = |name: &str| usize::from(asked.text(name).parse::<u16>().unwrap_or_default());
    let (only, first, skip) = (asked.text("recipient").to_owned(), number("recipients"), number("events"));
    let (ops, key, wanted) = (Arc::clone(&dashboard.ops), signed.key.clone(), only.to_lowercase());
    let work = move || {
        let email = ops::email_of(&ops, &key, &id)?;
        let found: Vec<u16> = (0u16..)
            .zip(&email.message.recipients)
            .filter(|(_, recipient)| wanted.is_empty() || recipient.address.to_lowercase() == wanted)
            .map(|(place, _)| place)
            .collect();
        let places: Vec<u16> = found.iter().copied().skip(first).take(RECIPIENTS).collect();
        let limit = if places.len() <= HANDFUL { MANY } else { FEW };
        let copies = ops::events_of_copies(&ops, &id, &places, if wanted.is_empty() { 0 } else { skip }, limit)?;
        Ok((email, copies, found.len()))
    };
    let (email, copies, found) = ops::aside(&dashboard.ops, work).await?;
    let head = Head::of(&dashboard, &signed, &id, &email, "timeline");
    let frame = dashboard.frame(&signed, Section::Emails, &format!("Timeline of {id}"));
    let link = |first: usize| match only.is_empty() {
        true => format!("{}?recipients={first}", head.path),
        false => format!("{}&recipients={first}", with_recipient(&head.path, &only)),
    };
    let shown = copies.len();
    let range = || {
        let (from, to) = (words::number(first as u64 + 1), words::number((first + shown) as u64));
        format!("Recipients {from} to {to} of {}", words::number(found as u64))
    };
    let mut room = ROOM;
    let skip = if only.is_empty() { 0 } else { skip };
    let copies = copies.into_iter().filter_map(|copy| {
        let recipient = email.message.recipients.get(usize::from(copy.recipient))?;
        Some(Copy::of(recipient, copy, skip, &head.path, &mut room))
    });
    page(&Timeline {
        copies: copies.collect(),
        range: (shown > 0 && shown < found).then(range),
        earlier: (first > 0).then(|| link(first.saturating_sub(RECIPIENTS))),
        later: (first + shown < found && shown > 0).then(|| link(first + shown)),
        frame,
        only,
        head,
    })
}

/// The timeline of one recipient alone.
fn with_recipient(path: &str, address: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("recipient", address).finish();
    format!("{path}?{query}")
}

impl Copy {
    fn of(recipient: &RecipientView, copy: CopyEvents, skip: usize, path: &str, room: &mut usize) -> Self {
        let mut steps = Vec::with_capacity(copy.events.len());
        for event in &copy.events {
            let step = Step::of(event);
            match room.checked_sub(step.cost()) {
                Some(left) => *room = left,
                None => break,
            }
            steps.push(step);
        }
        let own = with_recipient(path, &recipient.address);
        let shown = skip + steps.len();
        let more = copy.all.saturating_sub(shown) as u64;
        // Where none has found room, there is only the way to the page that has it.
        let from = if steps.is_empty() { skip } else { shown };
        Self {
            address: recipient.address.clone(),
            state: Badge::of(std::slice::from_ref(recipient)),
            next: recipient.next,
            more: (more > 0).then(|| (words::counted(more, "more event"), format!("{own}&events={from}"))),
            less: (skip > 0).then_some(own),
            counted: copy.counted,
            steps,
        }
    }
}

impl Step {
    fn of(event: &Event) -> Self {
        let (word, kind) = match event.kind {
            EventKind::Sent => ("accepted", ""),
            EventKind::Delivered => ("delivered", "good"),
            EventKind::DeliveryDelayed => ("delayed", "warn"),
            EventKind::Bounced => ("bounced", "bad"),
            EventKind::Failed => ("not sent", ""),
            EventKind::Opened => ("opened", "human"),
            EventKind::Clicked => ("clicked", "human"),
        };
        let kind = if event.class == Some("machine") { "" } else { kind };
        let text = event.reply.as_deref().or(event.link.as_deref()).unwrap_or_default();
        let address = event.address.map(|address| address.to_string());
        let agent = event.agent.as_deref().map(|agent| words::cut(agent, 120));
        Self {
            at: event.at,
            what: Badge { text: word.to_owned(), kind },
            text: words::cut(text, 300),
            class: event
                .class
                .map(|class| reasons::hit(class, event.reason.as_deref().unwrap_or_default()))
                .unwrap_or_default(),
            count: event.count.unwrap_or(1),
            client: address.into_iter().chain(agent).collect::<Vec<_>>().join(" · "),
        }
    }

    /// Bytes that it takes of a page at most: markup, and each character as a reference.
    fn cost(&self) -> usize {
        let escaped = |text: &str| text.chars().map(|c| if c.is_ascii_alphanumeric() { 1 } else { 5 }).sum::<usize>();
        400 + escaped(&self.text) + escaped(&self.class) + escaped(&self.client)
    }
}

#[derive(Template)]
#[template(path = "email_report.html")]
struct ReportPage {
    frame: Frame,
    head: Head,
    /// Whether it was tracked, and if not, why and what to do.
    summary: String,
    remedy: &'static str,
    /// Where to do it.
    configuration: Option<String>,
    /// There was something to track.
    tracked: bool,
    details: Option<Details>,
}

/// The report, for people.
struct Details {
    pixel: String,
    links: String,
    parts: String,
    bytes_in: u64,
    bytes_out: u64,
    notes: Vec<&'static str>,
    /// How many, of what, why, and what to do.
    left: Vec<(u32, &'static str, &'static str, &'static str)>,
    rows: Vec<LinkRow>,
    more_links: u64,
}

struct LinkRow {
    url: String,
    outcome: Badge,
    why: &'static str,
    clicks: Option<LinkClicks>,
}

/// The rewrite report.
pub async fn report(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<String>,
) -> Result<Response, Error> {
    let id = parse(&id)?;
    let (ops, key) = (Arc::clone(&dashboard.ops), signed.key.clone());
    let work = move || {
        let email = ops::email_of(&ops, &key, &id)?;
        let links = email.message.report.iter().flat_map(|report| &report.links);
        let rewritten = links.filter_map(|link| match link.outcome {
            LinkOutcome::Rewritten(index) => Some(index),
            LinkOutcome::Skipped(_) => None,
        });
        let clicks = ops::link_clicks(&ops, &id, &rewritten.collect::<Vec<_>>())?;
        Ok((email, clicks))
    };
    let (email, clicks) = ops::aside(&dashboard.ops, work).await?;
    let head = Head::of(&dashboard, &signed, &id, &email, "report");
    let frame = dashboard.frame(&signed, Section::Emails, &format!("Rewrite report of {id}"));
    let report = email.message.report.as_ref();
    let (summary, why) = summary(report, head.queued);
    page(&ReportPage {
        remedy: why.map_or("", |reason| reasons::said(reason).1),
        configuration: head.domain_path.clone().filter(|_| why.is_some_and(reasons::lies_with_the_domain)),
        tracked: report.is_some_and(|report| report.untracked().is_none()),
        details: report.map(|report| Details::of(report, &clicks)),
        frame,
        head,
        summary,
    })
}

/// Whether a message was tracked, in a sentence; and why not, where it was not or only in part.
fn summary(report: Option<&Report>, queued: bool) -> (String, Option<SkipReason>) {
    let Some(report) = report else {
        return match queued {
            true => ("Not tried yet: mail is rewritten when it is first handed to the smarthost.".to_owned(), None),
            false => ("No report is kept of this message.".to_owned(), None),
        };
    };
    if let Some(reason) = report.untracked() {
        // Where all that is HTML had to be left alone, that says more than that there is no pixel.
        let reason = report.parts_skipped.keys().copied().find(|_| report.skipped.is_none()).unwrap_or(reason);
        return (format!("Not tracked: {}.", lower(reasons::said(reason).0)), Some(reason));
    }
    let (found, rewritten) = (u64::from(report.links_found), u64::from(report.links_rewritten));
    let all = words::counted(found, "link");
    let links = match (found, rewritten) {
        (_, 0) => "no link leads over the tracking subdomain".to_owned(),
        (1, _) => "its one link leads over the tracking subdomain".to_owned(),
        (found, rewritten) if found == rewritten => format!("all of its {all} lead over the tracking subdomain"),
        (_, 1) => format!("1 of its {all} leads over the tracking subdomain"),
        (_, rewritten) => format!("{} of its {all} lead over the tracking subdomain", words::number(rewritten)),
    };
    match report.pixel {
        Pixel::Inserted => (format!("Tracked: it carries the pixel, and {links}."), None),
        Pixel::Skipped(reason) => (format!("Clicks are tracked, opens are not: {links}."), Some(reason)),
    }
}

/// For the middle of a sentence.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_lowercase);
    let rest = chars.as_str();
    // Names keep their letters.
    match rest.chars().next().is_some_and(char::is_uppercase) {
        true => text.to_owned(),
        false => first.chain(rest.chars()).collect(),
    }
}

impl Details {
    fn of(report: &Report, clicks: &HashMap<u16, LinkClicks>) -> Self {
        let left = |of: &'static str, counts: &std::collections::BTreeMap<SkipReason, u32>| {
            let row = |(reason, count): (&SkipReason, &u32)| {
                let (title, remedy) = reasons::said(*reason);
                (*count, of, title, remedy)
            };
            counts.iter().map(row).collect::<Vec<_>>()
        };
        let row = |link: &crate::rewrite::LinkDetail| match link.outcome {
            LinkOutcome::Rewritten(index) => LinkRow {
                url: link.url.to_string(),
                outcome: Badge { text: "tracked".to_owned(), kind: "good" },
                why: "",
                clicks: clicks.get(&index).copied(),
            },
            LinkOutcome::Skipped(reason) => LinkRow {
                url: link.url.to_string(),
                outcome: Badge { text: "left alone".to_owned(), kind: "" },
                why: reasons::said(reason).0,
                clicks: None,
            },
        };
        Self {
            pixel: match report.pixel {
                Pixel::Inserted => "Inserted".to_owned(),
                Pixel::Skipped(reason) => format!("None: {}", lower(reasons::said(reason).0)),
            },
            links: format!(
                "{} found, {} rewritten",
                words::number(report.links_found.into()),
                words::number(report.links_rewritten.into())
            ),
            parts: words::number(report.parts.into()),
            bytes_in: report.bytes_in,
            bytes_out: report.bytes_out,
            notes: report.notes.iter().map(|note| said_of(*note)).collect(),
            left: [left("part", &report.parts_skipped), left("link", &report.links_skipped)].concat(),
            rows: report.links.iter().map(row).collect(),
            more_links: report.more_links.into(),
        }
    }
}

fn said_of(note: Note) -> &'static str {
    match note {
        Note::GmailClips => {
            "The HTML is over 102 KB: Gmail clips it, and with it the pixel. Make it shorter, or opens there are not seen."
        }
        Note::BecameQuotedPrintable => {
            "A part became quoted-printable, since a line would have passed 998 characters. Readers see no difference."
        }
        Note::SignatureBreaks => {
            "A DKIM signature of the sender's domain breaks, as on_signed = \"rewrite\" in the configuration asks for."
        }
    }
}

#[cfg(test)]
mod tests;
