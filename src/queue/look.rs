//! Looking at the queue: nothing here changes it.

use super::{Job, Listed, Queue, Stage, State};
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

/// What tells whether delivery makes progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Messages that are due and that nobody has taken.
    pub ready: usize,
    /// One of them could be taken now: connections are free, and its domain has not all that it may have.
    pub is_open: bool,
    /// How many were taken so far.
    pub taken: u64,
    /// Grows with whatever delivery does.
    pub moves: u64,
}

impl Queue {
    pub fn pulse(&self, now: u64) -> Pulse {
        let state = self.state();
        let State { jobs, lanes, ready, taken, moves, width, .. } = &*state;
        let is_ready = |id: &QueueId| jobs.get(id).is_some_and(|job| job.stage == Stage::Ready);
        Pulse { ready: *ready, is_open: lanes.have_turn(now, *width, is_ready), taken: *taken, moves: *moves }
    }

    /// Up to `limit` messages, the oldest first.
    pub fn list(&self, limit: usize) -> Vec<Listed> {
        let state = self.state();
        state.jobs.iter().take(limit).map(|(id, job)| listed(id, job)).collect()
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
        let is_wanted = |(id, job): &(&QueueId, &Job)| within(id) && wanted(&job.head);
        let found = |(id, job): (&QueueId, &Job)| listed(id, job);
        match backwards {
            true => state.jobs.iter().rev().filter(is_wanted).take(limit).map(found).collect(),
            false => state.jobs.iter().filter(is_wanted).take(limit).map(found).collect(),
        }
    }

    /// How many there are, and since when.
    pub fn figures(&self) -> Figures {
        let state = self.state();
        let (ready, deferred) = (state.ready, state.timed.len());
        let mut oldest = None;
        for (id, job) in &state.jobs {
            // A notice has the time of the message that it tells of in its id, so an id is as old as its message or
            // older, and ids are in order.
            if oldest.is_some_and(|oldest| id.unix_ms() >= oldest) {
                break;
            }
            oldest = oldest.into_iter().chain([job.head.accepted_at]).min();
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
        self.state().jobs.get(id).map(|job| listed(id, job))
    }

    pub fn contains(&self, id: &QueueId) -> bool {
        self.state().jobs.contains_key(id)
    }

    /// Up to `limit` messages to or with this: a recipient, a Message-ID with or without its brackets.
    pub fn search(&self, text: &str, limit: usize) -> Vec<Listed> {
        let id = text.trim_matches(['<', '>']);
        let state = self.state();
        let found = |job: &Job| {
            job.head.message_id.trim_matches(['<', '>']) == id
                || job.head.envelope.recipients.iter().any(|r| r.address.as_str().eq_ignore_ascii_case(text))
        };
        state.jobs.iter().filter(|(_, job)| found(job)).take(limit).map(|(id, job)| listed(id, job)).collect()
    }
}

fn listed(id: &QueueId, job: &Job) -> Listed {
    let (head, recipients) = (Arc::clone(&job.head), job.recipients.clone());
    Listed { id: *id, head, recipients, in_flight: job.stage == Stage::Taken }
}
