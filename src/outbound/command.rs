//! The commands of one transaction: MAIL, RCPT, DATA and their parameters.
//!
//! Nothing goes into a command that could end its line: addresses are checked, other values are encoded. Parameters
//! are written only where the smarthost offers the extension that they belong to.

use super::body::declared_size;
use super::{Capabilities, Transaction};
use crate::mail::{Notify, Recipient, Return};
use std::fmt::Write;

/// The command lines of a transaction in order, as they are to be written: all in one with PIPELINING (RFC 2920),
/// else each when the reply to the one before is there.
pub(super) struct Script {
    text: String,
    /// Where each command ends.
    ends: Vec<usize>,
    next: usize,
    pipelined: bool,
}

impl Script {
    /// RSET if `reset`, MAIL, a RCPT for each of `recipients`, DATA.
    pub(super) fn new<'a>(
        t: &Transaction<'_>,
        recipients: impl Iterator<Item = &'a Recipient>,
        offered: &Capabilities,
        reset: bool,
    ) -> Self {
        let mut script = Self {
            text: String::with_capacity(128 + 64 * t.recipients.len()),
            ends: Vec::with_capacity(3 + t.recipients.len()),
            next: 0,
            pipelined: offered.pipelining,
        };
        if reset {
            script.text.push_str("RSET");
            script.end_command();
        }
        push_mail(t, offered, &mut script.text);
        script.end_command();
        for recipient in recipients {
            push_rcpt(recipient, offered, &mut script.text);
            script.end_command();
        }
        script.text.push_str("DATA");
        script.end_command();
        script
    }

    /// What to write before the next reply is read; empty where it has been written already.
    pub(super) fn advance(&mut self) -> &str {
        let at = self.next;
        self.next += 1;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        match self.pipelined {
            true if at == 0 => &self.text,
            true => "",
            false => &self.text[start..self.ends[at]],
        }
    }

    fn end_command(&mut self) {
        self.text.push_str("\r\n");
        self.ends.push(self.text.len());
    }
}

/// True when `text` may stand in a command: no CR, LF, NUL or other control.
pub(super) fn is_safe(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_control())
}

/// RFC 5321 §4.1.1.2 with SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET and ENVID (RFC 3461).
fn push_mail(t: &Transaction<'_>, offered: &Capabilities, out: &mut String) {
    let sender = t.sender.map_or("", |address| address.as_str());
    push(out, format_args!("MAIL FROM:<{sender}>"));
    if offered.size.is_some() {
        push(out, format_args!(" SIZE={}", declared_size(t.message)));
    }
    if t.eight_bit && offered.eight_bit_mime {
        out.push_str(" BODY=8BITMIME");
    }
    if t.needs_smtputf8() {
        out.push_str(" SMTPUTF8");
    }
    if !offered.dsn {
        return;
    }
    match t.ret {
        Some(Return::Full) => out.push_str(" RET=FULL"),
        Some(Return::Headers) => out.push_str(" RET=HDRS"),
        None => {}
    }
    if let Some(envid) = t.envid {
        out.push_str(" ENVID=");
        push_xtext(envid, out);
    }
}

/// RFC 5321 §4.1.1.3 with NOTIFY and ORCPT (RFC 3461 §4.1, §4.2).
fn push_rcpt(recipient: &Recipient, offered: &Capabilities, out: &mut String) {
    push(out, format_args!("RCPT TO:<{}>", recipient.address));
    if !offered.dsn {
        return;
    }
    push_notify(recipient.notify, out);
    // Without a proper type it cannot be said; the address type is an atom.
    let original = recipient.orcpt.as_deref().and_then(|text| text.split_once(';'));
    if let Some((kind, address)) = original
        && !kind.is_empty()
        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    {
        push(out, format_args!(" ORCPT={kind};"));
        push_xtext(address, out);
    }
}

fn push_notify(notify: Notify, out: &mut String) {
    if !notify.given {
        return;
    }
    out.push_str(" NOTIFY=");
    let wishes = [(notify.success, "SUCCESS,"), (notify.failure, "FAILURE,"), (notify.delay, "DELAY,")];
    let start = out.len();
    wishes.into_iter().filter(|(wished, _)| *wished).for_each(|(_, word)| out.push_str(word));
    if out.len() == start {
        out.push_str("NEVER");
    } else {
        out.pop();
    }
}

/// xtext of RFC 3461 §4. A character outside ASCII, which only an ORCPT of type utf-8 should hold, is written as
/// `\x{…}` (RFC 6533 §3), which every smarthost can take.
fn push_xtext(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '+' | '=' => push(out, format_args!("+{:02X}", u32::from(character))),
            '!'..='~' => out.push(character),
            '\0'..='\x7f' => push(out, format_args!("+{:02X}", u32::from(character))),
            _ => push(out, format_args!("\\x{{{:X}}}", u32::from(character))),
        }
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Address;

    const EVERYTHING: Capabilities =
        Capabilities { pipelining: true, size: Some(0), eight_bit_mime: true, smtputf8: true, dsn: true };

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn mail_parameters_follow_what_is_offered() {
        let sender = address("a@example.com");
        let utf8 = address("grüße@example.com");
        let plain = Transaction {
            sender: Some(&sender),
            recipients: &[],
            eight_bit: false,
            smtputf8: false,
            ret: None,
            envid: None,
            message: b"Subject: x\r\n\r\nhello",
        };
        let full = Transaction {
            eight_bit: true,
            smtputf8: true,
            ret: Some(Return::Headers),
            envid: Some("a+b=c \r\nRSET"),
            ..plain
        };
        let nothing = Capabilities::default();
        let table: &[(&Transaction<'_>, &Capabilities, &str)] = &[
            (&plain, &nothing, "MAIL FROM:<a@example.com>"),
            (&plain, &EVERYTHING, "MAIL FROM:<a@example.com> SIZE=21"),
            (&Transaction { sender: None, ..plain }, &nothing, "MAIL FROM:<>"),
            (
                &Transaction { sender: Some(&utf8), ..plain },
                &EVERYTHING,
                "MAIL FROM:<grüße@example.com> SIZE=21 SMTPUTF8",
            ),
            (
                &full,
                &EVERYTHING,
                "MAIL FROM:<a@example.com> SIZE=21 BODY=8BITMIME SMTPUTF8 RET=HDRS \
                 ENVID=a+2Bb+3Dc+20+0D+0ARSET",
            ),
        ];
        for (t, offered, want) in table {
            let mut line = String::new();
            push_mail(t, offered, &mut line);
            assert_eq!(&line, want);
        }
    }

    #[test]
    fn rcpt_parameters() {
        let (given, no) = (Notify { given: true, ..Notify::default() }, Notify::default());
        let some = Notify { success: true, delay: true, ..given };
        let table: &[(Notify, Option<&str>, &str)] = &[
            (no, None, ""),
            (given, None, " NOTIFY=NEVER"),
            (some, None, " NOTIFY=SUCCESS,DELAY"),
            (no, Some("rfc822;b+c@example.net"), " ORCPT=rfc822;b+2Bc@example.net"),
            (no, Some("utf-8;grüße@example.net"), " ORCPT=utf-8;gr\\x{FC}\\x{DF}e@example.net"),
            (no, Some("no type"), ""),
            (no, Some("a b;c"), ""),
            (no, Some(";c"), ""),
        ];
        for (notify, orcpt, want) in table {
            let recipient =
                Recipient { address: address("b@example.net"), notify: *notify, orcpt: orcpt.map(Into::into) };
            let mut line = String::new();
            push_rcpt(&recipient, &EVERYTHING, &mut line);
            assert_eq!(line.strip_prefix("RCPT TO:<b@example.net>"), Some(*want));
            line.clear();
            push_rcpt(&recipient, &Capabilities::default(), &mut line);
            assert_eq!(line, "RCPT TO:<b@example.net>");
        }
    }
}
