//! Internet messages as octets: header facts, structure, transfer encodings, charsets.
//!
//! Owns: everything that says where something stands in a message, and the one change that no reader sees: other
//! transfer encodings ([`downgrade`]). Does not: change what a message says (that is [`crate::rewrite`]) or keep any of
//! its text beyond the few [`HeaderFacts`].

pub mod charset;
pub mod downgrade;
mod encoded_word;
pub mod header;
pub mod label;
mod mailboxes;
pub mod originators;
pub mod scan;
pub mod transfer;

use crate::mail::DomainName;
use header::{fields, unfold};
use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;
use serde::{Deserialize, Serialize};

/// What the header block says, for the queue, for events and for choosing the sender domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderFacts {
    /// The first mailbox of From (also when it stands in a group). `None` when there is no From, more than one From
    /// (RFC 5322 §3.6 allows one), or none that can be read.
    pub from: Option<Box<str>>,
    /// The same with its name, decoded (RFC 2047), as people read it: `News <news@example.com>`. At most 300 characters.
    pub sender: Option<Box<str>>,
    /// The domain of [`Self::from`], which names the sender domain.
    pub from_domain: Option<DomainName>,
    /// Decoded (RFC 2047), at most 200 characters, controls as spaces.
    pub subject: Option<Box<str>>,
    /// As written, with angle brackets.
    pub message_id: Option<Box<str>>,
    /// There is a Date field, whatever it says.
    pub date: bool,
    /// Number of Received fields.
    pub received: usize,
    /// (name, value): of X-Trackpost-Tag, and of X-PM-Tag and X-Mailgun-Tag under the name `tag`. At most 10.
    pub tags: Vec<(Box<str>, Box<str>)>,
}

const MAX_SUBJECT: usize = 200;
const MAX_TAGS: usize = 10;
const MAX_ADDRESS: usize = 500;
/// Characters kept of a tag's name and of its value.
const MAX_TAG: usize = 256;
/// Octets of one field that are read: a longer From or Subject is a bomb.
const MAX_VALUE: usize = 64 << 10;

/// Reads the header block alone, at most its first [`scan::MAX_HEADER`] octets.
pub fn header_facts(message: &[u8]) -> HeaderFacts {
    let head = &message[..message.len().min(scan::MAX_HEADER)];
    let block = scan::header_block(head, 0, |_| false).map_or(0..head.len(), |(block, _)| block);
    let mut facts = HeaderFacts::default();
    let mut froms = 0;
    for field in fields(head, block.clone()) {
        let value = &head[field.value.clone()];
        let value = &value[..value.len().min(MAX_VALUE)];
        if field.is(head, "Received") {
            facts.received += 1;
        } else if field.is(head, "From") {
            froms += 1;
            (facts.from, facts.sender) = first_mailbox(value).unzip();
        } else if field.is(head, "Subject") && facts.subject.is_none() {
            facts.subject = decoded(value);
        } else if field.is(head, "Message-ID") && facts.message_id.is_none() {
            facts.message_id = Some(cut(&unfold(value), 998)).filter(|id| !id.is_empty());
        } else if field.is(head, "Date") {
            facts.date = true;
        } else if facts.tags.len() < MAX_TAGS {
            let named = field.is(head, "X-Trackpost-Tag");
            if named || field.is(head, "X-PM-Tag") || field.is(head, "X-Mailgun-Tag") {
                facts.tags.extend(tag(&unfold(value), named));
            }
        }
    }
    if froms > 1 {
        facts.from = None;
    }
    facts.from_domain = facts.from.as_deref().and_then(domain_of);
    if facts.from_domain.is_none() {
        (facts.from, facts.sender) = (None, None);
    }
    facts
}

/// Whether a header holds UTF-8 (RFC 6532): the message's own, a part's, or one of a message inside. Where the structure
/// cannot be told, anything that is not ASCII counts.
pub fn header_needs_utf8(message: &[u8]) -> bool {
    if message.is_ascii() {
        return false;
    }
    match scan::scan(message) {
        Ok(parts) => parts.iter().any(|part| {
            let inside = || part.content.value.starts_with("message/") && !message[part.body.clone()].is_ascii();
            !message[part.header.clone()].is_ascii() || inside()
        }),
        Err(_) => true,
    }
}

/// The address, and that with its name.
fn first_mailbox(value: &[u8]) -> Option<(Box<str>, Box<str>)> {
    let line = [value, b"\n"].concat();
    let HeaderValue::Address(addresses) = MessageStream::new(&line).parse_address() else { return None };
    // Not held to the rules of an envelope's address: nothing is sent there.
    let (address, name) = addresses.iter().find_map(|a| Some((a.address()?, a.name())))?;
    if address.len() > MAX_ADDRESS || address.chars().any(char::is_control) {
        return None;
    }
    let name = cut(name.unwrap_or_default().replace(char::is_control, " ").trim(), MAX_SUBJECT);
    let shown = match &*name {
        "" => address.into(),
        // RFC 5322 §3.2.3: what is no atom is quoted.
        name if name.contains(['"', '\\', '<', '>', '(', ')', '[', ']', ':', ';', '@', ',', '.']) => {
            format!("\"{}\" <{address}>", name.replace('\\', "\\\\").replace('"', "\\\"")).into()
        }
        name => format!("{name} <{address}>").into(),
    };
    Some((address.into(), shown))
}

fn domain_of(address: &str) -> Option<DomainName> {
    let (local, domain) = address.rsplit_once('@')?;
    DomainName::parse(domain).ok().filter(|_| !local.is_empty())
}

fn decoded(value: &[u8]) -> Option<Box<str>> {
    let line = [value, b"\n"].concat();
    match MessageStream::new(&line).parse_unstructured() {
        HeaderValue::Text(text) => Some(cut(&text.replace(char::is_control, " "), MAX_SUBJECT)),
        _ => None,
    }
}

fn tag(text: &str, named: bool) -> Option<(Box<str>, Box<str>)> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) if named => (name.trim(), value.trim()),
        _ => ("tag", text),
    };
    (!name.is_empty() && !value.is_empty()).then(|| (cut(name, MAX_TAG), cut(value, MAX_TAG)))
}

fn cut(text: &str, characters: usize) -> Box<str> {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_need_utf8() {
        let part = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
        for (message, needs) in [
            ("Subject: x\r\n\r\nGrüße\r\n".to_owned(), false),
            ("Subject: Grüße\r\n\r\nx\r\n".to_owned(), true),
            (format!("{part}Content-Type: text/plain\r\n\r\nGrüße\r\n--b--\r\n"), false),
            (format!("{part}Content-Description: Grüße\r\n\r\nx\r\n--b--\r\n"), true),
            (format!("{part}Content-Type: message/rfc822\r\n\r\nSubject: Grüße\r\n\r\nx\r\n--b--\r\n"), true),
            (format!("{part}\r\nGrüße\r\n"), true),
        ] {
            assert_eq!(header_needs_utf8(message.as_bytes()), needs, "{message}");
        }
    }

    #[test]
    fn from_and_its_domain() {
        let table: &[(&str, Option<(&str, &str)>)] = &[
            ("From: a@example.com", Some(("a@example.com", "example.com"))),
            ("FROM : \"b@evil.test\" <a@Example.COM>", Some(("a@Example.COM", "example.com"))),
            ("From: =?utf-8?q?J=C3=B6?= (c@evil.test)\r\n <a@example.com>", Some(("a@example.com", "example.com"))),
            ("From: a@example.com, b@example.org", Some(("a@example.com", "example.com"))),
            ("From: team: a@example.com, b@example.org;", Some(("a@example.com", "example.com"))),
            ("From: x <a@b\u{fc}cher.example>", Some(("a@b\u{fc}cher.example", "xn--bcher-kva.example"))),
            ("From: a@example.com\r\nFrom: a@example.com", None),
            ("From: x <\"a b\"@example.com>", Some(("\"a b\"@example.com", "example.com"))),
            ("From: \"a b\"@example.com", None),
            ("From: nobody", None),
            ("From:", None),
            ("From: a@localhost", None),
            ("From: <>", None),
            ("To: a@example.com", None),
            ("\r\nFrom: a@example.com", None),
        ];
        for (text, want) in table {
            let facts = header_facts(text.as_bytes());
            let got = facts.from.as_deref().zip(facts.from_domain.as_ref().map(DomainName::as_str));
            assert_eq!(got, *want, "{text}");
        }
        let shown = |from: &str| header_facts(format!("From: {from}\r\n\r\n").as_bytes()).sender.map(String::from);
        for (from, want) in [
            ("a@example.com", "a@example.com"),
            ("News <a@example.com>", "News <a@example.com>"),
            ("\"News, all of it\" <a@example.com>", "\"News, all of it\" <a@example.com>"),
            ("=?utf-8?q?J=C3=B6=0Aj?= <a@example.com>", "Jö j <a@example.com>"),
            ("\"b@evil.test\" <a@example.com>", "\"b@evil.test\" <a@example.com>"),
        ] {
            assert_eq!(shown(from).as_deref(), Some(want));
        }
    }

    #[test]
    fn everything_else() {
        let message = "Received: x\r\n by y\r\nReceived: z\r\nSubject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\n =?utf-8?B?4oKs?=\r\n\
             Message-ID:\r\n <1@example.com>\r\nX-Trackpost-Tag: campaign = spring\r\nx-pm-tag: a=b\r\n\
             X-Mailgun-Tag: c\r\nX-Trackpost-Tag: =\r\n\r\nReceived: body\r\n";
        let facts = header_facts(message.as_bytes());
        assert_eq!(facts.received, 2);
        assert_eq!(facts.subject.as_deref(), Some("Grüße€"));
        assert_eq!(facts.message_id.as_deref(), Some("<1@example.com>"));
        let tags: Vec<_> = facts.tags.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(tags, [("campaign", "spring"), ("tag", "a=b"), ("tag", "c")]);
    }

    #[test]
    fn bounded() {
        let long = format!("Subject: {}\n{}", "ä".repeat(300), "X-Trackpost-Tag: a=b\n".repeat(30));
        let facts = header_facts(long.as_bytes());
        assert_eq!(facts.subject.map(|s| s.chars().count()), Some(200));
        assert_eq!(facts.tags.len(), 10);
        header_facts(&b"From: a@example.com\n".repeat(100_000));
    }
}
