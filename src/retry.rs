//! When a deferred recipient is tried again, and when to give up. Pure: the clock and the dice are arguments.
//!
//! Age is not read off the clock, which jumps: it is carried along, and each attempt adds the time since the one
//! before, at most twice the pause that was scheduled. So a clock that is set forward by a month makes nothing a month
//! old, one that is set back makes nothing younger, and nothing is given up but right after an attempt.

use std::time::Duration;

/// `[queue]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Pauses after the first, second, … failed attempt; the last one repeats. Never empty.
    pub pauses: Vec<Duration>,
    /// Age at which a recipient is given up.
    pub max_age: Duration,
}

/// What follows a failed attempt. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    RetryAfter { pause: u64, age: u64 },
    GiveUp,
}

/// What is known when an attempt has failed for the time being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// Age at the attempt before, in milliseconds; 0 at the first.
    pub age: u64,
    /// Milliseconds since the attempt before, or since acceptance, as the clock says.
    pub since: u64,
    /// A random number, which spreads the pause by up to an eighth, so that what failed together does not come back
    /// together.
    pub dice: u32,
}

impl Schedule {
    /// The pause after attempt number `attempts` (from 1), in milliseconds and without spread.
    pub fn pause(&self, attempts: u32) -> u64 {
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let last = self.pauses.len().saturating_sub(1);
        let pause = self.pauses.get(place.min(last)).copied().unwrap_or(Duration::from_secs(60));
        u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
    }

    /// The longest time that a recipient which failed `attempts` times may have to wait.
    pub fn longest_pause(&self, attempts: u32) -> u64 {
        let pause = self.pause(attempts);
        pause + pause / 8
    }
}

/// Decides after an attempt failed for the time being.
pub fn after_failure(schedule: &Schedule, failure: &Failure) -> Next {
    let grown = failure.since.min(2 * schedule.pause(failure.attempts.saturating_sub(1).max(1)));
    let age = failure.age.saturating_add(grown);
    let max_age = u64::try_from(schedule.max_age.as_millis()).unwrap_or(u64::MAX);
    if age >= max_age {
        return Next::GiveUp;
    }
    let pause = schedule.pause(failure.attempts);
    let spread = pause / 8;
    let jitter = if spread == 0 { 0 } else { u64::from(failure.dice) % (spread + 1) };
    // The last attempt comes when the time is up, not a pause later.
    Next::RetryAfter { pause: (pause + jitter).min(max_age - age), age }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        Schedule { pauses: vec![Duration::from_secs(60), Duration::from_secs(300)], max_age: Duration::from_secs(3600) }
    }

    fn failed(attempts: u32, age: u64, since: u64, dice: u32) -> Next {
        after_failure(&schedule(), &Failure { attempts, age, since, dice })
    }

    #[test]
    fn pauses_grow_and_the_last_repeats() {
        for (attempts, pause) in [(1, 60_000), (2, 300_000), (3, 300_000), (99, 300_000)] {
            assert_eq!(failed(attempts, 0, 1_000, 0), Next::RetryAfter { pause, age: 1_000 });
            let Next::RetryAfter { pause: late, .. } = failed(attempts, 0, 1_000, u32::MAX) else { panic!() };
            assert!((pause..=pause + pause / 8).contains(&late));
        }
    }

    #[test]
    fn the_last_attempt_is_at_the_end_of_the_time() {
        assert_eq!(failed(9, 3_000_000, 300_000, 0), Next::RetryAfter { pause: 300_000, age: 3_300_000 });
        assert_eq!(failed(9, 3_000_000, 500_000, 0), Next::RetryAfter { pause: 100_000, age: 3_500_000 });
        assert_eq!(failed(10, 3_500_000, 100_000, 0), Next::GiveUp);
    }

    #[test]
    fn a_clock_that_jumps_adds_twice_the_pause_at_most() {
        let forty_days = 40 * 24 * 3_600_000;
        assert_eq!(failed(1, 0, forty_days, 0), Next::RetryAfter { pause: 60_000, age: 120_000 });
        assert_eq!(failed(2, 0, forty_days, 0), Next::RetryAfter { pause: 300_000, age: 120_000 });
        assert_eq!(failed(3, 0, forty_days, 0), Next::RetryAfter { pause: 300_000, age: 600_000 });
        assert_eq!(failed(3, 5, 0, 0), Next::RetryAfter { pause: 300_000, age: 5 });
    }
}
