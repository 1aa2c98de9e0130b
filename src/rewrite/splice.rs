//! Splicing new text into a message whose other octets stay as they are.
//!
//! Owns: how a change of the decoded text looks in each transfer encoding, and writing a copy. Does not: know what is
//! changed why. A list of [`Piece`]s is made once a message; writing it costs a copy of the message and the new text.
//!
//! New text is URLs of our own and the pixel: printable ASCII that no transfer encoding and no charset that we accept
//! needs to escape, but for the `=` in the pixel's attributes.

use super::pixel;
use crate::mail::QueueId;
use crate::mime::transfer::{Decoded, MAX_ENCODED_LINE, encode_base64, encode_quoted_printable};
use crate::token::{HostSigner, Width, click_len, open_len};
use memchr::{memchr, memchr_iter, memrchr};
use std::ops::Range;

/// New text in place of old: what depends on the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insert {
    /// The URL of a rewritten link, by its index.
    Link(u16),
    /// The whole tag.
    Pixel,
}

/// A change of a part's decoded text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// What goes; empty for the pixel.
    pub range: Range<usize>,
    pub insert: Insert,
}

/// A stretch of a copy.
#[derive(Debug)]
pub(super) enum Piece {
    /// Octets of the message.
    Copy(Range<usize>),
    Literal(Box<[u8]>),
    /// New text as it is.
    Plain(Insert),
    /// New text in a quoted-printable line. `column`: of its beginning, where the line began in the message; `None`:
    /// wherever the piece before ended.
    Quoted {
        insert: Insert,
        column: Option<usize>,
    },
    /// Octets of the message behind new text in the same quoted-printable line. They go on a line of their own when
    /// the line would pass `room`.
    Rest {
        range: Range<usize>,
        room: usize,
    },
    /// Ends a quoted-printable line without ending the text's.
    SoftBreak,
    Encoded(Box<Encoded>),
}

/// Decoded text that is encoded again for each copy.
#[derive(Debug)]
pub(super) struct Encoded {
    pub text: Box<[u8]>,
    /// Ranges of `text`, in order.
    pub edits: Vec<Edit>,
    pub form: Form,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// The first line has `column` characters already; all have `width`.
    Base64 {
        column: usize,
        width: usize,
    },
    QuotedPrintable,
}

/// Pieces in the making: everything up to `cursor` of the message is in them.
#[derive(Debug, Default)]
pub(super) struct Splice {
    pub pieces: Vec<Piece>,
    cursor: usize,
}

impl Splice {
    /// Copies what stands before `range`, puts `pieces` in its place.
    pub fn replace(&mut self, range: Range<usize>, pieces: impl IntoIterator<Item = Piece>) {
        debug_assert!(self.cursor <= range.start && range.start <= range.end);
        if self.cursor < range.start {
            self.pieces.push(Piece::Copy(self.cursor..range.start));
        }
        self.pieces.extend(pieces);
        self.cursor = range.end;
    }

    /// Copies the rest of a message of `length` octets.
    pub fn finish(mut self, length: usize) -> Vec<Piece> {
        self.replace(length..length, []);
        self.pieces
    }

    /// `edits` of an unencoded body that begins at `base`.
    pub fn plain(&mut self, base: usize, edits: &[Edit]) {
        for edit in edits {
            self.replace(base + edit.range.start..base + edit.range.end, [Piece::Plain(edit.insert)]);
        }
    }

    /// `edits` of a quoted-printable body: only the encoded lines that they touch are laid out anew.
    pub fn quoted_printable(&mut self, message: &[u8], body: Range<usize>, decoded: &Decoded, edits: &[Edit]) {
        let encoded = &message[body.clone()];
        let places: Vec<Range<usize>> = edits.iter().map(|edit| place(encoded, decoded, &edit.range)).collect();
        for (index, (edit, place)) in edits.iter().zip(&places).enumerate() {
            let joined = |a: usize, b: usize| memchr(b'\n', &encoded[a..b]).is_none();
            let first = index == 0 || !joined(places[index - 1].end, place.start);
            let line = || memrchr(b'\n', &encoded[..place.start]).map_or(0, |at| at + 1);
            let mut column = first.then(|| place.start - line());
            if column.is_some_and(|column| column >= MAX_ENCODED_LINE) {
                // A full line has no room for the soft break's `=`: its last octet moves to the next line.
                let last = last_unit(&encoded[line()..place.start]);
                let cut = body.start + place.start - last;
                self.replace(cut..cut, [Piece::SoftBreak]);
                column = Some(last);
            }
            let (start, end) = (body.start + place.start, body.start + place.end);
            let quoted = Piece::Quoted { insert: edit.insert, column };
            // What stands behind, up to the next edit in this line or to the line's end.
            let next = places.get(index + 1).filter(|next| joined(place.end, next.start));
            let (rest, room) = match next {
                Some(next) => (next.start, MAX_ENCODED_LINE - 1),
                None => (line_end(encoded, place.end), MAX_ENCODED_LINE),
            };
            let rest = end..body.start + rest;
            self.replace(start..rest.end, [quoted, Piece::Rest { range: rest, room }]);
        }
    }

    /// `edits` of a base64 body: encoded again from the first changed group on.
    pub fn base64(&mut self, message: &[u8], body: Range<usize>, decoded: &Decoded, edits: &[Edit]) {
        let Some(first) = edits.first() else { return };
        let encoded = &message[body.clone()];
        let group = first.range.start / 3;
        let start = decoded.character((group * 4).min(decoded.characters()));
        let end = decoded.character(decoded.characters());
        let line = memrchr(b'\n', &encoded[..start]).map_or(0, |at| at + 1);
        let column = encoded[line..start].iter().filter(|b| !b.is_ascii_whitespace()).count();
        let shift =
            |edit: &Edit| Edit { range: edit.range.start - group * 3..edit.range.end - group * 3, insert: edit.insert };
        let tail = Encoded {
            text: decoded.bytes[group * 3..].into(),
            edits: edits.iter().map(shift).collect(),
            form: Form::Base64 { column, width: decoded.line_length() },
        };
        self.replace(body.start + start..body.start + end, [Piece::Encoded(Box::new(tail))]);
    }
}

/// Where decoded octets `range` stand in a quoted-printable body.
fn place(encoded: &[u8], decoded: &Decoded, range: &Range<usize>) -> Range<usize> {
    let start = decoded.encoded_start(encoded, range.start);
    start..if range.is_empty() { start } else { decoded.encoded_end(encoded, range.end) }
}

/// Octets that the last encoded octet of a quoted-printable line takes.
fn last_unit(line: &[u8]) -> usize {
    match line {
        [.., b'=', _, _] => 3,
        _ => 1.min(line.len()),
    }
}

/// Where the line that holds `at` ends, before its line end.
fn line_end(text: &[u8], at: usize) -> usize {
    let end = memchr(b'\n', &text[at..]).map_or(text.len(), |offset| at + offset);
    if end > at && end < text.len() && text[end - 1] == b'\r' { end - 1 } else { end }
}

/// True when with `edits` a line of `text` would pass `limit` octets, line end not counted.
pub(super) fn passes(text: &[u8], edits: &[Edit], lengths: &Texts<'_>, limit: usize) -> bool {
    let mut edits = edits.iter().peekable();
    while let Some(mut edit) = edits.next() {
        let start = memrchr(b'\n', &text[..edit.range.start]).map_or(0, |at| at + 1);
        let mut length = edit.range.start - start;
        let mut end = line_end(text, edit.range.end);
        loop {
            length += lengths.length(edit.insert);
            // Once a line, unless the value that goes had line ends in it.
            if edit.range.end > end {
                end = line_end(text, edit.range.end);
            }
            match edits.next_if(|next| next.range.start <= end) {
                Some(next) => {
                    length += next.range.start - edit.range.end;
                    edit = next;
                }
                None => {
                    length += end - edit.range.end;
                    break;
                }
            }
        }
        if length > limit {
            return true;
        }
    }
    false
}

/// What the new text of all copies has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts<'a> {
    /// `SCHEME://HOST[:PORT]`.
    pub base: &'a str,
    pub width: Width,
    /// Destinations by index.
    pub links: &'a [Box<str>],
}

/// Whose tokens.
#[derive(Clone, Copy)]
pub(super) enum Tokens<'a> {
    Signed {
        signer: &'a HostSigner,
        id: &'a QueueId,
        recipient: u16,
    },
    /// As long as real ones: for measuring.
    Blank,
}

impl Texts<'_> {
    fn url_length(&self, insert: Insert) -> usize {
        self.base.len()
            + match insert {
                Insert::Link(index) => 3 + click_len(self.links[usize::from(index)].len(), self.width),
                Insert::Pixel => 3 + open_len(self.width) + 4,
            }
    }

    /// Octets of the new text, unencoded.
    pub fn length(&self, insert: Insert) -> usize {
        self.url_length(insert)
            + match insert {
                Insert::Link(_) => 0,
                Insert::Pixel => pixel::HEAD.len() + pixel::TAIL.len(),
            }
    }

    fn write(&self, insert: Insert, tokens: Tokens<'_>, out: &mut Vec<u8>) {
        match insert {
            Insert::Link(index) => {
                let url = &self.links[usize::from(index)];
                out.extend_from_slice(self.base.as_bytes());
                out.extend_from_slice(b"/c/");
                match tokens {
                    Tokens::Signed { signer, id, recipient } => {
                        signer.click(id, recipient, index, self.width, url, out)
                    }
                    Tokens::Blank => out.resize(out.len() + click_len(url.len(), self.width), b'A'),
                }
            }
            Insert::Pixel => {
                out.extend_from_slice(pixel::HEAD);
                out.extend_from_slice(self.base.as_bytes());
                out.extend_from_slice(b"/o/");
                match tokens {
                    Tokens::Signed { signer, id, recipient } => signer.open(id, recipient, self.width, out),
                    Tokens::Blank => out.resize(out.len() + open_len(self.width), b'A'),
                }
                out.extend_from_slice(b".gif");
                out.extend_from_slice(pixel::TAIL);
            }
        }
    }
}

/// Appends the copy that `pieces` of `message` make.
pub(super) fn write(
    message: &[u8],
    pieces: &[Piece],
    texts: &Texts<'_>,
    tokens: Tokens<'_>,
    eol: &[u8],
    out: &mut Vec<u8>,
) {
    let mut scratch = Vec::new();
    let mut column = 0;
    for piece in pieces {
        match piece {
            Piece::Copy(range) => out.extend_from_slice(&message[range.clone()]),
            Piece::Literal(text) => out.extend_from_slice(text),
            Piece::Plain(insert) => texts.write(*insert, tokens, out),
            Piece::Quoted { insert, column: begin } => {
                column = begin.unwrap_or(column);
                scratch.clear();
                texts.write(*insert, tokens, &mut scratch);
                push_quoted(&scratch, &mut column, eol, out);
            }
            Piece::Rest { range, room } => {
                if column + range.len() > *room {
                    soft_break(&mut column, eol, out);
                }
                out.extend_from_slice(&message[range.clone()]);
                column += range.len();
            }
            Piece::SoftBreak => soft_break(&mut column, eol, out),
            Piece::Encoded(encoded) => {
                scratch.clear();
                let mut from = 0;
                for edit in &encoded.edits {
                    scratch.extend_from_slice(&encoded.text[from..edit.range.start]);
                    texts.write(edit.insert, tokens, &mut scratch);
                    from = edit.range.end;
                }
                scratch.extend_from_slice(&encoded.text[from..]);
                match encoded.form {
                    Form::Base64 { column, width } => encode_base64(&scratch, column, width, eol, out),
                    Form::QuotedPrintable => encode_quoted_printable(&scratch, eol, out),
                }
            }
        }
    }
}

fn soft_break(column: &mut usize, eol: &[u8], out: &mut Vec<u8>) {
    out.push(b'=');
    out.extend_from_slice(eol);
    *column = 0;
}

/// Appends printable ASCII as quoted-printable, with soft breaks where a line would pass 76 octets. No line begins
/// with `-`, as far as two octets of play allow, so that none can be taken for a boundary.
fn push_quoted(text: &[u8], column: &mut usize, eol: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while !rest.is_empty() {
        let room = (MAX_ENCODED_LINE - 1).saturating_sub(*column);
        let mut count = fitting(rest, room);
        for _ in 0..2 {
            if count > 1 && rest.get(count) == Some(&b'-') {
                count -= 1;
            }
        }
        let (mut line, tail) = rest.split_at(count);
        while let Some(sign) = memchr(b'=', line) {
            out.extend_from_slice(&line[..sign]);
            out.extend_from_slice(b"=3D");
            *column += sign + 3;
            line = &line[sign + 1..];
        }
        out.extend_from_slice(line);
        *column += line.len();
        rest = tail;
        if !rest.is_empty() {
            soft_break(column, eol, out);
        }
    }
}

/// How many octets of `text` fit in `room`, when an `=` takes three.
fn fitting(text: &[u8], room: usize) -> usize {
    let mut count = text.len().min(room);
    let mut escapes = memchr_iter(b'=', &text[..count]).count();
    while count + 2 * escapes > room {
        count -= 1;
        escapes -= usize::from(text[count] == b'=');
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::transfer::{decode_base64, decode_quoted_printable};
    use proptest::prelude::*;

    fn texts(links: &[Box<str>]) -> Texts<'_> {
        Texts { base: "https://l.example.com", width: Width::for_message(1, 1), links }
    }

    /// Every `@` of `text` is replaced by link 0; `!` is where the pixel goes.
    fn edits(text: &[u8]) -> Vec<Edit> {
        let insert = |b: u8| if b == b'@' { Insert::Link(0) } else { Insert::Pixel };
        let marks = text.iter().enumerate().filter(|(_, b)| matches!(b, b'@' | b'!'));
        marks.map(|(at, b)| Edit { range: at..at + usize::from(*b == b'@'), insert: insert(*b) }).collect()
    }

    fn expected(text: &[u8], texts: &Texts<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in text {
            match byte {
                b'@' => texts.write(Insert::Link(0), Tokens::Blank, &mut out),
                b'!' => {
                    texts.write(Insert::Pixel, Tokens::Blank, &mut out);
                    out.push(b'!');
                }
                byte => out.push(*byte),
            }
        }
        out
    }

    fn lines_fit(text: &[u8], limit: usize) -> bool {
        text.split(|b| *b == b'\n').all(|line| line.trim_ascii().len() <= limit)
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![20 => Just(b'a'), 3 => Just(b'='), 1 => Just(b'\n'), 3 => Just(b' '),
            2 => Just(b'@'), 1 => Just(b'!'), 2 => Just(0xfc)],
            0..400,
        )
    }

    #[test]
    fn behind_a_full_line() {
        let texts = texts(&[]);
        for unit in ["a", "=3D"] {
            let body = format!("{}{unit}", "b".repeat(76 - unit.len()));
            let decoded = decode_quoted_printable(body.as_bytes()).unwrap();
            let end = decoded.bytes.len();
            let mut splice = Splice::default();
            let pixel = [Edit { range: end..end, insert: Insert::Pixel }];
            splice.quoted_printable(body.as_bytes(), 0..body.len(), &decoded, &pixel);
            let mut out = Vec::new();
            write(body.as_bytes(), &splice.finish(body.len()), &texts, Tokens::Blank, b"\r\n", &mut out);
            assert!(lines_fit(&out, 76));
            assert!(decode_quoted_printable(&out).unwrap().bytes.starts_with(&decoded.bytes));
        }
    }

    proptest! {
        #[test]
        fn quoted_printable(text in text(), length in 1usize..300) {
            let links = [format!("http://example.com/{}", "x".repeat(length)).into()];
            let texts = texts(&links);
            let mut message = b"head\r\n".to_vec();
            encode_quoted_printable(&text, b"\n", &mut message);
            let end = message.len();
            message.extend_from_slice(b"\r\ntail");
            let decoded = decode_quoted_printable(&message[6..end]).unwrap();
            let mut splice = Splice::default();
            splice.quoted_printable(&message, 6..end, &decoded, &edits(&text));
            let mut out = Vec::new();
            write(&message, &splice.finish(message.len()), &texts, Tokens::Blank, b"\n", &mut out);
            let body = out.strip_prefix(b"head\r\n").and_then(|o| o.strip_suffix(b"\r\ntail")).unwrap();
            prop_assert!(lines_fit(body, 76));
            prop_assert_eq!(decode_quoted_printable(body).unwrap().bytes, expected(&text, &texts));
        }

        #[test]
        fn base64(text in text(), width in prop_oneof![Just(76), Just(4), Just(61)], junk in "[ \r\n]{0,3}") {
            let links = ["http://example.com/".into()];
            let texts = texts(&links);
            let mut message = junk.clone().into_bytes();
            encode_base64(&text, 0, width, b"\r\n", &mut message);
            message.extend_from_slice(junk.as_bytes());
            let decoded = decode_base64(&message).unwrap();
            let mut splice = Splice::default();
            splice.base64(&message, 0..message.len(), &decoded, &edits(&text));
            let mut out = Vec::new();
            write(&message, &splice.finish(message.len()), &texts, Tokens::Blank, b"\r\n", &mut out);
            prop_assert!(lines_fit(&out, 76.max(width)));
            prop_assert!(out.ends_with(junk.as_bytes()));
            prop_assert_eq!(decode_base64(&out).unwrap().bytes, expected(&text, &texts));
        }

        #[test]
        fn long_lines(text in text(), limit in 100usize..900) {
            let links = ["http://example.com/".into()];
            let texts = texts(&links);
            let edits = edits(&text);
            let want = expected(&text, &texts);
            let touched = |line: &[u8]| memchr::memmem::find(line, b"https://l.").is_some();
            let long = want.split(|b| *b == b'\n').any(|line| touched(line) && line.len() > limit);
            prop_assert_eq!(passes(&text, &edits, &texts, limit), long);
        }
    }
}
