//! Forgetting: what is past its time, what is over the size, and whom somebody wants forgotten.
//!
//! The recorder does it itself, since it holds in memory what it has written lately. A turn does a little, so that
//! the fold is never kept waiting.
//!
//! What time it is, `today` says, since a clock that is set wrong must not take the history with it. What a round of
//! turns has forgotten is logged in one line.

use super::fold::Fold;
use super::share;
use super::today::{Kept, Look, MOST_AHEAD_MS, STAYED_MS, Today};
use crate::clock;
use crate::event::payload::iso_z;
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
/// Hits are gone through from the first on this often.
const ALL_AGAIN: Duration = Duration::from_hours(24);
/// Counts are walked through this often: they go by the hour.
const WALK: Duration = Duration::from_hours(6);
/// The time that is believed is written when it has gone on by so many milliseconds.
const KEEP_TIME_MS: u64 = 3_600_000;

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
    /// A domain that holds too much of it, and before when its messages go.
    greedy: Option<(Box<str>, u64)>,
    /// Which opening of the store this has begun with.
    opening: u64,
    /// When hits were last gone through from the first on.
    stripped: Option<Instant>,
    /// Up to when the clock is believed; `None` until it was read, or while there is no history.
    today: Option<Today>,
    /// What was last written of it.
    kept: Kept,
    /// What this round has forgotten.
    forgotten: Forgotten,
}

#[derive(Clone, Copy, Default)]
struct Forgotten {
    messages: usize,
    deliveries: usize,
    /// Rows of counts.
    counts: usize,
    /// Everything before it; milliseconds since 1970.
    before: u64,
}

impl Sweep {
    /// One turn, if it is time for one. The clock says `wall`, in milliseconds since 1970. True when there is more to do
    /// at once.
    pub async fn turn(&mut self, fold: &mut Fold<'_>, wall: u64) -> bool {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return false;
        }
        let Some(store) = fold.store() else { return false };
        let mut writes = Vec::new();
        let more = self.collect(fold, &store, wall, &mut writes).unwrap_or_else(|e| {
            tracing::error!("what is past its time cannot be forgotten yet: {e}");
            false
        });
        fold.write_aside(&store, writes).await;
        if !more {
            std::mem::take(&mut self.forgotten).log();
        }
        self.next = Some(Instant::now() + if more { Duration::ZERO } else { PAUSE });
        more
    }

    fn collect(
        &mut self,
        fold: &mut Fold<'_>,
        store: &Store,
        wall: u64,
        out: &mut Vec<Write>,
    ) -> Result<bool, StoreError> {
        if self.opening != fold.opening {
            // What was not written when the store was shut has to be done again.
            *self = Self { next: self.next, opening: fold.opening, today: self.today.take(), ..Self::default() };
        }
        let Some(now) = self.now(store, wall, out)? else { return Ok(false) };
        let keeping = **fold.recorder.keeping.load();
        let before = |time: Duration| now.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let cut = self.look_at_size(fold, store, keeping.size)?;
        let old = before(keeping.all).max(cut);
        let ids = store::message_ids(store, None, Some(QueueId::new(old, [0; 10])), None, MESSAGES, false)?;
        for id in &ids {
            forget_message(fold, store, id, out)?;
        }
        let of_greedy = self.forget_of_greedy(fold, store, out)?;
        let times = store::times_before(store, old, ROWS)?;
        out.extend(times.iter().cloned().map(Write::Delete));
        // What a turn has forgotten need not be looked at for its addresses.
        let stripped = ids.is_empty() && times.is_empty() && self.strip(fold, store, before(keeping.traces))?;
        let (gone, deliveries) = store::expired_deliveries(store, before(delivered(&keeping)).max(cut), ROWS)?;
        out.extend(gone);
        let walking = self.walk_counts(store, store::hour_of(old), out)?;
        self.forgotten.before = self.forgotten.before.max(old);
        self.forgotten.messages += ids.len();
        self.forgotten.deliveries += deliveries;
        Ok(ids.len() == MESSAGES || of_greedy || times.len() == ROWS || deliveries == ROWS || stripped || walking)
    }

    /// Forgets some messages of the domain that holds too much. True when there are more.
    fn forget_of_greedy(
        &mut self,
        fold: &mut Fold<'_>,
        store: &Store,
        out: &mut Vec<Write>,
    ) -> Result<bool, StoreError> {
        let Some((domain, before)) = &self.greedy else { return Ok(false) };
        let before = Some(QueueId::new(*before, [0; 10]));
        let ids = store::message_ids(store, Some(domain), before, None, MESSAGES, false)?;
        for id in &ids {
            forget_message(fold, store, id, out)?;
        }
        self.forgotten.messages += ids.len();
        if ids.len() < MESSAGES {
            self.greedy = None;
        }
        Ok(self.greedy.is_some())
    }

    /// The time up to which the clock is believed; `None` where there is no history yet.
    fn now(&mut self, store: &Store, wall: u64, out: &mut Vec<Write>) -> Result<Option<u64>, StoreError> {
        if self.today.is_none() {
            let kept = store::today(store)?.and_then(|bytes| postcard::from_bytes::<Kept>(&bytes).ok());
            let kept = match kept {
                Some(kept) => kept,
                // The newest message says when it was.
                None => match store::latest_messages(store, 1)?.first() {
                    Some(newest) => Kept { believed: newest.unix_ms(), ..Kept::default() },
                    None => return Ok(None),
                },
            };
            (self.today, self.kept) = (Some(Today::new(kept)), Kept::default());
        }
        let Some(today) = &mut self.today else { return Ok(None) };
        let (now, look) = today.look(wall, clock::steady_ms());
        let days = |ms: u64| ms / 86_400_000;
        match look {
            Look::Believed | Look::StillAhead => {}
            Look::Ahead(expected) => {
                tracing::warn!(
                    clock = iso_z(wall),
                    expected = iso_z(expected),
                    "the clock is more than {} days ahead of what the history says, so no history is forgotten by it; \
                     it is believed once it has gone on from there for {} hours",
                    days(MOST_AHEAD_MS),
                    STAYED_MS / 3_600_000
                );
                metrics::counter!("trackpost_clock_jumps_total").increment(1);
            }
            Look::Accepted => {
                tracing::warn!(clock = iso_z(wall), "the clock that was ahead has gone on from there, and is believed");
            }
        }
        let kept = today.kept();
        let (old, new) = (self.kept, kept);
        let is_due = |old: u64, new: u64| old.abs_diff(new) >= KEEP_TIME_MS;
        if is_due(old.believed, new.believed) || old.first != new.first || is_due(old.last, new.last) {
            let bytes = postcard::to_stdvec(&kept).expect("integers always serialise");
            // With what goes by it.
            out.push(store::today_write(bytes));
            self.kept = kept;
        }
        Ok(Some(now))
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
        self.forgotten.counts += old.len();
        out.extend(old.into_iter().map(Write::Delete));
        self.walked = Some(Instant::now());
        self.counts = next;
        Ok(self.counts.is_some())
    }

    /// Before when everything has to go, where the view takes too much of the disk: the oldest tenth of its messages,
    /// in whole hours; or, where one domain holds more than half of it, as many of its own alone. sled uses the space again and hardly gives any back, so that the next time is when it has grown
    /// further, also after a restart.
    fn look_at_size(&mut self, fold: &mut Fold<'_>, store: &Store, most: u64) -> Result<u64, StoreError> {
        let (mut cut, at_size) = match self.cut {
            Some(cut) => cut,
            None => store::cut(store)?,
        };
        let size = store.size()?;
        if size > most.max(at_size.saturating_add(at_size / 50)) {
            // The hours up to which a tenth of the messages came.
            let hours = store::counts_by_hour(store, Scope::All, 0..u32::MAX)?;
            let messages = |counts: &store::Counts| counts.get(Counter::Messages);
            let tenth = hours.iter().map(|(_, counts)| messages(counts)).sum::<u64>() / 10;
            self.greedy = share::greedy(store, &hours, tenth)?;
            let mut seen = 0;
            let until = hours.iter().filter(|_| self.greedy.is_none()).find(|(_, counts)| {
                seen += messages(counts);
                seen > tenth
            });
            if let Some((hour, _)) = until {
                cut = cut.max(u64::from(*hour) * 3_600_000);
                tracing::warn!(size, most, "the history takes too much of the disk: its oldest tenth is forgotten");
                metrics::counter!("trackpost_history_cut_total").increment(1);
            }
            if let Some((domain, _)) = &self.greedy {
                tracing::warn!(
                    size, most, %domain,
                    "the history takes too much of the disk, more than half of it of one domain: the oldest of that is \
                     forgotten"
                );
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

impl Forgotten {
    fn log(self) {
        let Self { messages, deliveries, counts, before } = self;
        if messages + deliveries + counts > 0 {
            tracing::info!(
                messages,
                deliveries,
                counts,
                before = iso_z(before),
                "history that is past its time was forgotten"
            );
        }
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
    fold.sums.forget(id);
    out.extend(store::counts_of_message(store, id)?.into_iter().map(Write::Delete));
    Ok(())
}

impl Fold<'_> {
    /// Forgets a recipient of messages, and answers how many messages there were.
    pub async fn forget_recipient(&mut self, forget: Forget) {
        let Forget { address, messages, answer } = forget;
        let Some(store) = self.store() else { return };
        // What is known of them lies in the store then, and nowhere else.
        if !self.commit(crate::clock::steady_ms(), true).await {
            return;
        }
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
