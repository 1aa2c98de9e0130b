//! Header fields as byte spans, and the few structured values that rewriting needs (RFC 5322 §2.2, RFC 2045 §5,
//! RFC 2231).
//!
//! Owns: finding fields and their folding, Content-Type with its parameters, tokens such as the transfer encoding.
//! Does not: build addresses or dates; [`super::header_facts`] asks mail-parser for those.

use memchr::memchr;
use std::ops::Range;

/// One header field: where it stands, folding included, and where its value does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// From the first octet of the name to behind the last line end.
    pub span: Range<usize>,
    /// Without colon, without trailing white space (obsolete syntax, RFC 5322 §4.5).
    pub name: Range<usize>,
    /// From behind the colon to before the last line end: still folded.
    pub value: Range<usize>,
}

impl Field {
    /// True when the field's name is `name`, in any case.
    pub fn is(&self, message: &[u8], name: &str) -> bool {
        message[self.name.clone()].eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields in `block` of `message`, in order. A line that is no field (no colon, or no name of printable ASCII
/// before it) is passed over: it stays where it is and means nothing here, but to other readers it ends the header.
pub fn fields(message: &[u8], block: Range<usize>) -> impl Iterator<Item = Field> + '_ {
    let mut at = block.start;
    std::iter::from_fn(move || {
        while at < block.end {
            let start = at;
            at = next_line(message, at, block.end);
            while at < block.end && matches!(message[at], b' ' | b'\t') {
                at = next_line(message, at, block.end);
            }
            if let Some(field) = split(message, start..at) {
                return Some(field);
            }
        }
        None
    })
}

fn split(message: &[u8], span: Range<usize>) -> Option<Field> {
    let line = &message[span.clone()];
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    if name.is_empty() || !name.iter().all(|b| matches!(b, 0x21..=0x7e)) {
        return None;
    }
    let value = span.start + colon + 1..span.end - line_end(line);
    Some(Field { name: span.start..span.start + name.len(), value: value.start..value.end.max(value.start), span })
}

/// Where the line after the one that holds `at` begins; `end` when there is none.
pub fn next_line(message: &[u8], at: usize, end: usize) -> usize {
    memchr(b'\n', &message[at..end]).map_or(end, |offset| at + offset + 1)
}

/// Octets of the line end that `text` closes with: 0, 1 (LF) or 2 (CRLF).
pub fn line_end(text: &[u8]) -> usize {
    match text {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        _ => 0,
    }
}

/// CRLF or LF, as the message's first line.
pub fn line_end_of(message: &[u8]) -> &'static [u8] {
    match memchr(b'\n', message) {
        Some(at) if at == 0 || message[at - 1] != b'\r' => b"\n",
        _ => b"\r\n",
    }
}

/// `value` without folding: line ends go, the white space behind them stays (RFC 5322 §2.2.3); trimmed. Octets that
/// are no UTF-8 become U+FFFD.
pub fn unfold(value: &[u8]) -> String {
    let bytes: Vec<u8> = value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The one token of a value such as that of Content-Transfer-Encoding, in lower case, without comments. What is more
/// than a token stays in, so that it equals no known one.
pub fn token(value: &[u8]) -> String {
    let mut rest = Reader::new(value);
    let mut out = Vec::new();
    while let Some(byte) = rest.next_outside_comments() {
        out.push(byte.to_ascii_lowercase());
    }
    String::from_utf8_lossy(out.trim_ascii()).into_owned()
}

/// A parsed Content-Type or Content-Disposition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameterized {
    /// `text/html`, `attachment`: in lower case, without white space or comments; empty when there is none.
    pub value: String,
    /// Names in lower case. RFC 2231 continuations are joined, `%XX` of extended values decoded.
    parameters: Vec<(String, Vec<u8>)>,
    /// A parameter was given twice with different values or has more behind its quotes, a semicolon is missing, or
    /// the value has characters that no token has (RFC 2045 §5.1): readers disagree about what counts.
    pub ambiguous: bool,
}

impl Parameterized {
    /// The first parameter of that name (lower case).
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }

    /// Parses a value with parameters. Never fails: what cannot be read is left out.
    pub fn parse(value: &[u8]) -> Self {
        let mut reader = Reader::new(value);
        let mut main = Vec::new();
        let mut gap = false;
        while let Some(byte) = reader.next_outside_comments() {
            match byte {
                b';' => break,
                b' ' | b'\t' | b'\r' | b'\n' => gap = !main.is_empty(),
                // `text/html charset=utf-8`: the semicolon was forgotten.
                _ if gap && byte != b'/' && main.last() != Some(&b'/') => {
                    reader.at -= 1;
                    reader.strange = true;
                    break;
                }
                _ => {
                    gap = false;
                    main.push(byte.to_ascii_lowercase());
                }
            }
        }
        let mut raw = Vec::new();
        while raw.len() < MAX_PARAMETERS {
            let Some(parameter) = reader.parameter() else { break };
            raw.extend(parameter);
        }
        let (parameters, ambiguous) = join_continuations(raw);
        let odd = |b: &u8| !b.is_ascii_graphic() || b"()<>@,:\\\"[]?=".contains(b);
        let ambiguous = ambiguous || reader.strange || main.iter().any(odd);
        Self { value: String::from_utf8_lossy(&main).into_owned(), parameters, ambiguous }
    }
}

/// More parameters than this in one field are not read.
const MAX_PARAMETERS: usize = 200;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// There was something behind a quoted value, or a semicolon missing.
    strange: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, strange: false }
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next octet, comments (nested, with quoted pairs) read over (RFC 5322 §3.2.2).
    fn next_outside_comments(&mut self) -> Option<u8> {
        let mut depth = 0usize;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'(' => depth += 1,
                b')' if depth > 0 => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(b' ');
                    }
                }
                b'\\' if depth > 0 => self.at += 1,
                _ if depth == 0 => return Some(byte),
                _ => {}
            }
        }
    }

    /// One `name=value`; `Some(None)` where there was something unreadable, `None` at the end.
    #[allow(clippy::option_option)]
    fn parameter(&mut self) -> Option<Option<(String, Vec<u8>)>> {
        let mut name = Vec::new();
        loop {
            match self.next_outside_comments() {
                None => return None,
                Some(b';') => return Some(None),
                Some(b'=') => break,
                Some(byte) if byte.is_ascii_whitespace() => {}
                Some(byte) => name.push(byte.to_ascii_lowercase()),
            }
        }
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
        let mut value = Vec::new();
        if self.peek() == Some(b'"') {
            self.at += 1;
            self.quoted(&mut value);
            // Of what stands between the closing quote and the next semicolon readers make this and that.
            while let Some(byte) = self.next_outside_comments()
                && byte != b';'
            {
                self.strange |= !byte.is_ascii_whitespace();
            }
        } else {
            while let Some(byte) = self.next_outside_comments() {
                if byte == b';' {
                    break;
                }
                value.push(byte);
            }
            value.truncate(value.trim_ascii_end().len());
        }
        Some(Some((String::from_utf8_lossy(&name).into_owned(), value)))
    }

    fn quoted(&mut self, value: &mut Vec<u8>) {
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => return,
                b'\\' => {
                    value.extend(self.peek());
                    self.at += 1;
                }
                b'\r' | b'\n' => {}
                _ => value.push(byte),
            }
        }
    }
}

/// RFC 2231 §3 and §4: `name*0`, `name*1*` and `name*` become `name`.
fn join_continuations(raw: Vec<(String, Vec<u8>)>) -> (Vec<(String, Vec<u8>)>, bool) {
    let mut out: Vec<(String, Vec<u8>)> = Vec::new();
    let mut sections: Vec<(String, u32, Vec<u8>)> = Vec::new();
    let mut ambiguous = false;
    for (name, value) in raw {
        let Some((base, rest)) = name.split_once('*') else {
            ambiguous |= out.iter().any(|(n, v)| *n == name && *v != value);
            out.push((name, value));
            continue;
        };
        let (number, extended) = match rest.strip_suffix('*') {
            Some(number) => (number, true),
            None => (rest, rest.is_empty()),
        };
        let number = if number.is_empty() { Some(0) } else { number.parse().ok() };
        let Some(number) = number else { continue };
        let value = if extended { percent_decode(&value, number == 0) } else { value };
        sections.push((base.to_owned(), number, value));
    }
    sections.sort_by_key(|(_, number, _)| *number);
    for (base, number, value) in sections {
        match out.iter_mut().find(|(n, _)| *n == base) {
            None if number == 0 => out.push((base, value)),
            Some((_, joined)) if number > 0 => joined.extend(value),
            _ => ambiguous = true,
        }
    }
    (out, ambiguous)
}

fn percent_decode(value: &[u8], with_charset: bool) -> Vec<u8> {
    let text = if with_charset { value.splitn(3, |b| *b == b'\'').last().unwrap_or(value) } else { value };
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let hex = |i: usize| text.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_folding() {
        let text = b"A: 1\r\nB : two\r\n\tthree\r\njunk\r\n: nameless\r\nC:\n d\nE: f";
        let got: Vec<(String, String)> = fields(text, 0..text.len())
            .map(|f| (String::from_utf8_lossy(&text[f.name.clone()]).into_owned(), unfold(&text[f.value])))
            .collect();
        let want = [("A", "1"), ("B", "two\tthree"), ("C", "d"), ("E", "f")];
        assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn content_types() {
        type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        let table: &[Row] = &[
            ("text/html", "text/html", &[]),
            (" Text/HTML ; Charset=\"UTF-8\"", "text/html", &[("charset", "UTF-8")]),
            ("text/html charset=utf-8", "text/html", &[("charset", "utf-8")]),
            ("text / html; charset=a", "text/html", &[("charset", "a")]),
            ("text/html (a (nested\\)) one); charset=x (y)", "text/html", &[("charset", "x")]),
            ("multipart/mixed; boundary=\"a;b \\\"c\\\"\"", "multipart/mixed", &[("boundary", "a;b \"c\"")]),
            ("multipart/mixed;\r\n boundary=abc ;;", "multipart/mixed", &[("boundary", "abc")]),
            ("multipart/mixed; boundary*0=ab; boundary*1=\"cd\"", "multipart/mixed", &[("boundary", "abcd")]),
            ("multipart/mixed; boundary*=us-ascii'en'a%3Db", "multipart/mixed", &[("boundary", "a=b")]),
            ("multipart/mixed; boundary*1*=%3D2; boundary*0*=''1", "multipart/mixed", &[("boundary", "1=2")]),
            ("", "", &[]),
            ("; a=b", "", &[("a", "b")]),
        ];
        for (text, value, parameters) in table {
            let got = Parameterized::parse(text.as_bytes());
            assert_eq!(got.value, *value, "{text}");
            let got: Vec<_> =
                got.parameters.iter().map(|(n, v)| (n.as_str(), std::str::from_utf8(v).unwrap())).collect();
            assert_eq!(got, *parameters, "{text}");
        }
        assert!(Parameterized::parse(b"multipart/mixed; boundary=a; boundary=b").ambiguous);
        assert!(Parameterized::parse(b"multipart/mixed; boundary=\"a\" b; c=d").ambiguous);
        assert!(Parameterized::parse(b"multipart/mixed boundary=a").ambiguous);
        assert!(Parameterized::parse(b"multipart/mixed><p>; boundary=a").ambiguous);
        assert!(!Parameterized::parse(b"multipart/mixed; boundary=a; boundary=a").ambiguous);
        assert!(!Parameterized::parse(b"multipart/mixed; boundary=\"a\" (b) ; c=d").ambiguous);
    }

    #[test]
    fn tokens() {
        for (text, want) in [(" Base64 (x)\r\n", "base64"), ("quoted-printable;", "quoted-printable;"), ("(c)", "")] {
            assert_eq!(token(text.as_bytes()), want);
        }
    }
}
