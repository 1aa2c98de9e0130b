//! Who a message says it is from, read strictly: for senders who may use certain domains alone.
//!
//! Mail programs differ in what they make of a malformed header. Whoever may send as one domain must not be shown as
//! another by any of them, so what could be read in two ways is refused here. Mail of others is never held to this.

use super::header::{Field, fields, line_end};
use super::mailboxes::{self, Mailboxes};
use super::scan::{MAX_HEADER, header_block};
use crate::mail::DomainName;
use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;
use std::fmt;
use std::ops::Range;

/// All domains in whose name a message speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Originators {
    /// Of From: of each address, as we read them and as mail-parser does, and of all that may be taken for one. At
    /// least one.
    pub from: Vec<DomainName>,
    /// The same of Sender, Resent-From and Resent-Sender.
    pub senders: Vec<DomainName>,
}

/// Why it cannot be said for sure who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The header is longer than what is read of it.
    TooLong,
    /// A line that is no field, or of white space only: to some readers the header ends there.
    NoField,
    /// A control character that is a line end to some readers.
    Control,
    /// No From, or more than one.
    NotOneFrom,
    /// From is no plain list of mailboxes.
    From,
    /// Sender, Resent-From or Resent-Sender is none.
    Sender,
}

/// Fields that name an originator beside From (RFC 5322 §3.6.2 and §3.6.6).
const SENDERS: [&str; 3] = ["Sender", "Resent-From", "Resent-Sender"];

/// Reads the header block.
pub fn originators(message: &[u8]) -> Result<Originators, Doubt> {
    let head = &message[..message.len().min(MAX_HEADER)];
    let block = header_block(head, 0, |_| false).map_or(0..head.len(), |(block, _)| block);
    if message.len() > head.len() && block.end >= head.len() {
        return Err(Doubt::TooLong);
    }
    if has_controls(&head[block.clone()]) {
        return Err(Doubt::Control);
    }
    let mut found = Originators::default();
    let (mut froms, mut at) = (0, block.start);
    for field in fields(head, block.clone()) {
        // What lies between two fields is none.
        if field.span.start != at || !is_plain(head, &field) {
            return Err(Doubt::NoField);
        }
        at = field.span.end;
        let value = &head[field.value.clone()];
        if field.is(head, "From") {
            froms += 1;
            found.from = domains(value).ok_or(Doubt::From)?;
        } else if SENDERS.iter().any(|name| field.is(head, name)) {
            found.senders.extend(domains(value).ok_or(Doubt::Sender)?);
        }
    }
    if at != block.end {
        return Err(Doubt::NoField);
    }
    if froms != 1 { Err(Doubt::NotOneFrom) } else { Ok(found) }
}

/// Beside TAB, CRLF, and ESC, by which ISO-2022-JP changes its alphabet.
fn has_controls(block: &[u8]) -> bool {
    let mut bytes = block.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' if bytes.peek() == Some(&&b'\n') => {}
            b'\t' | b'\n' | 0x1b => {}
            0..0x20 => return true,
            _ => {}
        }
    }
    false
}

/// The colon follows the name at once, and no line of the field is white space alone.
fn is_plain(head: &[u8], field: &Field) -> bool {
    let Range { start, end } = field.span;
    let mut lines = head[start..end].split_inclusive(|b| *b == b'\n');
    field.value.start == field.name.end + 1
        && lines.next().is_some()
        && lines.all(|line| !line[..line.len() - line_end(line)].trim_ascii().is_empty())
}

fn domains(value: &[u8]) -> Option<Vec<DomainName>> {
    let Mailboxes { addresses, mut domains, mentioned } = mailboxes::parse(value)?;
    let line = [value, b"\n"].concat();
    let HeaderValue::Address(theirs) = MessageStream::new(&line).parse_address() else { return None };
    // The first is the one that everything else goes by.
    let theirs: Vec<&str> = theirs.iter().filter_map(|address| address.address()).collect();
    if theirs.first().map(|first| unquoted(first)) != addresses.first().map(|first| unquoted(first)) {
        return None;
    }
    for address in theirs {
        domains.push(DomainName::parse(address.rsplit_once('@')?.1).ok()?);
    }
    domains.extend(mentioned);
    Some(domains)
}

fn unquoted(address: &str) -> String {
    address.replace('"', "")
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the header is too long",
            Self::NoField => "the header has a line that is no field",
            Self::Control => "the header holds a control character",
            Self::NotOneFrom => "there must be one From field",
            Self::From => "the From header is not a plain list of mailboxes",
            Self::Sender => "Sender, Resent-From or Resent-Sender is not a plain mailbox",
        })
    }
}

#[cfg(test)]
mod tests;
