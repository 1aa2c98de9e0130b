//! A look at what a message says, while the log still has it: a page, and in a frame of it the document, which runs
//! nothing, loads nothing and leads nowhere.

use super::email::{Head, parse};
use super::error::Error;
use super::form::{Asked, Form, Named};
use super::frame::{Frame, Section, Signed, page};
use super::neutral::neutral;
use super::{Dashboard, filters, reasons};
use crate::mail::{DomainName, QueueId};
use crate::ops::{self, Content, Email, OpError, Ops};
use crate::rewrite::{Mark, Shown, SkipReason, marked};
use crate::settings::ApiKey;
use askama::Template;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};
use std::sync::Arc;

/// Larger documents are not shown.
const MOST: usize = 2_000_000;
/// Parts that there are links to.
const MOST_PARTS: usize = 20;

/// What there is to look at.
enum Look {
    /// Harmless HTML, and how many links have which mark: tracked, not tracked, unknown.
    Html { html: String, marks: [usize; 3] },
    /// Text, and why it is shown as such if there is something to be said.
    Text(String, Option<&'static str>),
    /// Why there is nothing.
    None(&'static str),
}

/// Reads a message and makes one of its parts harmless. Reads the disk.
fn look(ops: &Ops, key: &ApiKey, id: &QueueId, part: usize) -> Result<(Email, usize, Look), OpError> {
    let email = ops::email_of(ops, key, id)?;
    let nothing = |why| Ok((email.clone(), 0, Look::None(why)));
    let message = match ops::email_content(ops, &email)? {
        Content::Message(bytes) => bytes,
        Content::NotKept => return nothing(NOT_KEPT),
        Content::Forgotten => return nothing("Its recipients were forgotten, and what was sent to them with them."),
        Content::TooLarge => return nothing("The message is too large to preview: over 16 MB."),
    };
    let settings = ops.settings.snapshot();
    let domain = email.message.from_domain.as_deref().and_then(|name| DomainName::parse(name).ok());
    let domain = domain.and_then(|name| settings.domains.get(&name));
    let hosts: Vec<&DomainName> = domain.iter().flat_map(|d| d.subdomains()).map(|subdomain| &subdomain.host).collect();
    let found = marked(&message, email.message.report.as_ref(), &hosts, part, MOST);
    let look = match found.shown {
        Shown::Html(html) => match neutral(&html) {
            Some(harmless) => {
                let marks = html.links.iter().flatten().map(|link| match link.mark {
                    Mark::Tracked => 0,
                    Mark::Left(_) | Mark::Off => 1,
                    Mark::Unknown => 2,
                });
                let marks = marks.fold([0; 3], |mut sums, place: usize| {
                    sums[place] += 1;
                    sums
                });
                Look::Html { html: harmless, marks }
            }
            None => Look::Text(html.text, Some("Its HTML can be read in two ways, so here is its source.")),
        },
        Shown::Text(text) => Look::Text(text, None),
        Shown::Nothing => Look::None("There is no HTML and no text in it."),
        Shown::Not(SkipReason::TooLarge) => Look::None("Its HTML is too large to preview: over 2 MB."),
        Shown::Not(reason) => Look::None(reasons::said(reason).0),
    };
    Ok((email, found.html_parts, look))
}

const NOT_KEPT: &str = "The content is not kept. It is there while the message waits, and for as long after that as the \
                        log has not been tidied; how it was delivered and rewritten stays.";

#[derive(Template)]
#[template(path = "email_preview.html")]
struct Preview {
    frame: Frame,
    head: Head,
    part: usize,
    /// Addresses of the other parts, with their numbers for people.
    parts: Vec<(usize, String)>,
    /// The document's.
    source: String,
    /// Why there is none.
    none: Option<&'static str>,
    /// What is to be said of it.
    hint: Option<&'static str>,
    marks: Option<[usize; 3]>,
}

/// The page; `?part=N` shows another HTML part of the message.
pub async fn show(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<String>,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let (id, part) = (parse(&id)?, part(&asked));
    let (ops, key) = (Arc::clone(&dashboard.ops), signed.key.clone());
    let (email, html_parts, look) = ops::aside(&dashboard.ops, move || look(&ops, &key, &id, part)).await?;
    let head = Head::of(&dashboard, &signed, &id, &email, "preview");
    let source = format!("{}/preview/content?part={part}", head.path);
    let link = |place: usize| (place + 1, format!("{}/preview?part={place}", head.path));
    let parts = if html_parts > 1 { (0..html_parts.min(MOST_PARTS)).map(link).collect() } else { Vec::new() };
    let (none, hint, marks) = match look {
        Look::Html { marks, .. } => (None, None, Some(marks)),
        Look::Text(_, why) => (None, Some(why.unwrap_or("It has no HTML: this is its text.")), None),
        Look::None(why) => (Some(why), None, None),
    };
    let frame = dashboard.frame(&signed, Section::Emails, &format!("Preview of {id}"));
    page(&Preview { frame, head, part, parts, source, none, hint, marks })
}

/// Which HTML part is asked for.
fn part(asked: &Form) -> usize {
    usize::from(asked.text("part").parse::<u16>().unwrap_or_default())
}

/// The document of a stranger.
#[derive(Template)]
#[template(path = "preview_content.html")]
struct Document {
    /// Made harmless.
    html: Option<String>,
    text: String,
}

/// Nothing runs, is fetched, sent or followed; nobody but a page of ours puts it in a frame.
const POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; \
                      base-uri 'none'; frame-ancestors 'self'";

/// What the frame shows.
pub async fn content(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<String>,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let (id, part) = (parse(&id)?, part(&asked));
    let (ops, key) = (Arc::clone(&dashboard.ops), signed.key.clone());
    let (_, _, look) = ops::aside(&dashboard.ops, move || look(&ops, &key, &id, part)).await?;
    let document = match look {
        Look::Html { html, .. } => Document { html: Some(html), text: String::new() },
        Look::Text(text, _) => Document { html: None, text },
        Look::None(why) => Document { html: None, text: why.to_owned() },
    };
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("x-dns-prefetch-control"), HeaderValue::from_static("off")),
    ];
    Ok((headers, Html(document.render()?)).into_response())
}

#[cfg(test)]
mod tests;
