//! Whether CAA records let a CA issue for a host (RFC 8659). The set is found elsewhere, by climbing; here it is read.

use crate::mail::DomainName;

/// The CAA records that govern a host, all at one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaSet {
    /// Where they stand: the host, a name above it, or the end of a CNAME chain from one of these.
    pub name: DomainName,
    pub properties: Vec<CaaProperty>,
}

/// One CAA record (RFC 8659 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaProperty {
    /// The issuer critical flag.
    pub critical: bool,
    pub tag: String,
    pub value: Vec<u8>,
}

/// What a set means for a CA that issues for one host, no wildcard, by HTTP-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaaVerdict {
    Allows,
    /// Other CAs are named, or none is allowed.
    Denies,
    /// A critical property that CAs do not know forbids every one of them (§4.1). Another record would not help.
    UnknownCritical,
}

/// Tags that a CA knows, whether or not they matter here: RFC 8659 §4.2–4.4, RFC 9495, and the CA/Browser Forum's
/// contact properties.
const KNOWN: [&str; 7] = ["issue", "issuewild", "issuemail", "issuevmc", "iodef", "contactemail", "contactphone"];

impl CaaSet {
    /// Reads the set for `issuer`, the domain by which the CA knows itself.
    pub fn verdict(&self, issuer: &DomainName) -> CaaVerdict {
        let is = |property: &CaaProperty, tag: &str| property.tag.eq_ignore_ascii_case(tag);
        if self.properties.iter().any(|p| p.critical && !KNOWN.iter().any(|tag| is(p, tag))) {
            return CaaVerdict::UnknownCritical;
        }
        // issuewild binds wildcards alone (§4.3); a set without issue restricts nothing (§4.2).
        let mut issue = self.properties.iter().filter(|p| is(p, "issue")).peekable();
        if issue.peek().is_none() || issue.any(|p| names(&p.value, issuer)) {
            return CaaVerdict::Allows;
        }
        CaaVerdict::Denies
    }
}

/// Whether an issue value names `issuer`. Parameters narrow that further (RFC 8657): an account is not known before one
/// is made, so `accounturi` is left for the CA to judge; a method list without http-01 forbids what we do. A value that
/// breaks the syntax names nobody (§4.2).
fn names(value: &[u8], issuer: &DomainName) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let mut parts = text.split(';');
    let named = parts.next().unwrap_or("").trim_matches([' ', '\t']);
    let mut http_01 = true;
    for parameter in parts.map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty()) {
        let Some((tag, value)) = parameter.split_once('=') else { return false };
        let (tag, value) = (tag.trim_end_matches([' ', '\t']), value.trim_start_matches([' ', '\t']));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        let bad_tag = tag.is_empty() || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if bad_tag || !plain(value) {
            return false;
        }
        if tag.eq_ignore_ascii_case("validationmethods") {
            http_01 = value.split(',').any(|method| method.eq_ignore_ascii_case("http-01"));
        }
    }
    http_01 && named.eq_ignore_ascii_case(issuer.as_str())
}

#[cfg(test)]
mod tests {
    use super::CaaVerdict::{Allows, Denies, UnknownCritical};
    use super::*;

    /// Flags, tag, value.
    type Row = (u8, &'static str, &'static str);

    fn set(records: &[Row]) -> CaaSet {
        let property = |(flags, tag, value): &Row| CaaProperty {
            critical: flags & 128 != 0,
            tag: (*tag).to_owned(),
            value: value.as_bytes().to_vec(),
        };
        CaaSet { name: DomainName::parse("example.com").unwrap(), properties: records.iter().map(property).collect() }
    }

    #[test]
    fn verdicts() {
        let table: &[(&[Row], CaaVerdict)] = &[
            (&[(0, "issue", "ca.example.net")], Allows),
            (&[(0, "ISSUE", "CA.Example.NET")], Allows),
            (&[(128, "issue", "ca.example.net")], Allows),
            (&[(0, "issue", " ca.example.net ")], Allows),
            (&[(0, "issue", "other.example"), (0, "issue", "ca.example.net")], Allows),
            (&[(0, "issue", "ca.example.net; accounturi=https://ca.example.net/a/1")], Allows),
            (&[(0, "issue", "ca.example.net;validationmethods=dns-01,http-01")], Allows),
            (&[(0, "issue", "ca.example.net;validationmethods=dns-01")], Denies),
            (&[(0, "issue", "ca.example.net; a=b ; c = d;")], Allows),
            (&[(0, "issue", "ca.example.net; nonsense")], Denies),
            (&[(0, "issue", "ca.example.net; =x")], Denies),
            (&[(0, "issue", "ca.example.net x")], Denies),
            (&[(0, "issue", "sub.ca.example.net")], Denies),
            (&[(0, "issue", "other.example")], Denies),
            (&[(0, "issue", ";")], Denies),
            (&[(0, "issue", "")], Denies),
            (&[(0, "issue", "\u{e4}")], Denies),
            // Wildcards are another matter, and so is mail about breaches.
            (&[(0, "issuewild", ";")], Allows),
            (&[(0, "issuewild", "ca.example.net"), (0, "issue", ";")], Denies),
            (&[(0, "iodef", "mailto:a@example.com")], Allows),
            (&[(128, "iodef", "mailto:a@example.com")], Allows),
            // Unknown properties.
            (&[(0, "tbs", "x")], Allows),
            (&[(128, "tbs", "x")], UnknownCritical),
            (&[(128, "tbs", "x"), (0, "issue", "ca.example.net")], UnknownCritical),
            (&[(1, "tbs", "x"), (0, "issue", "ca.example.net")], Allows),
        ];
        let issuer = DomainName::parse("ca.example.net").unwrap();
        for (records, want) in table {
            assert_eq!(set(records).verdict(&issuer), *want, "{records:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_read(value in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let issuer = DomainName::parse("ca.example.net").unwrap();
            names(&value, &issuer);
        }
    }
}
