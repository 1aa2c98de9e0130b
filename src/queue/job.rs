//! What is kept of one message that waits, in as few bytes as will do: there may be a million of them. Its head and its
//! bytes are in the log, and for a while in memory as well, in its lane.

use super::lanes::LaneId;
use super::owners::OwnerId;
use super::{Due, Waiting};
use crate::mail::{Outcome, Status};
use std::sync::Arc;

pub(super) struct Job {
    /// That of the domain of the first recipient.
    pub lane: LaneId,
    /// That of the domain of the From header.
    pub owner: OwnerId,
    /// How many there are.
    recipients: u16,
    stage: Packed,
    /// In milliseconds since 1970.
    pub accepted_at: u64,
    /// Of recipients to whom something has happened, in their order. A thin pointer: mostly there are none.
    #[expect(clippy::box_collection, reason = "it is a third of the size, and seldom there")]
    known: Option<Box<Vec<Known>>>,
}

struct Known {
    recipient: u16,
    waiting: Waiting,
}

/// Where a message is. It is in one place alone: [`super::State::move_to`] sees to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In its lane.
    Ready,
    /// Among those that have a time: see [`Stage::until`].
    Deferred(u64),
    /// Being delivered, or the operator's.
    Taken,
}

/// A stage in eight bytes: a time, of which the first two milliseconds say something else.
#[derive(Clone, Copy)]
struct Packed(u64);

impl Packed {
    const READY: Self = Self(0);
    const TAKEN: Self = Self(1);

    fn of(stage: Stage) -> Self {
        match stage {
            Stage::Ready => Self::READY,
            Stage::Taken => Self::TAKEN,
            Stage::Deferred(next) => Self(next.max(Stage::FIRST)),
        }
    }

    fn stage(self) -> Stage {
        match self.0 {
            0 => Stage::Ready,
            1 => Stage::Taken,
            next => Stage::Deferred(next),
        }
    }
}

impl Stage {
    /// The earliest time to which anything is deferred.
    const FIRST: u64 = 2;

    /// Until this time.
    pub fn until(next: u64) -> Self {
        Self::Deferred(next.max(Self::FIRST))
    }
}

impl Job {
    /// A message to which nothing has happened yet; it is nowhere.
    pub fn new(lane: LaneId, owner: OwnerId, recipients: u16, accepted_at: u64) -> Self {
        Self { lane, owner, recipients, stage: Packed::of(Stage::Taken), accepted_at, known: None }
    }

    pub fn stage(&self) -> Stage {
        self.stage.stage()
    }

    /// Gives back where it was.
    pub fn set_stage(&mut self, stage: Stage) -> Stage {
        std::mem::replace(&mut self.stage, Packed::of(stage)).stage()
    }

    /// Notes what became of a recipient.
    pub fn note(&mut self, outcome: &Outcome, reply: Arc<str>) {
        if outcome.recipient >= self.recipients {
            return;
        }
        let waiting = Waiting { status: outcome.status, reply, at: outcome.at };
        let known = self.known.get_or_insert_default();
        match known.binary_search_by_key(&outcome.recipient, |known| known.recipient) {
            Ok(at) => known[at].waiting = waiting,
            Err(at) => {
                known.reserve_exact(if known.is_empty() { 1 } else { known.len() });
                known.insert(at, Known { recipient: outcome.recipient, waiting });
            }
        }
    }

    /// The state of each recipient.
    pub fn waiting(&self) -> Vec<Waiting> {
        let fresh = Waiting { status: Status::Queued, reply: Arc::default(), at: self.accepted_at };
        let mut all = vec![fresh; usize::from(self.recipients)];
        for known in self.known() {
            all[usize::from(known.recipient)].clone_from(&known.waiting);
        }
        all
    }

    fn known(&self) -> &[Known] {
        self.known.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Recipients whose status is this.
    pub fn any(&self, which: impl Fn(Status) -> bool) -> bool {
        self.known().iter().any(|known| which(known.waiting.status))
    }

    /// Recipients for whom something is still to be done.
    pub fn open(&self) -> Vec<u16> {
        let settled = |place: &u16| {
            let at = self.known().binary_search_by_key(place, |known| known.recipient);
            at.is_ok_and(|at| self.known()[at].waiting.status.is_settled())
        };
        (0..self.recipients).filter(|place| !settled(place)).collect()
    }

    /// When the first of them is due; 0 is at once. `None`: all are settled.
    pub fn next(&self) -> Option<u64> {
        if self.known().len() < usize::from(self.recipients) {
            return Some(0);
        }
        self.known().iter().filter_map(|known| next_of(known.waiting.status)).min()
    }

    /// These are due now.
    pub fn make_due(&mut self, which: impl Fn(Status) -> bool) {
        for known in self.known.as_deref_mut().into_iter().flatten() {
            if which(known.waiting.status)
                && let Status::Deferred { next, .. } | Status::Stranded { next, .. } = &mut known.waiting.status
            {
                *next = 0;
            }
        }
    }

    /// Recipients that are due, and those that fall due within the next seconds: they may as well go along.
    pub fn due(&self, now: u64) -> Vec<Due> {
        const SOON_MS: u64 = 5_000;
        let any_due = self.any(|status| status != Status::Queued && next_of(status).is_some_and(|next| next <= now));
        let horizon = if any_due { now + SOON_MS } else { now };
        let mut known = self.known().iter().peekable();
        let due = (0..self.recipients).filter_map(|recipient| {
            let fresh = Due { recipient, attempts: 0, age: 0, at: self.accepted_at, told: false };
            let Some(Known { waiting, .. }) = known.next_if(|known| known.recipient == recipient) else {
                return Some(fresh);
            };
            match waiting.status {
                Status::Queued => Some(Due { at: waiting.at, ..fresh }),
                Status::Deferred { attempts, next, age, told } | Status::Stranded { attempts, next, age, told }
                    if next <= horizon =>
                {
                    Some(Due { recipient, attempts, age, at: waiting.at, told })
                }
                _ => None,
            }
        });
        due.collect()
    }
}

pub(super) fn next_of(status: Status) -> Option<u64> {
    match status {
        Status::Queued => Some(0),
        Status::Deferred { next, .. } | Status::Stranded { next, .. } => Some(next),
        Status::Held => Some(u64::MAX),
        Status::Delivered | Status::Relayed | Status::Bounced | Status::Removed | Status::Suppressed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_waits_takes_few_bytes() {
        assert!(size_of::<Job>() <= 40, "{}", size_of::<Job>());
    }
}
