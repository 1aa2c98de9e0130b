//! Messages that were accepted lately, kept in memory for their first attempt, within a budget for all lanes.
//!
//! Where that is short, a lane that holds most gives way, with those of its messages that are delivered last. Which one
//! that is has to be known at once, also with a million lanes. So lanes are sorted by what they hold, in powers of two.

use super::lanes::LaneId;
use crate::mail::QueueId;
use crate::spool::MessageHead;
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Bytes that count for a head, and for each of its recipients.
const HEAD: usize = 512;
const RECIPIENT: usize = 64;
/// Room for so many is kept in a lane that has become empty.
const KEPT_ROOM: usize = 1_024;

/// A message just accepted.
#[derive(Clone, Debug)]
pub struct Hot {
    pub head: Arc<MessageHead>,
    pub body: Bytes,
}

/// What is kept, by lane.
#[derive(Default)]
pub(super) struct Hots {
    lanes: HashMap<LaneId, Lane>,
    bytes: usize,
    /// Lanes that hold something, by the power of two of its bytes.
    by_size: BTreeSet<(u32, LaneId)>,
}

#[derive(Default)]
struct Lane {
    /// Some of what is ready, in the same order.
    messages: VecDeque<(QueueId, Hot)>,
    bytes: usize,
}

impl Hots {
    /// Keeps a message that was put behind all others of its lane just now, where there is room for it, or where a lane
    /// that holds more than this one can make room.
    pub fn keep(&mut self, id: LaneId, message: QueueId, hot: Hot, budget: usize) {
        let bytes = bytes_of(&hot);
        let own = bytes + self.lanes.get(&id).map_or(0, |lane| lane.bytes);
        while self.bytes + bytes > budget {
            if !self.give_way(own) {
                return;
            }
        }
        self.change(id, |lane| {
            lane.bytes += bytes;
            lane.messages.push_back((message, hot));
        });
    }

    /// Drops the later half of what a lane holds that has more than `than`.
    fn give_way(&mut self, than: usize) -> bool {
        let Some((_, most)) = self.by_size.last().copied() else { return false };
        let before = self.lanes.get(&most).map_or(0, |lane| lane.bytes);
        if before <= than {
            return false;
        }
        self.change(most, |lane| {
            while lane.bytes > before / 2 {
                let Some((_, hot)) = lane.messages.pop_back() else { break };
                lane.bytes -= bytes_of(&hot);
            }
        });
        true
    }

    /// A message that is taken, if it is still there.
    pub fn take(&mut self, id: LaneId, message: &QueueId) -> Option<Hot> {
        let lane = self.lanes.get(&id)?;
        // Both are in the same order, so it is the first or is not there; but the operator takes any of them.
        let at = match lane.messages.front() {
            Some((first, _)) if first == message => 0,
            _ => lane.messages.iter().position(|(other, _)| other == message)?,
        };
        self.change(id, |lane| {
            let (_, hot) = lane.messages.remove(at)?;
            lane.bytes -= bytes_of(&hot);
            if lane.messages.is_empty() && lane.messages.capacity() > KEPT_ROOM {
                lane.messages = VecDeque::new();
            }
            Some(hot)
        })
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Changes what a lane holds, and sorts it anew.
    fn change<T>(&mut self, id: LaneId, change: impl FnOnce(&mut Lane) -> T) -> T {
        let lane = self.lanes.entry(id).or_default();
        let (bytes, size) = (lane.bytes, lane.bytes.checked_ilog2());
        let changed = change(lane);
        self.bytes = self.bytes - bytes + lane.bytes;
        let now = lane.bytes.checked_ilog2();
        if size != now {
            if let Some(size) = size {
                self.by_size.remove(&(size, id));
            }
            if let Some(now) = now {
                self.by_size.insert((now, id));
            }
        }
        if now.is_none() && lane.messages.capacity() < KEPT_ROOM / 4 {
            self.lanes.remove(&id);
        }
        changed
    }
}

/// With a share for the head, which has no fixed size.
fn bytes_of(hot: &Hot) -> usize {
    hot.body.len() + HEAD + RECIPIENT * hot.head.envelope.recipients.len()
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;

    fn id(n: usize) -> QueueId {
        QueueId::new(n as u64, [0; 10])
    }

    #[test]
    fn where_memory_is_short_the_lane_with_most_of_it_gives_way() {
        let mut hots = Hots::default();
        let hot = Hot { head: head(1), body: Bytes::from(vec![0; 100]) };
        let ten = 10 * bytes_of(&hot);
        let keep = |hots: &mut Hots, lane: u32, n: usize| {
            hots.keep(LaneId(lane), id(n), hot.clone(), ten);
            assert!(hots.bytes <= ten);
        };
        let of = |hots: &Hots, lane: u32| hots.lanes.get(&LaneId(lane)).map_or(0, |lane| lane.messages.len());
        (0..20).for_each(|n| keep(&mut hots, 0, n));
        assert_eq!((hots.bytes, of(&hots, 0)), (ten, 10), "its own do not push out each other");
        keep(&mut hots, 1, 100);
        assert!(hots.take(LaneId(1), &id(100)).is_some());
        assert!(hots.take(LaneId(0), &id(0)).is_some(), "what is sent first stays");
        assert!(hots.take(LaneId(0), &id(9)).is_none());
        (0..50).for_each(|n| keep(&mut hots, 2 + n % 25, 101 + n as usize));
        assert_eq!(hots.bytes, ten);
        assert!((1..=2).contains(&of(&hots, 0)));
        let held: usize = hots.lanes.values().map(|lane| lane.bytes).sum();
        assert_eq!((held, hots.by_size.len()), (hots.bytes, hots.lanes.len()));
        hots.clear();
        assert!(hots.bytes == 0 && hots.take(LaneId(0), &id(1)).is_none());
    }

    #[test]
    fn lanes_that_have_nothing_left_take_no_room() {
        let mut hots = Hots::default();
        let hot = Hot { head: head(1), body: Bytes::from(vec![0; 100]) };
        for n in 0..100 {
            hots.keep(LaneId(n), id(1), hot.clone(), 1_000_000);
            assert!(hots.take(LaneId(n), &id(1)).is_some());
        }
        assert!(hots.lanes.is_empty() && hots.by_size.is_empty() && hots.bytes == 0);
    }
}
