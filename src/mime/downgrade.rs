//! An 8-bit message made to fit a smarthost that does not offer 8BITMIME (RFC 6152 §3), by giving parts another transfer
//! encoding (RFC 2045 §6). Before DKIM signs, as RFC 6376 §5.3 asks for.
//!
//! Owns: which parts change, and how. Does not: write a message anew. Every octet stays but for the encoded bodies, the
//! Content-Transfer-Encoding fields that name the encoding, and a MIME-Version without which no reader need honour them.
//!
//! What becomes of octets over 127 in:
//!
//! - a part made of lines: quoted-printable, whose hard line breaks are line ends as well.
//! - a part not made of lines: base64. Its CR and LF are data, which quoted-printable keeps only by escaping each
//!   (RFC 2045 §6.7 rule 4).
//! - `multipart/*` and `message/rfc822`: never encoded (RFC 2045 §6.4), but descended into. Where all inside is 7-bit
//!   then, an `8bit` or `binary` around it becomes `7bit`.
//! - `message/global` and its kin: encoded as a whole. RFC 6532 §3.5 lifts the ban for these, since nothing else gets
//!   the UTF-8 of their header fields through.
//! - any other `message/*`: [`Stuck::Broken`]. They are never encoded either, and `message/partial` may be nothing but
//!   7-bit (RFC 2046 §5.2.2).
//! - a part below `multipart/signed`: [`Stuck::Signed`], as another encoding breaks the signature (RFC 1847 §2.1).
//! - a part below `multipart/encrypted`: encoded as any other. What is decrypted are the decoded octets (RFC 1847 §2.2).
//! - a part in quoted-printable already: encoded again, if what it says is clear. Readers pass such octets as they are.
//! - a part in base64 or in an unknown encoding: [`Stuck::Broken`]. Some readers drop such octets, some stop there.
//!
//! What is no content stays as it came, 8-bit or not: header fields, of which nobody knows the charset, also those
//! that make up the body of a delivery report; and the text before, between and behind the parts of a multipart, which
//! no reader shows. To clear high bits there would be damage, and to bounce the message would lose what it says. A
//! server that cannot take these octets clears them itself or refuses, and only then it bounces. A multipart around
//! them keeps its `8bit`, which is true.
//!
//! Text without a charset gets none: readers guess as they did before.

use super::header::{fields, line_end_of, token};
use super::label::relabel;
use super::scan::{MAX_DEPTH, Part, Transfer, header_block, scan};
use super::transfer::{MAX_ENCODED_LINE, decode_quoted_printable, encode_base64, encode_quoted_printable};
use memchr::memchr2_iter;
use std::borrow::Cow;
use std::ops::Range;

/// Why an 8-bit message cannot be made 7-bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The 8-bit content stands inside `multipart/signed`, where nothing may be changed (RFC 1847 §2.1).
    Signed,
    /// Readers could disagree about what is encoded and how: the structure is broken or nests without end, the part's
    /// header contradicts itself, or the part may have no encoding.
    Broken,
}

/// The message with all 8-bit content encoded; borrowed when there is nothing to do.
pub fn to_seven_bit(message: &[u8]) -> Result<Cow<'_, [u8]>, Stuck> {
    if message.is_ascii() {
        return Ok(Cow::Borrowed(message));
    }
    let room = message.len().saturating_mul(READINGS).saturating_add(MIN_ROOM);
    let mut walk = Walk { message, eol: line_end_of(message), room, changes: Vec::new() };
    walk.entity(0..message.len(), 0, false)?;
    let mut changes = walk.changes;
    if changes.is_empty() {
        return Ok(Cow::Borrowed(message));
    }
    // The walk went backwards.
    changes.reverse();
    changes.sort_by_key(|change| change.span.start);
    let eol = walk.eol;
    let mut out = Vec::with_capacity(message.len() + message.len() / 2);
    let mut from = 0;
    for Change { span, new } in changes {
        out.extend_from_slice(&message[from..span.start]);
        match new {
            New::Text(text) => out.extend_from_slice(&text),
            New::Encoded(Form::QuotedPrintable, content) => encode_quoted_printable(&content, eol, &mut out),
            New::Encoded(Form::Base64, content) => {
                encode_base64(&content, 0, MAX_ENCODED_LINE, eol, &mut out);
                if span.end == message.len() {
                    // The line end that was there is encoded with the rest.
                    out.extend_from_slice(eol);
                }
            }
        }
        from = span.end;
    }
    out.extend_from_slice(&message[from..]);
    Ok(Cow::Owned(out))
}

/// A message inside a message is read once more, so that the octets read are bounded: by so many times the message's
/// own, and some more that let any small one nest as deep as is allowed.
const READINGS: usize = 8;
const MIN_ROOM: usize = 8 << 20;

/// `message/*` whose body is header fields in groups, not a message.
const FIELDS: &[&str] = &[
    "message/delivery-status",          // RFC 3464
    "message/disposition-notification", // RFC 8098
    "message/feedback-report",          // RFC 5965
    "message/tracking-status",          // RFC 3886
];

struct Walk<'m> {
    message: &'m [u8],
    eol: &'static [u8],
    /// Octets that may still be read.
    room: usize,
    changes: Vec<Change<'m>>,
}

struct Change<'m> {
    span: Range<usize>,
    new: New<'m>,
}

enum New<'m> {
    Text(Box<[u8]>),
    /// Content, borrowed where the body had no encoding.
    Encoded(Form, Cow<'m, [u8]>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    QuotedPrintable,
    Base64,
}

/// What the walk found in a body.
#[derive(Clone, Copy, Default)]
struct Inside {
    changed: bool,
    /// There are octets over 127 that stay.
    left: bool,
}

const LEFT: Inside = Inside { changed: false, left: true };
const CHANGED: Inside = Inside { changed: true, left: false };

impl<'m> Walk<'m> {
    /// The message or an embedded one, with its header. Parts are taken last first, so that what is inside a multipart
    /// is known when its turn comes.
    fn entity(&mut self, span: Range<usize>, depth: usize, signed: bool) -> Result<Inside, Stuck> {
        let base = span.start;
        let text = &self.message[span];
        self.room = self.room.checked_sub(text.len()).filter(|_| depth < MAX_DEPTH).ok_or(Stuck::Broken)?;
        let (header, body) = header_block(text, 0, |_| false).ok_or(Stuck::Broken)?;
        let fields_left = !text[header.clone()].is_ascii();
        if text[body..].is_ascii() {
            // Whatever the structure is.
            return Ok(Inside { changed: false, left: fields_left });
        }
        let parts = scan(text).map_err(|_| Stuck::Broken)?;
        let signed = signed_parts(&parts, signed);
        let mut insides = vec![Inside::default(); parts.len()];
        // Where that stretch of a multipart ends which was not looked at yet.
        let mut unseen: Vec<usize> = parts.iter().map(|part| part.body.end).collect();
        for (index, part) in parts.iter().enumerate().rev() {
            if part.is_multipart() {
                insides[index].left |= !text[part.body.start..unseen[index]].is_ascii();
            } else if !text[part.body.clone()].is_ascii() {
                insides[index] = self.content(base, text, part, depth, signed[index])?;
            }
            let inside = insides[index];
            if inside.changed && !inside.left && is_composite(part) && claims_eight_bit(text, part) {
                self.relabel(base, text, part, "7bit");
            }
            if let Some(parent) = part.parent {
                let header = &text[part.header.start..part.body.start];
                let behind = &text[part.body.end..unseen[parent]];
                insides[parent].changed |= inside.changed;
                insides[parent].left |= inside.left || !header.is_ascii() || !behind.is_ascii();
                unseen[parent] = part.header.start;
            }
        }
        let Inside { changed, left } = insides[0];
        if changed && !fields(text, header.clone()).any(|field| field.is(text, "MIME-Version")) {
            let field = [b"MIME-Version: 1.0", self.eol].concat();
            let at = base + header.end;
            self.changes.push(Change { span: at..at, new: New::Text(field.into()) });
        }
        Ok(Inside { changed, left: left || fields_left })
    }

    /// The body of `part`, which is no multipart and holds octets over 127. Spans of `part` count in `text`, which
    /// begins at `base` of the message.
    fn content(
        &mut self,
        base: usize,
        text: &'m [u8],
        part: &Part,
        depth: usize,
        signed: bool,
    ) -> Result<Inside, Stuck> {
        let span = base + part.body.start..base + part.body.end;
        match part.media() {
            media if FIELDS.contains(&media) => return Ok(LEFT),
            _ if part.contradictory => return Err(Stuck::Broken),
            "message/rfc822" if part.transfer == Transfer::Identity => return self.entity(span, depth + 1, signed),
            _ if signed => return Err(Stuck::Signed),
            _ if is_composite(part) => return Err(Stuck::Broken),
            _ => {}
        }
        let body = &text[part.body.clone()];
        let (form, content) = match part.transfer {
            Transfer::Identity if is_lines(text, part, self.eol) => (Form::QuotedPrintable, Cow::Borrowed(body)),
            Transfer::Identity => (Form::Base64, Cow::Borrowed(body)),
            Transfer::QuotedPrintable => {
                let decoded = decode_quoted_printable(body).map_err(|_| Stuck::Broken)?;
                // Of other content nobody knows any more which line ends were escaped because they are data.
                let form = if is_text(part) { Form::QuotedPrintable } else { Form::Base64 };
                (form, Cow::Owned(decoded.bytes))
            }
            Transfer::Base64 | Transfer::Unknown => return Err(Stuck::Broken),
        };
        match form {
            Form::Base64 => self.relabel(base, text, part, "base64"),
            Form::QuotedPrintable if part.transfer == Transfer::QuotedPrintable => {}
            Form::QuotedPrintable => self.relabel(base, text, part, "quoted-printable"),
        }
        self.changes.push(Change { span, new: New::Encoded(form, content) });
        Ok(CHANGED)
    }

    fn relabel(&mut self, base: usize, text: &[u8], part: &Part, encoding: &str) {
        for (span, value) in relabel(text, part, encoding, self.eol) {
            self.changes.push(Change { span: base + span.start..base + span.end, new: New::Text(value) });
        }
    }
}

/// Which parts are signed as they stand, being inside `multipart/signed`.
fn signed_parts(parts: &[Part], around: bool) -> Vec<bool> {
    let mut signed: Vec<bool> = Vec::with_capacity(parts.len());
    for part in parts {
        let inherited = part.parent.map_or(around, |parent| signed[parent]);
        signed.push(inherited || part.media() == "multipart/signed");
    }
    signed
}

/// True where the part may have no encoding (RFC 2045 §6.4, as amended by RFC 6532 §3.5).
fn is_composite(part: &Part) -> bool {
    let media = part.media();
    part.is_multipart()
        || media.starts_with("message/") && media != "message/global" && !media.starts_with("message/global-")
}

fn is_text(part: &Part) -> bool {
    part.media().starts_with("text/")
}

/// True where the field says that there may be octets over 127 inside. One that is missing says `7bit`.
fn claims_eight_bit(text: &[u8], part: &Part) -> bool {
    part.transfer_values.iter().any(|value| matches!(&*token(&text[value.clone()]), "8bit" | "binary"))
}

/// True where CR and LF in a body without encoding are line ends and nothing else. The label `binary` says they are not
/// (RFC 2045 §2.9), but for text, in which they can be nothing else (RFC 2046 §4.1.1).
fn is_lines(text: &[u8], part: &Part, eol: &[u8]) -> bool {
    let binary = || part.transfer_values.iter().any(|value| token(&text[value.clone()]) == "binary");
    if !is_text(part) && binary() {
        return false;
    }
    let body = &text[part.body.clone()];
    if memchr::memchr(0, body).is_some() {
        return false;
    }
    let mut at = 0;
    memchr2_iter(b'\r', b'\n', body).all(|found| {
        if found < at {
            return true;
        }
        at = found + eol.len();
        body[found..].starts_with(eol)
    })
}

/// Entry for fuzzing: whatever the octets, nothing panics, and what comes out says the same.
#[doc(hidden)]
pub fn fuzz_downgrade(data: &[u8]) {
    let Ok(after) = to_seven_bit(data) else { return };
    let (Ok(old), Ok(new)) = (scan(data), scan(&after)) else {
        assert_eq!(&*after, data);
        return;
    };
    assert_eq!(old.len(), new.len());
    for (old, new) in old.iter().zip(&new) {
        assert_eq!((old.media(), old.parent), (new.media(), new.parent));
        let body = &after[new.body.clone()];
        assert!(is_composite(new) || body.is_ascii());
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
