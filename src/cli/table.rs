//! Plain columns, and times as people read them.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Prints rows under headings, each column as wide as its widest cell.
pub fn print(headings: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for (cell, width) in cells.zip(&widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        println!("{}", out.trim_end());
    };
    line(&mut headings.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// `2026-11-24 10:00:00` (UTC) of milliseconds since 1970.
pub fn time(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Text that is safe on a terminal: controls, which could move the cursor or worse, become spaces, and so do the signs
/// that turn the direction of what follows.
pub fn clean(text: &str) -> String {
    let moves = |c: char| c.is_control() || c.general_category() == GeneralCategory::Format;
    text.chars().map(|c| if moves(c) { ' ' } else { c }).collect()
}
