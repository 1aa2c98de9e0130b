//! One message of the queue: what the smarthost said of each recipient, trying it now, and taking it out for good.

use super::error::Error;
use super::form::{Asked, Named};
use super::frame::{Confirm, Frame, Operator, Section, page};
use super::queue::{LIST, Next, but, waits};
use super::words::{counted, quoted};
use super::{Dashboard, filters};
use crate::clock;
use crate::mail::QueueId;
use crate::ops::{self, MessageView, OpError, RecipientView};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;

/// Recipients of a page.
const PAGE: usize = 50;

#[derive(Template)]
#[template(path = "queued.html")]
struct Queued {
    frame: Frame,
    message: MessageView,
    /// It is still in the queue.
    waiting: bool,
    recipients: Vec<Row>,
    /// How many there are in all.
    all: u64,
    newer: Option<String>,
    more: Option<String>,
}

struct Row {
    address: String,
    status: String,
    class: &'static str,
    attempts: u64,
    next: Next,
    reply: String,
    at: u64,
}

/// The message; `?page=2` shows the recipients after the first fifty.
pub async fn show(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<String>,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let id = queue_id(&id)?;
    let waiting = dashboard.ops.queue.contains(&id);
    let looking = Arc::clone(&dashboard);
    let read = move || ops::message_show(&looking.ops, &id);
    // What waits can be shown also where the history is not to be had.
    let message = match dashboard.ops.store.load().is_some() || !waiting {
        true => ops::aside(&dashboard.ops, read).await?,
        false => ops::apart(read).await?,
    };
    let all = message.recipients.len();
    let number = asked.text("page").parse::<usize>().unwrap_or(1).clamp(1, all.div_ceil(PAGE).max(1));
    let now = clock::unix_ms();
    let shown = message.recipients.iter().skip((number - 1) * PAGE).take(PAGE);
    let link = |number: usize| format!("{LIST}/{id}?page={number}");
    let frame = dashboard.frame(&signed, Section::Queue, "Message in the queue");
    page(&Queued {
        frame: if waiting { frame.refreshing(10) } else { frame },
        waiting,
        recipients: shown.map(|recipient| Row::of(recipient, now)).collect(),
        all: u64::try_from(all).unwrap_or(u64::MAX),
        newer: (number > 1).then(|| link(number - 1)),
        more: (number * PAGE < all).then(|| link(number + 1)),
        message,
    })
}

/// Makes it due now.
pub async fn retry(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<String>,
) -> Result<Response, Error> {
    let id = queue_id(&id)?;
    let path = format!("{LIST}/{id}");
    match ops::queue_retry(&dashboard.ops, Some(&id)) {
        Ok(0) => Ok(dashboard.done(&signed, &path, format!("It is due or being sent already.{}", but(&dashboard)))),
        Ok(_) => Ok(dashboard.done(&signed, &path, format!("It is due now.{}", but(&dashboard)))),
        Err(OpError::NotQueued(_)) => Ok(dashboard.not_done(&signed, LIST, GONE)),
        Err(e) => Err(e.into()),
    }
}

const GONE: &str = "That message has left the queue. What became of it is under Emails.";

/// Asks before recipients get nothing.
pub async fn confirm(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<String>,
) -> Result<Response, Error> {
    let id = queue_id(&id)?;
    let queue = Arc::clone(&dashboard.ops.queue);
    let Some(message) = ops::apart(move || Ok(queue.show(&id))).await? else {
        return Ok(dashboard.not_done(&signed, LIST, GONE));
    };
    let open = message.recipients.iter().filter(|waiting| !waiting.status.is_settled()).count();
    let open = counted(u64::try_from(open).unwrap_or(u64::MAX), "recipient");
    page(&Confirm {
        frame: dashboard.frame(&signed, Section::Queue, "Remove this message from the queue?"),
        consequences: vec![
            format!("The message is {}, from {}.", quoted(&message.head.subject, 200), quoted(&message.head.from, 200)),
            format!("Still waiting: {open}. Nothing more is sent to them, and the message cannot be brought back."),
            "Its sender is told nothing. Webhooks are told email.failed.".to_owned(),
            "Whoever has it already keeps it, and its links go on redirecting.".to_owned(),
        ],
        action: format!("{LIST}/{id}/remove"),
        button: "Remove message",
        back: format!("{LIST}/{id}"),
    })
}

pub async fn remove(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<String>,
) -> Result<Response, Error> {
    let id = queue_id(&id)?;
    match ops::queue_remove(&dashboard.ops, &id).await {
        Ok(open) => {
            let open = counted(u64::try_from(open).unwrap_or(u64::MAX), "recipient");
            Ok(dashboard.done(&signed, LIST, format!("Removed: nothing more is sent to {open}.")))
        }
        Err(OpError::NotQueued(_)) => Ok(dashboard.not_done(&signed, LIST, GONE)),
        Err(OpError::InFlight(_)) => {
            let text = "It is being sent at this moment, so it was not removed. Try again when that has ended.";
            Ok(dashboard.not_done(&signed, &format!("{LIST}/{id}"), text))
        }
        Err(e) => Err(e.into()),
    }
}

fn queue_id(text: &str) -> Result<QueueId, Error> {
    text.parse().map_err(|_| Error::NotThere)
}

impl Row {
    fn of(recipient: &RecipientView, now: u64) -> Self {
        Self {
            address: recipient.address.clone(),
            status: recipient.status.clone(),
            class: match recipient.status.as_str() {
                "delivered" | "relayed" => "good",
                "deferred" | "held" => "warn",
                "bounced" => "bad",
                _ => "",
            },
            attempts: recipient.attempts.into(),
            next: Next::of(std::iter::once(recipient).filter(|recipient| waits(recipient)), now),
            reply: recipient.reply.clone(),
            at: recipient.at,
        }
    }
}
