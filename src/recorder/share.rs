//! Whose history goes first where it takes too much of the disk: that of a domain which holds more than half of it, so
//! that one customer's flood of mail or clicks pushes nobody else's out.

use crate::mail::QueueId;
use crate::store::{self, Counter, Counts, Scope, Store, StoreError};
use std::collections::HashMap;

/// Messages that are looked at to find out.
const SAMPLES: u64 = 400;
const HOUR_MS: u64 = 3_600_000;

/// The domain that holds more than half of the history, judged by some of it, and before when its messages have to go so
/// that these are `tenth`. `hours` are the counts of all mail.
pub(super) fn greedy(
    store: &Store,
    hours: &[(u32, Counts)],
    tenth: u64,
) -> Result<Option<(Box<str>, u64)>, StoreError> {
    let mut held: HashMap<Box<str>, usize> = HashMap::new();
    let mut all = 0;
    for id in sample(store, hours)? {
        let Some((row, chunks)) = store::message(store, &id)? else { continue };
        let pieces: usize = store::seen_by_all(store, &id)?.iter().map(|(_, _, pieces)| pieces).sum();
        all += chunks + pieces;
        *held.entry(row.head.from_domain.clone().unwrap_or_default()).or_default() += chunks + pieces;
    }
    let most = held.into_iter().max_by_key(|(_, held)| *held).filter(|(domain, held)| {
        // Where there is no other, nobody has to be spared.
        !domain.is_empty() && *held < all && held * 2 > all
    });
    let Some((domain, _)) = most else { return Ok(None) };
    // What it has lost before is still in the counts.
    let Some(first) = store::message_ids(store, Some(&domain), None, None, 1, false)?.first().copied() else {
        return Ok(None);
    };
    let own = store::counts_by_hour(store, Scope::Domain(&domain), store::hour_of(first.unix_ms())..u32::MAX)?;
    let mut seen = 0;
    let until = own.iter().find(|(_, counts)| {
        seen += counts.get(Counter::Messages);
        seen >= tenth
    });
    Ok(until.map(|(hour, _)| (domain, (u64::from(*hour) + 1) * HOUR_MS)))
}

/// Some messages, spread over all there are.
fn sample(store: &Store, hours: &[(u32, Counts)]) -> Result<Vec<QueueId>, StoreError> {
    let messages = |counts: &Counts| counts.get(Counter::Messages);
    let all: u64 = hours.iter().map(|(_, counts)| messages(counts)).sum();
    let mut found = Vec::new();
    let mut seen = 0;
    for (hour, counts) in hours {
        let samples = |seen: u64| seen.saturating_mul(SAMPLES) / all.max(1);
        let before = samples(seen);
        seen += messages(counts);
        let here = samples(seen) - before;
        for n in 0..here {
            let from = QueueId::new(u64::from(*hour) * HOUR_MS + n * HOUR_MS / here, [0; 10]);
            found.extend(store::message_ids(store, None, None, Some(from), 1, false)?);
        }
    }
    // What is met twice is weighed twice, as is what stands for a time in which there was nothing else.
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{Fixture, aside, head};
    use crate::recorder::known::Known;
    use crate::recorder::sums::Sums;
    use std::sync::Arc;

    /// A history in which each of these domains has so many messages, one after the other, some seconds apart.
    fn history(of: impl Iterator<Item = &'static str>) -> (Fixture, Arc<Store>) {
        let fixture = Fixture::new();
        let (mut sums, mut all, mut writes) = (Sums::default(), Vec::new(), Vec::new());
        for (n, domain) in (0u64..).zip(of) {
            let id = QueueId::new(1_700_000_000_000 + n * 60_000, [7; 10]);
            let head = head(id, domain, "x");
            sums.accepted(&Known::new(Arc::new(head.clone())));
            all.push((id, head));
        }
        fixture.keep(all);
        sums.take(&mut writes);
        let store = fixture.ops.store.load_full().unwrap();
        aside(|| store::commit_now(&store, writes).unwrap());
        (fixture, store)
    }

    fn found(store: &Store) -> Option<(String, u64)> {
        let hours = store::counts_by_hour(store, Scope::All, 0..u32::MAX).unwrap();
        greedy(store, &hours, 100).unwrap().map(|(domain, before)| (domain.into(), before))
    }

    #[test]
    fn who_holds_more_than_half_gives_way() {
        let few = ["a.example", "b.example", "c.example"];
        let (_fixture, store) = history((0..1_000).map(|n| if n % 10 < 7 { "flood.example" } else { few[n % 3] }));
        let (domain, before) = found(&store).unwrap();
        assert_eq!(domain, "flood.example");
        // A tenth of all, which are more than a tenth of its own, in whole hours.
        let going = store::message_ids(&store, Some(&domain), Some(QueueId::new(before, [0; 10])), None, 1_000, false);
        let going = going.unwrap().len();
        assert!((100..160).contains(&going), "{going}");
    }

    #[test]
    fn where_nobody_does_the_oldest_goes() {
        let names = ["a.example", "b.example", "c.example"];
        let (_fixture, store) = history((0..900).map(|n| names[n % 3]));
        assert_eq!(found(&store), None);
        let (_fixture, store) = history((0..300).map(|_| "only.example"));
        assert_eq!(found(&store), None);
    }
}
