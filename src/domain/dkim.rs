//! The DKIM keys of a domain: which one signs, how one takes over from another, and the life of their records. The
//! private keys are not here; they are files of their own.
//!
//! A new key is published first and signs once its record has been seen; until then the one before it signs. Keys that
//! signed stay listed, since mail on its way still needs their records; one whose record was never there is dropped
//! when another takes its place.

use super::record::{self, Record};
use super::subdomain::Looks;
use super::txt::{TxtFinding, expected_txt, txt_evidence, txt_text};
use super::{DomainRule, name};
use crate::mail::DomainName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether mail of a domain is signed, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dkim {
    /// Never without a key.
    on: bool,
    /// The oldest first; the last one is the one that is to sign.
    keys: Vec<DkimKey>,
}

/// One key, and what is known of its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimKey {
    pub selector: Selector,
    /// SubjectPublicKeyInfo in base64, as it stands in DNS. Tells keys apart that had the same selector in turn.
    pub public: String,
    pub created_at: u64,
    pub record: Record,
    /// Its record was seen, so mail may be signed with it.
    #[serde(default)]
    pub proven: bool,
    /// What was there instead of its record.
    #[serde(default)]
    pub found: Option<String>,
    #[serde(default)]
    pub looks: Looks,
}

/// What tells one key of a domain from another (RFC 6376 §3.1): labels of letters, digits and hyphens, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Box<str>);

/// Selectors of keys that are made here, in turn.
const OURS: [&str; 2] = ["trackpost", "trackpost2"];
/// For so long after a new key has taken over, the one before it keeps its selector: mail that it signed is on its way.
const IN_FLIGHT_MS: u64 = 24 * 3_600_000;
/// More keys than this are not kept; the oldest that does not sign goes first.
const MAX_KEYS: usize = 4;

impl Dkim {
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// There is nothing to be kept of it.
    pub(super) fn is_unused(&self) -> bool {
        !self.on && self.keys.is_empty()
    }

    /// The newest, which is to sign; then the earlier ones, the latest of them first.
    pub fn keys(&self) -> impl Iterator<Item = &DkimKey> {
        self.keys.iter().rev()
    }

    /// The key that is to sign.
    pub fn newest(&self) -> Option<&DkimKey> {
        self.keys.last()
    }

    /// The key that signs now: the newest whose record is there; else the newest whose record was lost a while ago.
    pub fn signing(&self) -> Option<&DkimKey> {
        let all = || self.keys().filter(|_| self.on);
        all().find(|key| key.record.is_verified()).or_else(|| all().find(|key| key.record.holds()))
    }

    /// Turns signing off, or on again with the keys that are there; these are looked for anew before they sign.
    pub fn switch(&mut self, on: bool) -> Result<(), DomainRule> {
        if on && self.keys.is_empty() {
            return Err(DomainRule::NoDkimKey);
        }
        if on && !self.on {
            self.keys.iter_mut().for_each(DkimKey::begin_anew);
        }
        self.on = on;
        Ok(())
    }

    /// The selector for another key: one that is free, else that of the key which has been out of use for longest.
    pub fn next_selector(&self) -> Selector {
        let ours = || OURS.iter().map(|name| Selector((*name).into()));
        let holder = |selector: &Selector| self.keys.iter().position(|key| key.selector == *selector && key.proven);
        let signing = self.signing().map(|key| &key.selector);
        let free = ours().find(|selector| holder(selector).is_none());
        let oldest = || ours().filter(|selector| signing != Some(selector)).min_by_key(|selector| holder(selector));
        free.or_else(oldest).unwrap_or_else(|| Selector(OURS[0].into()))
    }

    /// Whether this key may become the one that is to sign without harm to what others rely on: no key is dropped whose
    /// record somebody may be publishing just now, and none has its selector taken that has signed until lately.
    pub fn may_add(&self, domain: &DomainName, selector: &Selector, public: &str, now: u64) -> Result<(), DomainRule> {
        let is_same = |key: &DkimKey| key.selector == *selector && key.public == public;
        let given_up = |key: &DkimKey| matches!(key.record, Record::Failed { .. });
        let awaited = self.newest().filter(|key| self.on && !key.proven && !given_up(key));
        if let Some(key) = awaited.filter(|key| !is_same(key)) {
            return Err(DomainRule::DkimAwaited(key.selector.record_name(domain)));
        }
        let Some(Record::Verified { at }) = self.newest().filter(|_| self.on).map(|key| key.record) else {
            return Ok(());
        };
        let next = at.saturating_add(IN_FLIGHT_MS);
        let replaced = |key: &&DkimKey| key.selector == *selector && key.public != public && key.proven;
        match self.keys[..self.keys.len() - 1].iter().find(replaced) {
            Some(key) if now < next => {
                Err(DomainRule::DkimLatelyUsed { record: key.selector.record_name(domain), next })
            }
            _ => Ok(()),
        }
    }

    /// Lets go of an earlier key.
    pub fn forget(&mut self, selector: &Selector) -> Result<(), DomainRule> {
        let is = |key: &DkimKey| key.selector == *selector;
        if !self.keys.iter().any(is) {
            return Err(DomainRule::NoSuchDkimKey(selector.clone()));
        }
        if self.newest().is_some_and(is) || self.signing().is_some_and(is) {
            return Err(DomainRule::DkimKeyInUse(selector.clone()));
        }
        self.keys.retain(|key| !is(key));
        Ok(())
    }

    /// Adds the key that is to sign from now on, and turns signing on. In place of another one with its selector, unless
    /// that one signs. The same key again stays what it was.
    pub fn add(&mut self, domain: &DomainName, selector: Selector, public: String, now: u64) -> Result<(), DomainRule> {
        if selector.record_name(domain).len() > MAX_NAME {
            return Err(DomainRule::BadSelector(selector.to_string()));
        }
        let signs = |key: &DkimKey, signing: Option<&DkimKey>| signing == Some(key);
        let there = self.keys.iter().find(|key| key.selector == selector).cloned();
        let key = match there {
            Some(same) if same.public == public => {
                let mut same = same;
                if !signs(&same, self.signing()) {
                    same.begin_anew();
                }
                same
            }
            Some(other) if signs(&other, self.signing()) => return Err(DomainRule::SelectorInUse(selector)),
            _ => DkimKey::new(selector.clone(), public, now),
        };
        let signing = self.signing().cloned();
        self.keys.retain(|other| other.selector != selector && other.proven);
        self.keys.push(key);
        while self.keys.len() > MAX_KEYS
            && let Some(old) = self.keys[..self.keys.len() - 1].iter().position(|key| !signs(key, signing.as_ref()))
        {
            self.keys.remove(old);
        }
        self.on = true;
        Ok(())
    }

    /// Asks for a look at all records, due at once.
    pub(super) fn ask(&mut self, now: u64) {
        self.keys.iter_mut().filter(|_| self.on).for_each(|key| key.ask(now));
    }

    /// When to look for which key; a time that has passed means now.
    pub(super) fn due(&self, now: u64) -> impl Iterator<Item = (u64, &DkimKey)> {
        let due = move |key: &DkimKey| key.looks.next.map(|next| next.min(now.saturating_add(record::ROUTINE_MS * 2)));
        self.keys.iter().filter(|_| self.on).filter_map(move |key| Some((due(key)?, key)))
    }

    /// Takes in what a look at one of the records has brought. One at a key that has gone meanwhile changes nothing.
    pub(super) fn checked(&mut self, domain: &DomainName, looked_at: &DkimKey, finding: &TxtFinding, now: u64) {
        let same = |key: &&mut DkimKey| key.selector == looked_at.selector && key.public == looked_at.public;
        if let Some(key) = self.keys.iter_mut().filter(|_| self.on).find(same) {
            key.judge(domain, looked_at, finding, now);
        }
    }

    /// The record that weighs on the domain.
    pub(super) fn weighing(&self) -> Option<Record> {
        self.newest().filter(|_| self.on).map(|key| key.record)
    }
}

/// Octets of a domain name at most, as people write it.
const MAX_NAME: usize = 253;

impl DkimKey {
    fn new(selector: Selector, public: String, now: u64) -> Self {
        Self {
            selector,
            public,
            created_at: now,
            record: Record::NotStarted,
            proven: false,
            found: None,
            looks: Looks::default(),
        }
    }

    /// The text that the TXT record is to have.
    pub fn expected(&self) -> String {
        expected_txt(&self.public)
    }

    fn ask(&mut self, now: u64) {
        let before = self.record;
        self.record = self.record.asked(now);
        if before != self.record {
            self.looks.count = 0;
        }
        self.looks.next = Some(now);
        self.looks.asked = self.looks.asked.wrapping_add(1);
    }

    fn begin_anew(&mut self) {
        self.record = Record::NotStarted;
        self.found = None;
        // The count goes on, so that a look that began before is known by it.
        let asked = self.looks.asked.wrapping_add(1);
        self.looks = Looks { asked, answered: asked, ..Looks::default() };
    }

    /// As for a tracking host: after a look that began before somebody asked for one, that one is still to come.
    fn judge(&mut self, domain: &DomainName, looked_at: &Self, finding: &TxtFinding, now: u64) {
        if self.record == Record::NotStarted {
            return;
        }
        let asked_since = self.looks.asked != looked_at.looks.asked;
        self.looks.answered = looked_at.looks.asked;
        let before = self.record;
        self.record = self.record.judged(txt_evidence(finding, &self.public), now);
        self.proven |= self.record.is_verified();
        self.looks.at = Some(now);
        let name = self.selector.record_name(domain);
        self.found = txt_text(finding, &name, self.selector.as_str(), &self.public);
        if before != self.record {
            self.looks.count = 0;
        }
        if !asked_since {
            self.looks.next = self.pause(finding).map(|pause| now.saturating_add(pause));
        }
        self.looks.count = self.looks.count.saturating_add(1);
    }

    /// Until the next look, after one that brought this.
    fn pause(&self, finding: &TxtFinding) -> Option<u64> {
        match self.record {
            Record::NotStarted | Record::Failed { .. } => None,
            _ if finding.is_err() || self.record.is_open() => Some(record::pause_ms(self.looks.count)),
            _ => Some(record::ROUTINE_MS),
        }
    }
}

impl Selector {
    pub fn parse(text: &str) -> Result<Self, DomainRule> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        match text.len() <= MAX_NAME && text.split('.').all(label) {
            true => Ok(Self(text.to_ascii_lowercase().into())),
            false => Err(DomainRule::BadSelector(name::shortened(text))),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the key's record stands.
    pub fn record_name(&self, domain: &DomainName) -> String {
        format!("{self}._domainkey.{domain}")
    }
}

impl TryFrom<String> for Selector {
    type Error = DomainRule;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.0.into()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
