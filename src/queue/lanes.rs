//! The order in which messages are taken: by recipient domain in turn, first in first out within each.
//!
//! A domain for which the smarthost takes long holds the connections that it was given. So none may hold them all: a
//! quarter is kept for others, and a domain that was slow lately gets a quarter and no more.

use crate::mail::QueueId;
use std::collections::{HashMap, VecDeque};

/// A message that takes longer makes its domain a slow one, for so long. Milliseconds.
const SLOW: u64 = 2_000;
const SLOW_FOR: u64 = 60_000;
/// Room for so many ids is kept in a lane that has become empty.
const KEPT_ROOM: usize = 1_024;

/// Which lane a message is in: a place in [`Lanes::lanes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(pub(super) u32);

/// Messages that are due, by recipient domain.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    names: HashMap<Box<str>, LaneId>,
    lanes: Vec<Lane>,
    /// Places of lanes that are no longer in use.
    free: Vec<LaneId>,
    /// Lanes that have something ready, each once, in the order of their turns.
    turns: VecDeque<LaneId>,
    /// Messages that are being delivered.
    under_way: usize,
    tidied_at: u64,
}

#[derive(Debug, Default)]
struct Lane {
    name: Box<str>,
    /// Messages in the queue that belong to it.
    messages: usize,
    /// Some may no longer be ready: see [`Lanes::take`].
    ready: VecDeque<QueueId>,
    /// What is being delivered, and since when.
    under_way: Vec<(QueueId, u64)>,
    slow_until: u64,
}

impl Lanes {
    /// Counts a message into the lane of this domain, in lower case. Whoever does says [`Self::leave`].
    pub fn enter(&mut self, name: &str) -> LaneId {
        let id = match self.names.get(name) {
            Some(id) => *id,
            None => self.open(name.into()),
        };
        self.lane(id).messages += 1;
        id
    }

    /// Messages that are being delivered.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    fn open(&mut self, name: Box<str>) -> LaneId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.lanes.push(Lane::default());
            LaneId(u32::try_from(self.lanes.len() - 1).expect("there are fewer lanes than messages in memory"))
        });
        self.lane(id).name.clone_from(&name);
        self.names.insert(name, id);
        id
    }

    fn lane(&mut self, id: LaneId) -> &mut Lane {
        &mut self.lanes[id.0 as usize]
    }

    /// A message has left the queue.
    pub fn leave(&mut self, id: LaneId, now: u64) {
        let lane = self.lane(id);
        lane.messages -= 1;
        if lane.is_done(now) {
            self.close(id);
        }
    }

    fn close(&mut self, id: LaneId) {
        let lane = std::mem::take(self.lane(id));
        if !lane.ready.is_empty() {
            // None of them is ready any more.
            self.turns.retain(|turn| *turn != id);
        }
        self.names.remove(&lane.name);
        self.free.push(id);
    }

    pub fn push(&mut self, id: LaneId, message: QueueId) {
        let lane = self.lane(id);
        let is_first = lane.ready.is_empty();
        lane.ready.push_back(message);
        if is_first {
            self.turns.push_back(id);
        }
    }

    /// The next message, out of `width` that may be under way at once. Whoever takes it says [`Self::began`].
    ///
    /// What `is_ready` denies was taken out of the queue by other ways, and is passed over.
    pub fn take(&mut self, now: u64, width: usize, is_ready: impl Fn(&QueueId) -> bool) -> Option<(LaneId, QueueId)> {
        for _ in 0..self.turns.len() {
            let id = self.turns.pop_front()?;
            let lane = self.lane(id);
            if lane.under_way.len() >= lane.most(now, width) {
                self.turns.push_back(id);
                continue;
            }
            let found = std::iter::from_fn(|| lane.ready.pop_front()).find(&is_ready);
            if !lane.ready.is_empty() {
                self.turns.push_back(id);
            } else if lane.ready.capacity() > KEPT_ROOM {
                lane.ready = VecDeque::new();
            }
            if let Some(message) = found {
                return Some((id, message));
            }
        }
        None
    }

    /// True when there is something to take, and room for it among the `width` that may be under way.
    pub fn have_turn(&self, now: u64, width: usize, is_ready: impl Fn(&QueueId) -> bool) -> bool {
        let mut turns = self.turns.iter().map(|id| &self.lanes[id.0 as usize]);
        let may_begin = |lane: &Lane| lane.under_way.len() < lane.most(now, width) && lane.ready.iter().any(&is_ready);
        self.under_way() < width && turns.any(may_begin)
    }

    pub fn began(&mut self, id: LaneId, message: QueueId, now: u64) {
        self.lane(id).under_way.push((message, now));
        self.under_way += 1;
    }

    /// Delivery is over, however it ended.
    pub fn ended(&mut self, id: LaneId, message: &QueueId, now: u64) {
        let lane = self.lane(id);
        if let Some(at) = lane.under_way.iter().position(|(other, _)| other == message) {
            let (_, began) = lane.under_way.swap_remove(at);
            if now.saturating_sub(began) > SLOW {
                lane.slow_until = now + SLOW_FOR;
            }
            self.under_way -= 1;
        }
    }

    /// Forgets domains that have nothing left and are no longer slow. Looks at all of them, so not at every call.
    pub fn tidy(&mut self, now: u64) {
        if now < self.tidied_at + SLOW_FOR {
            return;
        }
        self.tidied_at = now;
        let done: Vec<_> = self.names.values().filter(|id| self.lanes[id.0 as usize].is_done(now)).copied().collect();
        done.into_iter().for_each(|id| self.close(id));
    }
}

impl Lane {
    fn is_done(&self, now: u64) -> bool {
        self.messages == 0 && self.under_way.is_empty() && self.slow_until <= now
    }

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

    fn push(lanes: &mut Lanes, name: &str, n: u8) -> LaneId {
        let lane = lanes.enter(name);
        lanes.push(lane, id(n));
        lane
    }

    fn begin(lanes: &mut Lanes, now: u64, width: usize) -> Option<QueueId> {
        let (lane, id) = lanes.take(now, width, |_| true)?;
        lanes.began(lane, id, now);
        Some(id)
    }

    #[test]
    fn domains_have_their_turns() {
        let mut lanes = Lanes::default();
        (1..=4).for_each(|n| _ = push(&mut lanes, "a", n));
        push(&mut lanes, "b", 11);
        push(&mut lanes, "c", 12);
        let order: Vec<_> = std::iter::from_fn(|| begin(&mut lanes, 0, 100)).collect();
        assert_eq!(order, [1, 11, 12, 2, 3, 4].map(id));
    }

    #[test]
    fn what_is_no_longer_ready_is_passed_over() {
        let mut lanes = Lanes::default();
        (1..=5).for_each(|n| _ = push(&mut lanes, "a", n));
        push(&mut lanes, "b", 6);
        let mut take = || lanes.take(0, 100, |message| [3, 5, 6].map(id).contains(message)).map(|(_, id)| id);
        assert_eq!([take(), take(), take(), take()], [Some(id(3)), Some(id(6)), Some(id(5)), None]);
    }

    #[test]
    fn no_domain_holds_all_connections_and_a_slow_one_few() {
        let mut lanes = Lanes::default();
        let slow = (0..40).map(|n| push(&mut lanes, "slow", n)).last().unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| begin(&mut lanes, 0, 20)).collect();
        assert_eq!(taken.len(), 15);
        let fast = push(&mut lanes, "fast", 100);
        assert_eq!(begin(&mut lanes, 10, 20), Some(id(100)));
        lanes.ended(fast, &id(100), 20);
        // They took long: the next ones are few.
        taken.iter().for_each(|id| lanes.ended(slow, id, 30_000));
        assert_eq!(std::iter::from_fn(|| begin(&mut lanes, 30_000, 20)).count(), 5);
        assert_eq!(begin(&mut lanes, 30_000, 1), None);
        // One connection is for everybody.
        push(&mut lanes, "fast", 101);
        assert_eq!(begin(&mut lanes, 30_000, 1), Some(id(101)));
    }

    #[test]
    fn nothing_is_kept_of_a_domain_that_is_done() {
        let mut lanes = Lanes::default();
        let a = push(&mut lanes, "a", 1);
        begin(&mut lanes, 0, 4);
        lanes.ended(a, &id(1), 10_000);
        lanes.leave(a, 10_000);
        assert_eq!(lanes.names.len(), 1, "it was slow");
        lanes.tidy(100_000);
        assert!(lanes.names.is_empty() && lanes.turns.is_empty());
        // One whose messages were taken by other ways leaves no turn behind, and its place is used again.
        let b = push(&mut lanes, "b", 2);
        lanes.leave(b, 100_000);
        assert!(lanes.names.is_empty() && lanes.turns.is_empty());
        assert_eq!((push(&mut lanes, "c", 3), lanes.lanes.len()), (a, 1));
    }
}
