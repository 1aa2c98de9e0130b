//! A message in the hands of delivery, which gives it back to the queue however its attempt ends.

use super::attempt::{INTERNAL_ERROR, Run};
use super::{Outbound, head};
use crate::clock;
use crate::mail::{Outcome, QueueId, Status};
use crate::queue::Due;
use crate::supervise::{self, Panic};
use std::sync::Arc;

/// Gives a message back to the queue, however its attempt ends: nobody else would look after it.
pub struct Held<'a> {
    outbound: &'a Outbound,
    id: Option<QueueId>,
}

impl<'a> Held<'a> {
    pub fn new(outbound: &'a Outbound, id: QueueId) -> Self {
        Self { outbound, id: Some(id) }
    }

    /// The attempt has given it back.
    pub fn given_back(mut self) {
        self.id = None;
    }

    /// The attempt panicked. What it decided stands; all others are deferred for that reason, with the usual pauses.
    pub async fn release(mut self, panic: &Panic) {
        panic.tell("delivery attempt");
        let (outbound, Some(id)) = (self.outbound, self.id) else { return };
        let Some(due) = outbound.queue.undecided(&id, clock::steady_ms()) else { return };
        tracing::error!(queue_id = %id, recipients = due.len(), "the attempt panicked, its message is deferred");
        let mut shown = None;
        let settled = supervise::caught(async {
            let Ok((head, _)) = head::stored(outbound, id, false).await else {
                return outbound.queue.note(&id, &deferred(outbound, &due));
            };
            shown = Some(Arc::clone(&head));
            let mut run = Run::new(outbound, id, head);
            run.no_connection = Some(INTERNAL_ERROR.to_owned());
            run.put_off_all(&due);
            run.close(None).await;
        });
        if let Err(panic) = settled.await {
            panic.tell("delivery attempt");
            outbound.queue.note(&id, &deferred(outbound, &due));
        }
        self.id = None;
        outbound.queue.finish(&id, shown.as_ref(), clock::steady_ms());
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.outbound.queue.finish(&id, None, clock::steady_ms());
        }
    }
}

/// In memory alone, and with no more than their next time.
fn deferred(outbound: &Outbound, due: &[Due]) -> Vec<Outcome> {
    let schedule = &outbound.delivery.load().schedule;
    let later = due.iter().map(|due| {
        let attempts = due.attempts.saturating_add(1);
        let next = clock::steady_ms().saturating_add(schedule.pause(attempts));
        let status = Status::Deferred { attempts, next, age: due.age, told: due.told };
        Outcome { recipient: due.recipient, status, reply: INTERNAL_ERROR.into(), at: due.at }
    });
    later.collect()
}
