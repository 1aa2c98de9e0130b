//! Searching mail: by what names it whole ([`emails_with`]), and by what its head says ([`emails_where`]).
//!
//! No index leads from a subject or a tag to its messages, so these are looked for one message after the other, from
//! the newest back. One call looks at no more than [`LOOKS`], however few of them are found, and says where it stopped;
//! who wants more goes on from there.

use super::mail::{listed, searched, stored};
use super::walk::{Span, Walk};
use super::{Email, MessageView, OpError, Ops, Range, emails};
use crate::domain::SenderDomain;
use crate::mail::QueueId;
use crate::queue::Listed;
use crate::settings::{ApiKey, Snapshot};
use crate::spool::MessageHead;
use crate::store::{self, MessageRow, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};

/// Messages of the history that one call looks at.
pub const LOOKS: usize = 10_000;
/// Messages of the queue that have no row in the history yet, of which so many are looked at.
const RECENT: usize = 500;
/// The history may not have all of what is so young. Milliseconds.
const FRESH_MS: u64 = 10_000;

/// What the head of a message has to say. One that says nothing lets all through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A part of the subject, whatever the case.
    pub subject: String,
    /// The name of a tag, and its value where that matters; whatever the case.
    pub tag: Option<(String, Option<String>)>,
    /// Of the From header; `None`: any.
    pub domains: Option<Vec<Among>>,
    /// Accepted at this time or later, milliseconds since 1970. Times are those that ids have: a notice counts as old as
    /// the mail that it tells of.
    pub from: u64,
    /// Accepted before this time; `None`: whenever.
    pub until: Option<u64>,
}

/// Mail of one sender domain, since it was added: what was sent before under its name may be somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Among {
    pub domain: String,
    pub since: u64,
}

/// What one call has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    /// The newest first.
    pub emails: Vec<Email>,
    /// The last message that this call got to, where there may be more behind it.
    pub stopped: Option<QueueId>,
}

/// The domains whose mail a key sees; `None`: all of them, known or not.
pub fn domains_of(settings: &Snapshot, key: &ApiKey) -> Option<Vec<Among>> {
    let own = |domain: &SenderDomain| key.reaches(domain).then(|| Among::of(domain));
    (!key.domains.is_empty())
        .then(|| key.domains.iter().filter_map(|tie| settings.domains.get(&tie.name).and_then(own)).collect())
}

impl Among {
    fn of(domain: &SenderDomain) -> Self {
        Self { domain: domain.name.as_str().to_owned(), since: domain.created_at }
    }
}

impl Wanted {
    fn takes(&self, head: &MessageHead) -> bool {
        let has_tag = |(name, value): &(String, Option<String>)| {
            let is = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
            head.tags.iter().any(|(n, v)| is(n, name) && value.as_ref().is_none_or(|value| is(v, value)))
        };
        let of_domain = |all: &Vec<Among>| all.iter().any(|among| among.holds(head));
        let subject = || head.subject.to_lowercase().contains(&self.subject.to_lowercase());
        self.tag.as_ref().is_none_or(has_tag)
            && self.domains.as_ref().is_none_or(of_domain)
            && (self.subject.is_empty() || subject())
    }

    /// Where the walk begins and ends: ids between which messages lie, both not included.
    fn span(&self, range: Range) -> Span {
        let from = (self.from > 0).then(|| first_of(self.from));
        Span {
            after: range.after.into_iter().chain(self.until.map(first_of)).min(),
            before: range.before.into_iter().chain(from).max(),
            backwards: range.before.is_none(),
        }
    }
}

impl Among {
    fn holds(&self, head: &MessageHead) -> bool {
        head.from_domain.as_deref() == Some(self.domain.as_str()) && head.accepted_at >= self.since
    }
}

/// An id before all that were made in this millisecond or later.
pub(super) fn first_of(at: u64) -> QueueId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&at.to_be_bytes()[2..]);
    QueueId::from_bytes(bytes)
}

/// Up to `range.limit` messages that are wanted: with `range.before` those next to it, else the newest. Reads the disk.
pub fn emails_where(ops: &Ops, wanted: &Wanted, range: Range) -> Result<Looked, OpError> {
    let span = wanted.span(range);
    let history = ops.store.load_full();
    let recent = recent(ops, history.as_deref(), span)?;
    let recent = recent.into_iter().filter(|message| wanted.takes(&message.head));
    let mut found: BTreeMap<QueueId, MessageView> = recent.map(|message| (message.id, listed(&message))).collect();
    let mut stopped = None;
    match &history {
        Some(store) => {
            let walked = walk(store, wanted, span, range.limit)?;
            for (id, row) in walked.rows {
                // The queue knows best what is still in it; of what has left, the history knows more.
                let waiting = ops.queue.show(&id).map(|message| listed(&message));
                found.insert(id, waiting.unwrap_or_else(|| stored(&id, &row)));
            }
            stopped = walked.stopped;
            if let Some(stopped) = stopped {
                // What lies behind is found from there on.
                found.retain(|id, _| *id == stopped || !span.behind(stopped).holds(id));
            }
        }
        None if found.is_empty() => return Err(OpError::NoHistory),
        None => {}
    }
    let mut shown: Vec<_> = match span.backwards {
        true => found.into_iter().rev().collect(),
        false => found.into_iter().collect(),
    };
    if shown.len() > range.limit {
        shown.truncate(range.limit);
        stopped = shown.last().map(|(id, _)| *id);
    }
    if !span.backwards {
        shown.reverse();
    }
    let emails = shown.into_iter().map(|(_, message)| emails::with_interest(ops, message)).collect::<Result<_, _>>()?;
    Ok(Looked { emails, stopped })
}

/// Messages that the history may not have yet.
fn recent(ops: &Ops, history: Option<&Store>, span: Span) -> Result<Vec<Listed>, OpError> {
    let newest = match history {
        Some(store) => store::message_ids(store, None, None, None, 1, true)?.first().copied(),
        None => None,
    };
    let first = newest.map(|newest| QueueId::new((newest.unix_ms() + 1).saturating_sub(FRESH_MS), [0; 10]));
    let (from, to) = span.bounds();
    let from = match first {
        Some(first) if span.before.is_none_or(|before| before < first) => Bound::Included(first),
        _ => from,
    };
    let mut recent = ops.queue.page((from, to), RECENT, span.backwards, |_| true);
    recent.extend(ops.queue.just_settled().into_iter().filter(|message| (from, to).contains(&message.id)));
    Ok(recent)
}

/// What one walk through the history has met.
struct Walked {
    /// One more than asked for, where there are more.
    rows: Vec<(QueueId, MessageRow)>,
    /// Where it stopped before the end.
    stopped: Option<QueueId>,
}

fn walk(store: &Store, wanted: &Wanted, span: Span, limit: usize) -> Result<Walked, StoreError> {
    let mut rows = Vec::new();
    let mut walk = Walk::new(store, wanted.domains.as_deref(), span)?;
    for looks in 1.. {
        let Some(id) = walk.step()? else { break };
        if let Some((row, _)) = store::message(store, &id)?
            && wanted.takes(&row.head)
        {
            rows.push((id, row));
        }
        if looks == LOOKS || rows.len() > limit {
            return Ok(Walked { rows, stopped: Some(id) });
        }
    }
    Ok(Walked { rows, stopped: None })
}

/// Up to `limit` messages with this queue id, recipient or Message-ID, older than `after` and of these domains, the newest
/// first. Reads the disk.
pub fn emails_with(
    ops: &Ops,
    text: &str,
    after: Option<QueueId>,
    domains: Option<Vec<Among>>,
    limit: usize,
) -> Result<Looked, OpError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(OpError::NothingToSearch);
    }
    let wanted = Wanted { domains, ..Wanted::default() };
    let span = Span { after, before: None, backwards: true };
    let named = text.parse::<QueueId>().ok();
    let mut recent = ops.queue.search(text, RECENT, searched(ops));
    recent.extend(named.and_then(|id| ops.queue.show(&id).or_else(|| ops.queue.settled(&id))));
    let recent = recent.into_iter().filter(|message| span.holds(&message.id) && wanted.takes(&message.head));
    let mut found: BTreeMap<QueueId, MessageView> = recent.map(|message| (message.id, listed(&message))).collect();
    let mut stopped = None;
    match ops.store.load_full() {
        Some(store) => {
            let mut ids: BTreeSet<_> = store::messages_with(&store, text, after, LOOKS)?.into_iter().collect();
            ids.extend(named.filter(|id| span.holds(id)));
            let mut rows = 0;
            for (looks, id) in ids.into_iter().rev().enumerate() {
                if looks == LOOKS || rows > limit {
                    // Of what is not shown nothing is told, not even where it lies.
                    stopped = found.first_key_value().map(|(id, _)| *id);
                    break;
                }
                if let Some((row, _)) = store::message(&store, &id)?
                    && wanted.takes(&row.head)
                {
                    rows += 1;
                    // The queue knows best what is still in it.
                    let waiting = || ops.queue.show(&id).map(|message| listed(&message));
                    found.entry(id).or_insert_with(|| waiting().unwrap_or_else(|| stored(&id, &row)));
                }
            }
        }
        None if found.is_empty() => return Err(OpError::NoHistory),
        None => {}
    }
    let mut shown: Vec<_> = found.into_iter().rev().collect();
    if shown.len() > limit {
        shown.truncate(limit);
        stopped = shown.last().map(|(id, _)| *id);
    }
    let emails = shown.into_iter().map(|(_, message)| emails::with_interest(ops, message)).collect::<Result<_, _>>()?;
    Ok(Looked { emails, stopped })
}

#[cfg(test)]
mod tests;
