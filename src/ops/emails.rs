//! Messages as the API lists them: the newest first, those in the queue and those in the history alike.

use super::events::{Interest, interest};
use super::mail::{MessageView, listed, stored};
use super::search::{Among, LOOKS};
use super::walk::{Span, Walk};
use super::{OpError, Ops};
use crate::mail::QueueId;
use crate::spool::MessageHead;
use crate::store;
use std::collections::BTreeMap;

/// Which messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Only older ones than this.
    pub after: Option<QueueId>,
    /// Only newer ones than this, those next to it.
    pub before: Option<QueueId>,
    pub limit: usize,
}

/// A message with what its recipients did.
#[derive(Clone, Debug, PartialEq)]
pub struct Email {
    pub message: MessageView,
    pub interest: Interest,
}

/// Up to `range.limit` messages of `domains` (`None`: of all) that `may_see` lets through by their head, the newest first,
/// and whether there are more. One call looks at [`LOOKS`] of the history at most; where that is not enough, the list goes
/// on behind the last. Reads the disk: not for the threads that do IO.
pub fn email_list(
    ops: &Ops,
    range: Range,
    domains: Option<&[Among]>,
    may_see: impl Fn(&MessageHead) -> bool,
) -> Result<(Vec<Email>, bool), OpError> {
    let backwards = range.before.is_none();
    let mut found: BTreeMap<QueueId, MessageView> = BTreeMap::new();
    // What was accepted a moment ago has no row yet.
    let span = Span { after: range.after, before: range.before, backwards };
    for message in ops.queue.page(span.bounds(), range.limit + 1, backwards, |head| may_see(head)) {
        found.insert(message.id, listed(&message));
    }
    // And what left a moment ago may have none yet either.
    for message in ops.queue.just_settled() {
        if span.holds(&message.id) && may_see(&message.head) {
            found.entry(message.id).or_insert_with(|| listed(&message));
        }
    }
    let history = ops.store.load_full();
    if history.is_none() && found.is_empty() {
        return Err(OpError::NoHistory);
    }
    let mut cut = false;
    if let Some(store) = &history {
        let mut walk = Walk::new(store, domains, span)?;
        let (mut rows, mut looks) = (0, 0);
        while rows <= range.limit
            && let Some(id) = walk.step()?
        {
            if let Some((row, _)) = store::message(store, &id)?
                && may_see(&row.head)
            {
                rows += 1;
                // The queue knows best what is still in it; of what has left, the history knows more.
                let waiting = ops.queue.show(&id).map(|message| listed(&message));
                found.insert(id, waiting.unwrap_or_else(|| stored(&id, &row)));
            }
            looks += 1;
            if looks == LOOKS {
                // What the queue has behind it comes later, in its turn.
                found.retain(|found, _| !span.behind(id).holds(found));
                cut = true;
                break;
            }
        }
    }
    let more = cut || found.len() > range.limit;
    let mut messages: Vec<_> = match backwards {
        true => found.into_values().rev().take(range.limit).collect(),
        false => found.into_values().take(range.limit).collect(),
    };
    if !backwards {
        messages.reverse();
    }
    let emails = messages.into_iter().map(|message| with_interest(ops, message)).collect::<Result<_, _>>()?;
    Ok((emails, more))
}

/// One message, in the queue or in the history. Reads the disk.
pub fn email_show(ops: &Ops, id: &QueueId) -> Result<Email, OpError> {
    with_interest(ops, super::message_show(ops, id)?)
}

pub(super) fn with_interest(ops: &Ops, message: MessageView) -> Result<Email, OpError> {
    let interest = interest(ops, &message.id)?;
    Ok(Email { message, interest })
}
