//! SMTP replies with enhanced status codes (RFC 5321 §4.2, RFC 2034, RFC 3463).

use std::borrow::Cow;
use std::fmt;

/// `class.subject.detail` of RFC 3463.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u16, pub u16);

/// One reply, ours or the smarthost's. The text may hold several lines, separated by LF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub enhanced: Option<Enhanced>,
    pub text: Cow<'static, str>,
}

impl Reply {
    pub const fn new(code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        Self { code, enhanced: Some(enhanced), text: Cow::Borrowed(text) }
    }

    pub fn with_text(code: u16, enhanced: Enhanced, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: Some(enhanced), text: text.into() }
    }

    /// A reply without an enhanced code: greetings, EHLO and 354.
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: None, text: text.into() }
    }

    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Appends the reply as it goes over the wire, every line with code and CRLF.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let dash = if lines.peek().is_some() { '-' } else { ' ' };
            let written = match self.enhanced {
                Some(Enhanced(a, b, c)) => write!(out, "{}{dash}{a}.{b}.{c} {line}\r\n", self.code),
                None => write!(out, "{}{dash}{line}\r\n", self.code),
            };
            debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
        }
    }
}

/// On one line, as logs and queue listings show it.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(Enhanced(a, b, c)) = self.enhanced {
            write!(f, " {a}.{b}.{c}")?;
        }
        write!(f, " {}", self.text.replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_carries_the_codes() {
        let mut out = Vec::new();
        Reply::new(550, Enhanced(5, 7, 1), "no\nreally").write_to(&mut out);
        Reply::plain(354, "go").write_to(&mut out);
        assert_eq!(out, b"550-5.7.1 no\r\n550 5.7.1 really\r\n354 go\r\n");
        assert_eq!(Reply::new(550, Enhanced(5, 7, 1), "no\nreally").to_string(), "550 5.7.1 no really");
    }
}
