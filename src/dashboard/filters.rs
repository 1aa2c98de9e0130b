//! [`super::words`] as templates call them: `{{ at|time }}`.

use super::words;
use askama::{Result, Values, filter_fn};

/// `2026-11-24 15:04`, UTC.
#[filter_fn]
pub fn time(at: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::time(*at))
}

/// The same with seconds.
#[filter_fn]
pub fn exact(at: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::exact(*at))
}

/// As programs read it.
#[filter_fn]
pub fn iso(at: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::iso(*at))
}

/// `1,234,567`.
#[filter_fn]
pub fn number(number: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::number(*number))
}

/// `20 KB`.
#[filter_fn]
pub fn bytes(bytes: &u64, _: &dyn Values) -> Result<String> {
    Ok(words::bytes(*bytes))
}

/// At most so many characters.
#[filter_fn]
pub fn cut(text: impl AsRef<str>, _: &dyn Values, most: usize) -> Result<String> {
    Ok(words::cut(text.as_ref(), most))
}
