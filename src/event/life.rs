//! One step in the life of a message, as it is told to those who watch.

use super::{Class, HitKind};
use crate::mail::{Address, Outcome, QueueId, Status};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// One event. Its id is made of what it tells, so that telling it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Milliseconds since 1970.
    pub at: u64,
    pub email_id: QueueIdText,
    /// Index into the envelope's recipients, where the event is of one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<u16>,
    /// The address, where it is known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Box<str>>,
    /// The smarthost's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Box<str>>,
    /// The destination of a click.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Box<str>>,
    /// What an open or click was taken for: `human`, `machine` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<&'static str>,
    /// Why, where it was not taken for a person's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Who asked, and with what, as long as that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<str>>,
}

/// One open or click of one recipient, as it was recorded.
#[derive(Clone, Copy, Debug)]
pub struct HitFacts<'a> {
    pub id: QueueId,
    pub recipient: u16,
    /// Counts the recipient's hits.
    pub number: u32,
    pub kind: &'a HitKind,
    pub at: u64,
    pub count: u32,
    pub class: &'a Class,
    pub address: Option<IpAddr>,
    pub agent: &'a str,
}

/// A queue id that serialises as its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueIdText(pub QueueId);

impl Serialize for QueueIdText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum EventKind {
    #[serde(rename = "email.sent")]
    Sent,
    #[serde(rename = "email.delivered")]
    Delivered,
    #[serde(rename = "email.delivery_delayed")]
    DeliveryDelayed,
    #[serde(rename = "email.bounced")]
    Bounced,
    #[serde(rename = "email.failed")]
    Failed,
    #[serde(rename = "email.opened")]
    Opened,
    #[serde(rename = "email.clicked")]
    Clicked,
}

impl EventKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "email.sent",
            Self::Delivered => "email.delivered",
            Self::DeliveryDelayed => "email.delivery_delayed",
            Self::Bounced => "email.bounced",
            Self::Failed => "email.failed",
            Self::Opened => "email.opened",
            Self::Clicked => "email.clicked",
        }
    }

    fn word(self) -> &'static str {
        self.name().trim_start_matches("email.")
    }
}

impl Event {
    /// The message was accepted.
    pub fn sent(id: QueueId, at: u64) -> Self {
        Self::new(EventKind::Sent, id, None, at)
    }

    /// What the newest state of a recipient tells; `None` for what is only on its way.
    pub fn of_outcome(id: QueueId, to: Option<&Address>, outcome: &Outcome) -> Option<Self> {
        let kind = match outcome.status {
            Status::Delivered | Status::Relayed => EventKind::Delivered,
            Status::Deferred { .. } | Status::Stranded { .. } => EventKind::DeliveryDelayed,
            Status::Bounced => EventKind::Bounced,
            Status::Removed | Status::Suppressed => EventKind::Failed,
            Status::Queued | Status::Held => return None,
        };
        let mut event = Self::new(kind, id, Some(outcome.recipient), outcome.at);
        event.to = to.map(|to| to.as_str().into());
        event.reply = Some(outcome.reply.clone());
        Some(event)
    }

    /// An open or click. `to`: whose copy it was, where that is known.
    pub fn of_hit(hit: HitFacts<'_>, to: Option<&Address>) -> Self {
        let (kind, link) = match hit.kind {
            HitKind::Open => (EventKind::Opened, None),
            HitKind::Click { url, .. } => (EventKind::Clicked, Some(url.clone())),
        };
        let mut event = Self::new(kind, hit.id, Some(hit.recipient), hit.at);
        // Two of them can fall on the same moment.
        event.id = format!("{}-{}-{}-{}", hit.id, hit.recipient, kind.word(), hit.number);
        (event.link, event.count, event.to) = (link, Some(hit.count), to.map(|to| to.as_str().into()));
        (event.class, event.reason) = (Some(hit.class.word()), hit.class.reason().map(Into::into));
        (event.address, event.agent) = (hit.address, Some(hit.agent).filter(|agent| !agent.is_empty()).map(Into::into));
        event
    }

    /// The id as a UUID (RFC 9562 §5.8): made of it, so it stays the same too.
    pub fn uuid(&self) -> uuid::Uuid {
        let digest = Sha256::digest(self.id.as_bytes());
        uuid::Builder::from_custom_bytes(*digest.first_chunk::<16>().expect("SHA-256 has 32 bytes")).into_uuid()
    }

    fn new(kind: EventKind, id: QueueId, recipient: Option<u16>, at: u64) -> Self {
        let place = recipient.map_or(String::new(), |place| format!("-{place}"));
        let event_id = format!("{id}{place}-{}-{at}", kind.word());
        Self {
            id: event_id,
            kind,
            at,
            email_id: QueueIdText(id),
            recipient,
            to: None,
            reply: None,
            link: None,
            class: None,
            reason: None,
            count: None,
            address: None,
            agent: None,
        }
    }
}
