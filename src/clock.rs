//! The wall clock and the dice, for the shells. The core takes both as arguments.

use crate::mail::QueueId;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 where the clock is set before that.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A new queue id of this moment.
pub fn queue_id() -> QueueId {
    QueueId::new(unix_ms(), random())
}

/// Random bytes of the operating system.
///
/// # Panics
/// Where the system has none to give, which on Linux is before its generator is seeded at boot: nothing that needs
/// unguessable ids may go on then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Milliseconds since 1970 as they were at the start of the process, and on from there at the pace of time: it never
/// jumps. For pauses and due times; what people read is [`unix_ms`].
pub fn steady_ms() -> u64 {
    static BEGAN: OnceLock<(u64, Instant)> = OnceLock::new();
    let (wall, began) = BEGAN.get_or_init(|| (unix_ms(), Instant::now()));
    wall.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// What the clock will say at a time of [`steady_ms`].
pub fn wall_of(steady: u64) -> u64 {
    let (wall, now) = (unix_ms(), steady_ms());
    // The two are read one after the other: what differs by less was not set.
    if wall.abs_diff(now) < 1_000 { steady } else { steady.saturating_sub(now).saturating_add(wall) }
}
