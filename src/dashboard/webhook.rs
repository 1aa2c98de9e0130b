//! One endpoint: its secret, what it was told, and one event of that with its payload and every attempt.

use super::error::Error;
use super::form::{Asked, Named};
use super::frame::{Frame, Section, Signed, page};
use super::webhooks::{LIST, Shown, earlier_until, names, own};
use super::words::{away, sentence};
use super::{Dashboard, filters};
use crate::clock;
use crate::mail::QueueId;
use crate::ops::{self, OpError};
use crate::settings::Webhook;
use crate::store::{Attempt, Delivery, DeliveryStatus};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::fmt::Write;
use std::sync::Arc;
use uuid::Uuid;

/// Events of a page.
const PAGE: usize = 50;
/// Attempts of a page: each brings an answer.
const ATTEMPTS: usize = 20;
/// Bytes of a payload that are shown.
const MOST_SHOWN: usize = 20_000;

#[derive(Template)]
#[template(path = "webhook.html")]
struct One {
    frame: Frame,
    webhook: Webhook,
    state: Shown,
    domains: String,
    earlier_until: Option<u64>,
    deliveries: Vec<Told>,
    /// Why there are none, where they cannot be read.
    unread: Option<String>,
    /// This is the first page of them, where new ones come in.
    first: bool,
    more: Option<String>,
}

/// An event that was told, or is to be.
struct Told {
    id: String,
    kind: String,
    at: u64,
    attempts: u64,
    state: Shown,
}

#[derive(Template)]
#[template(path = "webhook_event.html")]
struct Event {
    frame: Frame,
    webhook: Webhook,
    told: Told,
    email: Option<QueueId>,
    recipient: Option<String>,
    payload: String,
    /// Bytes of the payload, where not all of it is shown.
    cut_of: Option<u64>,
    attempts: Vec<Attempt>,
    more: Option<String>,
    /// Something is still to come.
    open: bool,
}

/// The page of an endpoint; `?after=EVENT` shows what it was told before that one.
pub async fn show(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<Uuid>,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let webhook = own(&dashboard, &signed, id)?;
    let after = Some(asked.text("after").to_owned()).filter(|after| !after.is_empty());
    let first = after.is_none();
    let (looking, key) = (Arc::clone(&dashboard), signed.key.clone());
    let read = move || ops::webhook_events(&looking.ops, &key, id, after.as_deref(), PAGE);
    let (found, is_more, unread) = match ops::aside(&dashboard.ops, read).await {
        Ok((found, is_more)) => (found, is_more, None),
        // The endpoint is there all the same, and can be changed.
        Err(e @ (OpError::NoHistory | OpError::Store(_))) => (Vec::new(), false, Some(sentence(&e.to_string()))),
        Err(OpError::UnknownAfter(_)) => return Err(Error::NotThere),
        Err(e) => return Err(e.into()),
    };
    let more = found.last().filter(|_| is_more).map(|last| format!("{LIST}/{id}?after={}", last.id));
    let is_open = found.iter().any(|delivery| delivery.state.is_open());
    let frame = dashboard.frame(&signed, Section::Webhooks, "Webhook");
    page(&One {
        frame: if first && is_open { frame.refreshing(10) } else { frame },
        state: Shown::of(&webhook),
        domains: names(&webhook.domains),
        earlier_until: earlier_until(&webhook),
        deliveries: found.iter().map(|delivery| Told::of(delivery, webhook.enabled)).collect(),
        webhook,
        unread,
        first,
        more,
    })
}

/// One event of an endpoint; `?after=ATTEMPT` shows the attempts before that one.
pub async fn event(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named((id, event)): Named<(Uuid, String)>,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let webhook = own(&dashboard, &signed, id)?;
    let after = Some(asked.text("after").to_owned()).filter(|after| !after.is_empty());
    let (looking, key) = (Arc::clone(&dashboard), signed.key.clone());
    let read = move || {
        let delivery = ops::webhook_event(&looking.ops, &key, id, &event)?;
        let attempts = ops::webhook_attempts(&looking.ops, &key, id, &event, after.as_deref(), ATTEMPTS)?;
        Ok((delivery, attempts))
    };
    let (delivery, (attempts, is_more)) = match ops::aside(&dashboard.ops, read).await {
        Err(OpError::UnknownAfter(_)) => return Err(Error::NotThere),
        read => read?,
    };
    let more = attempts.last().filter(|_| is_more);
    let more = more.map(|(last, _)| format!("{LIST}/{id}/events/{}?after={last}", delivery.id));
    let open = delivery.state.is_open() && webhook.enabled;
    let frame = dashboard.frame(&signed, Section::Webhooks, "Event of a webhook");
    let (payload, cut_of) = shown_payload(&delivery.payload);
    page(&Event {
        frame: if open { frame.refreshing(5) } else { frame },
        told: Told::of(&delivery, webhook.enabled),
        email: delivery.email,
        recipient: delivery.recipient,
        payload,
        cut_of,
        attempts: attempts.into_iter().map(|(_, attempt)| attempt).collect(),
        more,
        open,
        webhook,
    })
}

/// Has an event sent again.
pub async fn replay(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named((id, event)): Named<(Uuid, String)>,
) -> Result<Response, Error> {
    let webhook = own(&dashboard, &signed, id)?;
    ops::webhook_replay(&dashboard.ops, &signed.key, id, &event).await?;
    let text = match webhook.enabled {
        true => "It is sent again, under the same id.",
        false => "It is sent again as soon as the webhook is enabled, under the same id.",
    };
    Ok(dashboard.done(&signed, &format!("{LIST}/{id}/events/{event}"), text))
}

impl Told {
    fn of(delivery: &Delivery, enabled: bool) -> Self {
        let (due, now) = (delivery.state.due, clock::unix_ms());
        let when = if due > now { away(due, now) } else { "now".to_owned() };
        let again = || Some(format!("It is tried again {when}."));
        let waits = || Some("It waits until the webhook is enabled.".to_owned());
        let (class, name, why) = match delivery.state.status {
            DeliveryStatus::Success => ("good", "delivered", None),
            DeliveryStatus::Failed => ("bad", "failed", Some("It was given up, and can be replayed.".to_owned())),
            DeliveryStatus::Pending if enabled => ("", "pending", None),
            DeliveryStatus::Attempting if enabled => ("warn", "attempting", again()),
            DeliveryStatus::Pending => ("", "pending", waits()),
            DeliveryStatus::Attempting => ("warn", "attempting", waits()),
        };
        Self {
            id: delivery.id.clone(),
            kind: delivery.kind.clone(),
            at: delivery.created_at,
            attempts: delivery.state.attempts.into(),
            state: Shown { class, name, why },
        }
    }
}

/// A payload on lines of their own, and how many bytes it has where it is cut.
fn shown_payload(payload: &[u8]) -> (String, Option<u64>) {
    let mut text = indented(&String::from_utf8_lossy(payload));
    if text.len() <= MOST_SHOWN {
        return (text, None);
    }
    text.truncate(text.floor_char_boundary(MOST_SHOWN));
    (text, Some(payload.len() as u64))
}

/// JSON with line ends and indents. All else stays as it was signed, but for what would turn the direction of the text,
/// which is escaped as JSON has it.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => push_string(&mut chars, &mut text),
            '{' | '[' => {
                text.push(c);
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            ' ' | '\t' | '\r' | '\n' => {}
            _ => text.push(c),
        }
    }
    text
}

/// The rest of a string whose first quote was read.
fn push_string(chars: &mut impl Iterator<Item = char>, text: &mut String) {
    text.push('"');
    while let Some(c) = chars.next() {
        match c {
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
                continue;
            }
            _ => text.push(c),
        }
        match c {
            '"' => return,
            '\\' => text.extend(chars.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Order, State as Became};
    use serde_json::{Value, json};

    #[test]
    fn payloads_are_set_out_and_stay_what_they_are() {
        assert_eq!(indented("{\"b\":1,\"a\":[],\"c\":{}}"), "{\n  \"b\": 1,\n  \"a\": [],\n  \"c\": {}\n}");
        for value in [
            json!({"type": "email.sent", "data": {"to": ["a@example.net"], "subject": "a \"b\" \\ {[,:]} \\\""}}),
            json!([[], [1, [2.5, null, true]], {"": ""}, "\u{202e}evil\u{2066}\u{200f}", "مرحبا\n"]),
            json!("plain"),
        ] {
            let text = indented(&value.to_string());
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            assert_eq!(indented(&text), text, "it is set out already");
            assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{200f}']));
        }
        for broken in ["", "{", "}", "]]", "\"", "\"\\", "{\"a\":"] {
            assert!(indented(broken).chars().filter(|c| !c.is_whitespace()).eq(broken.chars()), "{broken}");
        }
    }

    #[test]
    fn long_payloads_are_cut_between_characters() {
        assert_eq!(shown_payload(b"{}"), ("{}".to_owned(), None));
        for shift in 0..3 {
            let payload = json!([" ".repeat(shift), "\u{20ac}".repeat(10_000)]).to_string();
            let (text, cut_of) = shown_payload(payload.as_bytes());
            assert!(text.len() <= MOST_SHOWN && text.len() > MOST_SHOWN - 3);
            assert_eq!(cut_of, Some(payload.len() as u64));
        }
    }

    #[test]
    fn deliveries_in_words() {
        let told = |status, enabled| {
            let state = Became { status, attempts: 2, failures: 2, due: clock::unix_ms() + 2 * 3_600_000 - 60_000 };
            let (id, kind) = ("msg_1".to_owned(), "email.sent".to_owned());
            let (order, payload) = (Order([0; 20]), Vec::new());
            let delivery = Delivery { order, id, kind, created_at: 0, email: None, recipient: None, state, payload };
            let Shown { class, name, why } = Told::of(&delivery, enabled).state;
            (class, name, why.unwrap_or_default())
        };
        let (again, waits) = ("It is tried again in 1 hour.", "It waits until the webhook is enabled.");
        for (status, enabled, class, name, why) in [
            (DeliveryStatus::Success, true, "good", "delivered", ""),
            (DeliveryStatus::Failed, false, "bad", "failed", "It was given up, and can be replayed."),
            (DeliveryStatus::Pending, true, "", "pending", ""),
            (DeliveryStatus::Pending, false, "", "pending", waits),
            (DeliveryStatus::Attempting, true, "warn", "attempting", again),
            (DeliveryStatus::Attempting, false, "warn", "attempting", waits),
        ] {
            assert_eq!(told(status, enabled), (class, name, why.to_owned()));
        }
    }
}
