//! Delivery status notifications: what a sender is told when a message was refused, waits, or went on to a server that
//! confirms nothing (RFC 3464 in the multipart/report of RFC 6522, as RFC 3461 asks for them).
//!
//! Owns: who wants a notice, its envelope, its text for a person, its fields for a program, and how much of the
//! original it returns. Does not: send it, remember that it was sent, or tell the time; ids and times are arguments,
//! so that the same [`Notice`] is the same octets always.
//!
//! Whatever stands in a notice was said by somebody else: the smarthost, the client, the sender. None of it can end a
//! line, begin a field or close a part, and no line is longer than RFC 5322 §2.1.1 allows.

mod clean;
mod original;
mod status;
mod text;

#[cfg(test)]
mod tests;

use crate::mail::{Address, Body, Envelope, Notify, QueueId, Recipient, rfc5322_date};
use crate::mime::header_facts;
use clean::{host, one_line};
use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address as Mailbox;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};
use memchr::memmem;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Refused for good, or given up for its age.
    Failed,
    /// Not taken so far. It is given up at `until`, in milliseconds since 1970.
    Delayed { until: u64 },
    /// Taken by a smarthost that offers no DSN (RFC 3461 §5.2).
    Relayed,
}

/// One recipient whom the notice is about.
#[derive(Clone, Copy, Debug)]
pub struct Concerned<'a> {
    pub recipient: &'a Recipient,
    /// The smarthost's words, `550 5.1.1 No such user`; or what went wrong without any, `connect: 127.0.0.1:25:
    /// Connection refused`. They count as the smarthost's when they begin with a reply code.
    pub reply: &'a str,
    /// The last attempt, in milliseconds since 1970.
    pub at: u64,
    pub attempts: u32,
}

/// All that a notice is made of.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    pub kind: Kind,
    /// Of the original.
    pub id: QueueId,
    /// Of the notice: its Message-ID and its boundary are made of it.
    pub dsn_id: QueueId,
    /// Our own name: the Reporting-MTA, and the domain of the From address.
    pub hostname: &'a str,
    /// The Remote-MTA: a name or an IP address, with or without port. May be empty.
    pub smarthost: &'a str,
    /// Of the original.
    pub envelope: &'a Envelope,
    /// When the original was accepted, in milliseconds since 1970.
    pub arrived_at: u64,
    /// The date of the notice, in milliseconds since 1970.
    pub now: u64,
    /// Those who want no such notice are passed over.
    pub concerned: &'a [Concerned<'a>],
    /// Of the original, decoded. May be empty.
    pub subject: &'a str,
    /// The message as accepted. May be empty: nothing of it is returned then.
    pub original: &'a [u8],
}

/// Whether the recipient's NOTIFY asks for such a notice (RFC 3461 §4.1). Without NOTIFY only failure is told.
pub fn is_wanted(kind: Kind, recipient: &Recipient) -> bool {
    let notify = recipient.notify;
    match kind {
        Kind::Failed => !notify.given || notify.failure,
        Kind::Delayed { .. } => notify.given && notify.delay,
        Kind::Relayed => notify.given && notify.success,
    }
}

/// The envelope and the octets of the notice, with CRLF line ends. `None` when the original has the null reverse-path,
/// since a notice is never answered by a notice (RFC 5321 §4.5.5), and when nobody concerned wants one.
///
/// SMTPUTF8 is needed only where the sender's own address is not ASCII. Any other address is written in the ASCII form
/// that RFC 6533 §3 has for it: a notice that needed SMTPUTF8 could not pass the very smarthost that refused a message
/// for needing it.
pub fn compose(notice: &Notice<'_>) -> Option<(Envelope, Vec<u8>)> {
    let sender = notice.envelope.sender.as_ref()?;
    let concerned: Vec<&Concerned<'_>> =
        notice.concerned.iter().filter(|concerned| is_wanted(notice.kind, concerned.recipient)).collect();
    if concerned.is_empty() {
        return None;
    }
    let utf8 = !sender.is_ascii();
    let original = original::returned(notice, utf8);
    let text = text::write(notice, &concerned, original.as_ref());
    let fields = status::write(notice, &concerned, utf8);

    let returned = original.as_ref().map_or(&b""[..], |original| &original.octets);
    let boundary = boundary(notice.dsn_id, &[text.as_bytes(), &fields, returned]);
    let eight_bit = !fields.is_ascii() || !returned.is_ascii();
    let mut parts = vec![MimePart::new("text/plain", text), status_part(fields, utf8)];
    parts.extend(original.map(|original| {
        MimePart::new(ContentType::new(original.media), BodyPart::Binary(original.octets))
            .transfer_encoding(original.encoding)
    }));
    let report = ContentType::new("multipart/report").attribute("report-type", "delivery-status");
    let mut body = MimePart::new(report.attribute("boundary", boundary), parts);
    if eight_bit {
        // What holds an 8-bit part is 8-bit itself (RFC 2045 §6.4).
        body = body.transfer_encoding("8bit");
    }

    let mut octets = Vec::new();
    header(notice, sender).body(body).serialize(&mut octets);
    let envelope = Envelope {
        sender: None,
        recipients: vec![Recipient {
            address: sender.clone(),
            notify: Notify { given: true, success: false, failure: false, delay: false },
            orcpt: None,
        }],
        body: if octets.is_ascii() { Body::SevenBit } else { Body::EightBitMime },
        smtputf8: utf8,
        ret: None,
        envid: None,
    };
    Some((envelope, octets))
}

fn header<'a>(notice: &Notice<'_>, sender: &'a Address) -> MessageBuilder<'a> {
    let host = host(notice.hostname);
    let message = MessageBuilder::new()
        .from(Mailbox::new_address(Some("Mail Delivery System"), format!("MAILER-DAEMON@{host}")))
        .to(Mailbox::new_address(None::<&str>, sender.as_str()))
        .subject(Text::new(subject(notice)))
        .header("Date", Raw::new(rfc5322_date(notice.now)))
        .message_id(MessageId::new(format!("{}@{host}", notice.dsn_id)))
        .header("Auto-Submitted", Raw::new("auto-replied"));
    // RFC 3834 §3.1.5: so that it is shown beside the message that it is about.
    match original_message_id(notice.original) {
        Some(id) => message.in_reply_to(MessageId::new(id.clone())).references(MessageId::new(id)),
        None => message,
    }
}

fn subject(notice: &Notice<'_>) -> String {
    let (alone, before) = match notice.kind {
        Kind::Failed => ("Your message could not be delivered", "Could not be delivered"),
        Kind::Delayed { .. } => ("Your message is delayed", "Delayed, still being tried"),
        Kind::Relayed => ("Your message was handed on", "Handed on"),
    };
    // What looks like an encoded word would be decoded a second time by whoever reads it.
    match one_line(notice.subject, MAX_SUBJECT).replace("=?", "= ?") {
        subject if subject.is_empty() => alone.to_owned(),
        subject => format!("{before}: {subject}"),
    }
}

/// Without angle brackets; only where it is plainly one, since it was written by whoever wrote the message.
fn original_message_id(original: &[u8]) -> Option<String> {
    let id = header_facts(original).message_id?;
    let id = id.strip_prefix('<')?.strip_suffix('>')?;
    let plain = id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>'));
    (plain && id.contains('@') && id.len() <= MAX_MESSAGE_ID).then(|| id.to_owned())
}

fn status_part(fields: Vec<u8>, utf8: bool) -> MimePart<'static> {
    let (media, encoding) =
        if utf8 { ("message/global-delivery-status", "8bit") } else { ("message/delivery-status", "7bit") };
    MimePart::new(ContentType::new(media), BodyPart::Binary(fields.into())).transfer_encoding(encoding)
}

/// A boundary that stands in none of `parts`. `=_` keeps it out of every encoded text (RFC 2045 §6.7).
///
/// A returned message may name a boundary that ours begins with, and then readers may take our last line for one of its
/// own (RFC 2046 §5.1.2). It would end no part early, and no program that makes boundaries makes such a one.
fn boundary(id: QueueId, parts: &[&[u8]]) -> String {
    let mut n = 0u32;
    loop {
        let boundary = format!("trackpost=_{id}_{n}");
        if parts.iter().all(|part| memmem::find(part, boundary.as_bytes()).is_none()) {
            return boundary;
        }
        n += 1;
    }
}

/// Characters of the original's subject that are repeated.
const MAX_SUBJECT: usize = 200;
/// Octets of the original's Message-ID: a longer one is not referred to.
const MAX_MESSAGE_ID: usize = 500;
