//! Times, numbers and texts as people read them. Used by templates.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-11-24 15:04`, UTC, of milliseconds since 1970.
pub fn time(at: u64) -> String {
    stamp(at, "%Y-%m-%d %H:%M")
}

/// The same with seconds, for what follows closely.
pub fn exact(at: u64) -> String {
    stamp(at, "%Y-%m-%d %H:%M:%S")
}

/// As programs read it: `2026-11-24T15:04:05Z`.
pub fn iso(at: u64) -> String {
    stamp(at, "%Y-%m-%dT%H:%M:%SZ")
}

fn stamp(at: u64, format: &str) -> String {
    let at = i64::try_from(at).ok().and_then(|at| Timestamp::from_millisecond(at).ok()).unwrap_or(Timestamp::MAX);
    at.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// How far away a time is: `just now`, `5 minutes ago`, `in 2 days`.
pub fn away(at: u64, now: u64) -> String {
    let seconds = at.abs_diff(now) / 1_000;
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let Some((length, unit)) = units.into_iter().find(|(length, _)| seconds >= *length) else {
        return if at > now + 1_000 { "in a moment".to_owned() } else { "just now".to_owned() };
    };
    let span = counted(seconds / length, unit);
    if at > now { format!("in {span}") } else { format!("{span} ago") }
}

/// How long something takes or took: `12 seconds`, `3 hours`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (length, unit) = units.into_iter().find(|(length, _)| seconds >= *length).unwrap_or((1, "second"));
    counted(seconds / length, unit)
}

/// `1 message`, `1,234 messages`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(count), if count == 1 { "" } else { "s" })
}

/// `1,234,567`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `12.3 %` of a share from 0 to 1. What is not all does not look like all, nor something like nothing.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p > 0.0 && p < 0.1 => "< 0.1 %".to_owned(),
        p if (99.95..100.0).contains(&p) => "99.9 %".to_owned(),
        p => format!("{p:.1} %"),
    }
}

/// `20 KB`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} KB", bytes / 1_000),
        _ => format!("{:.1} MB", bytes as f64 / 1_000_000.0),
    }
}

/// At most so many characters, with an ellipsis where some were left out. Line ends and other controls become spaces;
/// what would show other characters in another order than they have is left out.
pub fn cut(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let shown = |text: &str| text.chars().filter(|c| !reorders(*c)).map(plain).collect::<String>();
    match text.char_indices().nth(most) {
        Some((end, _)) => shown(&text[..end]) + "…",
        None => shown(text),
    }
}

/// Embeddings, overrides and isolates; not the marks that right-to-left text itself is written with.
fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value within a sentence: in quotes, cut, and so that it turns the direction of no word around it.
pub fn quoted(text: &str, most: usize) -> String {
    let text: String = cut(text, most).chars().filter(|c| !turns(*c)).collect();
    format!("“\u{2068}{text}\u{2069}”")
}

/// Whether a character is there only to turn the direction of text (Unicode's Bidi_Control).
pub fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A message of the program as a sentence: a capital letter and a period. A name that it begins with stays as it is.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    let is_name = text.split(' ').next().is_some_and(|word| word.trim_end_matches('.').contains(['.', '@', '/']));
    let end = if text.ends_with(['.', '!', '?', ':']) || text.is_empty() { "" } else { "." };
    if is_name {
        return format!("{text}{end}");
    }
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).chain(end.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!((number(7), number(1_234), number(1_234_567)), ("7".into(), "1,234".into(), "1,234,567".into()));
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("äbcd\r\n", 3), "äbc…");
        assert_eq!(cut("a\r\nb", 9), "a  b");
        assert_eq!(cut("\u{202e}gnp.exe\u{200f}", 9), "gnp.exe\u{200f}", "and not exe.png");
        assert_eq!(quoted("a\u{2069}\u{202e}bc\nd", 6), "“\u{2068}abc …\u{2069}”");
        assert_eq!(sentence("\"x\" is no URL"), "\"x\" is no URL.");
        assert_eq!((sentence("done."), sentence("")), ("Done.".into(), String::new()));
        assert_eq!(sentence("links.example.com is not verified"), "links.example.com is not verified.");
        for (share, text) in
            [(0.0, "0.0 %"), (0.0004, "< 0.1 %"), (0.123, "12.3 %"), (0.9999, "99.9 %"), (1.0, "100.0 %")]
        {
            assert_eq!(percent(share), text);
        }
        assert_eq!((bytes(12), bytes(20_400), bytes(2_500_000)), ("12 B".into(), "20 KB".into(), "2.5 MB".into()));
    }

    #[test]
    fn times() {
        assert_eq!((time(0), exact(1_000)), ("1970-01-01 00:00".into(), "1970-01-01 00:00:01".into()));
        assert_eq!(iso(1_732_460_645_000), "2024-11-24T15:04:05Z");
        let now = 10_000_000_000;
        for (at, text) in [
            (now, "just now"),
            (now - 59_000, "just now"),
            (now - 60_000, "1 minute ago"),
            (now - 7_200_000, "2 hours ago"),
            (now + 30_000, "in a moment"),
            (now + 172_800_000, "in 2 days"),
        ] {
            assert_eq!(away(at, now), text);
        }
        assert_eq!((span(500), span(61_000)), ("0 seconds".into(), "1 minute".into()));
    }
}
