//! Pictures of numbers, as SVG made on the server: columns over time, lines over time, bars of names.
//!
//! No crate draws them: plotters and charming write colours into every element, poloto brings a `<style>` of its own,
//! which our policy forbids; none has titles for single bars. Here colours are the style's classes, light and dark.
//!
//! What runs across is in percent and what runs up in pixels, so that a picture is as wide as its page and its
//! letters are as large as others. Each has a sentence for screen readers; the numbers themselves stand in a table.

use super::words;
use askama::Template;

/// Columns over time, each of two parts: people below, machines above.
#[derive(Template)]
#[template(path = "plot_columns.html")]
pub struct Columns {
    /// `opens` or `clicks`: the class that gives colours. One picture of each on a page.
    class: &'static str,
    /// What it shows, in a sentence.
    label: String,
    height: u32,
    ticks: Vec<Tick>,
    people: Vec<Area>,
    machines: Vec<Area>,
    hits: Vec<Hit>,
    marks: Vec<Mark>,
}

/// Lines over time: shares from 0 to 1.
#[derive(Template)]
#[template(path = "plot_lines.html")]
pub struct Lines {
    label: String,
    height: u32,
    ticks: Vec<Tick>,
    lines: Vec<Line>,
    hits: Vec<Hit>,
    marks: Vec<Mark>,
}

/// Bars of names, one below the other.
#[derive(Template)]
#[template(path = "plot_bars.html")]
pub struct Bars {
    label: String,
    height: u32,
    rows: Vec<BarRow>,
}

/// One period of [`Columns`] or [`Lines`].
pub struct Period {
    /// Its name.
    pub whole: String,
    /// The same, for below the picture.
    pub short: String,
    /// What is below the picture stands where this is round.
    pub place: usize,
}

/// One name of [`Bars`], with the parts of each of its bars: class and length.
pub struct Named {
    pub name: String,
    pub title: String,
    pub bars: Vec<Vec<(&'static str, u64)>>,
}

/// A line across, with its number.
struct Tick {
    y: String,
    text: String,
}

/// A rectangle; what is empty in the direction that a picture does not need is left out of it.
struct Area {
    x: String,
    width: String,
    y: String,
    height: String,
}

/// What a pointer finds: the whole height of one period.
struct Hit {
    x: String,
    width: String,
    title: String,
}

/// The name of a period below the picture.
struct Mark {
    x: String,
    text: String,
    /// Only where there is room.
    is_wide: bool,
}

struct Line {
    class: &'static str,
    segments: Vec<[String; 4]>,
    points: Vec<(String, String)>,
}

struct BarRow {
    name: String,
    title: String,
    y: u32,
    parts: Vec<Part>,
}

struct Part {
    class: &'static str,
    x: String,
    width: String,
    y: u32,
}

/// Pixels above the highest line, and below the lowest for the names of periods.
const ABOVE: f64 = 12.0;
const BELOW: u32 = 26;
/// Names below a picture, at most; every second of them where there is less room.
const MOST_MARKS: usize = 12;
const FEW_MARKS: usize = 6;
/// Periods whose points are drawn, beside the line through them.
const MOST_POINTS: usize = 62;
/// Of the width of a period, what its column takes; of the whole width, what it takes at most.
const FILLED: f64 = 0.78;
const WIDEST: f64 = 9.0;
/// Pixels of a bar's name, and of a bar with the room below it.
const NAME: u32 = 22;
const BAR: u32 = 13;
const BAR_GAP: u32 = 12;

impl Columns {
    /// `values` are of people and of machines, one pair for each period. `high`: pixels of the tallest column.
    pub fn new(class: &'static str, label: String, high: u32, periods: &[Period], values: &[(u64, u64)]) -> Self {
        let most = values.iter().map(|(people, machines)| people.saturating_add(*machines)).max().unwrap_or(0);
        let scale = Scale::new(most as f64, true, high);
        let (mut people, mut machines, mut hits) = (Vec::new(), Vec::new(), Vec::new());
        let slots = Slots(periods.len());
        for (n, (period, (human, machine))) in periods.iter().zip(values).enumerate() {
            let top = human.saturating_add(*machine) as f64;
            if *human > 0 {
                people.push(slots.area(n, scale.y(*human as f64), scale.y(0.0)));
            }
            if *machine > 0 {
                machines.push(slots.area(n, scale.y(top), scale.y(*human as f64)));
            }
            let numbers = format!("{} people, {} machines", words::number(*human), words::number(*machine));
            hits.push(slots.hit(n, format!("{}: {numbers}", period.whole)));
        }
        let ticks = scale.ticks(short_number);
        Self { class, label, height: scale.height(), ticks, people, machines, hits, marks: marks(periods) }
    }
}

impl Lines {
    /// `lines` are a class, a name and a share for each period, where there is something to have a share of.
    pub fn new(label: String, high: u32, periods: &[Period], lines: &[(&'static str, &str, Vec<Option<f64>>)]) -> Self {
        let most = lines.iter().flat_map(|(.., values)| values.iter().flatten()).copied().fold(0.0, f64::max);
        let scale = Scale::new(most.clamp(0.01, 1.0), false, high);
        let slots = Slots(periods.len());
        let draw = |(class, _, values): &(&'static str, &str, Vec<Option<f64>>)| {
            let at = |n: usize| values.get(n).copied().flatten().map(|value| (slots.middle(n), scale.y(value)));
            let mut line = Line { class, segments: Vec::new(), points: Vec::new() };
            for n in 0..values.len() {
                let Some((x, y)) = at(n) else { continue };
                let before = n.checked_sub(1).and_then(at);
                if let Some((x0, y0)) = before {
                    line.segments.push([percent(x0), pixels(y0), percent(x), pixels(y)]);
                }
                if values.len() <= MOST_POINTS || before.is_none() && at(n + 1).is_none() {
                    line.points.push((percent(x), pixels(y)));
                }
            }
            line
        };
        let title = |n: usize, period: &Period| {
            let said = lines.iter().map(|(_, name, values)| match values.get(n).copied().flatten() {
                Some(share) => format!("{name} {}", words::percent(share)),
                None => format!("{name} –"),
            });
            format!("{}: {}", period.whole, said.collect::<Vec<_>>().join(", "))
        };
        let hits = periods.iter().enumerate().map(|(n, period)| slots.hit(n, title(n, period))).collect();
        let ticks = scale.ticks(|tick| format!("{} %", trimmed(tick * 100.0, 1)));
        let lines = lines.iter().map(draw).collect();
        Self { label, height: scale.height(), ticks, lines, hits, marks: marks(periods) }
    }
}

impl Bars {
    pub fn new(label: String, rows: &[Named]) -> Self {
        let long = |bar: &Vec<(&'static str, u64)>| bar.iter().map(|(_, length)| *length).sum::<u64>();
        let most = rows.iter().flat_map(|row| &row.bars).map(long).max().unwrap_or(0).max(1) as f64;
        let mut y = 0;
        let mut drawn = Vec::with_capacity(rows.len());
        for row in rows {
            let mut parts = Vec::new();
            for (n, bar) in (0..).zip(&row.bars) {
                let mut x = 0.0;
                for (class, length) in bar.iter().filter(|(_, length)| *length > 0) {
                    let width = *length as f64 / most * 100.0;
                    parts.push(Part { class, x: percent(x), width: percent(width), y: y + NAME + n * BAR });
                    x += width;
                }
            }
            drawn.push(BarRow { name: row.name.clone(), title: row.title.clone(), y: y + NAME - 7, parts });
            y += NAME + u32::try_from(row.bars.len()).unwrap_or(0) * BAR + BAR_GAP;
        }
        Self { label, height: y, rows: drawn }
    }
}

/// From numbers to pixels.
struct Scale {
    high: f64,
    ticks: Vec<f64>,
}

impl Scale {
    fn new(most: f64, whole: bool, high: u32) -> Self {
        Self { high: f64::from(high), ticks: ticks(most, whole) }
    }

    fn y(&self, value: f64) -> f64 {
        let most = self.ticks.last().copied().unwrap_or(1.0);
        ABOVE + self.high * (1.0 - (value / most).clamp(0.0, 1.0))
    }

    fn ticks(&self, text: impl Fn(f64) -> String) -> Vec<Tick> {
        self.ticks.iter().map(|tick| Tick { y: pixels(self.y(*tick)), text: text(*tick) }).collect()
    }

    fn height(&self) -> u32 {
        (ABOVE + self.high) as u32 + BELOW
    }
}

/// Round numbers from 0 to `most` or just above it, four to six of them; `whole` ones where things are counted.
fn ticks(most: f64, whole: bool) -> Vec<f64> {
    let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
    let least = 10f64.powf((most / 5.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * least);
    let is_round = |step: &f64| !whole || *step >= 1.0 && step.fract() == 0.0;
    let step = steps.into_iter().filter(is_round).find(|step| most / step <= 5.0).unwrap_or(1.0);
    let count = (most / step - 1e-9).ceil().max(1.0) as u32;
    (0..=count).map(|n| f64::from(n) * step).collect()
}

/// So many periods side by side.
struct Slots(usize);

impl Slots {
    fn wide(&self) -> f64 {
        100.0 / self.0.max(1) as f64
    }

    fn middle(&self, n: usize) -> f64 {
        (n as f64 + 0.5) * self.wide()
    }

    fn area(&self, n: usize, top: f64, bottom: f64) -> Area {
        let width = (self.wide() * FILLED).min(WIDEST);
        // What there is can be seen, however little it is.
        let height = (bottom - top).max(1.0);
        Area {
            x: percent(self.middle(n) - width / 2.0),
            width: percent(width),
            y: pixels(bottom - height),
            height: pixels(height),
        }
    }

    fn hit(&self, n: usize, title: String) -> Hit {
        Hit { x: percent(n as f64 * self.wide()), width: percent(self.wide()), title }
    }
}

/// Names at round places, as many as there is room for.
fn marks(periods: &[Period]) -> Vec<Mark> {
    const STEPS: [usize; 12] = [1, 2, 3, 4, 6, 12, 24, 48, 72, 96, 168, 336];
    let at = |step: usize| periods.iter().enumerate().filter(move |(_, period)| period.place.is_multiple_of(step));
    let step = STEPS.into_iter().find(|step| at(*step).count() <= MOST_MARKS).unwrap_or(STEPS[11]);
    let slots = Slots(periods.len());
    let is_many = at(step).count() > FEW_MARKS;
    let mark = |(order, (n, period)): (usize, (usize, &Period))| Mark {
        x: percent(slots.middle(n)),
        text: period.short.clone(),
        is_wide: is_many && order % 2 == 1,
    };
    at(step).take(MOST_MARKS * 2).enumerate().map(mark).collect()
}

fn percent(value: f64) -> String {
    format!("{}%", trimmed(value, 2))
}

fn pixels(value: f64) -> String {
    trimmed(value, 1)
}

/// So many places at most, without zeros at the end.
fn trimmed(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1,500`, `20k`, `1.5M`: for where there is little room.
fn short_number(number: f64) -> String {
    match number {
        ..10_000.0 => words::number(number as u64),
        ..1_000_000.0 => format!("{}k", trimmed(number / 1e3, 1)),
        ..1_000_000_000.0 => format!("{}M", trimmed(number / 1e6, 2)),
        _ => format!("{}G", trimmed(number / 1e9, 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::MOST_PERIODS;
    use super::*;

    fn periods(count: usize) -> Vec<Period> {
        let period = |n: usize| Period { whole: format!("24 Nov 2026 {n:02}:00"), short: format!("{n}:00"), place: n };
        (0..count).map(period).collect()
    }

    #[test]
    fn ticks_are_round() {
        for (most, whole, last, count) in [
            (0.0, true, 1.0, 2),
            (1.0, true, 1.0, 2),
            (3.0, true, 3.0, 4),
            (7.0, true, 8.0, 5),
            (10.0, true, 10.0, 6),
            (11.0, true, 15.0, 4),
            (99.0, true, 100.0, 6),
            (1_234.0, true, 1_250.0, 6),
            (1_000_001.0, true, 1_250_000.0, 6),
            (0.137, false, 0.15, 4),
            (1.0, false, 1.0, 6),
            (0.012, false, 0.0125, 6),
            (f64::NAN, true, 1.0, 2),
        ] {
            let ticks = ticks(most, whole);
            let end = ticks.last().copied().unwrap();
            assert!((end - last).abs() < 1e-9, "{most}: {ticks:?}");
            assert_eq!((ticks[0], ticks.len()), (0.0, count), "{most}: {ticks:?}");
            assert!(!whole || ticks.iter().all(|tick| tick.fract() == 0.0), "{ticks:?}");
        }
        let all = [0.0, 9_999.0, 20_000.0, 1_250_000.0, 3e9].map(short_number);
        assert_eq!(all, ["0", "9,999", "20k", "1.25M", "3G"]);
    }

    #[test]
    fn every_name_is_escaped() {
        let evil = "<script>alert('1')</script>\" onload=\"x";
        let period = || Period { whole: evil.into(), short: evil.into(), place: 0 };
        let row = Named { name: evil.into(), title: evil.into(), bars: vec![vec![("human", 1)]] };
        let all = [
            Columns::new("opens", evil.into(), 150, &[period()], &[(1, 2)]).render().unwrap(),
            Lines::new(evil.into(), 150, &[period()], &[("opens", "opened", vec![Some(0.5)])]).render().unwrap(),
            Bars::new(evil.into(), &[row]).render().unwrap(),
        ];
        for picture in all {
            assert!(picture.contains("alert(") && picture.contains("&#60;script"), "{picture}");
            assert!(!picture.contains("<script") && !picture.contains("\" onload"), "{picture}");
            assert!(!picture.contains("style="), "{picture}");
        }
    }

    #[test]
    fn columns_stand_on_each_other() {
        let columns = Columns::new("opens", "x".into(), 100, &periods(2), &[(30, 10), (0, 40)]);
        let tops: Vec<_> = columns.people.iter().chain(&columns.machines).map(|a| (&*a.y, &*a.height)).collect();
        assert_eq!(tops, [("37", "75"), ("12", "25"), ("12", "100")]);
        assert_eq!(columns.hits[1].title, "24 Nov 2026 01:00: 0 people, 40 machines");
        assert_eq!((&*columns.hits[1].x, &*columns.machines[1].width), ("50%", "9%"));
    }

    #[test]
    fn pictures_are_small() {
        let (all, counts) = (periods(MOST_PERIODS), vec![(123_456, 1_234_567); MOST_PERIODS]);
        let columns = Columns::new("opens", "x".into(), 200, &all, &counts).render().unwrap();
        assert!(columns.len() < 60_000, "{}", columns.len());
        let shares = || vec![Some(0.12345); MOST_PERIODS];
        let lines = [("opens", "opened", shares()), ("clicks", "clicked", shares())];
        let lines = Lines::new("x".into(), 200, &all, &lines).render().unwrap();
        assert!(lines.len() < 60_000, "{}", lines.len());
    }

    #[test]
    fn a_line_has_gaps_where_there_is_nothing() {
        let values = vec![Some(0.1), Some(0.2), None, Some(0.3), None];
        let picture = Lines::new("x".into(), 100, &periods(5), &[("opens", "opened", values)]);
        assert_eq!((picture.lines[0].segments.len(), picture.lines[0].points.len()), (1, 3));
        assert_eq!(picture.hits[2].title, "24 Nov 2026 02:00: opened –");
        let long = Lines::new("x".into(), 100, &periods(99), &[("opens", "opened", vec![Some(0.3); 99])]);
        assert_eq!((long.lines[0].segments.len(), long.lines[0].points.len()), (98, 0));
    }

    #[test]
    fn names_stand_at_round_places() {
        let shown = |count| -> Vec<_> { marks(&periods(count)).into_iter().map(|m| (m.text, m.is_wide)).collect() };
        assert_eq!(shown(3).len(), 3);
        assert_eq!(shown(24).len(), 12);
        assert_eq!(shown(24).iter().filter(|(_, is_wide)| *is_wide).count(), 6);
        assert_eq!(shown(155)[1].0, "24:00");
        assert_eq!((&*marks(&periods(1))[0].x, marks(&[]).len()), ("50%", 0));
    }

    #[test]
    fn bars_share_one_scale() {
        let row = |name: &str, bars| Named { name: name.into(), title: String::new(), bars };
        let rows = [
            row("a", vec![vec![("human", 30), ("machine", 10)], vec![("clicks", 0)]]),
            row("b", vec![vec![("human", 10)], vec![("clicks", 20)]]),
        ];
        let bars = Bars::new("x".into(), &rows);
        let parts: Vec<_> = bars.rows.iter().flat_map(|r| &r.parts).map(|p| (p.class, &*p.x, &*p.width)).collect();
        let want = [("human", "0%", "75%"), ("machine", "75%", "25%"), ("human", "0%", "25%"), ("clicks", "0%", "50%")];
        assert_eq!(parts, want);
        assert!(bars.rows[1].y > bars.rows[0].parts[1].y && bars.height > bars.rows[1].y);
    }
}
