//! The "relaxed" form of header fields and bodies, over which signatures are made (RFC 6376 §3.4.2, §3.4.4).
//!
//! mail-auth 0.13.3 has one of its own, in which a last line of blanks stays an empty line. OpenDKIM, dkimpy and
//! Mail::DKIM follow the RFC there, and so does this.

use memchr::{memchr, memmem};
use sha2::{Digest, Sha256};

/// Appends a field: `name` is as it is to stand, in lower case; `value` is what stands between colon and line end.
pub(super) fn push_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let start = out.len();
    let unfolded = value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n'));
    push_single_spaced(unfolded, start, out);
    if out.len() > start && out.last() == Some(&b' ') {
        out.pop();
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends `text` with one space for each run of white space; none where `out` is as long as `start`.
fn push_single_spaced(text: impl Iterator<Item = u8>, start: usize, out: &mut Vec<u8>) {
    let mut gap = false;
    for byte in text {
        match byte {
            b' ' | b'\t' if out.len() == start => {}
            b' ' | b'\t' if gap => {}
            b' ' | b'\t' => {
                gap = true;
                out.push(b' ');
            }
            _ => {
                gap = false;
                out.push(byte);
            }
        }
    }
}

/// SHA-256 of a body in relaxed form.
pub(super) fn body_hash(body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    write_body(body, |piece| hash.update(piece));
    hash.finalize().into()
}

/// Octets that are handed on at once, about.
const PIECE: usize = 16 << 10;

fn write_body(body: &[u8], mut write: impl FnMut(&[u8])) {
    let mut out = Vec::with_capacity(PIECE.min(body.len()) + 1024);
    let double = memmem::Finder::new(b"  ");
    // Empty lines count only if something comes behind them.
    let mut empty = 0usize;
    let mut at = 0;
    while at < body.len() {
        let end = memchr(b'\n', &body[at..]).map_or(body.len(), |offset| at + offset + 1);
        let line = without_end(&body[at..end]);
        at = end;
        if line.is_empty() {
            empty += 1;
            continue;
        }
        while empty > 0 {
            out.extend_from_slice(b"\r\n");
            empty -= 1;
            if out.len() >= PIECE {
                write(&out);
                out.clear();
            }
        }
        // Unlike in a field, white space at the beginning stays, as one space. Most lines have no more than that.
        let indent = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if indent > 0 {
            out.push(b' ');
        }
        let text = &line[indent..];
        if memchr(b'\t', text).is_none() && double.find(text).is_none() {
            out.extend_from_slice(text);
        } else {
            push_single_spaced(text.iter().copied(), usize::MAX, &mut out);
        }
        out.extend_from_slice(b"\r\n");
        if out.len() >= PIECE {
            write(&out);
            out.clear();
        }
    }
    write(&out);
}

/// A line without its end and the white space before that.
fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(name: &str, value: &[u8]) -> Vec<u8> {
        let mut out = b"x".to_vec();
        push_field(name, value, &mut out);
        out.split_off(1)
    }

    fn body(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_body(body, |piece| out.extend_from_slice(piece));
        out
    }

    #[test]
    fn fields() {
        let table: &[(&[u8], &[u8])] = &[
            (b" X", b"a:X\r\n"),
            (b" Y\t\r\n\tZ  ", b"a:Y Z\r\n"),
            (b"", b"a:\r\n"),
            (b" \t ", b"a:\r\n"),
            (b"x", b"a:x\r\n"),
            (b"\r\n x\r\n \r\n y\r\n\t", b"a:x y\r\n"),
            (b" a  b\t\tc \t d", b"a:a b c d\r\n"),
            (b" a\x0cb\x0b\xa0c", b"a:a\x0cb\x0b\xa0c\r\n"),
            (b" a\r\nb", b"a:ab\r\n"),
        ];
        for (value, want) in table {
            assert_eq!(field("a", value), *want, "{value:?}");
        }
    }

    #[test]
    fn bodies() {
        let table: &[(&[u8], &[u8])] = &[
            // RFC 6376 §3.4.5.
            (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
            (b"", b""),
            (b"\r\n", b""),
            (b"\r\n\r\n", b""),
            // A line of blanks is an empty one.
            (b"   \r\n", b""),
            (b"a\r\n \t\r\n", b"a\r\n"),
            (b"a\r\n \r\n\r\n\t\r\n", b"a\r\n"),
            (b"a\r\n \r\nb\r\n", b"a\r\n\r\nb\r\n"),
            (b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
            (b" \ta", b" a\r\n"),
            (b"a", b"a\r\n"),
            (b"a ", b"a\r\n"),
            (b"a\r\n\r\nb \t\r\n", b"a\r\n\r\nb\r\n"),
            (b"a\x0c \x0b\r\n", b"a\x0c \x0b\r\n"),
            (b"\xff\0  \xfe\r\n", b"\xff\0 \xfe\r\n"),
        ];
        for (text, want) in table {
            assert_eq!(body(text), *want, "{text:?}");
        }
        let many = b"\r\n".repeat(100_000);
        assert_eq!(body(&[&many[..], b"x"].concat()), [&many[..], b"x\r\n"].concat());
    }

    /// The RFC's two steps, one after the other, as they stand there.
    fn in_two_steps(text: &str) -> String {
        let mut text = text.to_owned();
        if !text.is_empty() && !text.ends_with("\r\n") {
            text.push_str("\r\n");
        }
        text = text.replace('\t', " ");
        while text.contains("  ") {
            text = text.replace("  ", " ");
        }
        text = text.replace(" \r\n", "\r\n");
        while text.ends_with("\r\n\r\n") {
            text.truncate(text.len() - 2);
        }
        if text == "\r\n" { String::new() } else { text }
    }

    proptest! {
        #[test]
        fn any_body_is_as_the_rfc_says(lines in prop::collection::vec("[ \tab]{0,5}", 0..12), open_end in any::<bool>()) {
            let mut text = lines.join("\r\n");
            if !open_end {
                text.push_str("\r\n");
            }
            let relaxed = body(text.as_bytes());
            prop_assert_eq!(String::from_utf8(relaxed.clone()).unwrap(), in_two_steps(&text));
            prop_assert_eq!(body(&relaxed), relaxed);
        }
    }
}
