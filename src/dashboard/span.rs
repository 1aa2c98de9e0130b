//! The range of time that somebody asks for, the periods it is shown in, and how these are called.
//!
//! Everything is UTC, which the pages say. Periods get longer where there would be more than a plot can show.

use super::form::Form;
use super::words;
use crate::ops::{Granularity, Window};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};

/// A range of time as it was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub window: Window,
    pub by: Granularity,
    /// Periods were asked for; else they are chosen by the length of the range.
    pub is_by_choice: bool,
    /// The name of the range, where it is one of [`RANGES`].
    pub last: Option<&'static str>,
    /// Why periods are longer than was asked for.
    pub note: Option<String>,
}

/// What is wrong with a range, and in which field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSpan {
    pub field: &'static str,
    pub text: String,
}

/// Ranges that end now: as an address says it, as people do, and the days of UTC they have (none: hours).
pub const RANGES: [(&str, &str, Option<u32>); 4] =
    [("24h", "24 hours", None), ("7d", "7 days", Some(7)), ("30d", "30 days", Some(30)), ("90d", "90 days", Some(90))];
/// Where nobody says which.
const USUAL: (&str, Option<u32>) = ("7d", Some(7));

/// Periods as an address says them, with what people call them.
pub const PERIODS: [(&str, &str, Granularity); 4] = [
    ("hour", "Hours", Granularity::Hourly),
    ("day", "Days", Granularity::Daily),
    ("week", "Weeks", Granularity::Weekly),
    ("month", "Months", Granularity::Monthly),
];

/// Periods of one plot: as many as its picture stays small with and a screen still shows apart.
pub const MOST_PERIODS: usize = 250;
/// Days of one range.
const MOST_DAYS: u32 = 5 * 366;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

impl Span {
    /// Reads `from` and `to` (days, both included), else `last`; and `by`.
    pub fn read(asked: &Form, now: u64) -> Result<Self, WrongSpan> {
        let (from, to) = (asked.text("from"), asked.text("to"));
        let (window, last) = match (from, to) {
            ("", "") => {
                let known = RANGES.into_iter().find(|(name, ..)| *name == asked.text("last"));
                let (name, days) = known.map_or(USUAL, |(name, _, days)| (name, days));
                (ending_now(days, now), Some(name))
            }
            _ => (between(from, to, now)?, None),
        };
        let hours = window.hours().len();
        if hours > MOST_DAYS as usize * 24 {
            let text = "A range can have five years at most: give a later day to begin with.".to_owned();
            return Err(WrongSpan { field: "from", text });
        }
        let chosen = PERIODS.into_iter().find(|(name, ..)| *name == asked.text("by")).map(|(.., by)| by);
        let usual = match hours {
            0..=50 => Granularity::Hourly,
            51..=3_000 => Granularity::Daily,
            3_001..=20_000 => Granularity::Weekly,
            _ => Granularity::Monthly,
        };
        let asked_by = chosen.unwrap_or(usual);
        let from = PERIODS.iter().position(|(.., by)| *by == asked_by).unwrap_or(0);
        let fits = |by: &Granularity| window.periods(*by).is_ok_and(|periods| periods.len() <= MOST_PERIODS);
        let by = PERIODS[from..].iter().map(|(.., by)| *by).find(fits).unwrap_or(Granularity::Monthly);
        let note = (by != asked_by).then(|| {
            format!("{} of this range are too many for one plot, so these are {}.", name(asked_by), lower(by))
        });
        Ok(Self { window, by, is_by_choice: chosen.is_some(), last, note })
    }

    /// As fields of an address: what makes the same range again.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = match self.last {
            Some(last) => vec![("last", last.to_owned())],
            None => vec![("from", self.first_day().to_string()), ("to", self.last_day().to_string())],
        };
        let by = PERIODS.iter().find(|(.., by)| self.is_by_choice && *by == self.by);
        fields.extend(by.map(|(name, ..)| ("by", (*name).to_owned())));
        fields
    }

    pub fn first_day(&self) -> Date {
        day_of(self.window.start())
    }

    /// The last day that has hours in it.
    pub fn last_day(&self) -> Date {
        day_of(self.window.end().checked_sub(1.millisecond()).unwrap_or(Timestamp::MIN))
    }

    /// `18 Nov 2026 to 24 Nov 2026`, and what it was asked for as.
    pub fn said(&self) -> String {
        let (first, last) = (self.first_day(), self.last_day());
        let days = if first == last { long(first) } else { format!("{} to {}", long(first), long(last)) };
        match RANGES.iter().find(|(name, ..)| Some(*name) == self.last) {
            Some((_, name, _)) => format!("last {name} ({days})"),
            None => days,
        }
    }
}

fn ending_now(days: Option<u32>, now: u64) -> Window {
    let Some(days) = days else { return last_two_days(now).0 };
    // Only a clock near the beginning or the end of time has none.
    Window::of_days(days, now).unwrap_or_else(|_| usual_window())
}

/// The first day of 1970, of which there is nothing.
fn usual_window() -> Window {
    Window::of_days(1, DAY_MS).expect("the first day of 1970 is a range of time")
}

fn between(from: &str, to: &str, now: u64) -> Result<Window, WrongSpan> {
    let day = |field, text: &str| match text {
        "" => Ok(None),
        text => text
            .parse::<Date>()
            .map(Some)
            .map_err(|_| WrongSpan { field, text: "Write a day as 2026-11-24.".to_owned() }),
    };
    let (from, to) = (day("from", from)?, day("to", to)?);
    // What has not come yet has no bars.
    let to = to.filter(|to| *to < today(now));
    if from.is_some_and(|from| from > today(now)) {
        return Err(WrongSpan { field: "from", text: "This day has not come yet.".to_owned() });
    }
    let text = |day: Option<Date>| day.map(|day| day.to_string());
    Window::new(text(from).as_deref(), text(to).as_deref(), None, now)
        .map_err(|_| WrongSpan { field: "to", text: "The range ends before it begins.".to_owned() })
}

fn today(now: u64) -> Date {
    day_of(i64::try_from(now).ok().and_then(|now| Timestamp::from_millisecond(now).ok()).unwrap_or(Timestamp::MAX))
}

fn day_of(at: Timestamp) -> Date {
    at.to_zoned(jiff::tz::TimeZone::UTC).date()
}

fn name(by: Granularity) -> &'static str {
    PERIODS.iter().find(|(.., known)| *known == by).map_or("", |(_, name, _)| name)
}

fn lower(by: Granularity) -> String {
    name(by).to_lowercase()
}

/// `24 Nov 2026`.
fn long(day: Date) -> String {
    day.strftime("%-d %b %Y").to_string()
}

/// How a period is called, and what leads into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Whole: `Tue 24 Nov 2026`, `24 Nov 2026 15:00`, `week of 23 Nov 2026`, `Nov 2026`.
    pub whole: String,
    /// For below a plot: `24 Nov`, `15:00`, `Nov`.
    pub short: String,
    /// Its place among periods of its kind: what is below a plot stands at round ones.
    pub place: usize,
    /// The days it has, where there are shorter periods to be seen: from, to, by.
    pub into: Option<(Date, Date, &'static str)>,
}

/// Reads the name that [`crate::ops::metrics`] gives to the period number `index` of a range.
pub fn named(period: &str, by: Granularity, index: usize) -> Named {
    let bare = |whole: &str| Named { whole: whole.to_owned(), short: whole.to_owned(), place: index, into: None };
    let Some(day) = period.get(..10).and_then(|day| day.parse::<Date>().ok()) else { return bare(period) };
    let short = day.strftime("%-d %b").to_string();
    match by {
        Granularity::Hourly => {
            let hour = period.get(11..13).and_then(|hour| hour.parse::<usize>().ok()).unwrap_or(0);
            let short = if hour == 0 { short } else { format!("{hour:02}:00") };
            // Counted from a midnight, so that round places are round hours.
            let days = usize::try_from(day.duration_since(Date::ZERO).as_hours()).unwrap_or(0);
            Named { whole: format!("{} {hour:02}:00", long(day)), short, place: days + hour, into: None }
        }
        Granularity::Daily => Named {
            whole: day.strftime("%a %-d %b %Y").to_string(),
            short,
            place: index,
            into: Some((day, day, "hour")),
        },
        Granularity::Weekly => {
            let last = day.checked_add(6.days()).unwrap_or(Date::MAX);
            Named { whole: format!("week of {}", long(day)), short, place: index, into: Some((day, last, "day")) }
        }
        Granularity::Monthly => {
            let (whole, short) = (day.strftime("%B %Y").to_string(), day.strftime("%b %Y").to_string());
            Named { whole, short, place: index, into: Some((day, day.last_of_month(), "day")) }
        }
    }
}

/// The last so many days of UTC, today included.
pub fn last_days(days: u32, now: u64) -> Window {
    ending_now(Some(days), now)
}

/// The 24 hours that end with this hour, and those before them.
pub fn last_two_days(now: u64) -> (Window, Window) {
    // A range takes the hours that begin in it, so both end with a whole one.
    let end = (now / HOUR_MS + 1) * HOUR_MS;
    let hours = |start: u64, end: u64| Window::new(Some(&words::iso(start)), Some(&words::iso(end)), None, now);
    let lately = hours(end.saturating_sub(DAY_MS), end);
    let before = hours(end.saturating_sub(2 * DAY_MS), end.saturating_sub(DAY_MS));
    (lately.unwrap_or_else(|_| usual_window()), before.unwrap_or_else(|_| usual_window()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24 10:30 UTC, a Tuesday.
    const NOW: u64 = 1_795_516_200_000;

    fn read(query: &str) -> Result<Span, WrongSpan> {
        Span::read(&Form::read(query.as_bytes()), NOW)
    }

    #[test]
    fn periods_fit_a_plot() {
        for (query, by, count, said) in [
            ("", Granularity::Daily, 7, "last 7 days (18 Nov 2026 to 24 Nov 2026)"),
            ("last=24h", Granularity::Hourly, 24, "last 24 hours (23 Nov 2026 to 24 Nov 2026)"),
            ("last=30d", Granularity::Daily, 30, "last 30 days (26 Oct 2026 to 24 Nov 2026)"),
            ("last=90d", Granularity::Daily, 90, "last 90 days (27 Aug 2026 to 24 Nov 2026)"),
            ("last=never", Granularity::Daily, 7, "last 7 days (18 Nov 2026 to 24 Nov 2026)"),
            ("by=hour", Granularity::Hourly, 155, "last 7 days (18 Nov 2026 to 24 Nov 2026)"),
            ("last=30d&by=hour", Granularity::Daily, 30, "last 30 days (26 Oct 2026 to 24 Nov 2026)"),
            ("last=90d&by=month", Granularity::Monthly, 4, "last 90 days (27 Aug 2026 to 24 Nov 2026)"),
            ("from=2026-11-01&to=2026-11-01", Granularity::Hourly, 24, "1 Nov 2026"),
            ("from=2026-11-23&to=2026-11-24", Granularity::Hourly, 35, "23 Nov 2026 to 24 Nov 2026"),
            ("from=2026-11-23&to=2027-01-01&last=90d", Granularity::Hourly, 35, "23 Nov 2026 to 24 Nov 2026"),
            ("to=2026-11-10", Granularity::Daily, 7, "4 Nov 2026 to 10 Nov 2026"),
            ("from=2025-11-24&by=day", Granularity::Weekly, 53, "24 Nov 2025 to 24 Nov 2026"),
            ("from=2022-11-24&by=hour", Granularity::Weekly, 210, "24 Nov 2022 to 24 Nov 2026"),
            ("from=2023-11-24", Granularity::Monthly, 37, "24 Nov 2023 to 24 Nov 2026"),
        ] {
            let span = read(query).unwrap();
            let periods = span.window.periods(span.by).unwrap().len();
            assert_eq!((span.by, periods, &*span.said()), (by, count, said), "{query}");
            let asked = query.split("by=").nth(1).and_then(|by| PERIODS.iter().find(|(name, ..)| *name == by));
            assert_eq!(span.note.is_some(), asked.is_some_and(|(.., asked)| *asked != by), "{query}");
        }
        let note = read("last=30d&by=hour").unwrap().note.unwrap();
        assert_eq!(note, "Hours of this range are too many for one plot, so these are days.");
    }

    #[test]
    fn what_is_no_range() {
        for (query, field) in [
            ("from=soon", "from"),
            ("to=2026-02-30", "to"),
            ("from=2026-11-25", "from"),
            ("from=2026-11-20&to=2026-11-19", "to"),
            ("from=2019-01-01", "from"),
            ("from=9999-12-31", "from"),
            ("to=-009999-01-01", "to"),
        ] {
            assert_eq!(read(query).unwrap_err().field, field, "{query}");
        }
    }

    #[test]
    fn an_address_says_it_again() {
        for query in ["", "last=24h", "from=2026-11-01&to=2026-11-10&by=hour", "from=2026-11-20&to=2026-11-24"] {
            let span = read(query).unwrap();
            let fields: Vec<_> = span.fields().iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(read(&fields.join("&")).unwrap(), span, "{query}");
        }
    }

    #[test]
    fn how_periods_are_called() {
        let hour = named("2026-11-24T15:00:00+00:00", Granularity::Hourly, 3);
        assert_eq!((&*hour.whole, &*hour.short, hour.place % 24), ("24 Nov 2026 15:00", "15:00", 15));
        assert_eq!(named("2026-11-24T00:00:00+00:00", Granularity::Hourly, 3).short, "24 Nov");
        let day = named("2026-11-24", Granularity::Daily, 3);
        assert_eq!((&*day.whole, &*day.short, day.place), ("Tue 24 Nov 2026", "24 Nov", 3));
        let into = |named: Named| named.into.map(|(from, to, by)| format!("{from} {to} {by}")).unwrap();
        assert_eq!(into(day), "2026-11-24 2026-11-24 hour");
        let (week, month) = (("2026-11-23", Granularity::Weekly), ("2026-11-01", Granularity::Monthly));
        assert_eq!(named(week.0, week.1, 0).whole, "week of 23 Nov 2026");
        assert_eq!(into(named(week.0, week.1, 0)), "2026-11-23 2026-11-29 day");
        assert_eq!(named(month.0, month.1, 0).short, "Nov 2026");
        assert_eq!(into(named(month.0, month.1, 0)), "2026-11-01 2026-11-30 day");
        assert_eq!(named("soon", Granularity::Daily, 1).whole, "soon");
    }

    #[test]
    fn a_day_and_the_day_before() {
        let (lately, before) = last_two_days(NOW);
        assert_eq!((lately.hours().len(), before.hours().len()), (24, 24));
        assert_eq!(before.hours().end, lately.hours().start);
        assert!(lately.hours().contains(&crate::store::hour_of(NOW)));
    }
}
