//! What a look at a tracking host brought: facts, and the words for them. The look itself is made elsewhere.

use super::caa::{CaaSet, CaaVerdict};
use super::record::Evidence;
use crate::mail::DomainName;
use std::fmt;
use std::net::IpAddr;

/// A question that was not answered: SERVFAIL, time-out, a lame or malformed answer. Says nothing about what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotKnown(pub String);

/// All that one look at a tracking host brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub cname: Result<CnameFound, NotKnown>,
    /// The CAA set that governs the host; `None` inside where there is none. Absent where no CA of ours is concerned.
    pub caa: Option<Result<Option<CaaSet>, NotKnown>>,
    pub browser: Browser,
}

/// What stands at a tracking host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CnameFound {
    /// A chain of CNAMEs leads to the target.
    Target,
    /// The chain ends at this name.
    Elsewhere(String),
    /// The chain leads back into itself, or has too many links.
    Endless,
    /// Addresses and no CNAME.
    Addresses(Vec<IpAddr>),
    /// Nothing; but the record stands at this name, to which the provider's form has added the domain once more.
    Doubled(DomainName),
    Nothing,
}

/// Whether a browser would take what we put into links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Browser {
    /// Not looked at: DNS is not right yet, or links are plain HTTP.
    NotAsked,
    Accepts,
    /// The text says why not.
    Refuses(String),
}

impl Finding {
    /// What this says of the tracking record.
    pub fn cname_evidence(&self) -> Evidence {
        match &self.cname {
            Ok(CnameFound::Target) => Evidence::Good,
            Ok(_) => Evidence::Bad,
            Err(_) => Evidence::Unknown,
        }
    }

    /// What this says of the CAA records, and the set that denies, if one does.
    pub fn caa_evidence(&self, issuer: &DomainName) -> (Evidence, Option<&CaaSet>) {
        match &self.caa {
            None | Some(Ok(None)) => (Evidence::Good, None),
            Some(Ok(Some(set))) => match set.verdict(issuer) {
                CaaVerdict::Allows => (Evidence::Good, None),
                CaaVerdict::Denies | CaaVerdict::UnknownCritical => (Evidence::Bad, Some(set)),
            },
            Some(Err(_)) => (Evidence::Unknown, None),
        }
    }

    /// What is there instead of the tracking record, in a sentence without its end; nothing where it is right.
    pub fn cname_text(&self, host: &DomainName, labels: &str, target: &DomainName) -> Option<String> {
        let found = match &self.cname {
            Ok(found) => found,
            Err(NotKnown(why)) => return Some(format!("not known: {why}")),
        };
        Some(match found {
            CnameFound::Target => return None,
            CnameFound::Elsewhere(name) => format!("found CNAME {name}, expected {target}"),
            CnameFound::Endless => format!("found CNAMEs that lead nowhere, expected {target}"),
            CnameFound::Addresses(addresses) => {
                let shown: Vec<_> = addresses.iter().take(3).map(ToString::to_string).collect();
                let more = if addresses.len() > 3 { " and more" } else { "" };
                format!("found {}{more} and no CNAME: proxied or flattened, set it to DNS only", shown.join(", "))
            }
            CnameFound::Doubled(name) => format!(
                "found the record at {name}: the provider's form adds the domain by itself, so enter {labels} alone"
            ),
            CnameFound::Nothing => format!("found nothing at {host}"),
        })
    }

    /// What the CAA records say instead.
    pub fn caa_text(&self, issuer: &DomainName) -> Option<String> {
        match self.caa.as_ref()? {
            Err(NotKnown(why)) => Some(format!("not known: {why}")),
            Ok(None) => None,
            Ok(Some(set)) => match set.verdict(issuer) {
                CaaVerdict::Allows => None,
                CaaVerdict::Denies => Some(format!("the CAA records at {} do not name {issuer}", set.name)),
                CaaVerdict::UnknownCritical => {
                    Some(format!("a critical CAA property at {} is known to no CA: remove it", set.name))
                }
            },
        }
    }
}

impl fmt::Display for NotKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
