//! When a deferred recipient is tried again, and when to give up. Pure: the clock and the dice are arguments.

use std::time::Duration;

/// `[queue]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Pauses after the first, second, … failed attempt; the last one repeats. Never empty.
    pub pauses: Vec<Duration>,
    /// Age at which a recipient is given up.
    pub max_age: Duration,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Milliseconds since 1970.
    RetryAt(u64),
    GiveUp,
}

/// Decides after attempt number `attempts` (from 1) failed for the time being.
///
/// `accepted` and `now` are milliseconds since 1970; `dice` is a random number that spreads the pause by up to an
/// eighth, so that what failed together does not come back together. A clock that was set back makes no message
/// older than it is.
pub fn after_failure(schedule: &Schedule, accepted: u64, now: u64, attempts: u32, dice: u32) -> Next {
    let age = Duration::from_millis(now.saturating_sub(accepted));
    if age >= schedule.max_age {
        return Next::GiveUp;
    }
    let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let last = schedule.pauses.len().saturating_sub(1);
    let pause = schedule.pauses.get(place.min(last)).copied().unwrap_or(Duration::from_secs(60));
    let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 4);
    let spread = pause / 8;
    let jitter = if spread == 0 { 0 } else { u64::from(dice) % (spread + 1) };
    Next::RetryAt(now.saturating_add(pause).saturating_add(jitter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_the_last_repeats() {
        let schedule = Schedule {
            pauses: vec![Duration::from_secs(60), Duration::from_secs(300)],
            max_age: Duration::from_secs(3600),
        };
        for (attempts, pause) in [(1, 60_000), (2, 300_000), (3, 300_000), (99, 300_000)] {
            assert_eq!(after_failure(&schedule, 0, 1_000, attempts, 0), Next::RetryAt(1_000 + pause));
            let Next::RetryAt(late) = after_failure(&schedule, 0, 1_000, attempts, u32::MAX) else { panic!() };
            assert!((1_000 + pause..=1_000 + pause + pause / 8).contains(&late));
        }
        assert_eq!(after_failure(&schedule, 0, 3_600_000, 3, 0), Next::GiveUp);
        assert_eq!(after_failure(&schedule, 5_000, 0, 1, 0), Next::RetryAt(60_000));
    }
}
