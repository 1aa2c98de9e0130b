//! Which names may be sender domains, and how names are shown.

use super::DomainRule;
use crate::mail::{DomainError, DomainName};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Reads the name of a sender domain: no public suffix, since nobody's mail comes from one and its holder would govern
/// everybody below. Suffixes in private hands (`github.io`) are their holders' to use.
pub fn sender_domain(text: &str) -> Result<DomainName, DomainRule> {
    let name = DomainName::parse(text).map_err(|e| DomainRule::BadName(shortened(text), e))?;
    check_letters(&name).map_err(|e| DomainRule::BadName(shortened(text), e))?;
    if is_public_suffix(&name) {
        return Err(DomainRule::PublicSuffix(name));
    }
    Ok(name)
}

/// Refuses what IDNA2008 (RFC 5892) has no place for, though browsers resolve it: emoji and other symbols, of which
/// several look like one.
pub(super) fn check_letters(name: &DomainName) -> Result<(), DomainError> {
    use GeneralCategoryGroup::{Letter, Mark, Number};
    let fits =
        |c: char| c.is_ascii() || matches!(c.general_category_group(), Letter | Mark | Number) || JOINERS.contains(&c);
    if unicode(name.as_str()).chars().all(fits) { Ok(()) } else { Err(DomainError::BadLabel) }
}

/// What RFC 5892 appendix A allows in its place, which the conversion has checked.
const JOINERS: [char; 8] = ['\u{b7}', '\u{375}', '\u{5f3}', '\u{5f4}', '\u{30fb}', '\u{200c}', '\u{200d}', '\u{6fd}'];

fn is_public_suffix(name: &DomainName) -> bool {
    let of_icann = |text: &str| {
        psl::suffix(text.as_bytes())
            .is_some_and(|suffix| suffix.as_bytes() == text.as_bytes() && suffix.typ() == Some(psl::Type::Icann))
    };
    of_icann(name.as_str()) || of_icann(&unicode(name.as_str()))
}

/// The first of `suffixes` in which `name` lies.
pub fn unsupported<'a>(name: &DomainName, suffixes: &'a [String]) -> Option<&'a str> {
    let within = |suffix: &str| name.as_str() == suffix || name.as_str().ends_with(&format!(".{suffix}"));
    suffixes.iter().map(|suffix| suffix.trim_matches('.')).find(|suffix| within(&suffix.to_ascii_lowercase()))
}

/// A name or labels with its A-labels as people write them, or as it is where they stand for nothing.
pub fn unicode(name: &str) -> String {
    match idna::domain_to_unicode(name) {
        (shown, Ok(())) => shown,
        _ => name.to_owned(),
    }
}

/// What was given, fit for a message.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_domains() {
        for (text, want) in [
            ("example.com", Some("example.com")),
            ("EXAMPLE.Com", Some("example.com")),
            ("mail.example.co.uk", Some("mail.example.co.uk")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("github.io", Some("github.io")),
            ("हिन्दी.example", Some("xn--j2bd4cyah0f.example")),
            ("🐟a.example.com", None),
            ("a❤.example.com", None),
            ("xn--a-uju.example.com", None),
            ("exa%6dple.com", None),
            ("relay.test", Some("relay.test")),
            ("com", None),
            ("co.uk", None),
            ("xn--p1ai", None),
            // 公司.cn and its A-label.
            ("公司.cn", None),
            ("xn--55qx5d.cn", None),
            ("", None),
            ("localhost", None),
            ("192.0.2.1", None),
            ("[2001:db8::1]", None),
            ("a..example.com", None),
            ("a_b.example.com", None),
            ("ex\nample.com", None),
            ("ex\0ample.com", None),
            ("a b.example.com", None),
        ] {
            assert_eq!(sender_domain(text).ok().as_ref().map(DomainName::as_str), want, "{text:?}");
        }
        assert!(
            matches!(sender_domain(&"é".repeat(300)), Err(DomainRule::BadName(text, _)) if text.chars().count() == 101)
        );
    }

    #[test]
    fn suffixes() {
        let given = ["example".to_owned(), ".co.test".to_owned(), "XN--P1AI".to_owned()];
        for (name, want) in [
            ("mail.example", Some("example")),
            ("a.co.test", Some("co.test")),
            ("aco.test", None),
            ("a.xn--p1ai", Some("XN--P1AI")),
            ("example.com", None),
        ] {
            assert_eq!(unsupported(&DomainName::parse(name).unwrap(), &given), want, "{name}");
        }
    }

    #[test]
    fn names_are_shown_as_they_are_written() {
        for (name, want) in [
            ("xn--bcher-kva.example", "bücher.example"),
            ("links.xn--bcher-kva.example", "links.bücher.example"),
            ("example.com", "example.com"),
            ("xn--55qx5d", "公司"),
        ] {
            assert_eq!(unicode(name), want);
        }
    }
}
