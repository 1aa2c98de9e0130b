//! Since when entries for which nobody waits cannot be written. Delivery asks before each transaction, so this is read
//! without a lock: what goes out while its outcome cannot be kept goes out again after the next start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an entry may lie in memory before the disk counts as stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Milliseconds since `opened`, and one more; 0 is never.
#[derive(Debug)]
pub(super) struct Stuck {
    opened: Instant,
    /// Since when writing fails, until a sync covers all that had failed.
    failing: AtomicU64,
    /// Since when the oldest entry lies in the queue, or in the writer's hand.
    waiting: AtomicU64,
    /// Since when the disk works on a sync. What is written meanwhile outlives the process, and not the machine.
    syncing: AtomicU64,
}

impl Default for Stuck {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            failing: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            syncing: AtomicU64::new(0),
        }
    }
}

impl Stuck {
    pub fn fails(&self) {
        let now = self.stamp(Instant::now());
        // One that fails already keeps its time.
        let _ = self.failing.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub fn works(&self) {
        self.failing.store(0, Ordering::Relaxed);
    }

    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) != 0
    }

    pub fn waits(&self, since: Option<Instant>) {
        self.waiting.store(since.map_or(0, |since| self.stamp(since)), Ordering::Relaxed);
    }

    pub fn syncs(&self, since: Option<Instant>) {
        self.syncing.store(since.map_or(0, |since| self.stamp(since)), Ordering::Relaxed);
    }

    /// How long it has been so: from the first failure, or where an entry, or a sync, waits for longer than
    /// [`PATIENCE`].
    pub fn since(&self) -> Option<Duration> {
        let (failing, waiting) = (self.failing.load(Ordering::Relaxed), self.waiting.load(Ordering::Relaxed));
        let syncing = self.syncing.load(Ordering::Relaxed);
        if failing == 0 && waiting == 0 && syncing == 0 {
            return None;
        }
        let now = self.stamp(Instant::now());
        let age = |stamp: u64| (stamp != 0).then(|| Duration::from_millis(now.saturating_sub(stamp)));
        age(failing).max(age(waiting).max(age(syncing)).filter(|age| *age > PATIENCE))
    }

    fn stamp(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}
