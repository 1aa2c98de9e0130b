//! Which webhooks are told of what the fold has found.

use super::known::Known;
use crate::clock;
use crate::event::payload::{Email, Told, email_event_id, email_payload};
use crate::mail::QueueId;
use crate::settings::{About, Progress, Settings, Snapshot};
use crate::spool::Cursor;
use crate::store::{Begun, NewDelivery, Order, Write, delivery_writes};
use std::sync::Arc;
use tokio::sync::Notify;

/// What the recorder needs to tell webhooks.
pub struct Webhooks {
    pub settings: Arc<Settings>,
    /// Told when something was written for them.
    pub kick: Arc<Notify>,
}

/// The news of one record of the log.
pub(super) struct News {
    settings: Arc<Snapshot>,
    place: Cursor,
    /// Counts the record's deliveries, so that they come out the same when it is folded again.
    number: u32,
    /// The record that first told of what happened: where that stands decides whether it is news.
    pub happened: Cursor,
    /// Where history ends, as long as nothing was noted of how far webhooks were told.
    begun: Begun,
    /// How far they were. What lies behind is news; of what lies before, that which still waited.
    progress: Option<Arc<Progress>>,
    /// What the clock says.
    now: u64,
}

impl News {
    pub fn new(webhooks: &Webhooks, place: Cursor, begun: Begun) -> Self {
        let (settings, progress) = (webhooks.settings.snapshot(), webhooks.settings.progress());
        Self { settings, place, number: 0, happened: place, begun, progress, now: clock::unix_ms() }
    }

    /// Nobody wants to know anything.
    pub fn is_idle(&self) -> bool {
        self.settings.webhooks.is_empty()
    }

    /// Tells of one copy. `number` tells events of the same kind apart.
    pub fn tell(
        &mut self,
        known: &Known,
        id: QueueId,
        recipient: u16,
        (told, at, number): (Told<'_>, u64, u64),
        out: &mut Vec<Write>,
    ) {
        let head = &known.head;
        let Some(to) = head.envelope.recipients.get(usize::from(recipient)).map(|r| r.address.as_str()) else { return };
        if self.is_idle() || self.progress.is_none() && self.begun.is_history(self.happened, at) {
            return;
        }
        let about = About::Mail { from_domain: head.from_domain.as_deref(), accepted_at: head.accepted_at };
        let mut payload = None;
        for webhook in self.settings.webhooks_for(told.name(), about, at, self.now) {
            let body = payload.get_or_insert_with(|| {
                let email = Email {
                    id,
                    accepted_at: head.accepted_at,
                    message_id: &head.message_id,
                    from: &head.from,
                    to,
                    subject: &head.subject,
                    tags: &head.tags,
                };
                (email_event_id(&id, recipient, told.name(), number), email_payload(&email, &told, at))
            });
            // The number is the same whatever was told before, so that folding again makes the same rows.
            self.number += 1;
            if self.progress.as_ref().is_some_and(|progress| !progress.owes(webhook, self.place, &body.0)) {
                continue;
            }
            let new = NewDelivery {
                webhook,
                id: &body.0,
                kind: told.name(),
                created_at: at,
                order: Order::new(self.place, self.number - 1),
                email: Some(id),
                recipient: Some(to),
                payload: &body.1,
            };
            delivery_writes(&new, out);
        }
    }
}
