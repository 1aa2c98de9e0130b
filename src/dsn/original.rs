//! How much of the original goes back with a notice, and as which kind of part.
//!
//! The octets are the sender's own and are not changed. What could not pass as it stands (a line over 998 octets, a
//! bare CR or LF, NUL) is returned as a header only, in quoted-printable, since message/rfc822 has no encoding
//! (RFC 2046 §5.2.1) and text/rfc822-headers may have one (RFC 6522 §4).

use super::{Kind, Notice};
use crate::mail::Return;
use crate::mime::header::fields;
use crate::mime::scan::header_block;
use crate::mime::transfer::encode_quoted_printable;
use std::borrow::Cow;

/// The third part of a notice.
pub(super) struct Returned<'a> {
    pub media: &'static str,
    pub encoding: &'static str,
    pub octets: Cow<'a, [u8]>,
    /// The message itself, not only its header.
    pub whole: bool,
}

/// Messages over this many octets come back as a header only, also with RET=FULL.
pub(super) const MAX_WHOLE: usize = 1 << 20;
/// Octets of the header block that are returned: whole fields, as many as there is room for.
pub(super) const MAX_HEADER: usize = 128 << 10;
/// Without the line end (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;

/// `None` when there is nothing to return. `utf8`: the notice goes out with SMTPUTF8.
pub(super) fn returned<'a>(notice: &Notice<'a>, utf8: bool) -> Option<Returned<'a>> {
    let original = notice.original;
    let header = header(original);
    if header.is_empty() {
        return None;
    }
    // RFC 3461 §4.3: only a notice of failure returns the message.
    let wanted = notice.kind == Kind::Failed && notice.envelope.ret == Some(Return::Full);
    // Without the empty line behind the header, some readers would look for it past the end of the part.
    let has_body = header.len() < original.len();
    if wanted && has_body && original.len() <= MAX_WHOLE && can_pass(original) {
        let global = !header.is_ascii() && (utf8 || notice.envelope.smtputf8);
        let media = if global { "message/global" } else { "message/rfc822" };
        return Some(Returned { media, encoding: plain(original), octets: original.into(), whole: true });
    }
    let media = if utf8 { "message/global-headers" } else { "text/rfc822-headers" };
    let (encoding, octets) = if can_pass(header) {
        (plain(header), header.into())
    } else {
        let mut encoded = Vec::with_capacity(header.len() + header.len() / 8);
        encode_quoted_printable(header, b"\r\n", &mut encoded);
        ("quoted-printable", encoded.into())
    };
    Some(Returned { media, encoding, octets, whole: false })
}

fn header(original: &[u8]) -> &[u8] {
    // Room for the empty line that shows that this is all.
    let head = &original[..original.len().min(MAX_HEADER + 2)];
    let block = header_block(head, 0, |_| false).map_or(0..head.len(), |(block, _)| block);
    if block.end <= MAX_HEADER {
        return &head[block];
    }
    let whole = fields(head, block).take_while(|field| field.span.end <= MAX_HEADER).last();
    &head[..whole.map_or(0, |field| field.span.end)]
}

/// Whether SMTP carries the octets as they are.
fn can_pass(octets: &[u8]) -> bool {
    let mut lines = octets.split(|b| *b == b'\n').peekable();
    while let Some(line) = lines.next() {
        let line = match line.strip_suffix(b"\r") {
            Some(line) if lines.peek().is_some() => line,
            _ if lines.peek().is_some() => return false,
            _ => line,
        };
        if line.len() > MAX_LINE || line.contains(&b'\r') || line.contains(&0) {
            return false;
        }
    }
    true
}

fn plain(octets: &[u8]) -> &'static str {
    if octets.is_ascii() { "7bit" } else { "8bit" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_smtp_carries() {
        let long = "x".repeat(998);
        let table: &[(&str, bool)] = &[
            ("", true),
            ("a: b\r\n\r\nc", true),
            ("a: \u{fc}\r\n", true),
            (&format!("{long}\r\n{long}"), true),
            (&format!("{long}x\r\n"), false),
            ("a\nb", false),
            ("a\r\nb\n", false),
            ("a\rb\r\n", false),
            ("a\r\r\n", false),
            ("a\r", false),
            ("a\0", false),
        ];
        for (text, want) in table {
            assert_eq!(can_pass(text.as_bytes()), *want, "{text:?}");
        }
    }

    #[test]
    fn header_blocks() {
        let table: &[(&[u8], &[u8])] = &[
            (b"", b""),
            (b"\r\nbody", b""),
            (b"a: b\r\n\r\nbody", b"a: b\r\n"),
            (b"a: b\r\n c\r\nd: e", b"a: b\r\n c\r\nd: e"),
        ];
        for (original, want) in table {
            assert_eq!(header(original), *want, "{original:?}");
        }
        let field = format!("x: {}\r\n", "y".repeat(1000));
        let many = field.repeat(MAX_HEADER / field.len() + 5);
        let kept = header(many.as_bytes());
        assert_eq!(kept.len(), MAX_HEADER / field.len() * field.len());
        let exact = [&field.repeat(130)[..], "z: ", &"y".repeat(MAX_HEADER - 130 * field.len() - 5), "\r\n"].concat();
        assert_eq!(exact.len(), MAX_HEADER);
        assert_eq!(header([&exact[..], "\r\nbody"].concat().as_bytes()).len(), MAX_HEADER);
        assert!(header("y".repeat(2 * MAX_HEADER).as_bytes()).is_empty());
    }
}
