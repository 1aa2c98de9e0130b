//! The messages that wait for the smarthost: the log's unsettled messages, folded in memory, in the order in which
//! they fall due. Intake puts messages in, delivery takes them out and says what became of each recipient, commands
//! look.
//!
//! Nothing here is durable and nothing needs to be: after a start the log gives it all back. Message bytes are kept
//! only for messages just accepted, within [`HOT_BYTES`]; the others are read from the log again.
//!
//! Times are those of [`crate::clock::steady_ms`], which does not jump: a clock that is set neither holds anything up
//! nor makes everything due at once. After a start nothing waits longer than its own pause.

mod lanes;
mod look;
mod owners;
#[cfg(test)]
mod tests;

use crate::mail::{DomainName, Outcome, QueueId, Status};
use crate::retry::Schedule;
use crate::spool::{Live, MessageHead};
use bytes::Bytes;
use lanes::Lanes;
pub use look::{Figures, Pulse};
use owners::Owners;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

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
    /// Kicked when a message is added while others wait.
    crowded: Notify,
    hot: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    jobs: HashMap<QueueId, Job>,
    ready: Lanes,
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
    /// Those that have just left, with the time: for who asks before the history has them.
    settled: VecDeque<(u64, Listed)>,
    /// Whose they are.
    owners: Owners,
}

/// How long, and how many, messages are remembered after they have left.
const SETTLED_MS: u64 = 3_000;
const MOST_SETTLED: usize = 8_000;

struct Job {
    head: Arc<MessageHead>,
    /// The domain of the first recipient, in lower case.
    lane: Arc<str>,
    recipients: Vec<Waiting>,
    hot: Option<Hot>,
    in_flight: bool,
    /// Waits only because the smarthost could not be reached.
    stranded: bool,
}

/// The newest state of one recipient in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub status: Status,
    /// The last reply, or what went wrong; empty before the first attempt.
    pub reply: Box<str>,
    /// When that was, in milliseconds since 1970.
    pub at: u64,
}

/// The bytes of a message just accepted, with their share of the budget.
pub struct Hot {
    pub body: Bytes,
    _share: OwnedSemaphorePermit,
}

/// What delivery takes out: one message with the recipients that are due.
pub struct Attempt {
    pub id: QueueId,
    pub head: Arc<MessageHead>,
    pub due: Vec<Due>,
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
    /// Begins with what recovery found unsettled at `now`. `head` gives the head of a message, where it can be read.
    pub fn new(
        recovered: Vec<Live>,
        head: impl Fn(&QueueId) -> Option<Arc<MessageHead>>,
        now: u64,
        schedule: &Schedule,
    ) -> Self {
        let mut state = State { width: 1, ..State::default() };
        for live in recovered {
            let Some(head) = head(&live.id) else { continue };
            let fresh = Waiting { status: Status::Queued, reply: Box::default(), at: live.accepted_at };
            let mut recipients = vec![fresh; usize::from(live.recipients)];
            for Outcome { recipient, mut status, reply, at } in live.newest {
                if let Status::Deferred { attempts, next, .. } = &mut status {
                    *next = (*next).min(now.saturating_add(schedule.longest_pause(*attempts)));
                }
                if let Some(waiting) = recipients.get_mut(usize::from(recipient)) {
                    *waiting = Waiting { status, reply, at };
                }
            }
            let job = Job { head, lane: live.lane, recipients, hot: None, in_flight: false, stranded: false };
            state.schedule(live.id, &job);
            state.owners.add(&job.head);
            state.jobs.insert(live.id, job);
        }
        let hot = Arc::new(Semaphore::new(HOT_BYTES));
        Self { state: Mutex::new(state), work: Notify::new(), sooner: Notify::new(), crowded: Notify::new(), hot }
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

    /// Messages that are due and that nobody has taken.
    pub fn backlog(&self) -> usize {
        self.state().ready.len()
    }

    /// The message that has its turn next, for seeing whether anything moves.
    pub fn oldest_ready(&self) -> Option<QueueId> {
        self.state().ready.first()
    }

    /// A share of the memory for a message just accepted. Waits up to `patience` while delivery goes on, so that
    /// accepting does not outrun it; `None` when there is no room, or when the smarthost cannot be reached.
    pub async fn keep_hot(&self, body: Bytes, patience: Duration) -> Option<Hot> {
        let bytes = u32::try_from(body.len()).ok().filter(|_| body.len() <= HOT_MESSAGE)?;
        let hot = Arc::clone(&self.hot);
        let share = match Arc::clone(&hot).try_acquire_many_owned(bytes) {
            Ok(share) => share,
            Err(_) if self.state().unreachable.is_some() => return None,
            Err(_) => tokio::time::timeout(patience, hot.acquire_many_owned(bytes)).await.ok()?.ok()?,
        };
        Some(Hot { body, _share: share })
    }

    /// Adds a message that the log has on disk.
    pub fn insert(&self, id: QueueId, head: Arc<MessageHead>, hot: Option<Hot>) {
        let fresh = Waiting { status: Status::Queued, reply: Box::default(), at: head.accepted_at };
        let recipients = vec![fresh; head.envelope.recipients.len()];
        let lane = lane_of(&head);
        let mut state = self.state();
        let crowded = state.ready.len() > 0 || state.jobs.is_empty();
        state.ready.push(&lane, id);
        state.owners.add(&head);
        state.jobs.insert(id, Job { head, lane, recipients, hot, in_flight: false, stranded: false });
        drop(state);
        self.work.notify_one();
        if crowded {
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
        let width = state.width;
        while let Some((lane, id)) = state.ready.take(now, width) {
            let Some(job) = state.jobs.get_mut(&id).filter(|job| !job.in_flight) else { continue };
            let due = due_recipients(&job.recipients, now);
            if due.is_empty() {
                continue;
            }
            job.in_flight = true;
            let attempt = Attempt { id, head: Arc::clone(&job.head), due, hot: job.hot.take() };
            state.moves += 1;
            state.ready.began(&lane, id, now);
            let more = state.ready.len() > 0;
            drop(state);
            if more {
                self.work.notify_one();
            }
            return Some(attempt);
        }
        None
    }

    /// Notes what became of some recipients of a message that is being delivered.
    pub fn note(&self, id: &QueueId, outcomes: &[Outcome]) {
        let mut state = self.state();
        state.moves += 1;
        let Some(job) = state.jobs.get_mut(id) else { return };
        for outcome in outcomes {
            if let Some(waiting) = job.recipients.get_mut(usize::from(outcome.recipient)) {
                *waiting = Waiting { status: outcome.status, reply: outcome.reply.clone(), at: outcome.at };
            }
        }
    }

    /// Ends an attempt: the message leaves, or waits for its next time. `stranded` says that the smarthost could not
    /// be reached, so that it is due as soon as that is over.
    pub fn finish(&self, id: &QueueId, stranded: bool, now: u64) {
        let mut state = self.state();
        state.moves += 1;
        let Some(mut job) = state.jobs.remove(id) else { return };
        state.ready.ended(&job.lane, id, now);
        if job.recipients.iter().all(|waiting| waiting.status.is_settled()) {
            let Job { head, recipients, .. } = job;
            state.owners.remove(&head);
            state.settled.push_back((now, Listed { id: *id, head, recipients, in_flight: false }));
            state.forget_settled(now);
            return;
        }
        job.in_flight = false;
        job.stranded = stranded;
        state.schedule(*id, &job);
        state.jobs.insert(*id, job);
        drop(state);
        self.sooner.notify_one();
        self.work.notify_one();
    }

    /// A message that is being delivered, with the recipients of whom nothing was decided yet.
    pub fn undecided(&self, id: &QueueId, now: u64) -> Option<(Arc<MessageHead>, Vec<Due>)> {
        let state = self.state();
        let job = state.jobs.get(id).filter(|job| job.in_flight)?;
        Some((Arc::clone(&job.head), due_recipients(&job.recipients, now)))
    }

    /// Takes a message out of delivery's reach, for the operator to settle: the recipients that are not settled yet.
    /// Then [`Self::finish`].
    pub fn claim(&self, id: &QueueId) -> Result<Vec<u16>, ClaimError> {
        let mut state = self.state();
        let job = state.jobs.get_mut(id).ok_or(ClaimError::Unknown)?;
        if job.in_flight {
            return Err(ClaimError::InFlight);
        }
        job.in_flight = true;
        let open = job.recipients.iter().enumerate().filter(|(_, waiting)| !waiting.status.is_settled());
        Ok(open.filter_map(|(place, _)| u16::try_from(place).ok()).collect())
    }

    /// Makes a message, or all of them, due now. How many there were.
    pub fn retry(&self, only: Option<&QueueId>) -> usize {
        let mut state = self.state();
        let State { jobs, ready, timed, .. } = &mut *state;
        let mut count = 0;
        for (id, job) in jobs.iter_mut().filter(|(id, job)| only.is_none_or(|only| only == *id) && !job.in_flight) {
            let mut was_deferred = false;
            for waiting in &mut job.recipients {
                if let Status::Deferred { next, .. } = &mut waiting.status {
                    timed.remove(&(*next, *id));
                    was_deferred |= *next > 0;
                    *next = 0;
                }
            }
            if was_deferred {
                ready.push(&job.lane, *id);
                count += 1;
            }
        }
        drop(state);
        self.work.notify_one();
        self.sooner.notify_one();
        count
    }

    /// Keeps everything back, or gives it out again.
    pub fn hold(&self, held: bool) {
        self.state().held = held;
        self.work.notify_one();
        self.sooner.notify_one();
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
        for job in state.jobs.values_mut() {
            job.hot = None;
        }
        is_news
    }

    /// Gives out work again; what waited for the smarthost alone is due now.
    pub fn smarthost_is_up(&self) {
        let mut state = self.state();
        if state.unreachable.take().is_none() {
            return;
        }
        let State { jobs, ready, timed, .. } = &mut *state;
        for (id, job) in jobs.iter_mut().filter(|(_, job)| job.stranded && !job.in_flight) {
            job.stranded = false;
            for waiting in &mut job.recipients {
                if let Status::Deferred { next, .. } = &mut waiting.status {
                    timed.remove(&(*next, *id));
                    *next = 0;
                }
            }
            ready.push(&job.lane, *id);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Why the smarthost cannot be reached, if it cannot.
    pub fn unreachable(&self) -> Option<Unreachable> {
        self.state().unreachable.clone()
    }

    /// Lets one who waits for work look again.
    pub fn look_again(&self) {
        self.work.notify_one();
    }

    /// Resolves when there may be work.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    /// Moves what has fallen due at `now` to the messages to be taken; returns the next due time.
    pub fn wake_due(&self, now: u64) -> Option<u64> {
        let mut state = self.state();
        let mut woken = false;
        state.ready.tidy(now);
        let next = loop {
            match state.timed.first().copied() {
                Some((due, id)) if due <= now => {
                    state.timed.pop_first();
                    if let Some(lane) = state.jobs.get(&id).map(|job| Arc::clone(&job.lane)) {
                        state.ready.push(&lane, id);
                        woken = true;
                    }
                }
                other => break other.map(|(due, _)| due),
            }
        };
        drop(state);
        if woken {
            self.work.notify_one();
        }
        next
    }

    /// Resolves when the earliest due time may have moved.
    pub async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// Resolves when more wait than one worker takes.
    pub async fn crowded(&self) {
        self.crowded.notified().await;
    }
}

impl State {
    fn schedule(&mut self, id: QueueId, job: &Job) {
        let due = job.recipients.iter().filter_map(|waiting| match waiting.status {
            Status::Queued => Some(0),
            Status::Deferred { next, .. } => Some(next),
            _ => None,
        });
        match due.min() {
            Some(0) => self.ready.push(&job.lane, id),
            Some(next) => drop(self.timed.insert((next, id))),
            None => {}
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

fn lane_of(head: &MessageHead) -> Arc<str> {
    head.lane().into()
}

/// Recipients that are due, and those that fall due within the next seconds: they may as well go along.
fn due_recipients(recipients: &[Waiting], now: u64) -> Vec<Due> {
    const SOON_MS: u64 = 5_000;
    let any_due = recipients.iter().any(|w| matches!(w.status, Status::Deferred { next, .. } if next <= now));
    let horizon = if any_due { now + SOON_MS } else { now };
    let due = recipients.iter().enumerate().filter_map(|(place, waiting)| {
        let (attempts, age, told) = match waiting.status {
            Status::Queued => (0, 0, false),
            Status::Deferred { attempts, next, age, told } if next <= horizon => (attempts, age, told),
            _ => return None,
        };
        Some(Due { recipient: u16::try_from(place).ok()?, attempts, age, at: waiting.at, told })
    });
    due.collect()
}
