//! How many work at once, and what happens when the smarthost cannot be reached.

use super::attempt::{Ended, attempt, put_off_due};
use super::held::Held;
use super::sign::Pool;
use super::{Connection, History, OpenError, OpenErrorKind, Routes, Smarthost};
use crate::clock;
use crate::intake::Intake;
use crate::queue::{HOT_MESSAGE, Queue};
use crate::retry::Schedule;
use crate::spool::Log;
use crate::supervise;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// What delivery needs; made once.
pub struct Outbound {
    pub log: Log,
    pub queue: Arc<Queue>,
    pub routes: Routes,
    /// May be swapped.
    pub delivery: ArcSwap<Delivery>,
    /// By which notices go into the queue.
    pub intake: Arc<Intake>,
    /// Knows messages whose envelope is damaged in the log.
    pub history: Option<History>,
    /// Smarthosts that could not be reached lately, by name and port, and until when they are asked last.
    down: Mutex<HashMap<(String, u16), Instant>>,
    /// Memory for messages over [`HOT_MESSAGE`] and their copies, in KiB.
    pub large: Arc<Semaphore>,
    /// Where messages are signed.
    pub(super) signing: Pool,
    /// True once nothing more is to be opened.
    stopping: OnceLock<watch::Receiver<bool>>,
    /// Workers in all.
    working: AtomicUsize,
}

/// Counts a worker, until it ends, in whatever way.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where mail goes, and how patiently.
pub struct Delivery {
    /// Tried in order. Never empty.
    pub smarthosts: Vec<Smarthost>,
    pub max_connections: usize,
    pub schedule: Schedule,
}

/// KiB of memory for large messages on their way out.
const LARGE_KIB: usize = 72 * 1024;
/// As many workers keep a fast smarthost and two cores busy; more come only while messages go on waiting.
const FIRST_WORKERS: usize = 4;
const IDLE_CONNECTION: Duration = Duration::from_secs(20);
const GROW_EVERY: Duration = Duration::from_millis(250);
/// How long a smarthost that could not be reached is asked last.
const DOWN_FOR: Duration = Duration::from_secs(30);
/// How long a connection to a fallback is used.
const FALLBACK_FOR: Duration = Duration::from_secs(60);
/// Between two looks at a log that cannot be written.
const LOG_LOOK: Duration = Duration::from_millis(100);
const PROBE_FIRST: Duration = Duration::from_millis(500);
const PROBE_LAST: Duration = Duration::from_secs(30);

impl Outbound {
    pub fn new(intake: Arc<Intake>, routes: Routes, delivery: Delivery) -> Self {
        let (log, queue) = (intake.log.clone(), Arc::clone(&intake.queue));
        let (delivery, large) = (ArcSwap::from_pointee(delivery), Arc::new(Semaphore::new(LARGE_KIB)));
        let (down, working) = (Mutex::default(), AtomicUsize::new(0));
        Self {
            log,
            queue,
            routes,
            delivery,
            intake,
            history: None,
            down,
            large,
            signing: Pool::new(),
            stopping: OnceLock::new(),
            working,
        }
    }

    /// A connection to the first smarthost that answers. One that did not lately is asked after the others, so that
    /// mail does not wait for its time-out again and again.
    pub async fn connect(&self) -> Result<Connection, OpenError> {
        let Some(mut stopping) = self.stopping.get().cloned() else { return self.connect_to_any().await };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => Err(OpenError::stopping()),
            opened = self.connect_to_any() => opened,
        }
    }

    async fn connect_to_any(&self) -> Result<Connection, OpenError> {
        let delivery = self.delivery.load_full();
        let mut order: Vec<_> = delivery.smarthosts.iter().enumerate().collect();
        order.sort_by_key(|(_, smarthost)| self.is_down(smarthost));
        let mut first: Option<(usize, OpenError)> = None;
        for (place, smarthost) in order {
            match Connection::open(smarthost).await {
                Ok(mut connection) => {
                    self.note_down(smarthost, None);
                    connection.terms = Some(Arc::clone(&delivery));
                    connection.until = (place > 0).then(|| Instant::now() + FALLBACK_FOR);
                    return Ok(connection);
                }
                Err(e) => {
                    self.note_down(smarthost, Some(Instant::now() + DOWN_FOR));
                    if first.as_ref().is_none_or(|(other, _)| place < *other) {
                        first = Some((place, e));
                    }
                }
            }
        }
        Err(first.expect("the configuration names at least one smarthost").1)
    }

    /// Whether another message may go over the connection.
    pub fn may_use(&self, connection: &Connection) -> bool {
        let current = self.delivery.load();
        connection.is_fit() && connection.terms.as_ref().is_some_and(|terms| Arc::ptr_eq(terms, &current))
    }

    fn is_down(&self, smarthost: &Smarthost) -> bool {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let until = down.get(&(smarthost.host.clone(), smarthost.port));
        until.is_some_and(|until| Instant::now() < *until)
    }

    fn note_down(&self, smarthost: &Smarthost, until: Option<Instant>) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (smarthost.host.clone(), smarthost.port);
        match until {
            Some(until) => drop(down.insert(name, until)),
            None => drop(down.remove(&name)),
        }
    }

    /// Waits for room for a large message that is in memory so many times; nothing is held for a small one.
    pub async fn room_for(&self, size: u64, times: u64) -> Option<tokio::sync::OwnedSemaphorePermit> {
        if size <= HOT_MESSAGE as u64 {
            return None;
        }
        let kib = usize::try_from(size.saturating_mul(times) / 1024).unwrap_or(usize::MAX).clamp(1, LARGE_KIB);
        Arc::clone(&self.large).acquire_many_owned(u32::try_from(kib).unwrap_or(u32::MAX)).await.ok()
    }
}

/// Delivers until `stop` says so, then finishes the transactions that are under way.
pub async fn run(outbound: Arc<Outbound>, stop: watch::Receiver<bool>) {
    let _ = outbound.stopping.set(stop.clone());
    // They outlive a panic of who makes them, and the next turn takes them over: what is behind its final dot when a
    // worker ends goes out twice.
    let workers = tokio::sync::Mutex::default();
    let begin = || async { make_workers(&outbound, &mut *workers.lock().await, stop.clone()).await };
    supervise::run("delivery", begin, stop.clone()).await;
    while let Some(ended) = workers.lock().await.join_next().await {
        supervise::joined("delivery worker", ended);
    }
}

/// Sees that there are as many workers as are needed, until `stop`.
async fn make_workers(outbound: &Arc<Outbound>, workers: &mut JoinSet<()>, mut stop: watch::Receiver<bool>) {
    let mut allowed = FIRST_WORKERS;
    let mut stuck = false;
    // What was stranded before the start waits for nothing but the first probe.
    let mut probe_pause = Duration::ZERO;
    let mut next_probe = None;
    let mut was_told = outbound.queue.unreachable().is_none();
    let mut pace = Pace::default();
    let mut grow = tokio::time::interval(GROW_EVERY);
    grow.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stop.borrow() {
        supervise::failpoint("delivery", &outbound.intake.hostname);
        let most = outbound.delivery.load().max_connections.max(1);
        allowed = allowed.min(most);
        outbound.queue.set_width(most);
        if outbound.log.stuck_for().is_some() {
            if !stuck {
                tracing::error!("what becomes of mail cannot be written into the log: nothing is delivered meanwhile");
            }
            stuck = true;
            while let Some(ended) = workers.try_join_next() {
                supervise::joined("delivery worker", ended);
            }
            tokio::select! {
                () = tokio::time::sleep(LOG_LOOK) => {}
                _ = stop.changed() => {}
            }
            continue;
        }
        if stuck {
            tracing::warn!("the log is written again: delivery goes on");
            stuck = false;
            outbound.queue.look_again();
        }
        if let Some(down) = outbound.queue.unreachable() {
            allowed = 1;
            let at = *next_probe.get_or_insert_with(|| Instant::now() + probe_pause);
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                _ = stop.changed() => continue,
            }
            next_probe = None;
            match outbound.connect().await {
                Ok(connection) => {
                    (probe_pause, was_told) = (PROBE_FIRST, true);
                    tracing::info!("the smarthost answers again");
                    outbound.queue.smarthost_is_up();
                    spawn(workers, outbound, &stop, Some(connection));
                    let mut last = None;
                    while !*stop.borrow()
                        && let Some(next) = outbound.queue.free_stranded(last)
                    {
                        last = Some(next);
                        tokio::task::yield_now().await;
                    }
                }
                Err(e) if e.kind == OpenErrorKind::Stopping => {}
                Err(e) => {
                    probe_pause = (probe_pause * 2).clamp(PROBE_FIRST, PROBE_LAST);
                    if !std::mem::replace(&mut was_told, true) {
                        tracing::warn!("the smarthost cannot be reached, mail waits: {e}");
                    }
                    let at = *next_probe.insert(Instant::now() + probe_pause);
                    put_off_due(outbound, &e.to_string(), at, &stop).await;
                    tracing::debug!(since = down.since, "the smarthost still cannot be reached: {e}");
                }
            }
            continue;
        }
        probe_pause = PROBE_FIRST;
        let next = outbound.queue.wake_due(clock::steady_ms());
        let until_next = next.map_or(Duration::from_secs(3600), |at| {
            Duration::from_millis(at.saturating_sub(clock::steady_ms()).max(1))
        });
        while let Some(ended) = workers.try_join_next() {
            supervise::joined("delivery worker", ended);
        }
        let backlog = outbound.queue.backlog();
        if backlog > 0 && outbound.queue.idle() == 0 && workers.len() < allowed {
            spawn(workers, outbound, &stop, None);
            pace.made += 1;
        }
        if backlog == 0 {
            pace.since = None;
        }
        tokio::select! {
            () = outbound.queue.sooner() => {}
            () = tokio::time::sleep(until_next) => {}
            _ = grow.tick(), if backlog > 0 || workers.is_empty() => {
                let backlog = outbound.queue.backlog();
                let is_stuck = pace.is_stuck(&outbound.queue, backlog);
                // Many wait; or few, but for as long as the workers that there are take none of them.
                if (backlog > 4 * allowed || is_stuck) && workers.len() >= allowed && allowed < most {
                    allowed += 1;
                }
                // A domain that had its share of the connections may have lost it by time alone.
                if backlog > 0 && outbound.queue.idle() > 0 {
                    outbound.queue.look_again();
                }
            }
            // While some wait already, the tick looks after them.
            () = outbound.queue.crowded(), if workers.len() < allowed || backlog == 0 => {}
            Some(ended) = workers.join_next(), if !workers.is_empty() => supervise::joined("delivery worker", ended),
            _ = stop.changed() => {}
        }
    }
}

fn spawn(
    workers: &mut JoinSet<()>,
    outbound: &Arc<Outbound>,
    stop: &watch::Receiver<bool>,
    connection: Option<Connection>,
) {
    workers.spawn(work(Arc::clone(outbound), stop.clone(), connection));
}

/// Whether messages are taken, from one tick to the next.
#[derive(Default)]
struct Pace {
    /// Messages that had been taken at the last tick, if some waited then and have since.
    since: Option<u64>,
    /// Workers made since then, each of which takes one.
    made: u64,
}

impl Pace {
    /// True when messages wait and all workers have been busy with the same ones since the last tick.
    fn is_stuck(&mut self, queue: &Queue, backlog: usize) -> bool {
        let taken = queue.taken();
        let made = std::mem::take(&mut self.made);
        let before = std::mem::replace(&mut self.since, (backlog > 0).then_some(taken));
        backlog > 0 && queue.idle() == 0 && before.is_some_and(|before| taken - before <= made)
    }
}

/// One worker: takes messages as long as there are any, and leaves after a while without.
async fn work(outbound: Arc<Outbound>, mut stop: watch::Receiver<bool>, mut connection: Option<Connection>) {
    let _working = Counted::new(&outbound.working);
    while !*stop.borrow() {
        // After a reload there may be too many.
        if outbound.working.load(Ordering::Relaxed) > outbound.delivery.load().max_connections.max(1) {
            break;
        }
        if outbound.log.stuck_for().is_some() {
            break;
        }
        if let Some(job) = outbound.queue.take(clock::steady_ms()) {
            let held = Held::new(&outbound, job.id);
            match supervise::caught(attempt(&outbound, job, &mut connection)).await {
                Ok(Ended::Done) => held.given_back(),
                Ok(Ended::Unreachable(why)) => {
                    held.given_back();
                    if outbound.queue.smarthost_is_down(&why, clock::unix_ms()) {
                        tracing::warn!("the smarthost cannot be reached, mail waits: {why}");
                    }
                    break;
                }
                Err(panic) => {
                    // Nobody knows what was said on it.
                    connection = None;
                    held.release(&panic).await;
                }
            }
            continue;
        }
        let left = tokio::select! {
            () = outbound.queue.work() => false,
            () = tokio::time::sleep(IDLE_CONNECTION) => true,
            _ = stop.changed() => true,
        };
        if left {
            break;
        }
    }
    // One that came a moment ago may have been meant for this worker.
    if outbound.queue.backlog() > 0 {
        outbound.queue.look_again();
    }
    if let Some(connection) = connection {
        connection.quit().await;
    }
}
