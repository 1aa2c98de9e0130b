//! What is kept of many messages, in the order of their ids.
//!
//! There may be a million, which come in order, but for a few milliseconds, and mostly leave in order. The standard
//! library's tree then has nodes that are half full. Here they lie in runs that are full.

use super::QueueId;
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, RangeBounds};

/// Entries of a run, which is as much as is moved where one comes or leaves in the middle.
const RUN: usize = 256;

/// A map from ids to what is kept of them.
#[derive(Clone)]
pub struct ById<V> {
    /// In order, each of at most [`RUN`], none empty.
    runs: VecDeque<Vec<(QueueId, V)>>,
    len: usize,
}

impl<V> Default for ById<V> {
    fn default() -> Self {
        Self { runs: VecDeque::new(), len: 0 }
    }
}

impl<V> ById<V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, id: &QueueId) -> Option<&V> {
        let run = self.runs.get(self.run_of(id))?;
        place_in(run, id).ok().map(|at| &run[at].1)
    }

    pub fn get_mut(&mut self, id: &QueueId) -> Option<&mut V> {
        let at = self.run_of(id);
        let run = self.runs.get_mut(at)?;
        place_in(run, id).ok().map(|at| &mut run[at].1)
    }

    pub fn contains_key(&self, id: &QueueId) -> bool {
        self.get(id).is_some()
    }

    /// Gives back what was there before.
    pub fn insert(&mut self, id: QueueId, value: V) -> Option<V> {
        let mut run = self.run_of(&id);
        if run == self.runs.len() {
            // Behind all others.
            match self.runs.back_mut().filter(|last| last.len() < RUN) {
                Some(last) => last.push((id, value)),
                None => self.runs.push_back(begun([(id, value)])),
            }
            self.len += 1;
            return None;
        }
        let mut at = match place_in(&self.runs[run], &id) {
            Ok(at) => return Some(std::mem::replace(&mut self.runs[run][at].1, value)),
            Err(at) => at,
        };
        if self.runs[run].len() == RUN {
            self.make_room(run);
            if let Some(beyond) = at.checked_sub(self.runs[run].len()).filter(|beyond| *beyond > 0) {
                (run, at) = (run + 1, beyond);
            }
        }
        self.runs[run].insert(at, (id, value));
        self.len += 1;
        None
    }

    pub fn remove(&mut self, id: &QueueId) -> Option<V> {
        let run = self.run_of(id);
        let entries = self.runs.get_mut(run)?;
        let at = place_in(entries, id).ok()?;
        let (_, value) = entries.remove(at);
        self.len -= 1;
        if entries.is_empty() {
            self.runs.remove(run);
        } else if entries.len() <= RUN / 4 {
            self.join(run);
        }
        Some(value)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&QueueId, &V)> {
        self.runs.iter().flatten().map(|(id, value)| (id, value))
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &QueueId> {
        self.iter().map(|(id, _)| id)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Those between these, which may be none at all.
    pub fn range(&self, between: impl RangeBounds<QueueId>) -> impl DoubleEndedIterator<Item = (&QueueId, &V)> {
        let (from, to) = (between.start_bound().cloned(), between.end_bound().cloned());
        let is_before = move |id: &QueueId| match from {
            Bound::Unbounded => false,
            Bound::Included(from) => *id < from,
            Bound::Excluded(from) => *id <= from,
        };
        let is_within = move |id: &QueueId| match to {
            Bound::Unbounded => true,
            Bound::Included(to) => *id <= to,
            Bound::Excluded(to) => *id < to,
        };
        let first = self.runs.partition_point(|run| run.last().is_some_and(|(id, _)| is_before(id)));
        let end = self.runs.partition_point(|run| run.first().is_some_and(|(id, _)| is_within(id))).max(first);
        let entries = self.runs.range(first..end).flat_map(move |run| {
            let from = run.partition_point(|(id, _)| is_before(id));
            let to = run.partition_point(|(id, _)| is_within(id)).max(from);
            &run[from..to]
        });
        entries.map(|(id, value)| (id, value))
    }

    /// The run where this one is, if it is there.
    fn run_of(&self, id: &QueueId) -> usize {
        self.runs.partition_point(|run| run.last().is_some_and(|(last, _)| last < id))
    }

    /// Of a full run, the last one goes over into the next, if that has room or is still to be begun: those that come a
    /// moment late would leave half of each run empty. Elsewhere the later half becomes a run of its own.
    fn make_room(&mut self, run: usize) {
        if self.runs.get(run + 1).is_none_or(|next| next.len() < RUN) {
            let last = self.runs[run].pop();
            match self.runs.get_mut(run + 1) {
                Some(next) => last.into_iter().for_each(|last| next.insert(0, last)),
                None => self.runs.push_back(begun(last)),
            }
        } else {
            let later = self.runs[run].drain(RUN / 2..).collect::<Vec<_>>();
            self.runs.insert(run + 1, begun(later));
        }
    }

    /// Puts a run that has become small together with a neighbour, where both are no more than half of one.
    fn join(&mut self, run: usize) {
        let first = match run.checked_sub(1) {
            Some(before) if self.runs[before].len() + self.runs[run].len() <= RUN / 2 => before,
            _ if self.runs.get(run + 1).is_some_and(|next| next.len() + self.runs[run].len() <= RUN / 2) => run,
            _ => return,
        };
        if let Some(later) = self.runs.remove(first + 1) {
            self.runs[first].extend(later);
        }
    }
}

fn place_in<V>(run: &[(QueueId, V)], id: &QueueId) -> Result<usize, usize> {
    run.binary_search_by(|(other, _)| other.cmp(id))
}

/// A run with room for all that it may hold.
fn begun<V>(entries: impl IntoIterator<Item = (QueueId, V)>) -> Vec<(QueueId, V)> {
    let mut run = Vec::with_capacity(RUN);
    run.extend(entries);
    run
}

impl<V: fmt::Debug> fmt::Debug for ById<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn id(n: u16) -> QueueId {
        QueueId::new(u64::from(n), [0; 10])
    }

    fn bound(n: u16, kind: u8) -> Bound<QueueId> {
        match kind {
            0 => Bound::Unbounded,
            1 => Bound::Included(id(n)),
            _ => Bound::Excluded(id(n)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn it_is_the_map_of_the_standard_library(
            steps in prop::collection::vec((0u8..8, 0u16..2_000, 1u16..400), 1..60),
            ends in (0u16..2_000, 0u8..3, 0u16..2_000, 0u8..3),
        ) {
            let (mut ours, mut theirs) = (ById::default(), BTreeMap::new());
            for (kind, from, count) in steps {
                for n in from..from + count {
                    match kind {
                        // In order; backwards; and those that leave.
                        0..=3 => prop_assert_eq!(ours.insert(id(n), n), theirs.insert(id(n), n)),
                        4 => {
                            let n = from + count - (n - from);
                            prop_assert_eq!(ours.insert(id(n), kind.into()), theirs.insert(id(n), kind.into()));
                        }
                        5 => prop_assert_eq!(ours.remove(&id(n)), theirs.remove(&id(n))),
                        6 => prop_assert_eq!(ours.remove(&id(n * 3)), theirs.remove(&id(n * 3))),
                        _ => prop_assert_eq!(ours.get(&id(n)), theirs.get(&id(n))),
                    }
                }
                prop_assert_eq!(ours.len(), theirs.len());
                prop_assert!(ours.runs.iter().all(|run| (1..=RUN).contains(&run.len())));
            }
            prop_assert!(ours.iter().eq(&theirs) && ours.iter().rev().eq(theirs.iter().rev()));
            let (from, from_kind, to, to_kind) = ends;
            let between = (bound(from, from_kind), bound(to, to_kind));
            let wanted: Vec<_> = theirs.iter().filter(|(id, _)| between.contains(*id)).collect();
            prop_assert_eq!(ours.range(between).collect::<Vec<_>>(), wanted.clone());
            prop_assert!(ours.range(between).rev().eq(wanted.into_iter().rev()));
        }
    }

    #[test]
    fn runs_are_full_though_some_come_late_and_small_ones_are_joined() {
        let mut map = ById::default();
        for n in 0..9_996 {
            // Each seventh comes after the six that follow it.
            map.insert(id(n / 7 * 7 + (n + 1) % 7), ());
        }
        assert!(map.runs.len() <= 10_000 / RUN + 2, "{}", map.runs.len());
        (0..10_000).filter(|n| n % 50 != 0).for_each(|n| _ = map.remove(&id(n)));
        assert_eq!(map.len(), 200);
        assert!(map.runs.len() <= 4, "{}", map.runs.len());
    }
}
