//! From a request's path to what is asked for.
//!
//! Mail programs and link scanners bend URLs: slashes doubled, letters percent-encoded, the dot or bracket that ended
//! the sentence taken along. None of that changes which token is meant, and a link should not break over it.

use crate::http::PROBE_PATH;
use std::borrow::Cow;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// The token of a click, or what stands in its place.
    Click(&'a str),
    /// The token of an open, without `.gif`.
    Open(&'a str),
    /// A nonce, to be answered.
    Probe(&'a str),
    Robots,
    Favicon,
    Root,
    Other,
}

impl<'a> Route<'a> {
    /// `path` must be [`normalised`].
    pub fn of(path: &'a str) -> Self {
        let path = path.trim_start_matches('/');
        if let Some(token) = path.strip_prefix("c/") {
            return Self::Click(trim(token));
        }
        if let Some(token) = path.strip_prefix("o/") {
            let token = trim(token);
            return Self::Open(token.strip_suffix(".gif").unwrap_or(token));
        }
        if let Some(nonce) = path.strip_prefix(PROBE_PATH.trim_start_matches('/')) {
            return Self::Probe(nonce);
        }
        match path {
            "" => Self::Root,
            "robots.txt" => Self::Robots,
            "favicon.ico" => Self::Favicon,
            _ => Self::Other,
        }
    }
}

/// Without what is no part of a token at either end.
fn trim(token: &str) -> &str {
    token.trim_start_matches('/').trim_end_matches(['/', '.', ',', ';', ':', '!', ')', ']', '\'', '"', '>'])
}

/// The path with percent-encoded unreserved characters decoded (RFC 3986 §6.2.2.2); all others stay as they are.
pub(super) fn normalised(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (taken, decoded) = match rest.get(at + 1..at + 3).and_then(unreserved) {
            Some(decoded) => (at + 3, decoded),
            None => (at + 1, '%'),
        };
        out.push(decoded);
        rest = &rest[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn unreserved(digits: &str) -> Option<char> {
    // `from_str_radix` would take a sign.
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let byte = hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()?;
    (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')).then_some(char::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        for (path, want) in [
            ("/c/Ab-_9", Route::Click("Ab-_9")),
            ("//c/Ab", Route::Click("Ab")),
            ("/c//Ab", Route::Click("Ab")),
            ("/c/Ab/", Route::Click("Ab")),
            ("/c/Ab.", Route::Click("Ab")),
            ("/c/Ab).", Route::Click("Ab")),
            ("/c/Ab/x", Route::Click("Ab/x")),
            ("/c/A%2Db%5F%2f%", Route::Click("A-b_%2f%")),
            ("/%63/Ab", Route::Click("Ab")),
            ("/c%2fAb", Route::Other),
            ("/c/", Route::Click("")),
            ("/c", Route::Other),
            ("/C/Ab", Route::Other),
            ("/o/Ab.gif", Route::Open("Ab")),
            ("/o/Ab.gif.", Route::Open("Ab")),
            ("/o/Ab%2Egif", Route::Open("Ab")),
            ("/o/Ab", Route::Open("Ab")),
            ("/o/.gif", Route::Open("")),
            ("/", Route::Root),
            ("", Route::Root),
            ("/robots.txt", Route::Robots),
            ("/favicon.ico", Route::Favicon),
            ("*", Route::Other),
            ("/../c/Ab", Route::Other),
        ] {
            assert_eq!(Route::of(&normalised(path)), want, "{path}");
        }
    }

    #[test]
    fn percent_signs() {
        for (path, want) in [
            ("%", "%"),
            ("%4", "%4"),
            ("%41%42", "AB"),
            ("%2541", "%2541"),
            ("%+1", "%+1"),
            ("%0d%0a", "%0d%0a"),
            ("%00", "%00"),
            ("%e4", "%e4"),
            ("%ä1", "%ä1"),
            ("a%7Eb", "a~b"),
        ] {
            assert_eq!(normalised(path), want, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_has_a_route(path in "\\PC{0,60}|(/|c|o|%|2|d|5|\\.|gif){0,40}") {
            let once = normalised(&path);
            proptest::prop_assert!(once.len() <= path.len());
            Route::of(&once);
        }
    }
}
