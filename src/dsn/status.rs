//! The part of a notice that programs read (RFC 3464 §2): fields about the message, then a group for each recipient.
//!
//! Owns: which status code a reply stands for, and the fields. Values are on one line and in ASCII before they are
//! folded; only with SMTPUTF8 may they hold more (RFC 6533 §4).

use super::clean::{host, mta_name, one_line};
use super::{Concerned, Kind, Notice};
use crate::mail::{Enhanced, rfc5322_date};
use mail_builder::headers::Header;
use mail_builder::headers::raw::Raw;
use std::fmt::Write;

/// What a reply says, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `None` where the smarthost said nothing: the text tells what went wrong.
    pub code: Option<u16>,
    pub status: Enhanced,
}

/// What the last reply means for the recipient now.
///
/// A recipient who is given up after a transient reply keeps class 4, since sending again later may succeed (RFC 3463
/// §2). The actual problem is told where it is known, 4.4.7 for the age where not (RFC 3463 §3.5).
pub(super) fn verdict(kind: Kind, reply: &str) -> Verdict {
    let code = code(reply);
    let said = code.and_then(|code| Enhanced::split(code, reply.get(4..)?)).map(|(enhanced, _)| enhanced);
    let status = match (kind, code.map(|code| (code / 100, code))) {
        (Kind::Relayed, _) => Enhanced(2, 0, 0),
        (Kind::Failed, Some((5, code))) => said.unwrap_or(permanent(code)),
        (Kind::Failed, Some((4, _))) => said.unwrap_or(EXPIRED),
        (Kind::Failed, None) => Enhanced::split(550, reply).map(|(own, _)| own).or(trouble(reply)).unwrap_or(EXPIRED),
        (Kind::Failed, Some(_)) => Enhanced(5, 0, 0),
        (Kind::Delayed { .. }, Some((4, code))) => said.unwrap_or(transient(code)),
        (Kind::Delayed { .. }, None) => trouble(reply).unwrap_or(Enhanced(4, 0, 0)),
        (Kind::Delayed { .. }, Some(_)) => Enhanced(4, 0, 0),
    };
    Verdict { code, status }
}

/// X.4.7, "delivery time expired".
const EXPIRED: Enhanced = Enhanced(4, 4, 7);

/// The reply code, where the text begins with one.
fn code(reply: &str) -> Option<u16> {
    let (digits, rest) = reply.split_at_checked(3)?;
    let whole = digits.bytes().all(|b| b.is_ascii_digit()) && (rest.is_empty() || rest.starts_with([' ', '-']));
    let code = digits.parse().ok().filter(|_| whole)?;
    (200..600).contains(&code).then_some(code)
}

/// For a reply without enhanced code. What a code alone does not tell (550 is a missing mailbox as well as a rule)
/// stays undefined.
fn permanent(code: u16) -> Enhanced {
    match code {
        500 => Enhanced(5, 5, 2),
        501 | 504 | 555 => Enhanced(5, 5, 4),
        502 | 503 => Enhanced(5, 5, 1),
        521 => Enhanced(5, 3, 2),
        530 | 534 | 535 | 538 => Enhanced(5, 7, 0),
        551 => Enhanced(5, 1, 6),
        552 => Enhanced(5, 2, 2),
        553 => Enhanced(5, 1, 3),
        // RFC 7505: the domain takes no mail at all.
        556 => Enhanced(5, 1, 10),
        _ => Enhanced(5, 0, 0),
    }
}

fn transient(code: u16) -> Enhanced {
    match code {
        421 => Enhanced(4, 3, 2),
        450 => Enhanced(4, 2, 0),
        451 => Enhanced(4, 3, 0),
        452 => Enhanced(4, 3, 1),
        454 => Enhanced(4, 7, 0),
        455 => Enhanced(4, 5, 4),
        _ => Enhanced(4, 0, 0),
    }
}

/// For what went wrong without a reply, by how the text begins: the phase of the connection, or the break itself.
fn trouble(text: &str) -> Option<Enhanced> {
    let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
    if begins(&["connect:", "greeting:"]) {
        Some(Enhanced(4, 4, 1))
    } else if begins(&["TLS:"]) {
        Some(Enhanced(4, 7, 5))
    } else if begins(&["AUTH:"]) {
        Some(Enhanced(4, 7, 0))
    } else if begins(&["EHLO:", "connection ", "the connection ", "no answer "]) {
        Some(Enhanced(4, 4, 2))
    } else if begins(&["unexpected reply"]) {
        Some(Enhanced(4, 5, 0))
    } else {
        None
    }
}

/// The fields, with CRLF line ends. `utf8`: as message/global-delivery-status.
pub(super) fn write(notice: &Notice<'_>, concerned: &[&Concerned<'_>], utf8: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 320 * concerned.len());
    if let Some(envid) = notice.envelope.envid.as_deref().filter(|envid| !envid.is_empty()) {
        // Decoded, as it was meant (RFC 3461 §6.3).
        field(&mut out, "Original-Envelope-Id", &escaped(envid, Escape::Xtext));
    }
    field(&mut out, "Reporting-MTA", &format!("dns; {}", host(notice.hostname)));
    field(&mut out, "X-Trackpost-Queue-Id", &notice.id.to_string());
    field(&mut out, "Arrival-Date", &rfc5322_date(notice.arrived_at));
    for concerned in concerned {
        out.extend_from_slice(b"\r\n");
        group(notice, concerned, utf8, &mut out);
    }
    out
}

fn group(notice: &Notice<'_>, concerned: &Concerned<'_>, utf8: bool, out: &mut Vec<u8>) {
    let Verdict { code, status } = verdict(notice.kind, concerned.reply);
    let original = concerned.recipient.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';'));
    if let Some((kind, address)) = original
        && (1..=MAX_TYPE).contains(&kind.len())
        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    {
        // What the client encoded by RFC 6533 stays so, and the backslash of it as well.
        let address = escaped(address, if utf8 { Escape::Controls } else { Escape::NonAscii });
        field(out, "Original-Recipient", &format!("{kind}; {address}"));
    }
    let address = &concerned.recipient.address;
    let finally = match (address.is_ascii(), utf8) {
        (true, _) => format!("rfc822; {}", escaped(address.as_str(), Escape::NonAscii)),
        (false, true) => format!("utf-8; {}", escaped(address.as_str(), Escape::Controls)),
        (false, false) => format!("utf-8; {}", escaped(address.as_str(), Escape::Utf8AddrXtext)),
    };
    field(out, "Final-Recipient", &finally);
    let action = match notice.kind {
        Kind::Failed => "failed",
        Kind::Delayed { .. } => "delayed",
        Kind::Relayed => "relayed",
    };
    field(out, "Action", action);
    field(out, "Status", &status.to_string());
    let remote = mta_name(notice.smarthost);
    // RFC 3464 §2.3.5: not where no server had a part in it.
    if code.is_some() && !remote.is_empty() {
        field(out, "Remote-MTA", &format!("dns; {remote}"));
    }
    let words = one_line(concerned.reply, MAX_WORDS);
    if !words.is_empty() {
        // RFC 3464 §2.3.6: type smtp is for replies.
        let kind = if code.is_some() { "smtp" } else { "X-Trackpost" };
        let words = if utf8 { words } else { words.replace(|c: char| !c.is_ascii(), "?") };
        let end = words.floor_char_boundary(MAX_VALUE);
        field(out, "Diagnostic-Code", &format!("{kind}; {}", &words[..end]));
    }
    field(out, "Last-Attempt-Date", &rfc5322_date(concerned.at));
    if let Kind::Delayed { until } = notice.kind {
        field(out, "Will-Retry-Until", &rfc5322_date(until));
    }
}

/// Characters of a reply that are repeated.
const MAX_WORDS: usize = 500;

/// Octets of an address type: a longer one is none.
const MAX_TYPE: usize = 40;

/// Which characters cannot stand as they are, and how they are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// Controls and non-ASCII, as `+XX` (RFC 3461 §4). A client's ENVID has none.
    Xtext,
    /// Controls, as `\x{X}`.
    Controls,
    /// Controls and non-ASCII, as `\x{X}`.
    NonAscii,
    /// All that RFC 6533 §3 keeps out of utf-8-addr-xtext, as `\x{X}`.
    Utf8AddrXtext,
}

fn escaped(text: &str, escape: Escape) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let plain = match escape {
            Escape::Xtext | Escape::NonAscii => matches!(c, ' '..='~'),
            Escape::Controls => !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}'),
            Escape::Utf8AddrXtext => matches!(c, '!'..='~') && !matches!(c, '+' | '=' | '\\'),
        };
        if plain {
            out.push(c);
        } else if escape == Escape::Xtext {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push(&mut out, format_args!("+{byte:02X}")));
        } else {
            push(&mut out, format_args!("\\x{{{:02X}}}", u32::from(c)));
        }
    }
    if out.len() > MAX_VALUE {
        return text.chars().take(MAX_VALUE).map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
    }
    out
}

/// Octets of an address or of a reply: one without a space could not be folded, and a line has 998. Only an address
/// of hundreds of characters outside ASCII comes to more, once it is escaped.
const MAX_VALUE: usize = 900;

/// `value` is on one line; it is folded at its spaces.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(!value.contains(char::is_control), "{name}: {value:?}");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    Raw::new(value).write_header(out, name.len() + 2);
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAYED: Kind = Kind::Delayed { until: 0 };

    #[test]
    fn verdicts() {
        let table: &[(Kind, &str, Option<u16>, &str)] = &[
            (Kind::Failed, "550 5.1.1 No such user", Some(550), "5.1.1"),
            (Kind::Failed, "550 5.1.1", Some(550), "5.1.1"),
            (Kind::Failed, "550", Some(550), "5.0.0"),
            (Kind::Failed, "550 4.1.1 other class", Some(550), "5.0.0"),
            (Kind::Failed, "552 too much", Some(552), "5.2.2"),
            (Kind::Failed, "553-no", Some(553), "5.1.3"),
            (Kind::Failed, "556 no mail here", Some(556), "5.1.10"),
            (Kind::Failed, "521 no mail here", Some(521), "5.3.2"),
            (Kind::Failed, "599 what", Some(599), "5.0.0"),
            (Kind::Failed, "452 4.2.2 full", Some(452), "4.2.2"),
            (Kind::Failed, "451 later", Some(451), "4.4.7"),
            (Kind::Failed, "250 2.0.0 taken", Some(250), "5.0.0"),
            (Kind::Failed, "connect: 127.0.0.1:25: Connection refused", None, "4.4.1"),
            (Kind::Failed, "TLS: bad certificate", None, "4.7.5"),
            (Kind::Failed, "AUTH: 535 5.7.8 no", None, "4.7.0"),
            (Kind::Failed, "no answer within 5s", None, "4.4.2"),
            (Kind::Failed, "something else", None, "4.4.7"),
            (Kind::Failed, "5500 5.1.1 no code", None, "4.4.7"),
            (Kind::Failed, "55", None, "4.4.7"),
            (Kind::Failed, "", None, "4.4.7"),
            (Kind::Failed, "日本", None, "4.4.7"),
            (Kind::Failed, "100 5.1.1", None, "4.4.7"),
            (DELAYED, "450 4.2.1 greylisted", Some(450), "4.2.1"),
            (DELAYED, "450 greylisted", Some(450), "4.2.0"),
            (DELAYED, "421 busy", Some(421), "4.3.2"),
            (DELAYED, "450 5.2.1 other class", Some(450), "4.2.0"),
            (DELAYED, "550 5.1.1 no", Some(550), "4.0.0"),
            (DELAYED, "unexpected reply: 354 go", None, "4.5.0"),
            (DELAYED, "what", None, "4.0.0"),
            (Kind::Relayed, "250 2.6.0 Ok", Some(250), "2.0.0"),
        ];
        for (kind, reply, code, status) in table {
            let got = verdict(*kind, reply);
            assert_eq!((got.code, &*got.status.to_string()), (*code, *status), "{kind:?} {reply:?}");
        }
    }

    #[test]
    fn escapes() {
        let table = [
            ("a+b=\\ c", Escape::Xtext, "a+b=\\ c"),
            ("a\r\nü", Escape::Xtext, "a+0D+0A+C3+BC"),
            ("ü+\u{2028}\n", Escape::Controls, "ü+\\x{2028}\\x{0A}"),
            ("ü+\\x{FC} ", Escape::NonAscii, "\\x{FC}+\\x{FC} "),
            ("ü+\\= 日", Escape::Utf8AddrXtext, "\\x{FC}\\x{2B}\\x{5C}\\x{3D}\\x{20}\\x{65E5}"),
        ];
        for (text, escape, want) in table {
            assert_eq!(escaped(text, escape), want, "{text:?}");
        }
        assert_eq!(escaped(&"ü".repeat(250), Escape::Utf8AddrXtext), "?".repeat(250));
    }

    #[test]
    fn long_values_are_folded() {
        let mut out = Vec::new();
        field(&mut out, "Diagnostic-Code", &["word"; 40].join(" "));
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.len() <= 78), "{text}");
        assert_eq!(text.replace("\r\n", ""), format!("Diagnostic-Code: {}", ["word"; 40].join(" ")));
    }
}
