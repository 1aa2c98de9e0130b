//! Mailboxes (RFC 5321 §4.1.2) and domain names as they appear in envelopes, headers and settings.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An address of the envelope: `local-part@domain`, or the bare local part `postmaster`.
///
/// Without angle brackets, source route, CR, LF, NUL and other controls. The local part is opaque
/// (`a%b@c` and `a!b@c` mean nothing to us) and keeps its bytes.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(Box<str>);

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    Empty,
    /// A control character: CR, LF, NUL, TAB, DEL and their like.
    Control,
    /// Over 64 octets of local part (RFC 5321 §4.5.3.1.1), 255 of domain, or 320 in all.
    TooLong,
    NoDomain,
    BadDomain,
    BadLocalPart,
}

impl Address {
    /// Checks `text`, which stands without angle brackets. The bare local part `postmaster` is taken in any case
    /// (RFC 5321 §4.1.1.3); any other address needs a domain or an address literal.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(AddressError::Control);
        }
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self(text.into()));
        }
        let at = split_point(text).ok_or(AddressError::NoDomain)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if local.is_empty() {
            return Err(AddressError::BadLocalPart);
        }
        if domain.is_empty() {
            return Err(AddressError::NoDomain);
        }
        // Longer local parts than 64 octets are in use (VERP, SRS); RFC 5321 asks to take what one can.
        if local.len() > 255 || domain.len() > 255 || text.len() > 500 {
            return Err(AddressError::TooLong);
        }
        let quoted = is_quoted(local);
        if !quoted && local.contains([' ', '<', '>', '"', '(', ')', ',', ';', ':', '\\', '[', ']', '@']) {
            return Err(AddressError::BadLocalPart);
        }
        let literal = domain.starts_with('[') && domain.ends_with(']');
        if domain.contains([' ', '<', '>', '"', '(', ')', ',', ';', '\\', '@', '!', '%', '|', '/']) {
            return Err(AddressError::BadDomain);
        }
        if !literal && (domain.contains(['[', ']', ':']) || domain.split('.').any(str::is_empty)) {
            return Err(AddressError::BadDomain);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn local(&self) -> &str {
        split_point(&self.0).map_or(&self.0, |at| &self.0[..at])
    }

    /// The domain as written, or `None` for the bare `postmaster`.
    pub fn domain(&self) -> Option<&str> {
        split_point(&self.0).map(|at| &self.0[at + 1..])
    }

    /// False where relaying the address needs SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }
}

/// A quoted string (RFC 5321 §4.1.2) from end to end: no quote inside but behind a backslash.
fn is_quoted(local: &str) -> bool {
    let Some(inside) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut escaped = false;
    for c in inside.chars() {
        match c {
            '"' if !escaped => return false,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    !escaped
}

/// Where the `@` between local part and domain stands: the last one outside a quoted local part.
fn split_point(text: &str) -> Option<usize> {
    text.rfind('@')
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

/// A host or domain name in lower case, IDN as A-labels (`xn--…`), without a final dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(Box<str>);

/// Why a text is no domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainError {
    Empty,
    /// Over 253 octets, or a label over 63 (RFC 1035 §2.3.4).
    TooLong,
    /// A label that is empty, starts or ends with a hyphen, or holds anything but letters, digits and hyphens.
    BadLabel,
    /// A single label, such as `localhost`.
    NoDot,
    /// An IP address.
    Address,
}

impl DomainName {
    /// Checks and normalises `text`: case folded, IDN to A-labels (UTS 46).
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        if text.len() > 1_000 {
            return Err(DomainError::TooLong);
        }
        // The URL parser would decode it.
        if text.contains('%') {
            return Err(DomainError::BadLabel);
        }
        let ascii = match url::Host::parse(text) {
            Ok(url::Host::Domain(name)) => name,
            Ok(_) => return Err(DomainError::Address),
            Err(_) => return Err(DomainError::BadLabel),
        };
        let ascii = ascii.to_ascii_lowercase();
        if ascii.len() > 253 {
            return Err(DomainError::TooLong);
        }
        if !ascii.contains('.') {
            return Err(DomainError::NoDot);
        }
        for label in ascii.split('.') {
            if label.len() > 63 {
                return Err(DomainError::TooLong);
            }
            let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if label.is_empty() || !plain || label.starts_with('-') || label.ends_with('-') {
                return Err(DomainError::BadLabel);
            }
        }
        Ok(Self(ascii.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `labels` put before this name: `links` and `example.com` make `links.example.com`.
    pub fn with_labels(&self, labels: &str) -> Result<Self, DomainError> {
        Self::parse(&format!("{labels}.{self}"))
    }

    /// True when this name is `parent` or lies under it.
    pub fn is_within(&self, parent: &DomainName) -> bool {
        self.0.strip_suffix(&*parent.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// Names hash and compare as their texts do, so a table of them can be asked for a text.
impl std::borrow::Borrow<str> for DomainName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DomainName {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::TooLong => "is too long for a domain name (253 characters, 63 a label)",
            Self::BadLabel => "is not a domain name: labels are letters, digits and inner hyphens",
            Self::NoDot => "needs at least two labels, as in example.com",
            Self::Address => "is an IP address, not a domain name",
        })
    }
}

impl std::error::Error for DomainError {}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "address is empty",
            Self::Control => "address holds a control character",
            Self::TooLong => "address is too long",
            Self::NoDomain => "address has no domain",
            Self::BadDomain => "bad domain in address",
            Self::BadLocalPart => "bad local part in address",
        })
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        type Parts = (&'static str, Option<&'static str>);
        let table: &[(&str, Result<Parts, AddressError>)] = &[
            ("a@example.com", Ok(("a", Some("example.com")))),
            ("a%b@c", Ok(("a%b", Some("c")))),
            ("a!b@c", Ok(("a!b", Some("c")))),
            ("\"a@b c\"@example.com", Ok(("\"a@b c\"", Some("example.com")))),
            ("a..b@example.com", Ok(("a..b", Some("example.com")))),
            ("user@[127.0.0.1]", Ok(("user", Some("[127.0.0.1]")))),
            ("grüße@example.com", Ok(("grüße", Some("example.com")))),
            ("Postmaster", Ok(("Postmaster", None))),
            ("root", Err(AddressError::NoDomain)),
            ("", Err(AddressError::Empty)),
            ("a\rb@c", Err(AddressError::Control)),
            ("a\0b@c", Err(AddressError::Control)),
            ("@c", Err(AddressError::BadLocalPart)),
            ("a@", Err(AddressError::NoDomain)),
            ("a b@c", Err(AddressError::BadLocalPart)),
            ("a@b@c", Err(AddressError::BadLocalPart)),
            ("a@b..c", Err(AddressError::BadDomain)),
            ("a@b>c", Err(AddressError::BadDomain)),
        ];
        for (text, want) in table {
            let got = Address::parse(text);
            let got = got.as_ref().map(|a| (a.local(), a.domain())).map_err(|e| *e);
            assert_eq!(&got, want, "{text:?}");
        }
    }

    #[test]
    fn domain_names() {
        assert_eq!(DomainName::parse("Example.COM").unwrap().as_str(), "example.com");
        assert_eq!(DomainName::parse("bücher.example").unwrap().as_str(), "xn--bcher-kva.example");
        for bad in ["", "com", "127.0.0.1", "[::1]", "a..b", "-a.com", "a_b.com", ".a.com", "a.com.", "a b.com"] {
            assert!(DomainName::parse(bad).is_err(), "{bad:?}");
        }
        let parent = DomainName::parse("example.com").unwrap();
        assert!(parent.with_labels("links").unwrap().is_within(&parent));
        assert!(!DomainName::parse("badexample.com").unwrap().is_within(&parent));
    }
}
