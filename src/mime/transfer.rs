//! Quoted-printable and base64 (RFC 2045 §6.7, §6.8): decoding with a map back to the encoded octets, and encoding.
//!
//! Owns: both codecs. Does not: repair. Text that a strict decoder refuses is refused, since readers would disagree
//! about what it says.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::{memchr, memchr_iter, memchr3};

/// An encoded line has at most so many octets, line end not counted (RFC 2045 §6.7 rule 5, §6.8).
pub const MAX_ENCODED_LINE: usize = 76;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// Octets of an encoded line that the way back may have to walk; in longer ones there are places to start from.
const STRIDE: usize = 256;

/// A decoded body and the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub bytes: Vec<u8>,
    /// Where lines begin, and places inside long ones: (offset in what `bytes` counts, offset in the encoded body), both ascending, and the end of
    /// the content last. For quoted-printable the first counts decoded octets, for base64 its characters.
    lines: Vec<(usize, usize)>,
}

/// The body is not what its transfer encoding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

/// Decodes quoted-printable. White space at the end of a line is dropped, as rule 3 says. Octets outside printable
/// ASCII pass as they are.
pub fn decode_quoted_printable(body: &[u8]) -> Result<Decoded, Undecodable> {
    let mut bytes = Vec::with_capacity(body.len());
    let mut lines = Vec::with_capacity(body.len() / 60 + 2);
    let mut at = 0;
    while at < body.len() {
        lines.push((bytes.len(), at));
        let (line, end) = match memchr(b'\n', &body[at..]) {
            Some(offset) => (at..at + offset, at + offset + 1),
            None => (at..body.len(), body.len()),
        };
        let mut text = &body[line.clone()];
        let has_end = end > line.end;
        let crlf = has_end && text.last() == Some(&b'\r');
        if crlf {
            text = &text[..text.len() - 1];
        }
        while let [head @ .., b' ' | b'\t'] = text {
            text = head;
        }
        let soft = text.last() == Some(&b'=');
        if soft {
            text = &text[..text.len() - 1];
        }
        let mut from = line.start;
        while text.len() > STRIDE {
            let (chunk, rest) = text.split_at(whole_units(text, STRIDE));
            unescape(chunk, &mut bytes)?;
            from += chunk.len();
            lines.push((bytes.len(), from));
            text = rest;
        }
        unescape(text, &mut bytes)?;
        if !soft && has_end {
            bytes.extend_from_slice(if crlf { b"\r\n" } else { b"\n" });
        }
        at = end;
        if lines.len() > most_lines(body) {
            return Err(Undecodable);
        }
        if at == body.len() {
            // Nothing may be put behind an `=` that ends the body, nor behind white space that does not count.
            lines.push((bytes.len(), if has_end { end } else { from + text.len() }));
        }
    }
    if lines.is_empty() {
        lines.push((0, 0));
    }
    Ok(Decoded { bytes, lines })
}

/// Lines may be so short on average: the map takes more memory than the body when they are shorter. No mail program
/// writes any such.
fn most_lines(body: &[u8]) -> usize {
    10_000 + body.len() / 4
}

/// How many of the first `count` octets of a quoted-printable line do not cut an escape.
fn whole_units(text: &[u8], count: usize) -> usize {
    match text[..count] {
        [.., b'='] => count - 1,
        [.., b'=', _] => count - 2,
        _ => count,
    }
}

fn unescape(text: &[u8], out: &mut Vec<u8>) -> Result<(), Undecodable> {
    let mut from = 0;
    for escape in memchr_iter(b'=', text) {
        if escape < from {
            return Err(Undecodable);
        }
        out.extend_from_slice(&text[from..escape]);
        let digits = text.get(escape + 1..escape + 3).ok_or(Undecodable)?;
        out.push(hex(digits[0])? << 4 | hex(digits[1])?);
        from = escape + 3;
    }
    out.extend_from_slice(&text[from..]);
    Ok(())
}

fn hex(digit: u8) -> Result<u8, Undecodable> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(Undecodable),
    }
}

impl Decoded {
    /// Quoted-printable: where the encoded form of decoded octet `offset` begins in `body`; for the offset of the end,
    /// where content may be added. Behind a soft break, not before it.
    pub fn encoded_start(&self, body: &[u8], offset: usize) -> usize {
        let line = self.lines.partition_point(|(decoded, _)| *decoded <= offset) - 1;
        let (mut decoded, mut at) = self.lines[line];
        while decoded < offset {
            at += if body[at] == b'=' { 3 } else { 1 };
            decoded += 1;
        }
        at
    }

    /// Quoted-printable: where the encoded form of the octet before `offset` ends. Before a soft break.
    pub fn encoded_end(&self, body: &[u8], offset: usize) -> usize {
        let Some(last) = offset.checked_sub(1) else { return self.encoded_start(body, 0) };
        let at = self.encoded_start(body, last);
        at + if body.get(at) == Some(&b'=') { 3 } else { 1 }
    }

    /// base64: where character number `index` of the encoded text stands in the body. `index` may be their number:
    /// the end of the last one.
    pub fn character(&self, index: usize) -> usize {
        let line = self.lines.partition_point(|(count, _)| *count <= index) - 1;
        let (count, at) = self.lines[line];
        at + index - count
    }

    /// base64: characters in the body, padding included.
    pub fn characters(&self) -> usize {
        self.lines.last().map_or(0, |(count, _)| *count)
    }

    /// base64: characters that stand in a line. 76 where the body is a single line, so that nothing tells.
    pub fn line_length(&self) -> usize {
        match self.lines[..] {
            [(first, _), (second, _), _, ..] if second >= first + 4 => second - first,
            _ => MAX_ENCODED_LINE,
        }
    }
}

/// Decodes base64. White space may stand anywhere; anything else outside the alphabet, and wrong padding, is refused.
pub fn decode_base64(body: &[u8]) -> Result<Decoded, Undecodable> {
    let mut text = Vec::with_capacity(body.len());
    let mut lines = Vec::with_capacity(body.len() / 70 + 2);
    let mut end = 0;
    let mut at = 0;
    while at < body.len() {
        if body[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        // Blanks inside a line are rare; such a line is taken word by word.
        let end_of_run = memchr3(b'\n', b' ', b'\t', &body[at..]).map_or(body.len(), |offset| at + offset);
        let run = body[at..end_of_run].trim_ascii_end();
        lines.push((text.len(), at));
        if lines.len() > most_lines(body) {
            return Err(Undecodable);
        }
        text.extend_from_slice(run);
        at += run.len();
        end = at;
    }
    lines.push((text.len(), end));
    let bytes = BASE64.decode(&text).map_err(|_| Undecodable)?;
    Ok(Decoded { bytes, lines })
}

/// Appends `bytes` as base64, broken so that lines have `width` characters; the first has `column` already. No line
/// end behind the last.
pub fn encode_base64(bytes: &[u8], mut column: usize, width: usize, eol: &[u8], out: &mut Vec<u8>) {
    let mut text = vec![0; bytes.len().div_ceil(3) * 4];
    let written = BASE64.encode_slice(bytes, &mut text);
    debug_assert_eq!(written, Ok(text.len()));
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        if column >= width {
            out.extend_from_slice(eol);
            column = 0;
        }
        let (line, tail) = rest.split_at(rest.len().min(width - column));
        out.extend_from_slice(line);
        column += line.len();
        rest = tail;
    }
}

/// Appends `bytes` as quoted-printable whose hard line ends are `eol`: decoded again it is `bytes`, octet by octet.
/// `eol` in `bytes` becomes a line end; every other CR or LF is escaped. Lines that begin with a dot or `--` are
/// escaped as well, so that neither SMTP nor a boundary can take them for its own.
pub fn encode_quoted_printable(bytes: &[u8], eol: &[u8], out: &mut Vec<u8>) {
    let mut column = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        if rest.starts_with(eol) {
            out.extend_from_slice(eol);
            column = 0;
            at += eol.len();
            continue;
        }
        let at_end = rest.len() == 1 || rest[1..].starts_with(eol);
        let literal = |column: usize| match byte {
            b'=' => false,
            b' ' | b'\t' => !at_end,
            b'.' => column > 0,
            b'-' => column > 0 || rest.get(1) != Some(&b'-'),
            _ => matches!(byte, 0x21..=0x7e),
        };
        // The last octet of a line may fill it; any other leaves room for the soft break's `=`.
        let room = if at_end { MAX_ENCODED_LINE } else { MAX_ENCODED_LINE - 1 };
        if column + if literal(column) { 1 } else { 3 } > room {
            out.push(b'=');
            out.extend_from_slice(eol);
            column = 0;
        }
        if literal(column) {
            out.push(byte);
            column += 1;
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&[b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            column += 3;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quoted_printable() {
        let table: &[(&str, Option<&str>)] = &[
            ("", Some("")),
            ("a=3Db=3d", Some("a=b=")),
            ("a \t\r\nb", Some("a\r\nb")),
            ("a=\r\nb= \t\nc=", Some("abc")),
            ("a =\nb", Some("a b")),
            ("a=20\n", Some("a \n")),
            ("=\n=\n=\n", Some("")),
            ("a=b", None),
            ("=4", None),
            ("==41", None),
            ("=g1", None),
        ];
        for (text, want) in table {
            let got = decode_quoted_printable(text.as_bytes()).map(|d| String::from_utf8(d.bytes).unwrap());
            assert_eq!(got.as_deref().ok(), *want, "{text:?}");
        }
    }

    #[test]
    fn offsets_of_quoted_printable() {
        let body = b"ab=3D=\r\n=\r\ncd  \r\ne=";
        let decoded = decode_quoted_printable(body).unwrap();
        assert_eq!(decoded.bytes, b"ab=cd\r\ne");
        let starts: Vec<usize> = (0..5).map(|i| decoded.encoded_start(body, i)).collect();
        assert_eq!(starts, [0, 1, 2, 11, 12]);
        let ends: Vec<usize> = (1..6).map(|i| decoded.encoded_end(body, i)).collect();
        assert_eq!(ends, [1, 2, 5, 12, 13]);
        assert_eq!(decoded.encoded_start(body, 8), body.len() - 1);
        // Places inside a long line, wherever the escapes fall.
        for shift in 0..3 {
            let body = ["a".repeat(shift).as_str(), &"=3D".repeat(300), "=\n", &"b".repeat(600), "  "].concat();
            let decoded = decode_quoted_printable(body.as_bytes()).unwrap();
            for offset in 0..=decoded.bytes.len() {
                let escapes = offset.saturating_sub(shift).min(300);
                let soft = if escapes == 300 { 2 } else { 0 };
                assert_eq!(decoded.encoded_start(body.as_bytes(), offset), offset + 2 * escapes + soft);
            }
        }
    }

    #[test]
    fn base64() {
        let table: &[(&str, Option<&str>)] = &[
            ("", Some("")),
            ("YWJj\r\nZGVm\r\n", Some("abcdef")),
            ("\n YW Jj\n\nZA==\n\n", Some("abcd")),
            ("YWI", None),
            ("YWI=YWI=", None),
            ("YW.j", None),
            ("YWJjZ", None),
        ];
        for (text, want) in table {
            let got = decode_base64(text.as_bytes()).map(|d| String::from_utf8(d.bytes).unwrap());
            assert_eq!(got.as_deref().ok(), *want, "{text:?}");
        }
        let body = b"\nYWJj\r\nZGVm\r\nZw==\r\n";
        let decoded = decode_base64(body).unwrap();
        let at: Vec<u8> = (0..12).map(|i| body[decoded.character(i)]).collect();
        assert_eq!(at, b"YWJjZGVmZw==");
        assert_eq!((decoded.line_length(), decoded.characters(), decoded.character(12)), (4, 12, body.len() - 2));
    }

    proptest! {
        #[test]
        fn quoted_printable_comes_back(
            bytes in proptest::collection::vec(prop_oneof![4 => any::<u8>(), 3 => Just(b' '), 2 => Just(b'\n'),
                2 => Just(b'\r'), 6 => Just(b'-'), 9 => Just(b'a'), 1 => Just(b'.')], 0..400),
            crlf in any::<bool>(),
        ) {
            let eol: &[u8] = if crlf { b"\r\n" } else { b"\n" };
            let mut out = Vec::new();
            encode_quoted_printable(&bytes, eol, &mut out);
            prop_assert_eq!(&decode_quoted_printable(&out).unwrap().bytes, &bytes);
            for line in out.split(|b| *b == b'\n') {
                prop_assert!(line.strip_suffix(b"\r").unwrap_or(line).len() <= MAX_ENCODED_LINE);
                prop_assert!(!line.starts_with(b"--") && !line.starts_with(b"."));
            }
        }

        #[test]
        fn base64_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..400), width in 1usize..100, column in 0usize..100) {
            let mut out = Vec::new();
            encode_base64(&bytes, column, width, b"\r\n", &mut out);
            prop_assert_eq!(decode_base64(&out).unwrap().bytes, bytes);
            prop_assert!(out.split(|b| *b == b'\n').all(|l| l.trim_ascii_end().len() <= width));
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_base64(&bytes);
            if let Ok(decoded) = decode_quoted_printable(&bytes) {
                for offset in 0..=decoded.bytes.len() {
                    prop_assert!(decoded.encoded_start(&bytes, offset) <= bytes.len());
                }
            }
        }
    }
}
