//! The memory that clients may fill: messages on their way in, and what else a session keeps for its client (long
//! lists of recipients, lines of AUTH, replies that are not read).
//!
//! It is counted by what is really there. A session says how much room it needs before it reads, and how much of it was
//! used after, so a client that says nothing holds nothing, whatever it has declared. There are two pools, so that a
//! few large messages never keep the many small ones waiting: up to [`SMALL_MESSAGE`], and beyond.
//!
//! While a pool has room a session takes from it with one atomic operation and no lock. When it is short, [`policy`]
//! says who gives way; the sessions that gave way hear of it by [`Share::gave_way`], and their clients read 452.

mod policy;
mod share;
#[cfg(test)]
mod tests;

use atomic_waker::AtomicWaker;
use policy::{Answer, Limits, Need, Round, Seen};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Messages up to this size take from the small pool.
pub const SMALL_MESSAGE: u64 = 256 * 1024;
/// The large pool, in bytes. No message may be larger.
pub const LARGE_POOL: u64 = 72 * 1024 * 1024;
const SMALL_POOL: u64 = 24 * 1024 * 1024;

const SMALL: Limits = Limits {
    room: SMALL_POOL,
    fresh_room: SMALL_POOL / 4 * 3,
    slow_after: Duration::from_millis(400),
    margin: SMALL_POOL / 32,
};
/// Uploads of many megabytes are given more time.
const LARGE: Limits =
    Limits { room: LARGE_POOL, fresh_room: LARGE_POOL, slow_after: Duration::from_secs(2), margin: 0 };

/// What a session asks for before it reads, beyond what it has, at most.
pub const READ_AHEAD: u64 = 64 * 1024 + PAGE;
/// What is held is counted in pages.
const PAGE: u64 = 4096;
/// So many bytes are progress. A session that brings them less often than [`Limits::slow_after`] is slow.
const PROGRESS: u64 = 16 * 1024;
/// How long a client waits for room.
const PATIENCE: Duration = Duration::from_secs(60);
/// A look that found nobody to give way is not repeated sooner.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often those that wait look whether others have become slow: at first, and in the end.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// The two pools, and all sessions.
pub struct Memory {
    small: Pool,
    large: Pool,
    max_message: u64,
    began: Instant,
    sessions: Mutex<Sessions>,
}

struct Pool {
    limits: Limits,
    held: AtomicU64,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Sessions {
    all: HashMap<u64, Arc<Holder>>,
    next: u64,
    /// In the order in which they came.
    waiting: Vec<Waiter>,
    /// When a look found that the small pool, or the large one, has no room for somebody.
    in_vain: [Option<Instant>; 2],
}

#[derive(Clone, Copy)]
struct Waiter {
    session: u64,
    bytes: u64,
    large: bool,
    since: u64,
}

/// One session. Times are milliseconds since the memory began.
struct Holder {
    client: IpAddr,
    key: AtomicU64,
    state: AtomicU8,
    /// It holds memory of the large pool. Written by the session, or for it while it waits.
    large: AtomicBool,
    held: AtomicU64,
    expected: AtomicU64,
    /// When progress was made, and at which count of received bytes.
    progress_at: AtomicU64,
    progress: AtomicU64,
    granted: AtomicBool,
    waker: AtomicWaker,
}

/// What one session holds. Dropped, it holds nothing.
pub struct Share<'a> {
    memory: &'a Memory,
    id: u64,
    holder: Arc<Holder>,
}

/// There was no room for as long as a client may be kept waiting, or others needed it more.
#[derive(Debug, PartialEq, Eq)]
pub struct NoRoom;

/// It holds nothing, or a little that nobody wants back.
const IDLE: u8 = 0;
const OPEN: u8 = 1;
/// Its message is whole and goes to the disk: what it holds stays.
const KEPT: u8 = 2;
const GAVE_WAY: u8 = 3;

impl Memory {
    pub fn new(max_message: u64) -> Self {
        let pool = |limits| Pool { limits, held: AtomicU64::new(0), waiting: AtomicUsize::new(0) };
        let (small, large) = (pool(SMALL), pool(LARGE));
        let (began, max_message) = (Instant::now(), max_message.min(LARGE_POOL));
        Self { small, large, max_message, began, sessions: Mutex::default() }
    }

    /// For a session of `client`, an IPv4 address or an IPv6 /64.
    pub fn share(&self, client: IpAddr) -> Share<'_> {
        let holder = Arc::new(Holder {
            client,
            key: AtomicU64::new(0),
            state: AtomicU8::new(IDLE),
            large: AtomicBool::new(false),
            held: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            progress_at: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            granted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut sessions = self.sessions();
        let id = sessions.next;
        sessions.next += 1;
        sessions.all.insert(id, Arc::clone(&holder));
        Share { memory: self, id, holder }
    }

    fn pool(&self, large: bool) -> &Pool {
        if large { &self.large } else { &self.small }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives to those that wait what they can be given now.
    fn look(&self, large: bool) {
        let mut sessions = self.sessions();
        if sessions.looked_in_vain(large) {
            return;
        }
        let (mut round, ids) = self.round(&sessions, large, None);
        let mut waiting: Vec<_> = sessions.waiting.iter().filter(|w| w.large == large).copied().collect();
        let places: HashMap<u64, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let place = |id: u64| places.get(&id).copied();
        let holds = |w: &Waiter| sessions.all.get(&w.session).map_or(0, |h| h.held.load(Ordering::Relaxed));
        // Who has the most goes on first: it will be the first to give room back.
        waiting.sort_by_cached_key(|w| {
            (place(w.session).is_some_and(|i| round.is_over_share(i)), Reverse(holds(w)), w.since)
        });
        for waiter in waiting {
            let Some(session) = place(waiter.session) else { continue };
            let waited = Duration::from_millis(self.now().saturating_sub(waiter.since));
            match round.answer(&Need { session, bytes: waiter.bytes, waited }) {
                Answer::Room(gone) => {
                    gone.iter().for_each(|gone| self.send_away(&mut sessions, ids[*gone]));
                    if !self.grant(&mut sessions, &waiter) {
                        break;
                    }
                }
                Answer::GivesWay => self.send_away(&mut sessions, waiter.session),
                Answer::Waits => {
                    sessions.in_vain[usize::from(large)] = Some(Instant::now());
                    break;
                }
            }
        }
        self.count_waiting(&sessions);
    }

    /// What is to be seen of one pool: who holds some of it, and who wants some. `asking` wants some and cannot wait.
    fn round(&self, sessions: &Sessions, large: bool, asking: Option<u64>) -> (Round, Vec<u64>) {
        let now = self.now();
        let waiting: HashMap<u64, &Waiter> = sessions.waiting.iter().map(|w| (w.session, w)).collect();
        let (mut seen, mut ids) = (Vec::new(), Vec::new());
        for (id, holder) in &sessions.all {
            let waiter = waiting.get(id);
            let is_here = holder.large.load(Ordering::Relaxed) == large;
            let held = if is_here { holder.held.load(Ordering::Relaxed) } else { 0 };
            let wants = waiter.is_some_and(|w| w.large == large);
            if held == 0 && !wants && asking != Some(*id) {
                continue;
            }
            let until = waiter.map_or(now, |w| w.since);
            seen.push(Seen {
                client: holder.client,
                key: holder.key.load(Ordering::Relaxed),
                held,
                expected: if large { holder.expected.load(Ordering::Relaxed) } else { 0 },
                age: Duration::from_millis(until.saturating_sub(holder.progress_at.load(Ordering::Relaxed))),
                open: holder.state.load(Ordering::Relaxed) == OPEN,
                waiting: waiter.is_some(),
            });
            ids.push(*id);
        }
        (Round::new(self.pool(large).limits, seen), ids)
    }

    fn send_away(&self, sessions: &mut Sessions, id: u64) {
        let Some(holder) = sessions.all.get(&id) else { return };
        // A session whose message has come whole in the meantime stays.
        if holder.state.compare_exchange(OPEN, GAVE_WAY, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            let held = holder.held.swap(0, Ordering::SeqCst);
            self.pool(holder.large.load(Ordering::Relaxed)).held.fetch_sub(held, Ordering::SeqCst);
            holder.waker.wake();
            sessions.waiting.retain(|w| w.session != id);
            metrics::counter!("trackpost_gave_way_total").increment(1);
        }
    }

    /// Takes for one that waits, and lets it go on. False if others were faster.
    fn grant(&self, sessions: &mut Sessions, waiter: &Waiter) -> bool {
        let Some(holder) = sessions.all.get(&waiter.session) else { return true };
        if !self.raise(holder, waiter.bytes, waiter.large) {
            return false;
        }
        holder.pardon(self.now().saturating_sub(waiter.since));
        holder.granted.store(true, Ordering::SeqCst);
        holder.waker.wake();
        sessions.waiting.retain(|w| w.session != waiter.session);
        true
    }

    /// Makes a session, which waits for this, hold `bytes` of a pool.
    fn raise(&self, holder: &Holder, bytes: u64, large: bool) -> bool {
        let held = holder.held.load(Ordering::SeqCst);
        let changes = holder.large.load(Ordering::Relaxed) != large;
        let more = if changes { bytes } else { bytes.saturating_sub(held) };
        if !self.pool(large).take(more, self.pool(large).limits.room) {
            return false;
        }
        if changes {
            self.pool(!large).held.fetch_sub(held, Ordering::SeqCst);
            holder.large.store(large, Ordering::SeqCst);
        }
        holder.held.store(bytes.max(if changes { 0 } else { held }), Ordering::SeqCst);
        holder.open();
        true
    }

    fn count_waiting(&self, sessions: &Sessions) {
        for large in [false, true] {
            let count = sessions.waiting.iter().filter(|w| w.large == large).count();
            self.pool(large).waiting.store(count, Ordering::SeqCst);
        }
    }

    /// After a session gave something back.
    fn gave_back(&self, large: bool) {
        if self.pool(large).waiting.load(Ordering::SeqCst) > 0 {
            self.look(large);
        }
    }
}

impl Pool {
    fn take(&self, bytes: u64, limit: u64) -> bool {
        let taken = self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |held| {
            held.checked_add(bytes).filter(|held| *held <= limit)
        });
        taken.is_ok()
    }
}

impl Sessions {
    fn looked_in_vain(&self, large: bool) -> bool {
        self.in_vain[usize::from(large)].is_some_and(|at| at.elapsed() < LOOK_AGAIN)
    }
}

impl Holder {
    /// What it holds may be taken back. One that gave way stays so until it says that it knows.
    fn open(&self) {
        let _ = self.state.compare_exchange(IDLE, OPEN, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// While it waited for us it was not slow.
    fn pardon(&self, waited: u64) {
        self.progress_at.fetch_add(waited, Ordering::Relaxed);
    }

    fn gave_way(&self) -> bool {
        self.state.load(Ordering::SeqCst) == GAVE_WAY
    }
}
