//! Forgetting: what is past its time, what is over the size, and whom somebody wants forgotten.
//!
//! The recorder does it itself, since it holds in memory what it has written lately. A turn does a little, so that
//! the fold is never kept waiting.

use super::fold::Fold;
use crate::mail::QueueId;
use crate::ops::Forget;
use crate::store::{self, Counter, HitRef, Scope, Store, StoreError, Write};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Between two looks when there is nothing to do.
const PAUSE: Duration = Duration::from_secs(60);
/// Messages that one turn forgets, and rows of counts or hits that it looks at.
const MESSAGES: usize = 100;
const ROWS: usize = 500;
/// Counts are walked through this often: they go by the hour.
/// Hits are gone through from the first on this often.
const ALL_AGAIN: Duration = Duration::from_hours(24);
const WALK: Duration = Duration::from_hours(6);

#[derive(Default)]
pub(super) struct Sweep {
    next: Option<Instant>,
    /// Where the walk through the counts goes on.
    counts: Option<Vec<u8>>,
    walked: Option<Instant>,
    /// Where hits that still have their addresses begin.
    traces: Vec<u8>,
    /// What is older goes for its size, and how large the view was when that was decided; `None` until it was read.
    cut: Option<(u64, u64)>,
    /// Which opening of the store this has begun with.
    opening: u64,
    /// When hits were last gone through from the first on.
    stripped: Option<Instant>,
}

impl Sweep {
    /// One turn, if it is time for one. True when there is more to do at once.
    pub async fn turn(&mut self, fold: &mut Fold<'_>, now: u64) -> bool {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return false;
        }
        let Some(store) = fold.store() else { return false };
        let mut writes = Vec::new();
        let more = self.collect(fold, &store, now, &mut writes).unwrap_or_else(|e| {
            tracing::error!("what is past its time cannot be forgotten yet: {e}");
            false
        });
        fold.write_aside(&store, writes).await;
        self.next = Some(Instant::now() + if more { Duration::ZERO } else { PAUSE });
        more
    }

    fn collect(
        &mut self,
        fold: &mut Fold<'_>,
        store: &Store,
        now: u64,
        out: &mut Vec<Write>,
    ) -> Result<bool, StoreError> {
        if self.opening != fold.opening {
            // What was not written when the store was shut has to be done again.
            *self = Self { next: self.next, opening: fold.opening, ..Self::default() };
        }
        let keeping = **fold.recorder.keeping.load();
        let before = |time: Duration| now.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let cut = self.look_at_size(fold, store, keeping.size, now)?;
        let old = before(keeping.all).max(cut);
        let ids = store::message_ids(store, None, Some(QueueId::new(old, [0; 10])), None, MESSAGES, false)?;
        for id in &ids {
            forget_message(fold, store, id, out)?;
        }
        let times = store::times_before(store, old, ROWS)?;
        out.extend(times.iter().cloned().map(Write::Delete));
        // What a turn has forgotten need not be looked at for its addresses.
        let stripped = ids.is_empty() && times.is_empty() && self.strip(fold, store, before(keeping.traces))?;
        let (gone, deliveries) = store::expired_deliveries(store, before(delivered(&keeping)).max(cut), ROWS)?;
        out.extend(gone);
        let walking = self.walk_counts(store, store::hour_of(old), out)?;
        Ok(ids.len() == MESSAGES || times.len() == ROWS || deliveries == ROWS || stripped || walking)
    }

    /// Takes addresses and agents from hits before `before`. True when there are more.
    fn strip(&mut self, fold: &mut Fold<'_>, store: &Store, before: u64) -> Result<bool, StoreError> {
        if self.stripped.is_none_or(|at| at.elapsed() > ALL_AGAIN) {
            // From the first on once a day, for hits that came with an older time than others before them.
            let from_first = self.stripped.replace(Instant::now()).is_some();
            self.traces = if from_first { Vec::new() } else { store::stripped(store)? };
        }
        let (hits, next) = store::hits_between(store, &self.traces, before, ROWS)?;
        let people: BTreeSet<_> = hits.iter().map(|HitRef { id, recipient, .. }| (*id, *recipient)).collect();
        for whose in people {
            fold.people.strip(store, whose, before)?;
        }
        match next {
            Some(next) => {
                fold.with_counts(store::stripped_write(&next));
                self.traces = next;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Forgets counts of hours before `hour`. True when there are more to look at.
    fn walk_counts(&mut self, store: &Store, hour: u32, out: &mut Vec<Write>) -> Result<bool, StoreError> {
        if self.counts.is_none() && self.walked.is_some_and(|at| at.elapsed() < WALK) {
            return Ok(false);
        }
        let (old, next) = store::counts_before(store, self.counts.as_deref(), hour, ROWS)?;
        out.extend(old.into_iter().map(Write::Delete));
        self.walked = Some(Instant::now());
        self.counts = next;
        Ok(self.counts.is_some())
    }

    /// Before when everything has to go, where the view takes too much of the disk: the oldest tenth of its messages,
    /// in whole hours. sled uses the space again and hardly gives any back, so that the next time is when it has grown
    /// further, also after a restart.
    fn look_at_size(&mut self, fold: &mut Fold<'_>, store: &Store, most: u64, now: u64) -> Result<u64, StoreError> {
        let (mut cut, at_size) = match self.cut {
            Some(cut) => cut,
            None => store::cut(store)?,
        };
        let size = store.size()?;
        if size > most.max(at_size.saturating_add(at_size / 50)) {
            // The hours up to which a tenth of the messages came.
            let hours = store::counts_by_hour(store, Scope::All, 0..store::hour_of(now))?;
            let messages = |counts: &store::Counts| counts.get(Counter::Messages);
            let tenth = hours.iter().map(|(_, counts)| messages(counts)).sum::<u64>() / 10;
            let mut seen = 0;
            let until = hours.iter().find(|(_, counts)| {
                seen += messages(counts);
                seen > tenth
            });
            if let Some((hour, _)) = until {
                cut = cut.max(u64::from(*hour) * 3_600_000);
                tracing::warn!(size, most, "the history takes too much of the disk: its oldest tenth is forgotten");
                metrics::counter!("trackpost_history_cut_total").increment(1);
            }
            fold.with_counts(store::cut_write(cut, size));
            self.cut = Some((cut, size));
        } else {
            self.cut = Some((cut, at_size));
        }
        Ok(cut)
    }
}

/// How long deliveries to webhooks are kept: their payloads tell who opened and clicked, and retries go on for a day.
fn delivered(keeping: &super::Keeping) -> Duration {
    keeping.traces.min(keeping.all).max(Duration::from_hours(48))
}

fn forget_message(fold: &mut Fold<'_>, store: &Store, id: &QueueId, out: &mut Vec<Write>) -> Result<(), StoreError> {
    if let Some((row, chunks)) = store::message(store, id)? {
        store::message_deletes(id, &row, chunks, out);
    }
    fold.people.forget(store, id, None, out)?;
    fold.messages.remove(id);
    out.extend(store::counts_of_message(store, id)?.into_iter().map(Write::Delete));
    Ok(())
}

impl Fold<'_> {
    /// Forgets a recipient of messages, and answers how many messages there were.
    pub async fn forget_recipient(&mut self, forget: Forget) {
        let Forget { address, messages, answer } = forget;
        let Some(store) = self.store() else { return };
        // What is known of them lies in the store then, and nowhere else.
        self.commit(crate::clock::unix_ms(), true).await;
        let mut writes = Vec::new();
        let mut found = 0;
        for id in &messages {
            match self.forget_one(&store, id, &address, &mut writes) {
                Ok(any) => found += usize::from(any),
                Err(e) => tracing::error!(queue_id = %id, "a recipient cannot be forgotten: {e}"),
            }
        }
        let mut written = self.write_aside(&store, writes).await;
        // What webhooks were told of them names them too.
        while written {
            match store::erase_deliveries_of(&store, &address, ROWS) {
                Ok((writes, _)) if writes.is_empty() => break,
                Ok((writes, _)) => written = self.write_aside(&store, writes).await,
                Err(e) => {
                    tracing::error!("what webhooks were told of a recipient cannot be forgotten: {e}");
                    written = false;
                }
            }
        }
        if written {
            let _ = answer.send(found);
        }
    }

    fn forget_one(
        &mut self,
        store: &Store,
        id: &QueueId,
        address: &str,
        out: &mut Vec<Write>,
    ) -> Result<bool, StoreError> {
        let Some((row, chunks)) = store::message(store, id)? else { return Ok(false) };
        let is_they = |r: &crate::mail::Recipient| r.address.as_str().to_lowercase() == address.to_lowercase();
        let places: Vec<u16> =
            (0u16..).zip(&row.head.envelope.recipients).filter(|(_, r)| is_they(r)).map(|(place, _)| place).collect();
        for place in &places {
            self.people.forget(store, id, Some(*place), out)?;
        }
        self.messages.remove(id);
        store::recipient_erased(id, row, chunks, &places, out);
        Ok(!places.is_empty())
    }
}
