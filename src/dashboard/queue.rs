//! The queue: what waits and why, in the smarthost's words, and what was given up lately. One message of it is shown by
//! [`super::queued`].

use super::error::Error;
use super::form::{Asked, Form};
use super::frame::{Frame, Operator, Section, page};
use super::words::{away, counted};
use super::{Dashboard, filters};
use crate::clock;
use crate::mail::QueueId;
use crate::ops::{self, MessageView, RecipientView};
use crate::queue::Figures;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;

pub const LIST: &str = "/dashboard/queue";
/// Messages of a page.
const PAGE: usize = 50;
/// Messages that were given up, as far as they are shown.
const FAILED: usize = 20;

#[derive(Template)]
#[template(path = "queue.html")]
struct List {
    frame: Frame,
    held: bool,
    /// Why the smarthost cannot be reached, and since when.
    down: Option<(String, u64)>,
    waiting: u64,
    ready: u64,
    deferred: u64,
    sending: u64,
    oldest: Option<u64>,
    messages: Vec<Row>,
    /// This is the first page.
    first: bool,
    more: Option<String>,
    failed: Vec<Failed>,
    /// Why those are not shown, where they cannot be read.
    unread: Option<&'static str>,
}

/// A message that waits.
struct Row {
    id: String,
    subject: String,
    accepted_at: u64,
    to: Few,
    attempts: u64,
    next: Next,
    reply: String,
}

/// A message that was given up for some recipients.
struct Failed {
    id: String,
    subject: String,
    to: Few,
    reply: String,
    at: u64,
}

/// One of several recipients, and how many others there are.
#[derive(Debug, PartialEq, Eq)]
struct Few {
    one: String,
    others: u64,
}

/// When a message or a recipient is tried next.
#[derive(Debug, PartialEq, Eq)]
pub struct Next {
    pub text: String,
    /// Where that is a time to come.
    pub at: Option<u64>,
}

/// The list, the oldest first; `?after=ID` goes on.
pub async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let after: Option<QueueId> = asked.text("after").parse().ok();
    let looking = Arc::clone(&dashboard);
    let read = move || {
        let (figures, page) = (looking.ops.queue.figures(), ops::queue_page(&looking.ops, after, PAGE));
        Ok((figures, page, ops::queue_failed(&looking.ops, FAILED)))
    };
    // Without history nobody waits for it to open.
    let (figures, (messages, is_more), failed) = match dashboard.ops.store.load().is_some() {
        true => ops::aside(&dashboard.ops, read).await?,
        false => ops::apart(read).await?,
    };
    let (failed, unread) = match failed {
        Ok(Some(failed)) => (failed, None),
        Ok(None) => (Vec::new(), Some("The history is not open, so it cannot be said. The server's log says why.")),
        Err(_) => (Vec::new(), Some("The history cannot be read. The server's log says why.")),
    };
    let now = clock::unix_ms();
    let more = messages.last().filter(|_| is_more).map(|last| format!("{LIST}?after={}", last.id));
    let frame = dashboard.frame(&signed, Section::Queue, "Queue");
    let Figures { ready, deferred, sending, oldest } = figures;
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    page(&List {
        frame: if messages.is_empty() { frame } else { frame.refreshing(10) },
        held: dashboard.ops.queue.is_held(),
        down: dashboard.ops.queue.unreachable().map(|down| (down.why.into(), down.since)),
        waiting: count(ready + deferred + sending),
        ready: count(ready),
        deferred: count(deferred),
        sending: count(sending),
        oldest,
        messages: messages.into_iter().map(|message| Row::of(message, now)).collect(),
        first: after.is_none(),
        more,
        failed: failed.into_iter().map(Failed::of).collect(),
        unread,
    })
}

/// Keeps all mail back, or lets it go.
pub async fn hold(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    form: Form,
) -> Result<Response, Error> {
    let held = match form.text("held") {
        "yes" => true,
        "no" => false,
        _ => return Err(Error::Refused("Say whether the queue is to be held.".to_owned())),
    };
    let changed = ops::queue_hold(&dashboard.ops, held).await?;
    tracing::info!(by = %signed.key.id, held, changed, "the queue was held or released in the dashboard");
    let text = match (held, changed) {
        (true, true) => "Held: mail is accepted and waits, also over a restart. What was under way is sent to its end.",
        (true, false) => "It was held already.",
        (false, true) => "Released: mail goes out again.",
        (false, false) => "It was not held.",
    };
    Ok(dashboard.done(&signed, LIST, text))
}

/// Makes all that is put off due now.
pub async fn retry(State(dashboard): State<Arc<Dashboard>>, Operator(signed): Operator) -> Result<Response, Error> {
    let looking = Arc::clone(&dashboard);
    let retried = tokio::task::spawn_blocking(move || ops::queue_retry(&looking.ops, None)).await;
    let count = retried.map_err(|_| Error::Unavailable("An unexpected error occurred.".to_owned()))??;
    let text = match count {
        0 => "Nothing is put off: all that waits is due or under way.".to_owned(),
        _ => format!("{} due now.{}", are(count), but(&dashboard)),
    };
    Ok(dashboard.done(&signed, LIST, text))
}

fn are(count: usize) -> String {
    let messages = counted(u64::try_from(count).unwrap_or(u64::MAX), "message");
    format!("{messages} {}", if count == 1 { "is" } else { "are" })
}

/// What keeps mail that is due from going.
pub fn but(dashboard: &Dashboard) -> &'static str {
    match (dashboard.ops.queue.is_held(), dashboard.ops.queue.unreachable()) {
        (true, _) => " The queue is held: nothing goes before it is released.",
        (false, Some(_)) => " The smarthost cannot be reached: what is due goes as soon as it answers.",
        (false, None) => "",
    }
}

/// Whether a recipient still waits.
pub fn waits(recipient: &RecipientView) -> bool {
    matches!(recipient.status.as_str(), "queued" | "sending" | "deferred" | "held")
}

impl Next {
    /// Of some recipients that wait: of whichever is tried first.
    pub fn of<'a>(waiting: impl Iterator<Item = &'a RecipientView> + Clone, now: u64) -> Self {
        let is = |status: &str| waiting.clone().any(|recipient| recipient.status == status);
        let at = waiting.clone().filter_map(|recipient| recipient.next).min();
        let text = match at {
            _ if is("sending") => "being sent".to_owned(),
            _ if is("queued") => "due now".to_owned(),
            Some(at) if at > now => return Self { text: away(at, now), at: Some(at) },
            Some(_) => "due now".to_owned(),
            None => String::new(),
        };
        Self { text, at: None }
    }
}

impl Few {
    fn of<'a>(mut recipients: impl Iterator<Item = &'a RecipientView>) -> Self {
        let one = recipients.next().map(|recipient| recipient.address.clone()).unwrap_or_default();
        Self { one, others: u64::try_from(recipients.count()).unwrap_or(u64::MAX) }
    }
}

/// What was said last to any of these.
fn last_words<'a>(recipients: impl Iterator<Item = &'a RecipientView>) -> (String, u64) {
    let said = recipients.filter(|recipient| !recipient.reply.is_empty()).max_by_key(|recipient| recipient.at);
    said.map(|recipient| (recipient.reply.clone(), recipient.at)).unwrap_or_default()
}

impl Row {
    fn of(message: MessageView, now: u64) -> Self {
        let waiting = message.recipients.iter().filter(|recipient| waits(recipient));
        Self {
            to: Few::of(waiting.clone()),
            attempts: waiting.clone().map(|recipient| recipient.attempts).max().unwrap_or(0).into(),
            next: Next::of(waiting.clone(), now),
            reply: last_words(waiting).0,
            id: message.id,
            subject: message.subject,
            accepted_at: message.accepted_at,
        }
    }
}

impl Failed {
    fn of(message: MessageView) -> Self {
        let bounced = message.recipients.iter().filter(|recipient| recipient.status == "bounced");
        let (reply, at) = last_words(bounced.clone());
        Self { to: Few::of(bounced), reply, at, id: message.id, subject: message.subject }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(address: &str, status: &str, next: Option<u64>, reply: &str, at: u64) -> RecipientView {
        let (address, status, reply) = (address.to_owned(), status.to_owned(), reply.to_owned());
        RecipientView { address, status, attempts: u32::from(next.is_some()), next, reply, at }
    }

    fn message(recipients: Vec<RecipientView>) -> MessageView {
        MessageView {
            id: "id".into(),
            accepted_at: 0,
            sender: "<>".into(),
            from: String::new(),
            from_domain: None,
            tags: Vec::new(),
            subject: "s".into(),
            message_id: String::new(),
            size: 0,
            recipients,
            report: None,
        }
    }

    #[test]
    fn a_row_tells_of_who_still_waits() {
        let row = Row::of(
            message(vec![
                recipient("a@example.net", "delivered", None, "250 ok", 900),
                recipient("b@example.net", "deferred", Some(400_000), "451 later", 500),
                recipient("c@example.net", "deferred", Some(130_000), "452 full", 600),
                recipient("d@example.net", "bounced", None, "550 no", 999),
            ]),
            10_000,
        );
        assert_eq!(row.to, Few { one: "b@example.net".into(), others: 1 });
        assert_eq!((row.attempts, &*row.reply), (1, "452 full"));
        assert_eq!(row.next, Next { text: "in 2 minutes".into(), at: Some(130_000) });
    }

    #[test]
    fn next_tries() {
        let at = |recipients: &[RecipientView]| Next::of(recipients.iter(), 10).text;
        let deferred = recipient("a@example.net", "deferred", Some(5), "", 0);
        let queued = recipient("b@example.net", "queued", None, "", 0);
        let sending = recipient("c@example.net", "sending", None, "", 0);
        assert_eq!(at(std::slice::from_ref(&deferred)), "due now");
        assert_eq!(at(&[deferred.clone(), queued]), "due now");
        assert_eq!(at(&[deferred, sending]), "being sent");
        assert_eq!(at(&[]), "");
    }

    #[test]
    fn what_was_given_up_shows_whom_and_why() {
        let failed = Failed::of(message(vec![
            recipient("a@example.net", "delivered", None, "250 ok", 900),
            recipient("b@example.net", "bounced", None, "550 5.1.1 no such user", 700),
        ]));
        assert_eq!(failed.to, Few { one: "b@example.net".into(), others: 0 });
        assert_eq!((&*failed.reply, failed.at), ("550 5.1.1 no such user", 700));
    }
}
