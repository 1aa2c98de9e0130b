//! Envelopes of messages that are no longer in memory: from the log, or, where both copies there are damaged, from what
//! the history knows of the message. Where neither has it, nobody can be sent it, and nobody told.

use super::Outbound;
use super::attempt::{Ended, Run};
use super::fit::UNREADABLE;
use crate::clock;
use crate::mail::{Outcome, QueueId, Status};
use crate::queue::{Due, HOT_MESSAGE};
use crate::retry::{Failure, Next, after_failure};
use crate::spool::{BodyError, Entry, MessageHead};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the history knows of a message.
pub struct Known {
    /// But for its role, which the history does not keep.
    pub head: MessageHead,
    /// Recipients of whom nothing is decided.
    pub open: Vec<u16>,
}

/// Asks the history. Reads the disk. An error where it cannot say.
pub type History = Arc<dyn Fn(&QueueId) -> Result<Option<Known>, BodyError> + Send + Sync>;

/// How long a message waits in the hands of delivery for a history that is not open yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// The head of a message, and with it, if they are wanted, the bytes of one that is not large.
pub(super) async fn stored(
    outbound: &Outbound,
    id: QueueId,
    with_body: bool,
) -> Result<(Arc<MessageHead>, Option<Bytes>), BodyError> {
    let log = outbound.log.clone();
    let read = tokio::task::spawn_blocking(move || match with_body {
        true => log.message(&id, HOT_MESSAGE),
        false => log.head(&id).map(|head| (head, None)),
    });
    match read.await.map_err(|e| BodyError::Io(e.to_string()))? {
        Ok((head, body)) => Ok((Arc::new(head), body.map(Bytes::from))),
        Err(BodyError::Damaged) => {
            let role = outbound.log.role(&id)?;
            let known = known(outbound, id).await?.ok_or(BodyError::Damaged)?;
            tracing::warn!(queue_id = %id, "the envelope is damaged in the log: that of the history is used");
            Ok((Arc::new(MessageHead { role, ..known.head }), None))
        }
        Err(error) => Err(error),
    }
}

/// What the history knows, which may not be open yet.
async fn known(outbound: &Outbound, id: QueueId) -> Result<Option<Known>, BodyError> {
    let Some(history) = &outbound.history else { return Ok(None) };
    let begun = Instant::now();
    loop {
        let asked = Arc::clone(history);
        let known = tokio::task::spawn_blocking(move || asked(&id)).await;
        match known.map_err(|e| BodyError::Io(e.to_string()))? {
            Err(_) if begun.elapsed() < PATIENCE => tokio::time::sleep(PATIENCE / 50).await,
            known => return known,
        }
    }
}

/// A message whose envelope cannot be had. It waits where that may help, else it is given up.
pub(super) fn give_up(outbound: &Outbound, id: &QueueId, due: &[Due], error: &BodyError) -> Ended {
    if !matches!(error, BodyError::NotFound) {
        tracing::error!(queue_id = %id, "the envelope cannot be read from the log, and nobody can be told: {error}");
    }
    let now = clock::unix_ms();
    let schedule = &outbound.delivery.load().schedule;
    let outcome = |due: &Due| {
        let attempts = due.attempts.saturating_add(1);
        let dice = u32::from_ne_bytes(clock::random());
        let failure = Failure { attempts, age: due.age, since: now.saturating_sub(due.at), dice };
        let status = match (error, after_failure(schedule, &failure)) {
            (BodyError::Io(_), Next::RetryAfter { pause, age }) => {
                Status::Deferred { attempts, next: clock::steady_ms().saturating_add(pause), age, told: due.told }
            }
            (BodyError::Io(_) | BodyError::Damaged | BodyError::NotFound, _) => Status::Bounced,
        };
        Outcome { recipient: due.recipient, status, reply: format!("{UNREADABLE}{error}").into(), at: now }
    };
    let outcomes: Vec<_> = due.iter().map(outcome).collect();
    outbound.queue.note(id, &outcomes);
    // The log knows nothing of one that is not there.
    if !matches!(error, BodyError::NotFound)
        && let Err(e) = outbound.log.append_soon(Entry::Outcomes { id: *id, outcomes, report: None })
    {
        tracing::error!(queue_id = %id, "the outcome could not be logged: {e}");
    }
    outbound.queue.finish(id, None, clock::steady_ms());
    Ended::Done
}

/// Tells the senders of messages of which a start found nothing but the id, where the history knows them.
pub async fn tell_of_lost(outbound: &Outbound, lost: Vec<QueueId>) {
    for id in lost {
        let Known { head, open } = match known(outbound, id).await {
            Ok(Some(known)) => known,
            Ok(None) => {
                tracing::error!(queue_id = %id, "a message is damaged in the log, and the history does not know whose it was");
                continue;
            }
            Err(e) => {
                tracing::error!(queue_id = %id, "a message is damaged in the log, and the history cannot be read: {e}");
                continue;
            }
        };
        if open.is_empty() {
            continue;
        }
        tracing::error!(queue_id = %id, recipients = open.len(), "a message is damaged in the log: its sender is told");
        let now = clock::unix_ms();
        let age = now.saturating_sub(head.accepted_at);
        let mut run = Run::new(outbound, id, Arc::new(head));
        let given_up = |recipient| {
            let due = Due { recipient, attempts: 0, age, at: now, told: false };
            (run.bounce(&due, format!("{UNREADABLE}{}", BodyError::Damaged).into(), now), due)
        };
        let outcomes = open.into_iter().map(given_up).collect();
        run.settle(outcomes);
        run.close(Some(&Bytes::new())).await;
    }
}
