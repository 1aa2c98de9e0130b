//! SMTP replies with enhanced status codes (RFC 5321 §4.2, RFC 2034, RFC 3463).

use std::borrow::Cow;
use std::fmt;

/// `class.subject.detail` of RFC 3463.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl Enhanced {
    /// Splits `5.1.1 no such user`. `None` where the first word is no enhanced code of the class of `code`
    /// (RFC 2034 §4).
    pub fn split(code: u16, text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = word.split('.').map(number);
        let (class, subject, detail) = (parts.next()??, parts.next()??, parts.next()??);
        let whole = parts.next().is_none() && class == code / 100 && matches!(class, 2 | 4 | 5);
        let class = u8::try_from(class).ok()?;
        whole.then_some((Self(class, subject, detail), rest))
    }
}

/// One to three digits.
fn number(part: &str) -> Option<u16> {
    let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if digits { part.parse().ok() } else { None }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

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
                Some(enhanced) => write!(out, "{}{dash}{enhanced} {line}\r\n", self.code),
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
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
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
