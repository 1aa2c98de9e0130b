//! Looking at the queue: nothing here changes it.

use super::{Job, Listed, Queue, State};
use crate::mail::QueueId;
use crate::spool::MessageHead;
use std::cmp::Ordering;
use std::sync::Arc;

/// What there is in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Due, and not taken yet.
    pub ready: usize,
    /// Put off to a later time.
    pub deferred: usize,
    pub sending: usize,
    /// When the oldest was accepted, in milliseconds since 1970.
    pub oldest: Option<u64>,
}

/// What tells whether delivery makes progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Messages that are due and that nobody has taken.
    pub ready: usize,
    pub under_way: usize,
    /// Grows with whatever delivery does.
    pub moves: u64,
}

impl Queue {
    pub fn pulse(&self) -> Pulse {
        let state = self.state();
        Pulse { ready: state.ready.len(), under_way: state.ready.under_way(), moves: state.moves }
    }

    /// Up to `limit` messages, the oldest first.
    pub fn list(&self, limit: usize) -> Vec<Listed> {
        let state = self.state();
        let mut ids: Vec<_> = state.jobs.keys().copied().collect();
        keep_first(&mut ids, limit, QueueId::cmp);
        ids.iter().filter_map(|id| state.listed(id)).collect()
    }

    /// Up to `limit` messages whose id and head are wanted, from the newest on (`backwards`) or from the oldest.
    pub fn page(
        &self,
        within: impl Fn(&QueueId) -> bool,
        limit: usize,
        backwards: bool,
        wanted: impl Fn(&MessageHead) -> bool,
    ) -> Vec<Listed> {
        let state = self.state();
        let jobs = state.jobs.iter().filter(|(id, job)| within(id) && wanted(&job.head));
        let mut ids: Vec<_> = jobs.map(|(id, _)| *id).collect();
        match backwards {
            true => keep_first(&mut ids, limit, |one, other| other.cmp(one)),
            false => keep_first(&mut ids, limit, QueueId::cmp),
        }
        ids.iter().filter_map(|id| state.listed(id)).collect()
    }

    /// How many there are, and since when. Looks at every id.
    pub fn figures(&self) -> Figures {
        let state = self.state();
        let (ready, deferred) = (state.ready.len(), state.timed.len());
        let mut oldest = None;
        for (id, job) in &state.jobs {
            // A notice has the time of the message that it tells of in its id, so an id is as old as its message or
            // older; most heads need not be fetched.
            if oldest.is_none_or(|oldest| id.unix_ms() < oldest) {
                oldest = oldest.into_iter().chain([job.head.accepted_at]).min();
            }
        }
        Figures { ready, deferred, sending: state.jobs.len().saturating_sub(ready + deferred), oldest }
    }

    /// Messages that left within the last seconds.
    pub fn just_settled(&self) -> Vec<Listed> {
        self.state().settled.iter().map(|(_, listed)| listed.clone()).collect()
    }

    /// One that left within the last seconds.
    pub fn settled(&self, id: &QueueId) -> Option<Listed> {
        self.state().settled.iter().rev().find(|(_, listed)| listed.id == *id).map(|(_, listed)| listed.clone())
    }

    pub fn show(&self, id: &QueueId) -> Option<Listed> {
        self.state().listed(id)
    }

    /// Up to `limit` messages to or with this: a recipient, a Message-ID with or without its brackets.
    pub fn search(&self, text: &str, limit: usize) -> Vec<Listed> {
        let id = text.trim_matches(['<', '>']);
        let state = self.state();
        let found = |job: &Job| {
            job.head.message_id.trim_matches(['<', '>']) == id
                || job.head.envelope.recipients.iter().any(|r| r.address.as_str().eq_ignore_ascii_case(text))
        };
        let ids: Vec<_> = state.jobs.iter().filter(|(_, job)| found(job)).map(|(id, _)| *id).take(limit).collect();
        ids.iter().filter_map(|id| state.listed(id)).collect()
    }
}

/// The first `limit` ids in this order, sorted. The others are not: there can be millions, and the queue waits meanwhile.
fn keep_first(ids: &mut Vec<QueueId>, limit: usize, order: impl Fn(&QueueId, &QueueId) -> Ordering) {
    if limit < ids.len() {
        ids.select_nth_unstable_by(limit, &order);
        ids.truncate(limit);
    }
    ids.sort_unstable_by(order);
}

impl State {
    fn listed(&self, id: &QueueId) -> Option<Listed> {
        let job = self.jobs.get(id)?;
        let (head, recipients) = (Arc::clone(&job.head), job.recipients.clone());
        Some(Listed { id: *id, head, recipients, in_flight: job.in_flight })
    }
}
