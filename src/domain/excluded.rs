//! Recipients whose copies are never tracked: the sender's own staff, seed lists.

use super::DomainRule;
use super::name::shortened;
use crate::mail::{Address, DomainName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Addresses, and domains with an `@` before them, all in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Excluded(BTreeSet<String>);

/// Entries of one domain.
pub const MAX_EXCLUDED: usize = 1_000;

impl Excluded {
    /// Reads a list of addresses and of domains as `@example.com`. Case does not matter, repetitions are dropped.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, DomainRule> {
        let mut all = BTreeSet::new();
        for entry in entries {
            all.insert(read(entry).ok_or_else(|| DomainRule::BadExcluded(shortened(entry)))?);
            if all.len() > MAX_EXCLUDED {
                return Err(DomainRule::TooManyExcluded);
            }
        }
        Ok(Self(all))
    }

    /// Whether copies to `recipient` are left alone.
    pub fn holds(&self, recipient: &Address) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let address = recipient.as_str().to_lowercase();
        let domain = || Some(format!("@{}", DomainName::parse(recipient.domain()?).ok()?));
        self.0.contains(&address) || domain().is_some_and(|domain| self.0.contains(&domain))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

fn read(entry: &str) -> Option<String> {
    if let Some(domain) = entry.strip_prefix('@') {
        return Some(format!("@{}", DomainName::parse(domain).ok()?));
    }
    let address = Address::parse(entry).ok()?;
    address.domain()?;
    Some(address.as_str().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_excluded() {
        let excluded =
            Excluded::parse(["Boss@Example.com", "@staff.example.com", "boss@example.com", "@bücher.example"]).unwrap();
        assert_eq!(
            excluded.iter().collect::<Vec<_>>(),
            ["@staff.example.com", "@xn--bcher-kva.example", "boss@example.com"]
        );
        for (address, want) in [
            ("boss@example.com", true),
            ("BOSS@EXAMPLE.COM", true),
            ("other@example.com", false),
            ("a@staff.example.com", true),
            ("a@STAFF.example.com", true),
            ("a@sub.staff.example.com", false),
            ("a@xn--bcher-kva.example", true),
            ("a@bücher.example", true),
            ("postmaster", false),
        ] {
            assert_eq!(excluded.holds(&Address::parse(address).unwrap()), want, "{address}");
        }
    }

    #[test]
    fn refused() {
        for bad in ["", "@", "@localhost", "postmaster", "a b@example.com", "example.com", "a@b\r\n", "@a_b.example"] {
            assert!(matches!(Excluded::parse([bad]), Err(DomainRule::BadExcluded(_))), "{bad:?}");
        }
        let many: Vec<_> = (0..=MAX_EXCLUDED).map(|n| format!("a{n}@example.com")).collect();
        assert_eq!(Excluded::parse(many.iter().map(String::as_str)), Err(DomainRule::TooManyExcluded));
    }
}
