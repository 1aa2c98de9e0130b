//! The wall clock and the dice, for the shells. The core takes both as arguments.

use crate::mail::QueueId;
use std::time::{SystemTime, UNIX_EPOCH};

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
