//! Looking at messages and events.

use super::{OpError, Ops};
use crate::clock;
use crate::mail::{Outcome, QueueId, Status};
use crate::queue::{ClaimError, Listed};
use crate::rewrite::Report;
use crate::settings::{Change, Then};
use crate::spool::{AppendError, Entry, MessageHead};
use crate::store::{self, MessageRow, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// What `queue list` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueView {
    /// Messages in the queue, those not listed included.
    pub queued: usize,
    /// The operator keeps everything back.
    pub held: bool,
    /// Why the smarthost cannot be reached, if it cannot.
    pub smarthost: Option<String>,
    pub messages: Vec<MessageView>,
    /// Messages that were given up, the newest first; `None` while there is no history to be had.
    pub failed: Option<Vec<MessageView>>,
}

/// One message with its recipients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageView {
    pub id: String,
    /// Milliseconds since 1970, as all times here.
    pub accepted_at: u64,
    pub sender: String,
    pub from: String,
    /// The domain of the From header.
    #[serde(default)]
    pub from_domain: Option<String>,
    #[serde(default)]
    pub tags: Vec<(String, String)>,
    pub subject: String,
    pub message_id: String,
    pub size: u64,
    pub recipients: Vec<RecipientView>,
    /// The report of rewriting, once there is one.
    pub report: Option<Report>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientView {
    pub address: String,
    /// `queued`, `sending`, `deferred`, `delivered`, `relayed`, `bounced`, `held`, `removed`, `suppressed`.
    pub status: String,
    pub attempts: u32,
    /// When it is tried next.
    pub next: Option<u64>,
    /// The last reply.
    pub reply: String,
    pub at: u64,
}

pub fn queue_list(ops: &Ops, limit: usize) -> Result<QueueView, OpError> {
    let messages = ops.queue.list(limit).iter().map(listed).collect();
    let smarthost = ops.queue.unreachable().map(|down| down.why.into());
    let failed = queue_failed(ops, limit)?;
    Ok(QueueView { queued: ops.queue.len(), held: ops.queue.is_held(), smarthost, messages, failed })
}

/// Up to `limit` messages of the queue that came after the one of id `after`, the oldest first, and whether there are
/// more. Reads the disk.
pub fn queue_page(ops: &Ops, after: Option<QueueId>, limit: usize) -> (Vec<MessageView>, bool) {
    let found =
        ops.queue.page((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded), limit + 1, false, |_| true);
    (found.iter().take(limit).map(listed).collect(), found.len() > limit)
}

/// Up to `limit` messages that were given up, the newest first; `None` while there is no history to be had. Reads the
/// disk.
pub fn queue_failed(ops: &Ops, limit: usize) -> Result<Option<Vec<MessageView>>, OpError> {
    ops.store.load_full().map(|store| failed(ops, &store, limit)).transpose()
}

fn failed(ops: &Ops, store: &Store, limit: usize) -> Result<Vec<MessageView>, OpError> {
    // What left a moment ago may have no row yet.
    let just_settled = ops.queue.just_settled();
    let bounced = just_settled.iter().filter(|m| m.recipients.iter().any(|r| r.status == Status::Bounced));
    let mut failed: BTreeMap<QueueId, MessageView> = bounced.map(|message| (message.id, listed(message))).collect();
    for id in store::failed_messages(store, limit)? {
        if let Some((row, _)) = store::message(store, &id)? {
            failed.insert(id, stored(&id, &row));
        }
    }
    Ok(failed.into_values().rev().take(limit).collect())
}

/// Messages with this queue id, recipient or Message-ID: those in the queue, then the newest others.
pub fn search(ops: &Ops, text: &str, limit: usize) -> Result<Vec<MessageView>, OpError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(OpError::NothingToSearch);
    }
    let mut found: BTreeMap<QueueId, MessageView> = BTreeMap::new();
    for message in ops.queue.search(text, limit, searched(ops)) {
        found.insert(message.id, listed(&message));
    }
    let mut ids = Vec::new();
    if let Ok(id) = text.parse::<QueueId>() {
        let message = ops.queue.show(&id).or_else(|| ops.queue.settled(&id));
        found.extend(message.map(|message| (id, listed(&message))));
        ids.push(id);
    }
    match ops.store.load_full() {
        Some(store) => {
            ids.extend(store::messages_with(&store, text, None, limit)?);
            for id in ids {
                // The queue knows best what is still in it.
                if let Some(message) = ops.queue.show(&id) {
                    found.insert(id, listed(&message));
                } else if let Some((row, _)) = store::message(&store, &id)? {
                    found.insert(id, stored(&id, &row));
                }
            }
        }
        None if found.is_empty() => return Err(OpError::NoHistory),
        None => {}
    }
    Ok(found.into_values().rev().take(limit).collect())
}

/// How many of the newest messages in the queue are looked through by their heads: those that the history may not have
/// yet, or, while there is none, as many as are read in a moment.
pub(super) fn searched(ops: &Ops) -> usize {
    if ops.store.load().is_some() { 1_000 } else { 20_000 }
}

/// Makes one message, or all that wait, due now. How many there were.
pub fn queue_retry(ops: &Ops, id: Option<&QueueId>) -> Result<usize, OpError> {
    if let Some(id) = id
        && !ops.queue.contains(id)
    {
        return Err(OpError::NotQueued(*id));
    }
    Ok(ops.queue.retry(id))
}

/// Takes a message out of the queue; its sender is told nothing. How many recipients had still been waiting.
pub async fn queue_remove(ops: &Ops, id: &QueueId) -> Result<usize, OpError> {
    // It is shown for a while when it has left.
    let (queue, of) = (Arc::clone(&ops.queue), *id);
    let shown = tokio::task::spawn_blocking(move || queue.show(&of)).await.ok().flatten();
    let open = ops.queue.claim(id).map_err(|e| match e {
        ClaimError::Unknown => OpError::NotQueued(*id),
        ClaimError::InFlight => OpError::InFlight(*id),
    })?;
    let at = clock::unix_ms();
    let removed =
        |recipient: &u16| Outcome { recipient: *recipient, status: Status::Removed, reply: Box::default(), at };
    let outcomes: Vec<_> = open.iter().map(removed).collect();
    let written = ops.log.append(Entry::Outcomes { id: *id, outcomes: outcomes.clone(), report: None });
    let (queue, id, count) = (Arc::clone(&ops.queue), *id, open.len());
    // Who asked may hang up: what is claimed is let go all the same, and what is in the log is so in the queue.
    let removed = tokio::spawn(async move {
        let written = written.await;
        if written.is_ok() {
            queue.note(&id, &outcomes);
            tracing::info!(queue_id = %id, "removed by the operator");
        }
        queue.finish(&id, shown.as_ref().map(|shown| &shown.head), clock::steady_ms());
        written
    });
    removed.await.unwrap_or(Err(AppendError::Closed))?;
    Ok(count)
}

/// Keeps all mail back, or lets it go; what is under way goes on. Holds over a restart.
pub async fn queue_hold(ops: &Ops, held: bool) -> Result<bool, OpError> {
    let changed = ops.settings.change_then(|settings| {
        if settings.queue_held == held {
            return Ok::<_, OpError>((Vec::new(), false, None));
        }
        let queue = Arc::clone(&ops.queue);
        let then: Then = Box::new(move || queue.hold(held));
        Ok((vec![Change::QueueHeld(held)], true, Some(then)))
    });
    changed.await
}

/// One message, in the queue, settled a moment ago, or in the history. The history is some tenths of a second behind,
/// and the report of rewriting comes with it.
pub fn message_show(ops: &Ops, id: &QueueId) -> Result<MessageView, OpError> {
    match queue_show(ops, id) {
        Err(e @ (OpError::UnknownMessage(_) | OpError::NoHistory)) => {
            ops.queue.settled(id).map(|message| listed(&message)).ok_or(e)
        }
        other => other,
    }
}

/// One message, in the queue or, where there is history, settled.
pub fn queue_show(ops: &Ops, id: &QueueId) -> Result<MessageView, OpError> {
    let waiting = ops.queue.show(id).map(|message| listed(&message));
    let Some(store) = ops.store.load_full() else { return waiting.ok_or(OpError::NoHistory) };
    let history = store::message(&store, id)?.map(|(row, _)| stored(id, &row));
    match (waiting, history) {
        // The queue knows the recipients best, the view knows the report.
        (Some(waiting), Some(history)) => Ok(MessageView { report: history.report, ..waiting }),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => Err(OpError::UnknownMessage(*id)),
    }
}

pub(super) fn listed(message: &Listed) -> MessageView {
    let recipients = message.recipients.iter().map(|waiting| (waiting.status, &*waiting.reply, waiting.at));
    let mut view = view(&message.id, &message.head, recipients, None);
    if message.in_flight {
        let due = view.recipients.iter_mut().filter(|r| r.status == "queued");
        due.for_each(|recipient| "sending".clone_into(&mut recipient.status));
    }
    view
}

pub(super) fn stored(id: &QueueId, row: &MessageRow) -> MessageView {
    let recipients = row.recipients.iter().map(|r| (r.status, &*r.reply, r.at));
    let report = row.report.as_deref().and_then(Report::from_kept);
    view(id, &row.head, recipients, report)
}

fn view<'a>(
    id: &QueueId,
    head: &Arc<MessageHead>,
    recipients: impl Iterator<Item = (Status, &'a str, u64)>,
    report: Option<Report>,
) -> MessageView {
    let recipients = head.envelope.recipients.iter().zip(recipients).map(|(recipient, (status, reply, at))| {
        let (name, attempts, next) = match status {
            Status::Queued => ("queued", 0, None),
            Status::Delivered => ("delivered", 0, None),
            Status::Relayed => ("relayed", 0, None),
            Status::Bounced => ("bounced", 0, None),
            Status::Removed => ("removed", 0, None),
            Status::Held => ("held", 0, None),
            Status::Deferred { attempts, next, .. } | Status::Stranded { attempts, next, .. } => {
                ("deferred", attempts, Some(clock::wall_of(next)))
            }
            Status::Suppressed => ("suppressed", 0, None),
        };
        let address = recipient.address.to_string();
        RecipientView { address, status: name.to_owned(), attempts, next, reply: reply.to_owned(), at }
    });
    MessageView {
        id: id.to_string(),
        accepted_at: head.accepted_at,
        sender: head.envelope.sender.as_ref().map_or("<>".to_owned(), ToString::to_string),
        from: head.from.to_string(),
        from_domain: head.from_domain.as_deref().map(str::to_owned),
        tags: head.tags.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        subject: head.subject.to_string(),
        message_id: head.message_id.to_string(),
        size: head.size,
        recipients: recipients.collect(),
        report,
    }
}
