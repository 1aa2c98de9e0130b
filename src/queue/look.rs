//! Looking at the queue: nothing here changes it. Heads are read from the log, outside the queue's lock, so what shows
//! messages reads the disk.

use super::job::{Job, Stage};
use super::{Listed, Queue, State, Waiting};
use crate::mail::QueueId;
use crate::spool::MessageHead;
use std::ops::{Bound, RangeBounds};

/// Messages that are taken from the queue at once, and heads that are read in vain before a search is given up.
const STRIDE: usize = 128;
const LOOKS: usize = 10_000;

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

/// One message, without its head.
struct Found {
    id: QueueId,
    recipients: Vec<Waiting>,
    in_flight: bool,
}

impl Queue {
    pub fn pulse(&self, now: u64) -> Pulse {
        let state = self.state();
        let State { jobs, lanes, ready, taken, moves, width, .. } = &*state;
        let is_ready = |id: &QueueId| jobs.get(id).is_some_and(|job| job.stage() == Stage::Ready);
        Pulse { ready: *ready, is_open: lanes.have_turn(now, *width, is_ready), taken: *taken, moves: *moves }
    }

    /// Up to `limit` messages, the oldest first.
    pub fn list(&self, limit: usize) -> Vec<Listed> {
        self.page((Bound::Unbounded, Bound::Unbounded), limit, false, |_| true)
    }

    /// Up to `limit` messages between these whose head is wanted, from the newest on (`backwards`) or from the oldest. No more
    /// than 10,000 heads beyond these are read.
    pub fn page(
        &self,
        (mut from, mut to): (Bound<QueueId>, Bound<QueueId>),
        limit: usize,
        backwards: bool,
        wanted: impl Fn(&MessageHead) -> bool,
    ) -> Vec<Listed> {
        let mut listed = Vec::new();
        let mut looks = 0;
        while listed.len() < limit && looks < limit.saturating_add(LOOKS) {
            let found = self.found((from, to), backwards);
            let Some(last) = found.last().map(|found| found.id) else { break };
            looks += found.len();
            let heads = found.into_iter().filter_map(|found| self.with_head(found));
            listed.extend(heads.filter(|message| wanted(&message.head)).take(limit - listed.len()));
            match backwards {
                true => to = Bound::Excluded(last),
                false => from = Bound::Excluded(last),
            }
        }
        listed
    }

    /// The first [`STRIDE`] messages between these, from either end.
    fn found(&self, between: (Bound<QueueId>, Bound<QueueId>), backwards: bool) -> Vec<Found> {
        // A tree of which no part is asked for does not take the question.
        let (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) = between else {
            return self.part(between, backwards);
        };
        if from < to { self.part(between, backwards) } else { Vec::new() }
    }

    fn part(&self, between: impl RangeBounds<QueueId>, backwards: bool) -> Vec<Found> {
        let state = self.state();
        let part = state.jobs.range(between);
        match backwards {
            true => part.rev().take(STRIDE).map(Found::of).collect(),
            false => part.take(STRIDE).map(Found::of).collect(),
        }
    }

    fn with_head(&self, found: Found) -> Option<Listed> {
        let Found { id, recipients, in_flight } = found;
        let head = (self.heads)(&id)?;
        Some(Listed { id, head, recipients, in_flight })
    }

    /// How many there are, and since when.
    pub fn figures(&self) -> Figures {
        let state = self.state();
        let (ready, deferred) = (state.ready, state.timed.len());
        let mut oldest = None;
        for (id, job) in state.jobs.iter() {
            // A notice has the time of the message that it tells of in its id, so an id is as old as its message or
            // older, and ids are in order.
            if oldest.is_some_and(|oldest| id.unix_ms() >= oldest) {
                break;
            }
            oldest = oldest.into_iter().chain([job.accepted_at]).min();
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
        let found = self.state().jobs.get(id).map(|job| Found::of((id, job)));
        self.with_head(found?)
    }

    pub fn contains(&self, id: &QueueId) -> bool {
        self.state().jobs.contains_key(id)
    }

    /// Up to `limit` messages to or with this: a recipient, a Message-ID with or without its brackets. Among the newest
    /// `among`: the history finds the others.
    pub fn search(&self, text: &str, limit: usize, among: usize) -> Vec<Listed> {
        let message_id = text.trim_matches(['<', '>']);
        let ids: Vec<_> = self.state().jobs.keys().rev().take(among).copied().collect();
        let is_wanted = |id: &QueueId| {
            (self.heads)(id).is_some_and(|head| {
                head.message_id.trim_matches(['<', '>']) == message_id
                    || head.envelope.recipients.iter().any(|r| r.address.as_str().eq_ignore_ascii_case(text))
            })
        };
        ids.into_iter().filter(is_wanted).take(limit).filter_map(|id| self.show(&id)).collect()
    }
}

impl Found {
    fn of((id, job): (&QueueId, &Job)) -> Self {
        Self { id: *id, recipients: job.waiting(), in_flight: job.stage() == Stage::Taken }
    }
}
