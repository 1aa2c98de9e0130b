//! The message as it goes out after DATA: dots stuffed, ended by a lone dot (RFC 5321 §4.5.2).
//!
//! Takes only messages whose every line ends with CRLF, the last line perhaps excepted; changes nothing else.

use memchr::{memchr_iter, memmem};
use std::ops::Range;

/// The most message octets that go out in one write, before stuffing.
pub(super) const PIECE: usize = 256 * 1024;

/// True when every CR is followed by LF and every LF preceded by CR.
///
/// A message for which this is false must not be sent: a peer that takes a bare LF or CR for a line end would read
/// `LF . LF` as the end of the message, and what follows as commands (SMTP smuggling).
pub(super) fn has_clean_lines(message: &[u8]) -> bool {
    let mut lines = 0;
    for at in memchr_iter(b'\n', message) {
        if at == 0 || message[at - 1] != b'\r' {
            return false;
        }
        lines += 1;
    }
    // Every LF has a CR of its own before it, so that any further CR is bare.
    memchr_iter(b'\r', message).count() == lines
}

/// The size that MAIL declares (RFC 1870 §5): without stuffed dots and final dot, with the CRLF that we add.
pub(super) fn declared_size(message: &[u8]) -> usize {
    message.len() + if ends_line(message) { 0 } else { 2 }
}

/// Appends the octets `piece` of `message` to `out`, stuffed, and after the last octet of the message the final dot.
/// The pieces may be cut anywhere.
pub(super) fn push_piece(message: &[u8], piece: Range<usize>, out: &mut Vec<u8>) {
    let at_line_start = piece.start == 0 || message[piece.start - 1] == b'\n';
    let (is_last, piece) = (piece.end == message.len(), &message[piece]);
    out.reserve(piece.len() + piece.len() / 64 + 8);
    if at_line_start && piece.first() == Some(&b'.') {
        out.push(b'.');
    }
    let mut copied = 0;
    for at in memmem::find_iter(piece, b"\n.") {
        out.extend_from_slice(&piece[copied..=at]);
        out.push(b'.');
        copied = at + 1;
    }
    out.extend_from_slice(&piece[copied..]);
    if is_last {
        out.extend_from_slice(if ends_line(message) { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

fn ends_line(message: &[u8]) -> bool {
    message.is_empty() || message.ends_with(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_piece(message, 0..message.len(), &mut out);
        out
    }

    /// What a receiver makes of `wire`: the message, and the octets after the final dot.
    fn decode(wire: &[u8]) -> Option<(Vec<u8>, &[u8])> {
        let (mut message, mut rest) = (Vec::new(), wire);
        loop {
            let end = memmem::find(rest, b"\r\n")? + 2;
            let (line, after) = rest.split_at(end);
            if line == b".\r\n" {
                return Some((message, after));
            }
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            rest = after;
        }
    }

    #[test]
    fn stuffing() {
        let table: &[(&[u8], &[u8])] = &[
            (b"", b".\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..\r\n.a\r\n", b"...\r\n..a\r\n.\r\n"),
            (b"a.\r\n\r\n.\r\n", b"a.\r\n\r\n..\r\n.\r\n"),
            (b"a\r\n.\r\nMAIL\r\n", b"a\r\n..\r\nMAIL\r\n.\r\n"),
            (b"\xff\r\n.\xff", b"\xff\r\n..\xff\r\n.\r\n"),
        ];
        for (message, wire) in table {
            assert_eq!(&whole(message), wire, "{message:?}");
        }
    }

    #[test]
    fn bare_line_ends() {
        let table: &[(&[u8], bool)] = &[
            (b"", true),
            (b"a\r\nb", true),
            (b"\r\n\r\n", true),
            (b"\n", false),
            (b"a\n.\nb\r\n", false),
            (b"a\r", false),
            (b"a\rb\r\n", false),
            (b"a\r\r\n", false),
            (b"a\r\n\n", false),
            (b"\n\r", false),
        ];
        for (message, clean) in table {
            assert_eq!(has_clean_lines(message), *clean, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn a_receiver_gets_the_message_back(
            lines in prop::collection::vec("[.a\u{e4}]{0,4}", 0..20),
            open_end in any::<bool>(),
            cut in 1usize..9,
        ) {
            let mut message = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().into_bytes();
            if open_end {
                message.extend_from_slice(b".x");
            }
            prop_assert!(has_clean_lines(&message));
            let wire = whole(&message);
            let (mut got, after) = decode(&wire).expect("there is a final dot");
            prop_assert!(after.is_empty());
            prop_assert_eq!(got.len(), declared_size(&message));
            got.truncate(message.len());
            prop_assert_eq!(&got, &message);

            let mut pieces = Vec::new();
            for start in (0..message.len().max(1)).step_by(cut) {
                push_piece(&message, start..(start + cut).min(message.len()), &mut pieces);
            }
            prop_assert_eq!(pieces, wire);
        }

        #[test]
        fn clean_lines_as_a_naive_scan_sees_them(message in "[\r\na.]{0,12}") {
            let bare = message.replace("\r\n", "").contains(['\r', '\n']);
            prop_assert_eq!(has_clean_lines(message.as_bytes()), !bare);
        }
    }
}
