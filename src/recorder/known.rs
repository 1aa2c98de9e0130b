//! What is known of the messages that hits belong to: kept at hand for the newest, read from the store for others.

use crate::mail::{Outcome, QueueId, Status};
use crate::rewrite::ReportFacts;
use crate::spool::MessageHead;
use crate::store::{MessageRow, Store, StoreError, message};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A message as its hits, counts and events need it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub head: Arc<MessageHead>,
    /// Of the first attempt; `None` before it.
    pub facts: Option<ReportFacts>,
    /// For each recipient when the smarthost took the copy, in milliseconds since 1970; 0: it has not, as far as the
    /// log tells.
    pub delivered: Box<[u64]>,
}

impl Known {
    pub fn new(head: Arc<MessageHead>) -> Self {
        let delivered = vec![0; head.envelope.recipients.len()].into();
        Self { head, facts: None, delivered }
    }

    fn of_row(row: &MessageRow) -> Self {
        let taken = |status| matches!(status, Status::Delivered | Status::Relayed);
        Self {
            head: Arc::clone(&row.head),
            facts: row.report.as_deref().and_then(ReportFacts::from_kept),
            delivered: row.recipients.iter().map(|r| if taken(r.status) { r.at } else { 0 }).collect(),
        }
    }

    pub fn domain(&self) -> &str {
        self.head.from_domain.as_deref().unwrap_or("")
    }

    pub fn note(&mut self, outcome: &Outcome) {
        if matches!(outcome.status, Status::Delivered | Status::Relayed)
            && let Some(at) = self.delivered.get_mut(usize::from(outcome.recipient))
        {
            *at = outcome.at;
        }
    }

    /// When the copy that was hit at `at` had been delivered. One that was accepted a moment ago, whose delivery the
    /// log does not have yet, counts as delivered at that very moment.
    pub fn delivered_at(&self, recipient: u16, at: u64) -> u64 {
        match self.delivered.get(usize::from(recipient)) {
            Some(0) if at <= self.head.accepted_at.saturating_add(JUST_NOW_MS) => at,
            Some(at) => *at,
            None => 0,
        }
    }
}

/// An outcome comes into the log this long after the smarthost's word at the very latest.
const JUST_NOW_MS: u64 = 10_000;

/// The newest messages. Bounded by messages and by recipients.
#[derive(Default)]
pub(super) struct Cache {
    messages: HashMap<QueueId, Known>,
    order: VecDeque<QueueId>,
    recipients: usize,
}

const MAX_MESSAGES: usize = 20_000;
const MAX_RECIPIENTS: usize = 200_000;

impl Cache {
    pub fn put(&mut self, id: QueueId, known: Known) {
        self.recipients += known.delivered.len();
        match self.messages.insert(id, known) {
            Some(earlier) => self.recipients = self.recipients.saturating_sub(earlier.delivered.len()),
            None => self.order.push_back(id),
        }
        while self.order.len() > MAX_MESSAGES || self.recipients > MAX_RECIPIENTS && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(known) = self.messages.remove(&oldest) {
                self.recipients = self.recipients.saturating_sub(known.delivered.len());
            }
        }
    }

    /// The message, read from `store` where it is not at hand; `None` where it is in neither.
    pub fn find(&mut self, id: &QueueId, store: Option<&Store>) -> Result<Option<&mut Known>, StoreError> {
        if !self.messages.contains_key(id) {
            let row = store.map(|store| message(store, id)).transpose()?.flatten();
            let Some((row, _)) = row else { return Ok(None) };
            self.put(*id, Known::of_row(&row));
        }
        Ok(self.messages.get_mut(id))
    }

    /// Forgets one message. Its place in the order stays until its turn comes.
    pub fn remove(&mut self, id: &QueueId) {
        if let Some(known) = self.messages.remove(id) {
            self.recipients = self.recipients.saturating_sub(known.delivered.len());
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Envelope;

    fn known(recipients: usize) -> Known {
        let head = MessageHead {
            envelope: Envelope {
                sender: None,
                recipients: Vec::new(),
                ret: None,
                envid: None,
                body: crate::mail::Body::default(),
                smtputf8: false,
            },
            accepted_at: 1_000,
            from_domain: None,
            from: "".into(),
            subject: "".into(),
            message_id: "".into(),
            size: 0,
            tags: Vec::new(),
        };
        Known { head: Arc::new(head), facts: None, delivered: vec![0; recipients].into() }
    }

    #[test]
    fn a_copy_that_is_on_its_way_counts_as_delivered_now() {
        let mut message = known(2);
        message.note(&Outcome { recipient: 1, status: Status::Relayed, reply: "250".into(), at: 1_500 });
        message.note(&Outcome { recipient: 9, status: Status::Relayed, reply: "250".into(), at: 1_500 });
        assert_eq!(message.delivered_at(0, 1_700), 1_700);
        assert_eq!(message.delivered_at(0, 99_000), 0, "an outcome that was lost");
        assert_eq!(message.delivered_at(1, 99_000), 1_500);
        assert_eq!(message.delivered_at(7, 1_001), 0);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut cache = Cache::default();
        let id = |n: usize| QueueId::new(n as u64, [0; 10]);
        for n in 0..1_000 {
            cache.put(id(n), known(1_000));
            cache.put(id(n), known(1_000));
        }
        assert_eq!(cache.order.len(), 200);
        assert_eq!(cache.recipients, 200_000);
        assert!(!cache.messages.contains_key(&id(799)) && cache.messages.contains_key(&id(800)));
        cache.put(id(2_000), known(1_000_000));
        assert_eq!(cache.order.len(), 1, "the newest stays, however large");
    }
}
