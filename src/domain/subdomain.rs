//! One tracking host of a domain: its records, what was found, and when to look again.

use super::finding::{Browser, Finding};
use super::record::{self, Evidence, PATIENCE_MS, Record};
use crate::mail::DomainName;
use serde::{Deserialize, Serialize};

/// One tracking host of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Subdomain {
    /// Relative to the domain: `links`, or several labels, `links.mail`; A-labels.
    pub labels: String,
    pub host: DomainName,
    /// The CNAME.
    pub cname: Record,
    /// It was verified once, or an operator vouched for it: links may point to it, so it is served for good.
    pub proven: bool,
    /// When the operator vouched for it (`--force`); shown as such. DNS is then not what decides.
    pub by_operator: Option<u64>,
    /// The CAA record that was once found to be needed. It stays listed.
    pub caa: Option<CaaRecord>,
    /// The CAA records were looked at, whatever came of it.
    pub caa_seen: bool,
    /// Since when a browser has been taking its links.
    pub accepted: Option<u64>,
    /// Since when that is refused, and why.
    pub refused: Option<(u64, String)>,
    pub looks: Looks,
}

/// The record that allows our CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaaRecord {
    /// Where the set stands that governs the host.
    pub name: String,
    pub record: Record,
}

/// Looks at DNS: of a tracking host, or of a DKIM key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looks {
    /// The last one.
    pub at: Option<u64>,
    /// The next one.
    pub next: Option<u64>,
    /// How often somebody has asked for one, and how many of these requests the last one had seen.
    #[serde(default)]
    pub asked: u32,
    #[serde(default)]
    pub answered: u32,
    /// Looks since something changed.
    pub count: u32,
    /// What was there instead of a tracking host's CNAME, and of its CAA record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cname_found: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caa_found: Option<String>,
}

/// What must be true before links may lead to a host, beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Links are plain HTTP.
    Nothing,
    /// Somebody else ends TLS: a request that we made came back to us. An operator's word will do.
    Answer,
    /// We end TLS: its certificate is there.
    Certificate,
}

/// How a subdomain was stored before DNS was looked at, and is now.
#[derive(Deserialize)]
struct Stored {
    labels: String,
    host: DomainName,
    #[serde(default)]
    cname: Record,
    #[serde(default)]
    proven: bool,
    #[serde(default)]
    by_operator: Option<u64>,
    #[serde(default)]
    caa: Option<CaaRecord>,
    #[serde(default)]
    caa_seen: bool,
    #[serde(default)]
    accepted: Option<u64>,
    #[serde(default)]
    refused: Option<(u64, String)>,
    #[serde(default)]
    looks: Looks,
    #[serde(default)]
    verified: Option<Earlier>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Earlier {
    No,
    ByOperator { at: u64 },
}

impl From<Stored> for Subdomain {
    fn from(stored: Stored) -> Self {
        let by_operator = match stored.verified {
            Some(Earlier::ByOperator { at }) => Some(at),
            Some(Earlier::No) | None => stored.by_operator,
        };
        Self {
            labels: stored.labels,
            host: stored.host,
            cname: stored.cname,
            proven: stored.proven || by_operator.is_some(),
            by_operator,
            caa: stored.caa,
            caa_seen: stored.caa_seen,
            accepted: stored.accepted,
            refused: stored.refused,
            looks: stored.looks,
        }
    }
}

impl Subdomain {
    pub(super) fn new(labels: String, host: DomainName) -> Self {
        Self {
            labels,
            host,
            cname: Record::NotStarted,
            proven: false,
            by_operator: None,
            caa: None,
            caa_seen: false,
            accepted: None,
            refused: None,
            looks: Looks::default(),
        }
    }

    /// Links in new mail may lead there: its records hold, or an operator said so, and a browser will take them.
    pub fn is_usable(&self, demand: Demand) -> bool {
        let records = self.cname.holds() && self.caa.as_ref().is_none_or(|caa| caa.record.holds());
        let vouched = self.by_operator.is_some();
        (records || vouched)
            && match demand {
                Demand::Nothing => true,
                Demand::Answer => vouched || self.accepted.is_some(),
                Demand::Certificate => self.accepted.is_some(),
            }
    }

    /// Its records are all there at this moment.
    pub fn is_verified(&self) -> bool {
        self.by_operator.is_some()
            || self.cname.is_verified() && self.caa.as_ref().is_none_or(|caa| caa.record.is_verified())
    }

    /// Somebody asks for a look, which is then due at once.
    pub(super) fn ask(&mut self, now: u64) {
        let before = (self.cname, self.caa.clone());
        self.cname = self.cname.asked(now);
        if let Some(caa) = &mut self.caa {
            caa.record = caa.record.asked(now);
        }
        if before != (self.cname, self.caa.clone()) {
            self.looks.count = 0;
        }
        self.looks.next = Some(now);
        self.looks.asked = self.looks.asked.wrapping_add(1);
    }

    /// Back from an earlier time: it is verified anew before it is used.
    pub(super) fn begin_anew(&mut self) {
        self.cname = Record::NotStarted;
        if let Some(caa) = &mut self.caa {
            caa.record = Record::NotStarted;
        }
        self.by_operator = None;
        (self.accepted, self.refused) = (None, None);
        // The count goes on, so that a look that began before is known by it.
        let asked = self.looks.asked.wrapping_add(1);
        self.looks = Looks { asked, answered: asked, ..Looks::default() };
    }

    /// Takes in what a look has brought, and sets the time of the next one. One that somebody asked for since this one
    /// began is still to come, at once.
    pub(super) fn judge(&mut self, looked_at: &Self, finding: &Finding, expected: &Expected, now: u64) {
        if looked_at.cname == Record::NotStarted && self.cname != Record::NotStarted {
            // It looked for less than is asked for now.
            return;
        }
        let asked_since = self.looks.asked != looked_at.looks.asked;
        self.looks.answered = looked_at.looks.asked;
        let before = (self.cname, self.caa.as_ref().map(|caa| caa.record));
        self.cname = self.cname.judged(finding.cname_evidence(), now);
        self.judge_caa(finding, expected, now);
        self.judge_browser(&finding.browser, now);
        self.proven |= self.is_verified();
        self.looks.at = Some(now);
        // Before anybody asks for a check, only the CAA records are of interest: they say what to add.
        let asked = self.cname != Record::NotStarted;
        let text = || finding.cname_text(&self.host, &self.labels, &expected.cname_target);
        self.looks.cname_found = asked.then(text).flatten();
        self.looks.caa_found = finding.caa_text(&expected.caa_issuer);
        let unchanged = before == (self.cname, self.caa.as_ref().map(|caa| caa.record));
        self.looks.count = if unchanged { self.looks.count } else { 0 };
        if !asked_since {
            self.looks.next = self.next_look(finding, now);
        }
        self.looks.count = self.looks.count.saturating_add(1);
    }

    fn judge_caa(&mut self, finding: &Finding, expected: &Expected, now: u64) {
        if finding.caa.is_none() {
            return;
        }
        let (evidence, denying) = finding.caa_evidence(&expected.caa_issuer);
        self.caa_seen |= evidence != Evidence::Unknown;
        let ours = denying.filter(|set| !set.at_target);
        match (&mut self.caa, ours) {
            (Some(caa), Some(set)) => {
                caa.name = set.name.clone();
                caa.record = caa.record.judged(Evidence::Bad, now);
            }
            (Some(caa), None) => {
                let evidence = if denying.is_some() { Evidence::Unknown } else { evidence };
                caa.record = caa.record.judged(evidence, now);
            }
            (None, Some(set)) => {
                // Shown from now on. Where all was well before, what was in use goes on for as long as a lost record.
                let record = match self.cname {
                    Record::NotStarted => Record::NotStarted,
                    Record::Verified { .. } if self.proven => Record::TemporaryFailure { since: now },
                    Record::Verified { .. } => Record::Pending { since: now },
                    other => other,
                };
                self.caa = Some(CaaRecord { name: set.name.clone(), record });
            }
            (None, None) => {}
        }
    }

    fn judge_browser(&mut self, browser: &Browser, now: u64) {
        match browser {
            Browser::NotAsked => {}
            Browser::Accepts => {
                self.accepted = self.accepted.or(Some(now));
                self.refused = None;
            }
            Browser::Refuses(why) => {
                let since = self.refused.as_ref().map_or(now, |(since, _)| *since);
                self.refused = Some((since, why.clone()));
                // As with a record that was lost: what was in use has three days.
                if now.saturating_sub(since) >= PATIENCE_MS {
                    self.accepted = None;
                }
            }
        }
    }

    fn next_look(&self, finding: &Finding, now: u64) -> Option<u64> {
        let records = [Some(self.cname), self.caa.as_ref().map(|caa| caa.record)];
        let mut records = records.into_iter().flatten();
        let unanswered = finding.cname.is_err() || matches!(finding.caa, Some(Err(_)));
        let refused = self.refused.is_some() && self.cname.holds();
        if matches!(self.cname, Record::NotStarted | Record::Failed { .. }) {
            let again = !self.caa_seen && matches!(finding.caa, Some(Err(_)));
            return again.then(|| now.saturating_add(record::pause_ms(self.looks.count)));
        }
        let soon = unanswered || refused || records.any(Record::is_open);
        let pause = if soon { record::pause_ms(self.looks.count) } else { record::ROUTINE_MS };
        Some(now.saturating_add(pause))
    }

    /// When to look, given that links need `demand`; at once where that has changed since the last look, and where
    /// nobody has looked yet whether a CAA record is needed.
    pub(super) fn due(&self, demand: Demand, by_acme: bool, now: u64) -> Option<u64> {
        let unasked = demand == Demand::Answer
            && self.by_operator.is_none()
            && self.cname.holds()
            && self.accepted.is_none()
            && self.refused.is_none();
        if unasked || by_acme && !self.caa_seen && self.looks.next.is_none() {
            return Some(now);
        }
        // A clock that was set back must not put a look off for days.
        self.looks.next.map(|next| next.min(now.saturating_add(record::ROUTINE_MS * 2)))
    }
}

/// What DNS is expected to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub cname_target: DomainName,
    /// The domain by which our CA knows itself in CAA records.
    pub caa_issuer: DomainName,
}
