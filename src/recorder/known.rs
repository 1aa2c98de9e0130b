//! What is known of a message that hits and outcomes belong to.

use crate::mail::{Outcome, Status};
use crate::rewrite::ReportFacts;
use crate::spool::MessageHead;
use crate::store::MessageRow;
use std::sync::Arc;

/// A message as its hits, counts and events need it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub head: Arc<MessageHead>,
    /// Of the newest attempt that has some; `None` before the first.
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

    pub fn of_row(row: &MessageRow) -> Self {
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
            role: crate::mail::Role::Submission,
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
}
