//! Rows of messages: what was accepted, what became of each recipient, what rewriting did.
//!
//! | key | value |
//! | --- | --- |
//! | `m` id, chunk (2 bytes) | a piece of the postcard of [`MessageRow`]; chunk 0 begins with the count of chunks |
//! | `i` Message-ID, 0, id | nothing |
//! | `r` recipient in lower case, 0, id | nothing |
//! | `d` sender domain, 0, id | nothing |
//! | `f` id | nothing; the message has a bounced recipient |

use super::{Counter, Counts, Row, Store, StoreError, Write, chunks, prefix_end};
use crate::mail::{Address, QueueId, Recipient, Status};
use crate::rewrite::ReportFacts;
use crate::spool::MessageHead;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One message as people look it up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageRow {
    pub head: Arc<MessageHead>,
    /// In the order of the envelope's recipients.
    pub recipients: Vec<RecipientRow>,
    /// The report of rewriting, as the outcome's record brought it.
    pub report: Option<Vec<u8>>,
}

/// The newest state of one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientRow {
    pub status: Status,
    pub reply: Box<str>,
    /// Milliseconds since 1970.
    pub at: u64,
    /// The first time that the copy was put off.
    pub delay: Option<Delay>,
}

impl MessageRow {
    /// What the row itself tells in numbers: of hits it knows nothing.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let copies = |wanted: &dyn Fn(&RecipientRow) -> bool| {
            i64::try_from(self.recipients.iter().filter(|recipient| wanted(recipient)).count()).unwrap_or(0)
        };
        let delivered = copies(&|r| matches!(r.status, Status::Delivered | Status::Relayed));
        counts.count(Counter::Messages, 1);
        counts.count(Counter::Sent, copies(&|_| true));
        counts.count(Counter::Delivered, delivered);
        let bounced = |transient: bool| {
            move |r: &RecipientRow| r.status == Status::Bounced && r.reply.starts_with('4') == transient
        };
        counts.count(Counter::BouncedPermanent, copies(&bounced(false)));
        counts.count(Counter::BouncedTransient, copies(&bounced(true)));
        counts.count(Counter::Delayed, copies(&|r| r.delay.is_some()));
        counts.count(Counter::Failed, copies(&|r| matches!(r.status, Status::Removed | Status::Suppressed)));
        if let Some(facts) = self.report.as_deref().and_then(ReportFacts::from_kept) {
            counts.count(Counter::PixelCopies, if facts.pixel { delivered } else { 0 });
            counts.count(Counter::LinkCopies, if facts.links > 0 { delivered } else { 0 });
            counts.count(if facts.untracked.is_none() { Counter::Tracked } else { Counter::Untracked }, 1);
        }
        counts
    }
}

/// That a copy was put off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// Milliseconds since 1970.
    pub at: u64,
    pub reply: Box<str>,
}

/// Message-IDs are indexed by their first bytes, far more than any real one has.
const MAX_INDEXED: usize = 300;

/// The writes that put a message there. `earlier` is how many chunks an earlier version of the row has; the index
/// rows are written with the first version only.
pub fn message_writes(id: &QueueId, row: &MessageRow, earlier: usize, out: &mut Vec<Write>) {
    let bytes = postcard::to_stdvec(row).expect("rows hold no type that postcard refuses");
    chunks::put(&prefix(id), &bytes, earlier, out);
    if earlier == 0 {
        out.extend(index_keys(id, row).into_iter().map(|key| Write::Put(key, Vec::new())));
    }
    if row.recipients.iter().any(|r| r.status == Status::Bounced) {
        out.push(Write::Put(failed_key(id), Vec::new()));
    }
}

/// The writes that forget a message of so many chunks.
pub fn message_deletes(id: &QueueId, row: &MessageRow, chunks: usize, out: &mut Vec<Write>) {
    chunks::delete(&prefix(id), 0..chunks, out);
    out.extend(index_keys(id, row).into_iter().map(Write::Delete));
    out.push(Write::Delete(failed_key(id)));
}

/// The writes that take the addresses of some recipients out of a message of so many chunks.
pub fn recipient_erased(id: &QueueId, mut row: MessageRow, chunks: usize, places: &[u16], out: &mut Vec<Write>) {
    for place in places {
        let Some(recipient) = row.head.envelope.recipients.get(usize::from(*place)) else { continue };
        out.push(Write::Delete(index_key(b'r', &recipient.address.as_str().to_lowercase(), id)));
        if let Some(state) = row.recipients.get_mut(usize::from(*place)) {
            // Smarthosts repeat the address in their words.
            state.reply = Box::default();
            state.delay.iter_mut().for_each(|delay| delay.reply = Box::default());
        }
    }
    if head_erased(Arc::make_mut(&mut row.head), places) {
        row.report = None;
    }
    message_writes(id, &row, chunks, out);
}

/// Takes these recipients' addresses out of a head. True where nobody is left: what else may name them, their name in
/// the subject, is taken out then too.
pub fn head_erased(head: &mut MessageHead, places: &[u16]) -> bool {
    let Ok(nobody) = Address::parse(ERASED) else { return false };
    for place in places {
        let Some(recipient) = head.envelope.recipients.get_mut(usize::from(*place)) else { continue };
        *recipient = Recipient { address: nobody.clone(), orcpt: None, ..recipient.clone() };
    }
    let all = head.envelope.recipients.iter().all(|recipient| recipient.address.as_str() == ERASED);
    if all {
        (head.subject, head.tags) = (Box::default(), Vec::new());
    }
    all
}

/// What stands where an address was.
pub const ERASED: &str = "erased@recipient.invalid";

fn index_keys(id: &QueueId, row: &MessageRow) -> Vec<Vec<u8>> {
    let head = &row.head;
    let message_id = Some(index_key(b'i', &head.message_id, id)).filter(|_| !head.message_id.is_empty());
    let domain = head.from_domain.as_ref().map(|domain| index_key(b'd', domain, id));
    let recipients = head.envelope.recipients.iter();
    let recipients = recipients.map(|recipient| index_key(b'r', &recipient.address.as_str().to_lowercase(), id));
    message_id.into_iter().chain(domain).chain(recipients).collect()
}

fn failed_key(id: &QueueId) -> Vec<u8> {
    [b"f", &id.as_bytes()[..]].concat()
}

/// The message and the number of its chunks.
pub fn message(store: &Store, id: &QueueId) -> Result<Option<(MessageRow, usize)>, StoreError> {
    let Some((bytes, count)) = chunks::get(store, &prefix(id))? else { return Ok(None) };
    let row = postcard::from_bytes(&bytes).map_err(|_| StoreError::Malformed)?;
    Ok(Some((row, count)))
}

/// Whether there is a row of the message.
pub fn is_known(store: &Store, id: &QueueId) -> Result<bool, StoreError> {
    Ok(store.get(&chunks::key(&prefix(id), 0))?.is_some())
}

/// Rows that are read at once at least: a message with many recipients has dozens.
const FEW_ROWS: usize = 16;

/// The newest `limit` messages, the newest first.
pub fn latest_messages(store: &Store, limit: usize) -> Result<Vec<QueueId>, StoreError> {
    message_ids(store, None, None, None, limit, true)
}

/// Up to `limit` messages older than `after` and newer than `before`, the newest first, or from the oldest on; of one
/// sender domain, or of all.
pub fn message_ids(
    store: &Store,
    domain: Option<&str>,
    after: Option<QueueId>,
    before: Option<QueueId>,
    limit: usize,
    backwards: bool,
) -> Result<Vec<QueueId>, StoreError> {
    if let Some(domain) = domain {
        let first = before.map_or_else(
            || index_key(b'd', domain, &QueueId::from_bytes([0; 16])),
            |id| [&index_key(b'd', domain, &id)[..], &[0]].concat(),
        );
        let end = index_key(b'd', domain, &after.unwrap_or(QueueId::from_bytes([255; 16])));
        let rows = if first < end { store.scan(&first, &end, limit, backwards)? } else { Vec::new() };
        return Ok(rows.iter().filter_map(last_id).collect());
    }
    let from = before
        .map_or_else(|| b"m".to_vec(), |id| [&chunks::key(&prefix(&id), usize::from(u16::MAX))[..], &[0]].concat());
    let to = after.map_or_else(|| prefix_end(b"m"), |id| chunks::key(&prefix(&id), 0));
    let mut ids: Vec<QueueId> = Vec::new();
    let (mut from, mut to) = (from, to);
    while ids.len() < limit && from < to {
        // Chunk 0 of each counts, so more is read until there are enough of these.
        let rows = store.scan(&from, &to, limit.max(FEW_ROWS), backwards)?;
        let Some((last, _)) = rows.last() else { break };
        match backwards {
            true => to.clone_from(last),
            false => from = [last, &[0][..]].concat(),
        }
        ids.extend(rows.iter().filter_map(first_chunk_id));
    }
    ids.truncate(limit);
    Ok(ids)
}

/// The newest `limit` messages with a bounced recipient, the newest first.
pub fn failed_messages(store: &Store, limit: usize) -> Result<Vec<QueueId>, StoreError> {
    let rows = store.scan(b"f", &prefix_end(b"f"), limit, true)?;
    Ok(rows.iter().filter_map(|(key, _)| Some(QueueId::from_bytes(key.get(1..)?.try_into().ok()?))).collect())
}

/// The newest `limit` messages that have this Message-ID, with or without its brackets, and as many that have this
/// recipient; older ones than `after` where one is given.
pub fn messages_with(
    store: &Store,
    text: &str,
    after: Option<QueueId>,
    limit: usize,
) -> Result<Vec<QueueId>, StoreError> {
    let bare = text.trim_matches(['<', '>']);
    let end = after.unwrap_or(QueueId::from_bytes([255; 16]));
    let mut ids = Vec::new();
    for (kind, text) in [(b'i', format!("<{bare}>")), (b'i', bare.to_owned()), (b'r', bare.to_lowercase())] {
        let from = index_key(kind, &text, &QueueId::from_bytes([0; 16]));
        let rows = store.scan(&from, &index_key(kind, &text, &end), limit, true)?;
        ids.extend(rows.iter().filter_map(last_id));
    }
    Ok(ids)
}

fn last_id((key, _): &Row) -> Option<QueueId> {
    Some(QueueId::from_bytes(key.last_chunk::<16>().copied()?))
}

fn first_chunk_id((key, _): &Row) -> Option<QueueId> {
    let (id, chunk) = key.get(1..)?.split_at_checked(16)?;
    (chunk == [0, 0]).then_some(QueueId::from_bytes(id.try_into().ok()?))
}

fn prefix(id: &QueueId) -> Vec<u8> {
    [b"m", &id.as_bytes()[..]].concat()
}

fn index_key(kind: u8, text: &str, id: &QueueId) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(MAX_INDEXED)];
    [&[kind], text, &[0], id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::commit_now;
    use super::*;
    use crate::mail::{Address, Envelope};

    pub(crate) fn row(recipients: usize, report: usize) -> MessageRow {
        let address = |n: usize| Address::parse(&format!("Person{n}@example.net")).unwrap();
        let envelope = Envelope {
            sender: None,
            recipients: (0..recipients).map(|n| address(n).into()).collect(),
            body: Default::default(),
            smtputf8: false,
            ret: None,
            envid: None,
        };
        let head = MessageHead {
            envelope,
            accepted_at: 3,
            from_domain: Some("example.com".into()),
            from: "a@example.com".into(),
            subject: "Hello".into(),
            message_id: "x@example.com".into(),
            size: 9,
            tags: Vec::new(),
            role: crate::mail::Role::Submission,
        };
        let state = RecipientRow { status: Status::Bounced, reply: "550 no".into(), at: 4, delay: None };
        MessageRow { head: Arc::new(head), recipients: vec![state; recipients], report: Some(vec![7; report]) }
    }

    #[test]
    fn rows_of_any_size_come_back_and_shrink() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = QueueId::new(1, [1; 10]);
        let mut chunks = 0;
        for (recipients, report) in [(1, 0), (1_000, 9_000), (3, 100), (1, 5_000)] {
            let row = row(recipients, report);
            let mut writes = Vec::new();
            message_writes(&id, &row, chunks, &mut writes);
            commit_now(&store, writes).unwrap();
            let (found, count) = message(&store, &id).unwrap().unwrap();
            assert_eq!(found, row);
            chunks = count;
            assert_eq!(store.scan(b"m", b"n", 9_999, false).unwrap().len(), chunks);
        }
        assert_eq!(latest_messages(&store, 5).unwrap(), [id]);
        assert_eq!(failed_messages(&store, 5).unwrap(), [id]);
        let by_recipient = store.scan(b"rperson0@example.net\0", b"rperson0@example.net\x01", 9, false).unwrap();
        assert_eq!(by_recipient.len(), 1);
    }

    #[test]
    fn the_newest_is_found_however_many_rows_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (small, large) = (QueueId::new(1, [1; 10]), QueueId::new(2, [1; 10]));
        let mut writes = Vec::new();
        for (id, recipients) in [(small, 1), (large, 1_000)] {
            message_writes(&id, &row(recipients, 0), 0, &mut writes);
        }
        commit_now(&store, writes).unwrap();
        assert_eq!(latest_messages(&store, 1).unwrap(), [large]);
        assert_eq!(latest_messages(&store, 3).unwrap(), [large, small]);
    }
}
