//! A sender domain and the rules of its tracking subdomain. Pure: `now` is an argument, in milliseconds since 1970.
//!
//! The rules: tracking is off until it is asked for; the subdomain can be changed, once in 24 hours, and never removed;
//! a changed one must be verified, and until then the one before is used; every one that was ever verified is served
//! and listed for good. What DNS answers is not looked up here: it arrives as a [`Finding`].
//!
//! `record` has the life of one DNS record, `subdomain` that of one tracking host, `finding` and `caa` what DNS says,
//! `name` which names are taken, `excluded` whose copies are never tracked, `dkim` the keys that sign the domain's mail,
//! `txt` what DNS says of these, `public` which addresses customers may have us ask.

mod caa;
mod certificate;
mod dkim;
mod excluded;
mod finding;
#[cfg(test)]
mod model;
mod name;
mod public;
mod record;
mod subdomain;
#[cfg(test)]
mod tests;
mod txt;

pub use caa::{CaaProperty, CaaSet, CaaVerdict};
pub use certificate::{CertificateState, OrderFailure};
pub use dkim::{Dkim, DkimKey, Selector};
pub use excluded::{Excluded, MAX_EXCLUDED};
pub use finding::{Browser, CnameFound, Finding, NotKnown};
pub use name::{sender_domain, unicode, unsupported};
pub use public::is_public;
pub use record::{Evidence, PATIENCE_MS, ROUTINE_MS, Record, overall, pause_ms};
pub use subdomain::{CaaRecord, Demand, Expected, Looks, Subdomain};
pub use txt::{TxtFault, TxtFinding, TxtFound};

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
    /// What the customer said at creation; it means nothing here.
    #[serde(default)]
    pub region: Region,
    /// Whose copies are never tracked.
    #[serde(default)]
    pub excluded: Excluded,
    /// The keys that sign its mail.
    #[serde(default, skip_serializing_if = "Dkim::is_unused")]
    pub dkim: Dkim,
    /// Every tracking subdomain that is or was in use, and the one asked for; the oldest first.
    #[serde(default)]
    subdomains: Vec<Subdomain>,
    /// The labels asked for last.
    #[serde(default)]
    asked: Option<String>,
    /// The labels that new mail uses: the last asked for that was verified.
    #[serde(default)]
    in_use: Option<String>,
    /// The labels that were in use before an operator vouched for others.
    #[serde(default)]
    before_vouched: Option<String>,
    /// When the subdomain was last changed to another (the first one is no change).
    #[serde(default)]
    changed_at: Option<u64>,
    /// When the domain was removed: links go on redirecting, unrecorded, until the grace has passed.
    #[serde(default)]
    pub removed_at: Option<u64>,
}

/// The regions that clients know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    #[default]
    #[serde(rename = "us-east-1")]
    UsEast1,
    #[serde(rename = "eu-west-1")]
    EuWest1,
    #[serde(rename = "sa-east-1")]
    SaEast1,
    #[serde(rename = "ap-northeast-1")]
    ApNortheast1,
}

/// Why a change is refused. The customer's or the operator's fault; the text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainRule {
    BadName(String, DomainError),
    PublicSuffix(DomainName),
    BadSubdomain(String, DomainError),
    /// The whole host was given where its labels were asked for.
    WholeHost(String),
    /// A subdomain cannot be taken away.
    SubdomainRemoved,
    /// At most one change in 24 hours; may next change at this time (milliseconds since 1970).
    ChangedLately {
        next: u64,
    },
    NoSubdomain,
    BadExcluded(String),
    TooManyExcluded,
    BadSelector(String),
    /// The key of this selector signs mail, so another one cannot take its place.
    SelectorInUse(Selector),
    NoDkimKey,
    DkimOff,
    /// This TXT record is still waited for, and somebody may be publishing it just now.
    DkimAwaited(String),
    /// Mail on its way may be signed with the key of this TXT record; another may take its place at this time
    /// (milliseconds since 1970).
    DkimLatelyUsed {
        record: String,
        next: u64,
    },
    NoSuchDkimKey(Selector),
    /// The key of this selector signs mail, or is to.
    DkimKeyInUse(Selector),
}

/// Pause between two changes of a tracking subdomain.
pub const CHANGE_PAUSE_MS: u64 = 24 * 60 * 60 * 1000;

impl SenderDomain {
    pub fn new(name: DomainName, id: Uuid, now: u64) -> Self {
        Self {
            id,
            name,
            created_at: now,
            open_tracking: false,
            click_tracking: false,
            region: Region::default(),
            excluded: Excluded::default(),
            dkim: Dkim::default(),
            subdomains: Vec::new(),
            asked: None,
            in_use: None,
            before_vouched: None,
            changed_at: None,
            removed_at: None,
        }
    }

    /// The subdomain asked for, verified or not.
    pub fn tracking_subdomain(&self) -> Option<&Subdomain> {
        self.by_labels(self.asked.as_deref()?)
    }

    /// The subdomain that new mail uses, if links may lead there now.
    pub fn active_subdomain(&self, demand: Demand) -> Option<&Subdomain> {
        self.by_labels(self.in_use.as_deref()?).filter(|subdomain| subdomain.is_usable(demand))
    }

    /// All hosts that are served for this domain.
    pub fn subdomains(&self) -> &[Subdomain] {
        &self.subdomains
    }

    fn by_labels(&self, labels: &str) -> Option<&Subdomain> {
        self.subdomains.iter().find(|s| s.labels == labels)
    }

    /// Asks for another tracking subdomain. The same one again is no change; the first one is none either. One that
    /// was never verified is dropped when it is replaced; a verified one stays for the links already sent. Back to an
    /// earlier one is a change like any other: it is used once its record was checked again.
    pub fn set_subdomain(&mut self, labels: &str, now: u64) -> Result<(), DomainRule> {
        if labels.is_empty() {
            return Err(DomainRule::SubdomainRemoved);
        }
        let bad = |e| DomainRule::BadSubdomain(name::shortened(labels), e);
        // A full stop at an end, in any script's form (RFC 3490 §3.1), is no empty label that may be dropped.
        if labels.starts_with(STOPS) || labels.ends_with(STOPS) {
            return Err(bad(DomainError::BadLabel));
        }
        let host = self.name.with_labels(labels).map_err(bad)?;
        name::check_letters(&host).map_err(bad)?;
        let Some(labels) = host.as_str().strip_suffix(self.name.as_str()).and_then(|l| l.strip_suffix('.')) else {
            return Err(bad(DomainError::BadLabel));
        };
        let alone = DomainName::parse(labels).ok();
        if alone.is_some_and(|alone| alone.is_within(&self.name)) {
            return Err(DomainRule::WholeHost(host.as_str().to_owned()));
        }
        if self.asked.as_deref() == Some(labels) {
            return Ok(());
        }
        if self.asked.is_some() {
            if let Some(next) = self.next_change(now) {
                return Err(DomainRule::ChangedLately { next });
            }
            self.changed_at = Some(now);
        }
        self.subdomains.retain(|s| s.proven);
        let in_use = self.in_use.as_deref() == Some(labels);
        match self.subdomains.iter_mut().find(|s| s.labels == labels) {
            // What is in use was being checked all along.
            Some(earlier) if !in_use => earlier.begin_anew(),
            Some(_) => {}
            None => self.subdomains.push(Subdomain::new(labels.to_owned(), host.clone())),
        }
        self.asked = Some(labels.to_owned());
        Ok(())
    }

    /// Before this time the subdomain cannot be changed again. A change that lies ahead was made with a wrong clock, and
    /// counts for nothing.
    pub fn next_change(&self, now: u64) -> Option<u64> {
        let next = self.changed_at.filter(|at| *at <= now)?.saturating_add(CHANGE_PAUSE_MS);
        (now < next).then_some(next)
    }

    /// It was here before, and was removed: what that means for changes still holds, or removing would be a way around
    /// the pause.
    pub fn comes_back(&mut self, earlier: &Self) {
        self.changed_at = self.changed_at.max(earlier.changed_at);
    }

    /// As it is kept once it is removed: with the hosts that links may lead to, those of `earlier` times among them.
    /// Nothing where there are none.
    pub fn removed<'a>(mut self, earlier: impl IntoIterator<Item = &'a Self>, now: u64) -> Option<Self> {
        self.subdomains.retain(|s| s.proven);
        for subdomain in earlier.into_iter().flat_map(|earlier| &earlier.subdomains) {
            if self.subdomains.iter().all(|s| s.host != subdomain.host) {
                self.subdomains.push(subdomain.clone());
            }
        }
        self.dkim = Dkim::default();
        self.removed_at = Some(now);
        // The time of the last change is needed for as long as it can matter.
        (!self.subdomains.is_empty() || self.next_change(now).is_some()).then_some(self)
    }

    /// Asks for a check of all records, due at once. With nothing to check there is nothing to do.
    pub fn verify(&mut self, now: u64) {
        for subdomain in &mut self.subdomains {
            subdomain.ask(now);
        }
        self.dkim.ask(now);
    }

    /// Marks the subdomain asked for as verified by the operator.
    pub fn verify_by_operator(&mut self, now: u64) -> Result<(), DomainRule> {
        let asked = self.asked.clone().ok_or(DomainRule::NoSubdomain)?;
        if let Some(subdomain) = self.subdomains.iter_mut().find(|s| s.labels == asked) {
            subdomain.by_operator = Some(now);
            subdomain.proven = true;
            let before = self.in_use.replace(asked.clone());
            self.before_vouched = before.filter(|before| *before != asked).or(self.before_vouched.take());
        }
        Ok(())
    }

    /// The operator no longer vouches for any subdomain: DNS decides.
    pub fn leave_to_dns(&mut self) {
        for subdomain in &mut self.subdomains {
            subdomain.by_operator = None;
        }
        // What is not verified by DNS gives way to what was used before it.
        let holds = |labels: &String| self.by_labels(labels).is_some_and(|s| s.is_usable(Demand::Nothing));
        if !self.in_use.as_ref().is_some_and(holds) && self.before_vouched.as_ref().is_some_and(holds) {
            self.in_use = self.before_vouched.take();
        }
    }

    /// When to look at which subdomain, those that are due first of all; a time that has passed means now.
    pub fn due(&self, demand: Demand, by_acme: bool, now: u64) -> impl Iterator<Item = (u64, &Subdomain)> {
        self.subdomains.iter().filter_map(move |s| Some((s.due(demand, by_acme, now)?, s)))
    }

    /// Takes in what a look at one of its hosts has brought, which was `looked_at` as the look began. One at what has
    /// gone meanwhile changes nothing.
    pub fn checked(&mut self, looked_at: &Subdomain, finding: &Finding, expected: &Expected, demand: Demand, now: u64) {
        let Some(subdomain) = self.subdomains.iter_mut().find(|s| s.host == looked_at.host) else { return };
        subdomain.judge(looked_at, finding, expected, now);
        self.settle(demand);
    }

    /// When to look for the record of which DKIM key, as [`Self::due`].
    pub fn dkim_due(&self, now: u64) -> impl Iterator<Item = (u64, &DkimKey)> {
        self.dkim.due(now)
    }

    /// Takes in what a look at the record of a DKIM key has brought, as [`Self::checked`].
    pub fn dkim_checked(&mut self, looked_at: &DkimKey, finding: &TxtFinding, now: u64) {
        self.dkim.checked(&self.name, looked_at, finding, now);
    }

    /// A certificate for `host` is there, or is no longer. Whether that changed anything.
    pub fn certificate(&mut self, host: &DomainName, there: bool, demand: Demand, now: u64) -> bool {
        let Some(subdomain) = self.subdomains.iter_mut().find(|s| s.host == *host) else { return false };
        if subdomain.accepted.is_some() == there {
            return false;
        }
        subdomain.accepted = there.then_some(now);
        subdomain.refused = None;
        self.settle(demand);
        true
    }

    /// The subdomain asked for comes into use once all is well with it.
    fn settle(&mut self, demand: Demand) {
        if let Some(asked) = self.tracking_subdomain()
            && asked.is_verified()
            && asked.is_usable(demand)
        {
            self.in_use = Some(asked.labels.clone());
        }
    }

    /// The records of the subdomain asked for and of the DKIM key that is to sign, which alone weigh on the domain.
    fn weighing(&self) -> impl Iterator<Item = Record> {
        let asked = self.tracking_subdomain();
        let vouched = asked.and_then(|s| s.by_operator).map(|at| Record::Verified { at });
        let of_dns = asked.into_iter().filter(move |_| vouched.is_none());
        let of_dns = of_dns.flat_map(|s| [Some(s.cname), s.caa.as_ref().map(|caa| caa.record)]).flatten();
        vouched.into_iter().chain(of_dns).chain(self.dkim.weighing())
    }

    /// `verified` (also when there is nothing to check), `not_started`, `pending`, `failed` or `partially_verified`.
    pub fn status(&self) -> &'static str {
        overall(self.weighing())
    }
}

/// Full stop, and what IDNA takes for one.
const STOPS: [char; 4] = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'];

impl Region {
    pub const ALL: [Self; 4] = [Self::UsEast1, Self::EuWest1, Self::SaEast1, Self::ApNortheast1];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::UsEast1 => "us-east-1",
            Self::EuWest1 => "eu-west-1",
            Self::SaEast1 => "sa-east-1",
            Self::ApNortheast1 => "ap-northeast-1",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|region| region.as_str() == text)
    }
}

impl fmt::Display for DomainRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(name, e) => write!(f, "{name:?} {e}"),
            Self::PublicSuffix(name) => {
                write!(f, "{name} is a public suffix, under which others have their domains: give one of these")
            }
            Self::BadSubdomain(labels, e) => write!(f, "tracking subdomain {labels:?} {e}"),
            Self::WholeHost(host) => {
                write!(f, "the tracking subdomain is given without the domain: this would be {host}")
            }
            Self::SubdomainRemoved => {
                f.write_str("a tracking subdomain can be changed but not removed: links already sent use it")
            }
            Self::ChangedLately { next } => {
                write!(f, "the tracking subdomain can be changed once in 24 hours, next at {}", moment(*next))
            }
            Self::NoSubdomain => f.write_str("the domain has no tracking subdomain that could be verified"),
            Self::BadExcluded(text) => {
                write!(f, "{text:?} is neither an address nor a domain with an @ before it (@example.com)")
            }
            Self::BadSelector(text) => {
                write!(
                    f,
                    "{text:?} is no DKIM selector: it has letters, digits and inner hyphens, and room below the domain"
                )
            }
            Self::SelectorInUse(selector) => {
                write!(f, "mail is signed with the key of selector {selector}: give the other key another selector")
            }
            Self::NoDkimKey => f.write_str("the domain has no DKIM key"),
            Self::DkimOff => f.write_str("DKIM is off for this domain: turn it on first"),
            Self::DkimAwaited(record) => write!(
                f,
                "the TXT record {record} of the key made last is still awaited, and another key would make it worthless: \
                 publish it, or force the change"
            ),
            Self::DkimLatelyUsed { record, next } => write!(
                f,
                "mail on its way may be signed with the key of {record}, whose place another key would take: wait until \
                 {}, or force the change",
                moment(*next)
            ),
            Self::NoSuchDkimKey(selector) => write!(f, "the domain has no DKIM key of selector {selector}"),
            Self::DkimKeyInUse(selector) => {
                write!(f, "the key of selector {selector} signs mail, or is to: only an earlier one can be forgotten")
            }
            Self::TooManyExcluded => write!(f, "at most {MAX_EXCLUDED} recipients can be excluded"),
        }
    }
}

fn moment(at: u64) -> impl fmt::Display {
    let at = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl std::error::Error for DomainRule {}
