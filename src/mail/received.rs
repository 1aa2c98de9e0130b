//! The trace header that a relay prepends (RFC 5321 §4.4, RFC 3848).

use super::{Address, QueueId};
use std::fmt::Write;
use std::net::IpAddr;

/// The `with` clause (RFC 3848, RFC 6531 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub extended: bool,
    pub tls: bool,
    pub authenticated: bool,
    pub utf8: bool,
}

impl Protocol {
    fn name(self) -> &'static str {
        match (self.utf8, self.extended, self.tls, self.authenticated) {
            (true, _, false, false) => "UTF8SMTP",
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, false, true) => "UTF8SMTPA",
            (true, _, true, true) => "UTF8SMTPSA",
            (false, false, _, _) => "SMTP",
            (false, true, false, false) => "ESMTP",
            (false, true, true, false) => "ESMTPS",
            (false, true, false, true) => "ESMTPA",
            (false, true, true, true) => "ESMTPSA",
        }
    }
}

/// What the trace header says.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// What the client called itself in EHLO or HELO.
    pub helo: &'a str,
    pub client: IpAddr,
    /// Our own name.
    pub by: &'a str,
    pub protocol: Protocol,
    pub id: QueueId,
    /// Named only when the message has a single recipient: several would disclose Bcc.
    pub recipient: Option<&'a Address>,
    /// Milliseconds since 1970.
    pub now: u64,
}

/// The folded header, CRLF included. Characters of `helo` that have no place in a header are replaced.
pub fn received_header(trace: &Trace<'_>) -> String {
    let mut out = String::with_capacity(240);
    out.push_str("Received: from ");
    out.extend(
        trace.helo.chars().take(255).map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '(' | ')' | ';' | '<' | '>' | '"' | '\\') { c } else { '?' }
        }),
    );
    let client = match trace.client {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    };
    let _ = write!(out, " ({client})\r\n\tby {} with {} id {}", trace.by, trace.protocol.name(), trace.id);
    if let Some(recipient) = trace.recipient {
        let _ = write!(out, "\r\n\tfor <{recipient}>");
    }
    let _ = write!(out, ";\r\n\t{}\r\n", rfc5322_date(trace.now));
    out
}

/// `Mon, 23 Nov 2026 10:00:00 +0000` (RFC 5322 §3.3) of milliseconds since 1970.
pub fn rfc5322_date(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_folded_and_clean() {
        let to = Address::parse("bob@example.net").unwrap();
        let text = received_header(&Trace {
            helo: "evil\r\n(host)",
            client: "127.0.0.1".parse().unwrap(),
            by: "relay.example.net",
            protocol: Protocol { extended: true, tls: false, authenticated: false, utf8: false },
            id: QueueId::new(1_700_000_000_000, [0; 10]),
            recipient: Some(&to),
            now: 1_795_392_000_000,
        });
        assert_eq!(
            text,
            "Received: from evil???host? ([127.0.0.1])\r\n\tby relay.example.net with ESMTP id \
             018bcfe5-6800-7000-8000-000000000000\r\n\tfor <bob@example.net>;\r\n\tMon, 23 Nov 2026 00:00:00 +0000\r\n"
        );
    }
}
