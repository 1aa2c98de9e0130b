//! By which time history is forgotten: the clock's, as long as it can be believed.
//!
//! A clock that is set wrong must not take the history with it. So what it says is compared with what it said before and
//! the time that has passed since, by a clock that nobody sets. Where it is ahead by more than [`MOST_AHEAD_MS`], it is
//! not believed until it has gone on from there for [`STAYED_MS`]: a machine that was off for weeks forgets a day later
//! than it might. Until then the time goes on from where it was. A clock that was set back is believed at once, as it
//! only keeps history for longer.

use serde::{Deserialize, Serialize};

/// Milliseconds that the clock may be ahead of what it should say.
pub(super) const MOST_AHEAD_MS: u64 = 48 * 3_600_000;
/// Milliseconds for which a clock that is further ahead must go on evenly.
pub(super) const STAYED_MS: u64 = 24 * 3_600_000;
/// What a clock that goes on evenly may differ by between two looks.
const UNEVEN_MS: u64 = 3_600_000;

/// What is kept of it over a restart. All are milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The last time that was believed; 0: none yet.
    pub believed: u64,
    /// When a clock that is not believed was first and last looked at; 0: it is believed.
    pub first: u64,
    pub last: u64,
}

/// The time, as far as it can be believed.
#[derive(Debug)]
pub(super) struct Today {
    kept: Kept,
    /// When that was looked at, by the clock that nobody sets; `None` before the first look.
    looked: Option<u64>,
}

/// What a look at the clock has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Believed,
    /// It is further ahead than it may be, as was seen now for the first time. It should have said this.
    Ahead(u64),
    /// As it was before.
    StillAhead,
    /// It was ahead, and has gone on from there for long enough.
    Accepted,
}

impl Today {
    pub fn new(kept: Kept) -> Self {
        Self { kept, looked: None }
    }

    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// The time now, for a clock that says `wall`, at `steady` milliseconds of one that nobody sets.
    pub fn look(&mut self, wall: u64, steady: u64) -> (u64, Look) {
        let is_first = self.looked.is_none();
        let passed = self.looked.replace(steady).map_or(0, |looked| steady.saturating_sub(looked));
        let Kept { believed, first, last } = self.kept;
        let expected = believed.saturating_add(passed);
        if believed == 0 || wall <= expected.saturating_add(MOST_AHEAD_MS) {
            self.kept = Kept { believed: wall, first: 0, last: 0 };
            return (wall, Look::Believed);
        }
        // After a start it may have gone on meanwhile.
        let (least, most) = (last.saturating_sub(UNEVEN_MS), last.saturating_add(passed).saturating_add(UNEVEN_MS));
        let most = if is_first { most.max(last.saturating_add(MOST_AHEAD_MS)) } else { most };
        if first == 0 || !(least..=most).contains(&wall) {
            self.kept = Kept { believed: expected, first: wall, last: wall };
            return (expected, Look::Ahead(expected));
        }
        if wall.saturating_sub(first) >= STAYED_MS {
            self.kept = Kept { believed: wall, first: 0, last: 0 };
            return (wall, Look::Accepted);
        }
        self.kept = Kept { believed: expected, first, last: wall };
        (expected, Look::StillAhead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const NOW: u64 = 20_000 * DAY;

    fn at(believed: u64) -> Today {
        Today::new(Kept { believed, ..Kept::default() })
    }

    #[test]
    fn a_clock_that_goes_on_is_believed_and_one_set_back_too() {
        let mut today = at(0);
        for (wall, steady) in [(NOW, 0), (NOW + HOUR, HOUR), (NOW + HOUR + DAY, 2 * HOUR), (NOW - 400 * DAY, 3 * HOUR)]
        {
            assert_eq!(today.look(wall, steady), (wall, Look::Believed));
        }
    }

    #[test]
    fn a_jump_ahead_is_not_believed_before_a_day_has_passed() {
        let ahead = NOW + 401 * DAY;
        let mut today = at(NOW);
        assert_eq!(today.look(NOW, 0), (NOW, Look::Believed));
        assert_eq!(today.look(ahead, HOUR), (NOW + HOUR, Look::Ahead(NOW + HOUR)));
        for hours in 2..25 {
            assert_eq!(today.look(ahead + (hours - 1) * HOUR, hours * HOUR), (NOW + hours * HOUR, Look::StillAhead));
        }
        assert_eq!(today.look(ahead + DAY, 25 * HOUR), (ahead + DAY, Look::Accepted));
        assert_eq!(today.look(ahead + DAY + 1, 25 * HOUR + 1), (ahead + DAY + 1, Look::Believed));
    }

    #[test]
    fn a_clock_that_is_set_right_again_is_believed_at_once() {
        let mut today = at(NOW);
        assert_eq!(today.look(NOW + 401 * DAY, 0).1, Look::Ahead(NOW));
        assert_eq!(today.look(NOW + HOUR, HOUR), (NOW + HOUR, Look::Believed));
        assert_eq!(today.kept(), Kept { believed: NOW + HOUR, first: 0, last: 0 });
    }

    #[test]
    fn a_clock_that_jumps_about_is_never_believed() {
        let mut today = at(NOW);
        for step in 1..100 {
            let (time, look) = today.look(NOW + step * 10 * DAY, step * HOUR);
            assert_eq!((time, look), (NOW + (step - 1) * HOUR, Look::Ahead(NOW + (step - 1) * HOUR)));
        }
    }

    #[test]
    fn a_start_goes_on_with_what_was_kept() {
        let ahead = NOW + 30 * DAY;
        let mut today = at(NOW);
        assert_eq!(today.look(ahead, 0).1, Look::Ahead(NOW));
        assert_eq!(today.look(ahead + 12 * HOUR, 12 * HOUR).1, Look::StillAhead);
        let mut again = Today::new(today.kept());
        assert_eq!(again.look(ahead + 20 * HOUR, 0), (NOW + 12 * HOUR, Look::StillAhead));
        assert_eq!(again.look(ahead + 25 * HOUR, 5 * HOUR).1, Look::Accepted);
        // Off by more than that: from the beginning.
        let mut other = Today::new(today.kept());
        assert_eq!(other.look(ahead + 60 * DAY, 0), (NOW + 12 * HOUR, Look::Ahead(NOW + 12 * HOUR)));
    }
}
