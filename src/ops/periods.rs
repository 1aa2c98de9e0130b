//! From dates as callers write them to the hours that are counted. Pure: the time is an argument, and zones are those
//! that are compiled in.
//!
//! Counts are kept by the hour of UTC. A window takes the hours that begin in it, and so does each of its periods:
//! where a zone is half an hour off, a day begins with the first hour after its midnight. So periods that follow each
//! other share no hour and leave none out.

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use std::fmt;
use std::ops::Range;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    Hourly,
    Daily,
    /// From Monday on (ISO 8601).
    Weekly,
    Monthly,
}

/// One period of a window; the first and the last may be cut by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// Its first day in the window's zone, `2026-07-01`; of an hour its beginning, `2026-07-01T10:00:00+02:00`.
    pub name: String,
    /// Hours since 1970.
    pub hours: Range<u32>,
}

/// From when to when something is asked, and whose days count.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    start: Timestamp,
    end: Timestamp,
    zone: TimeZone,
    /// Nobody said from when on.
    is_open: bool,
}

/// Why there is no such window. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeriodError {
    /// No IANA time zone.
    Zone(String),
    /// No ISO 8601 date or time.
    Date(String),
    /// It ends before it starts, or then.
    Backwards,
    /// More than [`MAX_PERIODS`].
    TooMany,
}

pub const MAX_PERIODS: usize = 10_000;
/// Days before the last one, where nobody says from when on.
const DEFAULT_DAYS: i64 = 6;
const HOUR_MS: i64 = 3_600_000;

impl Granularity {
    pub const ALL: [Self; 4] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly];

    pub fn name(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// The day on which the period begins that holds `day`.
    fn first_day(self, day: Date) -> Option<Date> {
        match self {
            Self::Hourly | Self::Daily => Some(day),
            Self::Weekly => day.checked_sub(i64::from(day.weekday().since(Weekday::Monday)).days()).ok(),
            Self::Monthly => Some(day.first_of_month()),
        }
    }

    fn next_day(self, day: Date) -> Option<Date> {
        let step = match self {
            Self::Hourly | Self::Daily => 1.day(),
            Self::Weekly => 7.days(),
            Self::Monthly => 1.month(),
        };
        day.checked_add(step).ok()
    }
}

impl Window {
    /// `start` and `end` are ISO 8601 dates or times. A day is one of `zone` (UTC if not given), and as an end it is
    /// included; so is a time without an offset one of the zone. Without `end` it is `now` (milliseconds since 1970),
    /// without `start` the beginning of the day six days before the end.
    pub fn new(start: Option<&str>, end: Option<&str>, zone: Option<&str>, now: u64) -> Result<Self, PeriodError> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| PeriodError::Zone(name.to_owned()))?,
        };
        let end = match end {
            None => timestamp(now),
            Some(text) => moment(text, &zone, true).ok_or_else(|| PeriodError::Date(text.to_owned()))?,
        };
        let is_open = start.is_none();
        let start = match start {
            // The last moment of an end that is a midnight is one of the day before.
            None => days_before(end, DEFAULT_DAYS, &zone).ok_or(PeriodError::Backwards)?,
            Some(text) => moment(text, &zone, false).ok_or_else(|| PeriodError::Date(text.to_owned()))?,
        };
        if start >= end {
            return Err(PeriodError::Backwards);
        }
        Ok(Self { start, end, zone, is_open })
    }

    /// The last `days` days of UTC, today included.
    pub fn of_days(days: u32, now: u64) -> Result<Self, PeriodError> {
        let end = timestamp(now);
        let start = days_before(end, i64::from(days.saturating_sub(1)), &TimeZone::UTC);
        let start = start.filter(|start| *start < end).ok_or(PeriodError::Backwards)?;
        Ok(Self { start, end, zone: TimeZone::UTC, is_open: false })
    }

    /// Where nobody said from when on: begin with the day of `at` (milliseconds since 1970), if that is earlier.
    pub fn reach_back_to(&mut self, at: u64) {
        let day = days_before(timestamp(at.saturating_add(1)), 0, &self.zone);
        if let Some(day) = day.filter(|day| self.is_open && *day < self.start) {
            self.start = day;
        }
    }

    pub fn start(&self) -> Timestamp {
        self.start
    }

    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// The hours that begin in it, since 1970.
    pub fn hours(&self) -> Range<u32> {
        hour_from(self.start)..hour_from(self.end)
    }

    /// Its periods, in order and without gaps.
    pub fn periods(&self, granularity: Granularity) -> Result<Vec<Period>, PeriodError> {
        let mut periods = Vec::new();
        let mut boundaries = match granularity {
            Granularity::Hourly => Boundaries::Hours(self.first_hour()),
            _ => Boundaries::Days(granularity.first_day(self.start.to_zoned(self.zone.clone()).date())),
        };
        let whole = self.hours();
        let mut next = self.boundary(&boundaries);
        while let Some((begins, name)) = next.filter(|(begins, _)| *begins < self.end) {
            if periods.len() == MAX_PERIODS {
                return Err(PeriodError::TooMany);
            }
            boundaries.step(granularity);
            next = self.boundary(&boundaries);
            let ends = next.as_ref().map_or(self.end, |(at, _)| *at);
            let from = hour_from(begins).max(whole.start);
            periods.push(Period { name, hours: from..hour_from(ends).min(whole.end).max(from) });
        }
        Ok(periods)
    }

    /// The beginning of the hour, as the zone's clocks show it, in which the window begins.
    fn first_hour(&self) -> Timestamp {
        let local = self.start.to_zoned(self.zone.clone());
        let into = i64::from(local.minute()) * 60_000 + i64::from(local.second()) * 1_000;
        let into = into + i64::from(local.millisecond());
        Timestamp::from_millisecond(self.start.as_millisecond() - into).unwrap_or(self.start)
    }

    /// When the next period begins, and its name; nothing where the calendar ends.
    fn boundary(&self, at: &Boundaries) -> Option<(Timestamp, String)> {
        match at {
            Boundaries::Hours(at) => {
                let local = at.to_zoned(self.zone.clone());
                Some((*at, local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()))
            }
            Boundaries::Days(day) => {
                let day = (*day)?;
                Some((day.to_zoned(self.zone.clone()).ok()?.timestamp(), day.to_string()))
            }
        }
    }
}

/// Where periods begin.
enum Boundaries {
    Hours(Timestamp),
    /// Nothing where the calendar ends.
    Days(Option<Date>),
}

impl Boundaries {
    fn step(&mut self, granularity: Granularity) {
        match self {
            Self::Hours(at) => *at = at.checked_add(1.hour()).unwrap_or(Timestamp::MAX),
            Self::Days(day) => *day = day.and_then(|day| granularity.next_day(day)),
        }
    }
}

fn timestamp(unix_ms: u64) -> Timestamp {
    i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// The beginning of the day `days` days before the last one that has begun at `end`.
fn days_before(end: Timestamp, days: i64, zone: &TimeZone) -> Option<Timestamp> {
    let last = Timestamp::from_millisecond(end.as_millisecond() - 1).ok()?.to_zoned(zone.clone()).date();
    Some(last.checked_sub(days.days()).ok()?.to_zoned(zone.clone()).ok()?.timestamp())
}

/// The first hour since 1970 that begins at `at` or later.
fn hour_from(at: Timestamp) -> u32 {
    u32::try_from(at.as_millisecond().saturating_add(HOUR_MS - 1).div_euclid(HOUR_MS).max(0)).unwrap_or(u32::MAX)
}

fn moment(text: &str, zone: &TimeZone, is_end: bool) -> Option<Timestamp> {
    if !text.contains(['T', 't', ' ']) {
        let day: Date = text.parse().ok()?;
        let day = if is_end { day.tomorrow().ok()? } else { day };
        return Some(day.to_zoned(zone.clone()).ok()?.timestamp());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    // A plus that was not escaped in a URL arrives as a space.
    if let Some((time, offset)) = text.rsplit_once(' ').filter(|(time, _)| time.contains(['T', 't'])) {
        return format!("{time}+{offset}").parse().ok();
    }
    Some(text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok()?.timestamp())
}

impl fmt::Display for PeriodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(name) => write!(f, "{name:?} is no IANA time zone"),
            Self::Date(text) => write!(f, "{text:?} is no ISO 8601 date or time"),
            Self::Backwards => f.write_str("the range must end after it starts"),
            Self::TooMany => {
                write!(f, "there are over {MAX_PERIODS} periods: give a shorter range or longer periods")
            }
        }
    }
}

impl std::error::Error for PeriodError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24 10:30 UTC, a Tuesday.
    const NOW: u64 = 1_795_516_200_000;

    fn window(start: &str, end: &str, zone: &str) -> Window {
        Window::new(Some(start), Some(end), Some(zone), NOW).unwrap()
    }

    fn hour(text: &str) -> u32 {
        u32::try_from(text.parse::<Timestamp>().unwrap().as_millisecond() / HOUR_MS).unwrap()
    }

    fn names(window: &Window, granularity: Granularity) -> Vec<String> {
        window.periods(granularity).unwrap().into_iter().map(|period| period.name).collect()
    }

    #[test]
    fn seven_days_unless_somebody_says_more() {
        let mut week = Window::new(None, None, None, NOW).unwrap();
        assert_eq!(week.start().to_string(), "2026-11-18T00:00:00Z");
        assert_eq!(week.end().to_string(), "2026-11-24T10:30:00Z");
        assert_eq!(names(&week, Granularity::Daily).len(), 7);
        assert_eq!(week.hours(), hour("2026-11-18T00:00:00Z")..hour("2026-11-24T11:00:00Z"));
        week.reach_back_to(NOW - 86_400_000);
        assert_eq!(week.start().to_string(), "2026-11-18T00:00:00Z");
        week.reach_back_to(NOW - 10 * 86_400_000);
        assert_eq!(week.start().to_string(), "2026-11-14T00:00:00Z");
        let mut said = window("2026-11-20", "2026-11-21", "UTC");
        said.reach_back_to(0);
        assert_eq!(said.start().to_string(), "2026-11-20T00:00:00Z");
        let of_days = Window::of_days(3, NOW).unwrap();
        assert_eq!(names(&of_days, Granularity::Daily), ["2026-11-22", "2026-11-23", "2026-11-24"]);
        let to = Window::new(None, Some("2026-11-10"), Some("Europe/Berlin"), NOW).unwrap();
        assert_eq!(to.start().to_string(), "2026-11-03T23:00:00Z");
    }

    #[test]
    fn dates_and_times() {
        for (start, end, zone, hours) in [
            ("2026-11-01", "2026-11-01", "UTC", 24),
            ("2026-11-01T10:00:00Z", "2026-11-01T12:00:00Z", "UTC", 2),
            // Hours that begin within.
            ("2026-11-01T10:30:00Z", "2026-11-01T12:30:00Z", "UTC", 2),
            ("2026-11-01T10:00:00+02:00", "2026-11-01T12:00:00 02:00", "UTC", 2),
            ("2026-11-01T10:00:00", "2026-11-01T11:00:00Z", "Europe/Berlin", 2),
            ("2026-11-01 10:00:00", "2026-11-01", "UTC", 14),
            // Clocks go forward, and back.
            ("2026-03-29", "2026-03-29", "Europe/Berlin", 23),
            ("2026-10-25", "2026-10-25", "Europe/Berlin", 25),
            // Half an hour off.
            ("2026-11-01", "2026-11-01", "Asia/Kolkata", 24),
            // Midnight that is not there (1 a.m. is the first moment).
            ("2024-04-26", "2024-04-26", "Africa/Cairo", 23),
            ("1900-01-01", "1970-01-01", "UTC", 24),
        ] {
            let window = window(start, end, zone);
            assert_eq!(window.hours().len(), hours, "{start} {end} {zone}");
        }
        for (start, end, zone, error) in [
            ("2026-11-02", "2026-11-01", "UTC", PeriodError::Backwards),
            ("2026-11-02T00:00:00Z", "2026-11-02T00:00:00Z", "UTC", PeriodError::Backwards),
            ("yesterday", "2026-11-01", "UTC", PeriodError::Date("yesterday".into())),
            ("2026-11-01", "2026-11-31", "UTC", PeriodError::Date("2026-11-31".into())),
            ("2026-11-01", "9999-12-31", "UTC", PeriodError::Date("9999-12-31".into())),
            ("", "2026-11-01", "UTC", PeriodError::Date(String::new())),
            ("2026-11-01T25:00:00Z", "2026-11-02", "UTC", PeriodError::Date("2026-11-01T25:00:00Z".into())),
            ("2026-11-01", "2026-11-02", "Europe/Atlantis", PeriodError::Zone("Europe/Atlantis".into())),
            ("2026-11-01", "2026-11-02", "", PeriodError::Zone(String::new())),
        ] {
            assert_eq!(Window::new(Some(start), Some(end), Some(zone), NOW), Err(error), "{start} {end} {zone}");
        }
    }

    #[test]
    fn periods_begin_as_the_calendar_says() {
        let weeks = window("2026-07-01", "2026-07-13", "UTC");
        assert_eq!(names(&weeks, Granularity::Weekly), ["2026-06-29", "2026-07-06", "2026-07-13"]);
        let first = &weeks.periods(Granularity::Weekly).unwrap()[0];
        assert_eq!(first.hours.len(), 5 * 24, "cut by the window's start");
        let months = window("2026-01-31", "2026-03-01", "America/New_York");
        assert_eq!(names(&months, Granularity::Monthly), ["2026-01-01", "2026-02-01", "2026-03-01"]);
        let hours = window("2026-10-25T01:30:00", "2026-10-25T04:00:00", "Europe/Berlin");
        assert_eq!(
            names(&hours, Granularity::Hourly),
            [
                "2026-10-25T01:00:00+02:00",
                "2026-10-25T02:00:00+02:00",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T03:00:00+01:00"
            ]
        );
        let india = window("2026-11-01", "2026-11-02", "Asia/Kolkata").periods(Granularity::Daily).unwrap();
        assert_eq!(india[0].hours, hour("2026-10-31T19:00:00Z")..hour("2026-11-01T19:00:00Z"));
        let india = window("2026-11-01", "2026-11-01", "Asia/Kolkata").periods(Granularity::Hourly).unwrap();
        assert_eq!((india.len(), &*india[1].name), (24, "2026-11-01T01:00:00+05:30"));
    }

    #[test]
    fn periods_share_no_hour_and_leave_none_out() {
        for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo"] {
            let window = window("2011-12-20", "2012-04-10T07:45:00", zone);
            for granularity in Granularity::ALL {
                let mut at = window.hours().start;
                for period in window.periods(granularity).unwrap() {
                    assert_eq!(period.hours.start, at, "{zone} {granularity:?} {}", period.name);
                    at = period.hours.end;
                }
                assert_eq!(at, window.hours().end, "{zone} {granularity:?}");
            }
        }
    }

    #[test]
    fn there_may_be_ten_thousand() {
        let hours = |end: &str| window("2026-01-01T00:00:00Z", end, "UTC").periods(Granularity::Hourly);
        assert_eq!(hours("2027-02-21T16:00:00Z").unwrap().len(), MAX_PERIODS);
        assert_eq!(hours("2027-02-21T16:00:01Z"), Err(PeriodError::TooMany));
        let long = window("0001-01-01", "9999-12-28", "Europe/Berlin");
        assert_eq!(long.periods(Granularity::Daily), Err(PeriodError::TooMany));
    }
}
