//! Cuts what the client sends outside DATA into command lines. It knows nothing of commands, but that AUTH may be long.
//!
//! A line ends at CRLF and nowhere else. A bare LF, a bare CR or a NUL spoils the whole line up to its CRLF: were LF an
//! end, what stands behind it would be executed here and carried as text by another relay.

use super::limits;
use std::borrow::Cow;

/// Keeps the beginning of a line until the rest of it comes.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    begun: Vec<u8>,
    skip: Option<Skip>,
}

/// A refused line whose end has not come yet.
#[derive(Clone, Copy, Debug)]
struct Skip {
    after_cr: bool,
    left: usize,
}

/// A line without its CRLF, or why it is refused.
pub(super) type Line<'a> = Result<Cow<'a, [u8]>, LineFault<'a>>;

/// Why a line is refused. Told as soon as it is seen, once a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LineFault<'a> {
    /// A bare CR, a bare LF or a NUL; here is the line before it.
    Control(Cow<'a, [u8]>),
    TooLong,
    TooLongAuth,
    /// A refused line went on for [`limits::SKIPPED_LINE`] octets more.
    Endless,
}

impl LineReader {
    /// Takes octets up to the end of one line, and returns how many, and the line without CRLF if it is there.
    /// `in_auth` says that an AUTH exchange is going on (RFC 4954 §4 allows longer lines then).
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8], in_auth: bool) -> (usize, Option<Line<'a>>) {
        let mut used = 0;
        if let Some(skip) = self.skip {
            used = match skip.end(bytes) {
                Skipped::To(end) => end,
                Skipped::All(rest) => {
                    self.skip = Some(rest);
                    return (bytes.len(), None);
                }
                Skipped::Bound => return (bytes.len(), Some(Err(LineFault::Endless))),
            };
            self.skip = None;
        }
        let bytes = &bytes[used..];
        let in_auth = in_auth || self.begins_with(bytes, b"AUTH ");
        let limit = if in_auth { limits::AUTH_LINE } else { limits::COMMAND_LINE };
        let room = limit.saturating_sub(self.begun.len());
        let window = &bytes[..room.min(bytes.len())];

        let Some(lf) = memchr::memchr(b'\n', window) else {
            if window.len() < room {
                self.begun.extend_from_slice(window);
                return (used + window.len(), None);
            }
            self.begun = Vec::new();
            self.skip = Some(Skip::after(window.last()));
            let fault = if in_auth { LineFault::TooLongAuth } else { LineFault::TooLong };
            return (used + window.len(), Some(Err(fault)));
        };
        let mut line = self.joined(&window[..lf]);
        used += lf + 1;
        if line.last() != Some(&b'\r') {
            self.skip = Some(Skip::after(None));
            return (used, Some(Err(LineFault::Control(line))));
        }
        truncate(&mut line, 1);
        if let Some(at) = memchr::memchr2(b'\r', 0, &line) {
            let beyond = line.len() - at;
            truncate(&mut line, beyond);
            return (used, Some(Err(LineFault::Control(line))));
        }
        (used, Some(Ok(line)))
    }

    /// Octets of memory that a begun line holds.
    pub(super) fn memory(&self) -> usize {
        self.begun.capacity()
    }

    /// True when a line has begun and its end has not come.
    pub(super) fn has_begun(&self) -> bool {
        !self.begun.is_empty() || self.skip.is_some()
    }

    fn joined<'a>(&mut self, rest: &'a [u8]) -> Cow<'a, [u8]> {
        if self.begun.is_empty() {
            return Cow::Borrowed(rest);
        }
        let mut line = std::mem::take(&mut self.begun);
        line.extend_from_slice(rest);
        Cow::Owned(line)
    }

    fn begins_with(&self, bytes: &[u8], word: &[u8]) -> bool {
        let mut line = self.begun.iter().chain(bytes);
        word.iter().all(|w| line.next().is_some_and(|b| b.eq_ignore_ascii_case(w)))
    }
}

fn truncate(line: &mut Cow<'_, [u8]>, beyond: usize) {
    let end = line.len() - beyond;
    match line {
        Cow::Borrowed(line) => *line = &line[..end],
        Cow::Owned(line) => line.truncate(end),
    }
}

enum Skipped {
    /// The line ends before this index.
    To(usize),
    /// It goes on behind all of it.
    All(Skip),
    /// It goes on for too long.
    Bound,
}

impl Skip {
    fn after(last: Option<&u8>) -> Self {
        Self { after_cr: last == Some(&b'\r'), left: limits::SKIPPED_LINE }
    }

    fn end(self, bytes: &[u8]) -> Skipped {
        let window = &bytes[..self.left.min(bytes.len())];
        for lf in memchr::memchr_iter(b'\n', window) {
            let after_cr = if lf == 0 { self.after_cr } else { window[lf - 1] == b'\r' };
            if after_cr {
                return Skipped::To(lf + 1);
            }
        }
        match (window.last(), self.left - window.len()) {
            (_, 0) => Skipped::Bound,
            (None, _) => Skipped::All(self),
            (last, left) => Skipped::All(Self { left, ..Self::after(last) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8], size: usize) -> Vec<String> {
        let mut reader = LineReader::default();
        let mut out = Vec::new();
        for piece in input.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (used, line) = reader.next(rest, false);
                rest = &rest[used..];
                match line {
                    Some(Ok(line)) if line.len() > 40 => out.push(format!("{}", line.len())),
                    Some(Ok(line)) => out.push(line.escape_ascii().to_string()),
                    Some(Err(LineFault::Control(line))) => out.push(format!("control after {}", line.escape_ascii())),
                    Some(Err(LineFault::Endless)) => return [out, vec!["endless".into()]].concat(),
                    Some(Err(fault)) => out.push(format!("{fault:?}")),
                    None => assert!(rest.is_empty()),
                }
            }
        }
        out
    }

    #[test]
    fn lines_end_at_crlf_alone() {
        let long = |word: &str, n: usize| [word.as_bytes(), &vec![b'x'; n - word.len() - 2], b"\r\nQUIT\r\n"].concat();
        let table: &[(Vec<u8>, &[&str])] = &[
            (b"a\r\n\r\nb\r\nc".into(), &["a", "", "b"]),
            (b"a\nb\r\nc\r\n".into(), &["control after a", "c"]),
            (b"a\nb\nc\r\r\nd\r\n".into(), &["control after a", "d"]),
            (b"a\rb\r\nc\r\n".into(), &["control after a", "c"]),
            (b"a\r\r\nc\r\n".into(), &["control after a", "c"]),
            (b"\0a\r\nc\r\n".into(), &["control after ", "c"]),
            (b"\n\r\nc\r\n".into(), &["control after ", "c"]),
            (long("", 2_048), &["2046", "QUIT"]),
            (long("", 2_049), &["TooLong", "QUIT"]),
            (long("", 2_050), &["TooLong", "QUIT"]),
            (long("", 9_000), &["TooLong", "QUIT"]),
            (long("auth ", 12_288), &["12286", "QUIT"]),
            (long("AUTH ", 12_289), &["TooLongAuth", "QUIT"]),
            (long("AUTHX", 12_288), &["TooLong", "QUIT"]),
            (long("", 67_583), &["TooLong", "QUIT"]),
            (long("", 70_000), &["TooLong", "endless"]),
        ];
        for (input, want) in table {
            for size in [1, 2, 3, 7, 2_047, 2_048, 2_049, 100_000] {
                assert_eq!(lines(input, size), *want, "{} octets in pieces of {size}", input.len());
            }
        }
    }
}
