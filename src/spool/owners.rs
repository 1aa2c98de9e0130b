//! Whom the live records of one segment belong to, in the order of the file.
//!
//! A list and no tree: records come in order, and a million of them may wait.

use crate::mail::QueueId;
use std::collections::BTreeSet;

/// Whom a live record belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Message(QueueId),
    Setting(Box<str>),
    /// Of the keys that one record holds those whose value is still the one in it.
    /// Behind a pointer, since nearly all records are messages, and there may be a million.
    #[expect(clippy::box_collection, reason = "it makes every other owner smaller")]
    Settings(Box<BTreeSet<Box<str>>>),
}

/// Live records by their offset. What is no longer live leaves a gap, and gaps are closed once they are the half.
#[derive(Debug, Default)]
pub(super) struct Owners {
    list: Vec<(u64, Option<Owner>)>,
    gaps: usize,
}

/// Below this, gaps are not worth closing.
const FEW: usize = 64;

impl Owners {
    /// Adds a record behind all others.
    pub fn add(&mut self, offset: u64, owner: Owner) {
        debug_assert!(self.list.last().is_none_or(|(last, _)| *last <= offset));
        match self.list.last_mut().filter(|(last, _)| *last == offset) {
            // All that the record held was replaced by what else it holds.
            Some((_, slot)) => self.gaps -= usize::from(slot.replace(owner).is_none()),
            None => self.list.push((offset, Some(owner))),
        }
    }

    /// True when there was one.
    pub fn remove(&mut self, offset: u64) -> bool {
        let Ok(at) = self.list.binary_search_by_key(&offset, |(at, _)| *at) else { return false };
        if self.list[at].1.take().is_none() {
            return false;
        }
        self.gaps += 1;
        if self.gaps > FEW && self.gaps > self.list.len() / 2 {
            self.list.retain(|(_, owner)| owner.is_some());
            self.gaps = 0;
        }
        true
    }

    pub fn get_mut(&mut self, offset: u64) -> Option<&mut Owner> {
        let at = self.list.binary_search_by_key(&offset, |(at, _)| *at).ok()?;
        self.list[at].1.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Owner> {
        self.list.iter().filter_map(|(_, owner)| owner.as_ref())
    }

    /// Gives back memory that is not used; for a segment that is full.
    pub fn shrink(&mut self) {
        self.list.retain(|(_, owner)| owner.is_some());
        self.gaps = 0;
        self.list.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_gone_and_the_rest_stays_in_order() {
        let owner = |n: u64| Owner::Message(QueueId::new(n, [0; 10]));
        let mut owners = Owners::default();
        (0..1000).for_each(|n| owners.add(n * 10, owner(n)));
        for n in (0..1000).filter(|n| n % 7 != 0) {
            assert!(owners.remove(n * 10));
            assert!(!owners.remove(n * 10));
            assert!(!owners.remove(n * 10 + 1));
        }
        assert!(owners.iter().eq((0..1000).step_by(7).map(owner).collect::<Vec<_>>().iter()));
        assert!(owners.list.len() < 400);
        owners.shrink();
        assert_eq!(owners.list.len(), 143);
    }
}
