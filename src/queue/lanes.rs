//! The order in which messages are taken: by recipient domain in turn, first in first out within each.
//!
//! A domain for which the smarthost takes long holds the connections that it was given. So none may hold them all: a
//! quarter is kept for others, and a domain that was slow lately gets a quarter and no more.

use crate::mail::QueueId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A message that takes longer makes its domain a slow one, for so long. Milliseconds.
const SLOW: u64 = 2_000;
const SLOW_FOR: u64 = 60_000;

/// Messages that are due, by recipient domain.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<Arc<str>, Lane>,
    /// Lanes that have something ready, each once, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    ready: usize,
    tidied_at: u64,
}

#[derive(Debug, Default)]
struct Lane {
    ready: VecDeque<QueueId>,
    /// What is being delivered, and since when.
    under_way: Vec<(QueueId, u64)>,
    slow_until: u64,
}

impl Lanes {
    /// Messages that are ready.
    pub fn len(&self) -> usize {
        self.ready
    }

    /// Messages that are being delivered.
    pub fn under_way(&self) -> usize {
        self.lanes.values().map(|lane| lane.under_way.len()).sum()
    }

    pub fn first(&self) -> Option<QueueId> {
        self.lanes.get(self.turns.front()?)?.ready.front().copied()
    }

    pub fn push(&mut self, lane: &Arc<str>, id: QueueId) {
        self.line_up(lane).ready.push_back(id);
    }

    fn line_up(&mut self, name: &Arc<str>) -> &mut Lane {
        self.ready += 1;
        let lane = self.lanes.entry(Arc::clone(name)).or_default();
        if lane.ready.is_empty() {
            self.turns.push_back(Arc::clone(name));
        }
        lane
    }

    /// The next message, out of `width` that may be under way at once. Whoever takes it says [`Self::began`].
    pub fn take(&mut self, now: u64, width: usize) -> Option<(Arc<str>, QueueId)> {
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            if lane.under_way.len() >= lane.most(now, width) {
                self.turns.push_back(name);
                continue;
            }
            let Some(id) = lane.ready.pop_front() else { continue };
            self.ready -= 1;
            if !lane.ready.is_empty() {
                self.turns.push_back(Arc::clone(&name));
            }
            return Some((name, id));
        }
        None
    }

    pub fn began(&mut self, lane: &Arc<str>, id: QueueId, now: u64) {
        self.lanes.entry(Arc::clone(lane)).or_default().under_way.push((id, now));
    }

    /// Delivery is over, however it ended.
    pub fn ended(&mut self, name: &Arc<str>, id: &QueueId, now: u64) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        if let Some(at) = lane.under_way.iter().position(|(other, _)| other == id) {
            let (_, began) = lane.under_way.swap_remove(at);
            if now.saturating_sub(began) > SLOW {
                lane.slow_until = now + SLOW_FOR;
            }
        }
        if lane.ready.is_empty() && lane.under_way.is_empty() && lane.slow_until <= now {
            self.lanes.remove(name);
        }
    }

    /// Forgets domains that have nothing left and are no longer slow. Looks at all of them, so not at every call.
    pub fn tidy(&mut self, now: u64) {
        if now < self.tidied_at + SLOW_FOR {
            return;
        }
        self.tidied_at = now;
        self.lanes.retain(|_, lane| !lane.ready.is_empty() || !lane.under_way.is_empty() || lane.slow_until > now);
    }
}

impl Lane {
    /// How many of it may be under way.
    fn most(&self, now: u64, width: usize) -> usize {
        let slow = self.slow_until > now || self.under_way.iter().any(|(_, began)| now.saturating_sub(*began) > SLOW);
        if slow { (width / 4).max(1) } else { (width - width / 4).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> QueueId {
        QueueId::new(u64::from(n), [n; 10])
    }

    fn lane(name: &str) -> Arc<str> {
        name.into()
    }

    fn begin(lanes: &mut Lanes, now: u64, width: usize) -> Option<QueueId> {
        let (lane, id) = lanes.take(now, width)?;
        lanes.began(&lane, id, now);
        Some(id)
    }

    #[test]
    fn domains_have_their_turns() {
        let mut lanes = Lanes::default();
        (1..=4).for_each(|n| lanes.push(&lane("a"), id(n)));
        lanes.push(&lane("b"), id(11));
        lanes.push(&lane("c"), id(12));
        assert_eq!(lanes.len(), 6);
        let order: Vec<_> = std::iter::from_fn(|| begin(&mut lanes, 0, 100)).collect();
        assert_eq!(order, [1, 11, 12, 2, 3, 4].map(id));
        assert_eq!(lanes.len(), 0);
    }

    #[test]
    fn no_domain_holds_all_connections_and_a_slow_one_few() {
        let mut lanes = Lanes::default();
        (0..40).for_each(|n| lanes.push(&lane("slow"), id(n)));
        let taken: Vec<_> = std::iter::from_fn(|| begin(&mut lanes, 0, 20)).collect();
        assert_eq!(taken.len(), 15);
        lanes.push(&lane("fast"), id(100));
        assert_eq!(begin(&mut lanes, 10, 20), Some(id(100)));
        lanes.ended(&lane("fast"), &id(100), 20);
        // They took long: the next ones are few.
        taken.iter().for_each(|id| lanes.ended(&lane("slow"), id, 30_000));
        assert_eq!(std::iter::from_fn(|| begin(&mut lanes, 30_000, 20)).count(), 5);
        assert_eq!(begin(&mut lanes, 30_000, 1), None);
        // One connection is for everybody.
        lanes.push(&lane("fast"), id(101));
        assert_eq!(begin(&mut lanes, 30_000, 1), Some(id(101)));
    }

    #[test]
    fn nothing_is_kept_of_a_domain_that_is_done() {
        let mut lanes = Lanes::default();
        lanes.push(&lane("a"), id(1));
        begin(&mut lanes, 0, 4);
        lanes.ended(&lane("a"), &id(1), 10_000);
        assert_eq!(lanes.lanes.len(), 1, "it was slow");
        lanes.tidy(100_000);
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty());
    }
}
