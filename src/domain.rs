//! A sender domain and the rules of its tracking subdomain. Pure: `now` is an argument.
//!
//! What DNS answers is not looked up here; verification arrives as a fact ([`SenderDomain::verify_by_operator`]).

use crate::mail::{DomainError, DomainName};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A domain whose mail may be tracked, as settings keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderDomain {
    pub id: Uuid,
    pub name: DomainName,
    /// Milliseconds since 1970, as all times here.
    pub created_at: u64,
    pub open_tracking: bool,
    pub click_tracking: bool,
    /// Every tracking subdomain that is or was in use, and the one asked for; the oldest first.
    #[serde(default)]
    subdomains: Vec<Subdomain>,
    /// The labels asked for last.
    #[serde(default)]
    asked: Option<String>,
    /// The labels that new mail uses: the last asked for that was verified.
    #[serde(default)]
    in_use: Option<String>,
    /// When the subdomain was last changed to another (the first one is no change).
    #[serde(default)]
    changed_at: Option<u64>,
    /// When the domain was removed: links go on redirecting, unrecorded, until the grace has passed.
    #[serde(default)]
    pub removed_at: Option<u64>,
}

/// One tracking host of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subdomain {
    /// Relative to the domain: `links`, or several labels, `links.mail`.
    pub labels: String,
    pub host: DomainName,
    pub verified: Verified,
}

/// Whether and how a tracking host was found to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    No,
    /// The operator said so (`--force-verified`); shown as such.
    ByOperator {
        at: u64,
    },
}

/// Why a change is refused. The customer's or the operator's fault; the text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainRule {
    BadName(String, DomainError),
    BadSubdomain(String, DomainError),
    /// A subdomain cannot be taken away.
    SubdomainRemoved,
    /// At most one change in 24 hours; may next change at this time (milliseconds since 1970).
    ChangedLately {
        next: u64,
    },
    NoSubdomain,
}

/// Pause between two changes of a tracking subdomain.
const CHANGE_PAUSE_MS: u64 = 24 * 60 * 60 * 1000;

impl SenderDomain {
    pub fn new(name: DomainName, id: Uuid, now: u64) -> Self {
        Self {
            id,
            name,
            created_at: now,
            open_tracking: false,
            click_tracking: false,
            subdomains: Vec::new(),
            asked: None,
            in_use: None,
            changed_at: None,
            removed_at: None,
        }
    }

    /// The subdomain asked for, verified or not.
    pub fn tracking_subdomain(&self) -> Option<&Subdomain> {
        self.by_labels(self.asked.as_deref()?)
    }

    /// The subdomain that new mail uses.
    pub fn active_subdomain(&self) -> Option<&Subdomain> {
        self.by_labels(self.in_use.as_deref()?)
    }

    /// All hosts that are served for this domain.
    pub fn subdomains(&self) -> &[Subdomain] {
        &self.subdomains
    }

    fn by_labels(&self, labels: &str) -> Option<&Subdomain> {
        self.subdomains.iter().find(|s| s.labels == labels)
    }

    /// Asks for another tracking subdomain. The same one again is no change; the first one is none either. One that
    /// was never verified is dropped when it is replaced; a verified one stays for the links already sent.
    pub fn set_subdomain(&mut self, labels: &str, now: u64) -> Result<(), DomainRule> {
        if labels.is_empty() {
            return Err(DomainRule::SubdomainRemoved);
        }
        let bad = |e| DomainRule::BadSubdomain(labels.to_owned(), e);
        let host = self.name.with_labels(labels).map_err(bad)?;
        let Some(labels) = host.as_str().strip_suffix(self.name.as_str()).and_then(|l| l.strip_suffix('.')) else {
            return Err(bad(DomainError::BadLabel));
        };
        if self.asked.as_deref() == Some(labels) {
            return Ok(());
        }
        if self.asked.is_some() {
            if let Some(last) = self.changed_at
                && now < last.saturating_add(CHANGE_PAUSE_MS)
            {
                return Err(DomainRule::ChangedLately { next: last.saturating_add(CHANGE_PAUSE_MS) });
            }
            self.changed_at = Some(now);
        }
        self.subdomains.retain(|s| s.verified != Verified::No);
        if let Some(earlier) = self.by_labels(labels) {
            // Back to an earlier host: in use again at once, since it is still verified.
            self.in_use = Some(earlier.labels.clone());
        } else {
            self.subdomains.push(Subdomain { labels: labels.to_owned(), host: host.clone(), verified: Verified::No });
        }
        self.asked = Some(labels.to_owned());
        Ok(())
    }

    /// Marks the subdomain asked for as verified by the operator.
    pub fn verify_by_operator(&mut self, now: u64) -> Result<(), DomainRule> {
        let asked = self.asked.clone().ok_or(DomainRule::NoSubdomain)?;
        if let Some(subdomain) = self.subdomains.iter_mut().find(|s| s.labels == asked) {
            subdomain.verified = Verified::ByOperator { at: now };
            self.in_use = Some(asked);
        }
        Ok(())
    }
}

impl fmt::Display for DomainRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(name, e) => write!(f, "{name:?} {e}"),
            Self::BadSubdomain(labels, e) => write!(f, "tracking subdomain {labels:?} {e}"),
            Self::SubdomainRemoved => {
                f.write_str("a tracking subdomain can be changed but not removed: links already sent use it")
            }
            Self::ChangedLately { next } => {
                let at = i64::try_from(*next).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
                let at = at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ");
                write!(f, "the tracking subdomain can be changed once in 24 hours, next at {at}")
            }
            Self::NoSubdomain => f.write_str("the domain has no tracking subdomain that could be verified"),
        }
    }
}

impl std::error::Error for DomainRule {}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn domain() -> SenderDomain {
        SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::nil(), 0)
    }

    #[test]
    fn a_changed_subdomain_is_used_once_it_is_verified() {
        let mut d = domain();
        d.set_subdomain("links", 0).unwrap();
        assert_eq!(d.active_subdomain(), None);
        d.verify_by_operator(1).unwrap();
        assert_eq!(d.active_subdomain().unwrap().host.as_str(), "links.example.com");
        d.set_subdomain("LINKS", 2).unwrap();
        d.set_subdomain("click.mail", 3).unwrap();
        assert_eq!(d.active_subdomain().unwrap().labels, "links");
        assert_eq!(d.set_subdomain("third", 3 + 23 * HOUR), Err(DomainRule::ChangedLately { next: 3 + 24 * HOUR }));
        d.set_subdomain("third", 3 + 24 * HOUR).unwrap();
        // The one in between was never verified and is gone; the first stays.
        assert_eq!(d.subdomains().iter().map(|s| &*s.labels).collect::<Vec<_>>(), ["links", "third"]);
        d.verify_by_operator(4).unwrap();
        assert_eq!(d.active_subdomain().unwrap().labels, "third");
        d.set_subdomain("links", 100 * HOUR).unwrap();
        assert_eq!(d.active_subdomain().unwrap().labels, "links");
    }

    #[test]
    fn refused() {
        let mut d = domain();
        assert_eq!(d.set_subdomain("", 0), Err(DomainRule::SubdomainRemoved));
        assert_eq!(d.verify_by_operator(0), Err(DomainRule::NoSubdomain));
        for bad in [".", "a..b", ".a", "a.", "-a", "a b", "a_b", "a/b", "a@b", "a:1", "a\r\nb"] {
            assert!(matches!(d.set_subdomain(bad, 0), Err(DomainRule::BadSubdomain(..))), "{bad:?}");
        }
        assert_eq!(d, domain());
    }
}
