//! Looking at the queue: nothing here changes it.

use super::{Job, Listed, Queue, State};
use crate::mail::QueueId;
use crate::spool::MessageHead;
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

impl Queue {
    /// Up to `limit` messages, the oldest first.
    pub fn list(&self, limit: usize) -> Vec<Listed> {
        let state = self.state();
        let mut ids: Vec<_> = state.jobs.keys().copied().collect();
        ids.sort_unstable();
        ids.truncate(limit);
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
        ids.sort_unstable();
        if backwards {
            ids.reverse();
        }
        ids.truncate(limit);
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

impl State {
    fn listed(&self, id: &QueueId) -> Option<Listed> {
        let job = self.jobs.get(id)?;
        let (head, recipients) = (Arc::clone(&job.head), job.recipients.clone());
        Some(Listed { id: *id, head, recipients, in_flight: job.in_flight })
    }
}
