//! The messages that wait for the smarthost: the log's unsettled messages, folded in memory, in the order in which
//! they fall due. Intake puts messages in, delivery takes them out and says what became of each recipient, commands
//! look. It is one file, since every change of the state goes through the one lock and the one way to move a message.
//!
//! Nothing here is durable and nothing needs to be: after a start the log gives it all back. Heads and bytes are kept
//! only of messages just accepted, within [`HOT_BYTES`]; of the others there are some dozens of bytes, and the rest is
//! read from the log again: by delivery when their turn comes, here when somebody looks.
//!
//! Times are those of [`crate::clock::steady_ms`], which does not jump: a clock that is set neither holds anything up
//! nor makes everything due at once. After a start nothing waits longer than its own pause.

mod hot;
mod job;
mod lanes;
mod look;
mod owners;
#[cfg(test)]
mod tests;

use crate::mail::{ById, DomainName, Outcome, QueueId, Replies, Status};
use crate::retry::Schedule;
use crate::spool::{Live, Log, MessageHead};
use bytes::Bytes;
pub use hot::Hot;
use hot::Hots;
use job::{Job, Stage, next_of};
use lanes::Lanes;
pub use look::{Figures, Pulse};
use owners::Owners;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes of accepted messages that are kept in memory for their first attempt.
pub const HOT_BYTES: usize = 16 * 1024 * 1024;
/// Larger messages are not kept hot.
pub const HOT_MESSAGE: usize = 256 * 1024;

/// The queue; shared by reference.
pub struct Queue {
    state: Mutex<State>,
    /// Kicked when a message falls due.
    work: Notify,
    /// Kicked when the earliest due time has moved.
    sooner: Notify,
    /// Kicked when a message waits and no worker does.
    crowded: Notify,
    /// Workers that wait for work.
    idle: AtomicUsize,
    /// Reads the head of a message in the queue from the log; `None` where it cannot be had.
    heads: Heads,
}

/// How heads are read from this log.
pub fn heads_of(log: &Log) -> impl Fn(&QueueId) -> Option<Arc<MessageHead>> + Send + Sync + 'static {
    let log = log.clone();
    move |id| log.head(id).ok().map(Arc::new)
}

type Heads = Box<dyn Fn(&QueueId) -> Option<Arc<MessageHead>> + Send + Sync>;

#[derive(Default)]
struct State {
    jobs: ById<Job>,
    lanes: Lanes,
    hots: Hots,
    /// How many jobs are at [`Stage::Ready`], and how many were taken to be delivered so far.
    ready: usize,
    taken: u64,
    /// Due time, and whose.
    timed: BTreeSet<(u64, QueueId)>,
    /// Connections to the smarthost that there may be.
    width: usize,
    /// The operator keeps everything back.
    held: bool,
    /// Why the smarthost cannot be reached, and since when; no work is given out meanwhile.
    unreachable: Option<Unreachable>,
    /// Messages taken, outcomes noted and attempts ended so far: what changes while delivery makes progress.
    moves: u64,
    replies: Replies,
    /// Those that have just left, with the time: for who asks before the history has them.
    settled: VecDeque<(u64, Listed)>,
    /// Whose they are.
    owners: Owners,
}

/// Messages that are moved in one go: nobody waits longer for the lock, however many there are.
const BATCH: usize = 1_000;
/// How long, and how many, messages are remembered after they have left.
const SETTLED_MS: u64 = 3_000;
const MOST_SETTLED: usize = 8_000;

/// The newest state of one recipient in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub status: Status,
    /// The last reply, or what went wrong; empty before the first attempt.
    pub reply: Arc<str>,
    /// When that was, in milliseconds since 1970.
    pub at: u64,
}

/// What delivery takes out: one message with the recipients that are due.
pub struct Attempt {
    pub id: QueueId,
    pub due: Vec<Due>,
    /// What else there is of it, where that is still in memory.
    pub hot: Option<Hot>,
}

/// A recipient that is due, with what was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Index into the envelope's recipients.
    pub recipient: u16,
    /// Attempts made.
    pub attempts: u32,
    /// Age at the last of them, and when that, or acceptance, was by the clock. Milliseconds.
    pub age: u64,
    pub at: u64,
    /// The sender knows of the delay.
    pub told: bool,
}

/// Why a message cannot be taken out of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    Unknown,
    InFlight,
}

/// One message as listed.
#[derive(Clone, Debug)]
pub struct Listed {
    pub id: QueueId,
    pub head: Arc<MessageHead>,
    pub recipients: Vec<Waiting>,
    pub in_flight: bool,
}

/// A smarthost that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    pub since: u64,
    pub why: Box<str>,
}

impl Queue {
    /// Begins with what recovery found unsettled at `now`. Where a smarthost could not be reached when that was written,
    /// it still counts as such: who delivers probes for it at once. `heads` reads the head of a message from the log.
    pub fn new(
        recovered: Vec<Live>,
        heads: impl Fn(&QueueId) -> Option<Arc<MessageHead>> + Send + Sync + 'static,
        now: u64,
        schedule: &Schedule,
    ) -> Self {
        let mut state = State { width: 1, ..State::default() };
        for live in recovered {
            let lane = state.lanes.enter(&live.lane);
            let owner = state.owners.add(live.from_domain.as_deref());
            let mut job = Job::new(lane, owner, live.recipients, live.accepted_at);
            for mut outcome in live.newest.into_iter().filter(|outcome| outcome.status != Status::Queued) {
                if let Status::Stranded { .. } = outcome.status {
                    let since = state.unreachable.as_ref().map_or(outcome.at, |down| down.since.min(outcome.at));
                    state.unreachable = Some(Unreachable { since, why: outcome.reply.clone() });
                }
                if let Status::Deferred { attempts, next, .. } | Status::Stranded { attempts, next, .. } =
                    &mut outcome.status
                {
                    *next = (*next).min(now.saturating_add(schedule.longest_pause(*attempts)));
                }
                job.note(&outcome, state.replies.of(&outcome.reply));
            }
            state.add(live.id, job);
        }
        let (work, sooner, crowded) = (Notify::new(), Notify::new(), Notify::new());
        let (state, idle) = (Mutex::new(state), AtomicUsize::new(0));
        Self { state, work, sooner, crowded, idle, heads: Box::new(heads) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything can panic, so a poisoned lock guards whole data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages in the queue, those being delivered included.
    pub fn len(&self) -> usize {
        self.state().jobs.len()
    }

    /// Messages in the queue whose From header names one of these domains.
    pub fn len_of<'a>(&self, domains: impl IntoIterator<Item = &'a DomainName>) -> usize {
        self.state().owners.of(domains)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages that are due and that nobody has taken. None, while the operator keeps everything back.
    pub fn backlog(&self) -> usize {
        let state = self.state();
        if state.held { 0 } else { state.ready }
    }

    /// Messages that were taken to be delivered so far, for seeing whether anything moves.
    pub fn taken(&self) -> u64 {
        self.state().taken
    }

    /// Adds a message that the log has on disk, with its bytes where they are at hand. They are kept while there is room:
    /// nobody waits for that, since the log has them.
    pub fn insert(&self, id: QueueId, head: Arc<MessageHead>, body: Option<Bytes>) {
        let mut state = self.state();
        if state.jobs.contains_key(&id) {
            return;
        }
        let lane = state.lanes.enter(&head.lane());
        let owner = state.owners.add(head.from_domain.as_deref());
        state.add(id, Job::new(lane, owner, head.recipients(), head.accepted_at));
        if let Some(body) = body
            && body.len() <= HOT_MESSAGE
            && state.unreachable.is_none()
        {
            state.hots.keep(lane, id, Hot { head, body }, HOT_BYTES);
        }
        drop(state);
        self.more();
    }

    /// Something is due: for a worker that waits, or for one that is made.
    fn more(&self) {
        self.work.notify_one();
        if self.idle() == 0 {
            self.crowded.notify_one();
        }
    }

    /// The next message that is due at `now`. `None` when there is none, or while the smarthost cannot be reached.
    pub fn take(&self, now: u64) -> Option<Attempt> {
        self.take_if(now, |state| state.unreachable.is_none())
    }

    /// The next message that is due, for noting that it cannot be delivered: the smarthost was tried for all of them.
    pub fn take_stranded(&self, now: u64) -> Option<Attempt> {
        self.take_if(now, |_| true)
    }

    fn take_if(&self, now: u64, may: impl Fn(&State) -> bool) -> Option<Attempt> {
        let mut state = self.state();
        if state.held || !may(&state) {
            return None;
        }
        let State { jobs, lanes, hots, width, .. } = &mut *state;
        let is_ready = |id: &QueueId| jobs.get(id).is_some_and(|job| job.stage() == Stage::Ready);
        let (lane, id) = lanes.take(now, *width, is_ready)?;
        let hot = hots.take(lane, &id);
        lanes.began(lane, id, now);
        let job = jobs.get(&id)?;
        let attempt = Attempt { id, due: job.due(now), hot };
        state.move_to(&id, Stage::Taken);
        state.taken += 1;
        state.moves += 1;
        let more = state.ready > 0;
        drop(state);
        if more {
            self.more();
        }
        Some(attempt)
    }

    /// Notes what became of some recipients of a message that is being delivered.
    pub fn note(&self, id: &QueueId, outcomes: &[Outcome]) {
        let mut state = self.state();
        state.moves += 1;
        let State { jobs, replies, .. } = &mut *state;
        let Some(job) = jobs.get_mut(id) else { return };
        outcomes.iter().for_each(|outcome| job.note(outcome, replies.of(&outcome.reply)));
    }

    /// Ends an attempt: the message leaves, or waits for its next time. Of one that leaves, the head is shown for a while.
    pub fn finish(&self, id: &QueueId, head: Option<&Arc<MessageHead>>, now: u64) {
        let mut state = self.state();
        state.moves += 1;
        let State { jobs, lanes, .. } = &mut *state;
        let Some(job) = jobs.get_mut(id) else { return };
        lanes.ended(job.lane, id, now);
        match job.next() {
            Some(0) => state.move_to(id, Stage::Ready),
            Some(next) => state.move_to(id, Stage::until(next)),
            None => {
                state.remove(id, head, now);
                state.forget_settled(now);
            }
        }
        drop(state);
        self.sooner.notify_one();
        self.more();
    }

    /// Of a message that is being delivered, the recipients of whom nothing was decided yet.
    pub fn undecided(&self, id: &QueueId, now: u64) -> Option<Vec<Due>> {
        let state = self.state();
        let job = state.jobs.get(id).filter(|job| job.stage() == Stage::Taken)?;
        Some(job.due(now))
    }

    /// Takes a message out of delivery's reach, for the operator to settle: the recipients that are not settled yet.
    /// Then [`Self::finish`].
    pub fn claim(&self, id: &QueueId) -> Result<Vec<u16>, ClaimError> {
        let mut state = self.state();
        let job = state.jobs.get(id).ok_or(ClaimError::Unknown)?;
        if job.stage() == Stage::Taken {
            return Err(ClaimError::InFlight);
        }
        let (open, lane) = (job.open(), job.lane);
        state.hots.take(lane, id);
        state.move_to(id, Stage::Taken);
        Ok(open)
    }

    /// Makes a message, or all of them, due now. How many there were.
    pub fn retry(&self, only: Option<&QueueId>) -> usize {
        let waits = |status| next_of(status).is_some_and(|next| next > 0);
        let may = |job: &Job| job.stage() != Stage::Taken && job.any(waits);
        let (mut from, to) = match only {
            Some(id) => (Bound::Included(*id), Bound::Included(*id)),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let mut count = 0;
        loop {
            let mut state = self.state();
            let looked_at: Vec<_> = state.jobs.range((from, to)).take(BATCH).map(|(id, job)| (*id, may(job))).collect();
            let Some((last, _)) = looked_at.last() else { break };
            from = Bound::Excluded(*last);
            for (id, _) in looked_at.iter().filter(|(_, may)| *may) {
                state.make_due(id, |_| true);
                count += 1;
            }
            drop(state);
            self.more();
            std::thread::yield_now();
        }
        self.sooner.notify_one();
        self.more();
        count
    }

    /// Keeps everything back, or gives it out again.
    pub fn hold(&self, held: bool) {
        self.state().held = held;
        self.sooner.notify_one();
        self.more();
    }

    pub fn is_held(&self) -> bool {
        self.state().held
    }

    /// How many messages may be under way at once.
    pub fn set_width(&self, width: usize) {
        self.state().width = width;
    }

    /// Stops giving out work. True when it was given out until now: of several workers, one brings the news.
    pub fn smarthost_is_down(&self, why: &str, now: u64) -> bool {
        let mut state = self.state();
        let is_news = state.unreachable.is_none();
        let since = state.unreachable.as_ref().map_or(now, |u| u.since);
        state.unreachable = Some(Unreachable { since, why: why.into() });
        // What was kept hot for a delivery that is not coming makes room; the log has it.
        state.hots.clear();
        is_news
    }

    /// Gives out work again. What waited for the smarthost alone is due now: see [`Self::free_stranded`].
    pub fn smarthost_is_up(&self) {
        self.state().unreachable = None;
        self.more();
    }

    /// Makes due what waited for the smarthost alone, of the next thousand messages that have a time, behind `last` of
    /// them. Gives back the last that it looked at; `None` at their end, or where the smarthost is down again.
    pub fn free_stranded(&self, last: Option<(u64, QueueId)>) -> Option<(u64, QueueId)> {
        let mut state = self.state();
        if state.unreachable.is_some() {
            return None;
        }
        let behind = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let looked_at: Vec<_> = state.timed.range(behind).take(BATCH).copied().collect();
        let is_stranded = |status: Status| matches!(status, Status::Stranded { .. });
        for (_, id) in &looked_at {
            if state.jobs.get(id).is_some_and(|job| job.any(is_stranded)) {
                state.make_due(id, is_stranded);
            }
        }
        drop(state);
        self.more();
        looked_at.last().copied()
    }

    /// Why the smarthost cannot be reached, if it cannot.
    pub fn unreachable(&self) -> Option<Unreachable> {
        self.state().unreachable.clone()
    }

    /// Resolves when there may be work. Who waits counts as idle meanwhile.
    pub async fn work(&self) {
        let _idle = Idle::of(self);
        self.work.notified().await;
    }

    /// Workers that wait for work.
    pub fn idle(&self) -> usize {
        self.idle.load(Ordering::SeqCst)
    }

    /// Has those look again who wait for work, and who makes workers. For a worker that leaves, and for time that has
    /// passed: a lane that was full may no longer be.
    pub fn look_again(&self) {
        self.more();
    }

    /// Moves what has fallen due at `now`, a thousand messages of it at most, to those to be taken; returns the next due
    /// time, which is over where there are more.
    pub fn wake_due(&self, now: u64) -> Option<u64> {
        let mut state = self.state();
        let mut woken = 0;
        state.lanes.tidy(now);
        let next = loop {
            match state.timed.first().copied() {
                Some((due, id)) if due <= now && woken < BATCH => {
                    state.move_to(&id, Stage::Ready);
                    woken += 1;
                }
                other => break other.map(|(due, _)| due),
            }
        };
        drop(state);
        if woken > 0 {
            self.more();
        }
        next
    }

    /// Resolves when the earliest due time may have moved.
    pub async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// Resolves when messages wait and no worker does.
    pub async fn crowded(&self) {
        self.crowded.notified().await;
    }
}

/// Counts a worker as idle while it is there.
struct Idle<'a>(&'a AtomicUsize);

impl<'a> Idle<'a> {
    fn of(queue: &'a Queue) -> Self {
        queue.idle.fetch_add(1, Ordering::SeqCst);
        Self(&queue.idle)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    /// Puts a message where its recipients say.
    fn add(&mut self, id: QueueId, job: Job) {
        let next = job.next();
        self.jobs.insert(id, job);
        match next {
            Some(0) => self.move_to(&id, Stage::Ready),
            Some(next) => self.move_to(&id, Stage::until(next)),
            None => {}
        }
    }

    /// Takes a message from where it is and puts it there.
    fn move_to(&mut self, id: &QueueId, stage: Stage) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        match job.set_stage(stage) {
            // Its lane passes over it when its turn comes.
            Stage::Ready => self.ready -= 1,
            Stage::Deferred(next) => drop(self.timed.remove(&(next, *id))),
            Stage::Taken => {}
        }
        match stage {
            Stage::Ready => {
                self.lanes.push(job.lane, *id);
                self.ready += 1;
            }
            Stage::Deferred(next) => drop(self.timed.insert((next, *id))),
            Stage::Taken => {}
        }
    }

    /// Of what is deferred of a message, this is due now.
    fn make_due(&mut self, id: &QueueId, which: impl Fn(Status) -> bool) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.make_due(which);
        if job.stage() != Stage::Ready {
            self.move_to(id, Stage::Ready);
        }
    }

    fn remove(&mut self, id: &QueueId, head: Option<&Arc<MessageHead>>, now: u64) {
        self.move_to(id, Stage::Taken);
        let Some(job) = self.jobs.remove(id) else { return };
        self.lanes.leave(job.lane, now);
        self.owners.remove(job.owner);
        if let Some(head) = head {
            let (head, recipients) = (Arc::clone(head), job.waiting());
            self.settled.push_back((now, Listed { id: *id, head, recipients, in_flight: false }));
        }
    }

    fn forget_settled(&mut self, now: u64) {
        while self.settled.len() > MOST_SETTLED
            || self.settled.front().is_some_and(|(at, _)| at.saturating_add(SETTLED_MS) < now)
        {
            self.settled.pop_front();
        }
    }
}
