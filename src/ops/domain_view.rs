//! A domain as people see it: its records, what DNS has instead, and whether its mail is tracked.

use super::{Ops, Terms};
use crate::clock;
use crate::domain::{CertificateState, Demand, DkimKey, Record, SenderDomain, Subdomain, unicode};
use crate::mail::DomainName;
use crate::settings::Snapshot;
use serde::{Deserialize, Serialize};

/// A domain as people see it. Names of people's are shown with U-labels, those in records with A-labels, as DNS has
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    pub id: String,
    pub name: String,
    /// `verified`, `not_started`, `pending`, `failed` or `partially_verified`.
    pub status: String,
    pub open_tracking: bool,
    pub click_tracking: bool,
    /// The one asked for.
    pub tracking_subdomain: Option<String>,
    /// The one that new mail uses.
    pub active_tracking_subdomain: Option<String>,
    /// What DNS should hold; those of the subdomain asked for come first.
    pub records: Vec<RecordView>,
    /// In a few words: whether mail of the domain is tracked now, and if not, why.
    pub tracking: String,
    /// Of the subdomain asked for.
    pub certificate: CertificateView,
    /// Of all hosts.
    pub certificates: Vec<CertificateView>,
    /// Of the name that all tracking hosts lead to; the same for every domain.
    #[serde(default)]
    pub target_certificate: CertificateView,
    /// Mail is to be signed.
    #[serde(default)]
    pub dkim: bool,
    /// In a few words: whether mail is signed now, with the key of which selector, and if not, why.
    #[serde(default)]
    pub signing: String,
    pub excluded_recipients: Vec<String>,
    pub region: String,
    pub created_at: u64,
    /// Before this time the subdomain cannot be changed again.
    pub next_change_at: Option<u64>,
}

/// The certificate of one tracking host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    /// `none` (links are plain HTTP, or there is no host yet), `external` (someone else ends TLS), `waiting` (for the
    /// host to be verified), `ordering`, `valid` or `failed`.
    pub state: String,
    pub host: Option<String>,
    pub valid_until: Option<u64>,
    /// Why the last order failed.
    pub message: Option<String>,
    pub next_try_at: Option<u64>,
}

/// One DNS record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordView {
    /// `Tracking`, `TrackingCAA` or `DKIM`.
    pub record: String,
    pub name: String,
    /// `CNAME`, `CAA` or `TXT`.
    #[serde(rename = "type")]
    pub kind: String,
    pub value: String,
    /// `not_started`, `pending`, `verified`, `temporary_failure` or `failed`.
    pub status: String,
    /// What is there instead.
    pub found: Option<String>,
    /// An operator vouched for it.
    pub by_operator: bool,
    /// Of a subdomain or a key that was used before: it weighs on nothing.
    pub earlier: bool,
    pub checked_at: Option<u64>,
    pub next_check_at: Option<u64>,
}

pub(super) fn view(ops: &Ops, settings: &Snapshot, terms: &Terms, domain: &SenderDomain) -> DomainView {
    let shown = |s: &Subdomain| unicode(&s.labels);
    let asked = domain.tracking_subdomain();
    let earlier = domain.subdomains().iter().filter(|s| asked.is_none_or(|asked| asked.labels != s.labels));
    let all = asked.map(|s| (s, false)).into_iter().chain(earlier.map(|s| (s, true)));
    let mut records: Vec<RecordView> = Vec::new();
    for (subdomain, earlier) in all {
        for record in records_of(terms, subdomain, earlier) {
            // One CAA record can serve several hosts.
            if !records.iter().any(|r| r.record == record.record && r.name == record.name) {
                records.push(record);
            }
        }
    }
    let newest = domain.dkim.newest().map(|key| &key.selector);
    let keys = domain.dkim.keys().filter(|_| domain.dkim.is_on());
    records.extend(keys.map(|key| key_record(domain, key, newest != Some(&key.selector))));
    DomainView {
        id: domain.id.to_string(),
        name: unicode(domain.name.as_str()),
        status: domain.status().to_owned(),
        open_tracking: domain.open_tracking,
        click_tracking: domain.click_tracking,
        tracking_subdomain: asked.map(shown),
        active_tracking_subdomain: domain.active_subdomain(terms.demand).map(shown),
        records,
        tracking: standing(settings, terms, domain),
        certificate: asked.map_or_else(none, |s| certificate(settings, terms, s)),
        certificates: domain.subdomains().iter().map(|s| certificate(settings, terms, s)).collect(),
        target_certificate: target_certificate(settings, terms),
        dkim: domain.dkim.is_on(),
        signing: signing(ops, domain),
        excluded_recipients: domain.excluded.iter().map(str::to_owned).collect(),
        region: domain.region.as_str().to_owned(),
        created_at: domain.created_at,
        next_change_at: domain.next_change(clock::unix_ms()),
    }
}

fn records_of(terms: &Terms, subdomain: &Subdomain, earlier: bool) -> Vec<RecordView> {
    let looks = &subdomain.looks;
    let by_operator = subdomain.by_operator.is_some();
    let view =
        |record: &str, name: String, kind: &str, value: String, state: Record, found: &Option<String>| RecordView {
            record: record.to_owned(),
            name,
            kind: kind.to_owned(),
            value,
            status: if by_operator { "verified" } else { state.status() }.to_owned(),
            found: found.clone(),
            by_operator,
            earlier,
            checked_at: looks.at,
            next_check_at: looks.next,
        };
    let target = terms.expected.cname_target.to_string();
    let host = subdomain.host.to_string();
    let tracking = view("Tracking", host, "CNAME", target, subdomain.cname, &looks.cname_found);
    let caa = subdomain.caa.as_ref().map(|caa| {
        let value = format!("0 issue \"{}\"", terms.expected.caa_issuer);
        view("TrackingCAA", caa.name.to_string(), "CAA", value, caa.record, &looks.caa_found)
    });
    std::iter::once(tracking).chain(caa).collect()
}

fn key_record(domain: &SenderDomain, key: &DkimKey, earlier: bool) -> RecordView {
    RecordView {
        record: "DKIM".to_owned(),
        name: key.selector.record_name(&domain.name),
        kind: "TXT".to_owned(),
        value: key.expected(),
        status: key.record.status().to_owned(),
        found: key.found.clone(),
        by_operator: false,
        earlier,
        checked_at: key.looks.at,
        next_check_at: key.looks.next,
    }
}

/// Whether mail is signed, and what to mend if not.
fn signing(ops: &Ops, domain: &SenderDomain) -> String {
    let Some(newest) = domain.dkim.newest().filter(|_| domain.dkim.is_on()) else { return "off".to_owned() };
    let Some(key) = domain.dkim.signing() else {
        return format!("off: the record of selector {} is not verified", newest.selector);
    };
    if let Err(why) = ops.dkim.open(&domain.name, &key.selector, &key.public) {
        return format!("off: {why}");
    }
    match key.selector == newest.selector {
        true => format!("with selector {}", key.selector),
        false => format!("with selector {}; {} is not verified", key.selector, newest.selector),
    }
}

fn none() -> CertificateView {
    CertificateView { state: "none".to_owned(), ..CertificateView::default() }
}

fn certificate(settings: &Snapshot, terms: &Terms, subdomain: &Subdomain) -> CertificateView {
    let verified = subdomain.is_verified() && subdomain.caa.as_ref().is_none_or(|caa| caa.record.is_verified());
    certificate_of(settings, terms, &subdomain.host, verified)
}

fn target_certificate(settings: &Snapshot, terms: &Terms) -> CertificateView {
    certificate_of(settings, terms, &terms.expected.cname_target, true)
}

fn certificate_of(settings: &Snapshot, terms: &Terms, host: &DomainName, verified: bool) -> CertificateView {
    let shown = Some(unicode(host.as_str()));
    let known = settings.certificates.get(host);
    let is_target = *host == terms.expected.cname_target;
    match terms.demand {
        // Links that were written before may lead there.
        Demand::Nothing if terms.by_acme && (is_target || known.is_some_and(CertificateState::had)) => {}
        Demand::Nothing => return none(),
        Demand::Answer => return CertificateView { state: "external".to_owned(), host: shown, ..none() },
        Demand::Certificate => {}
    }
    let known = known.cloned().unwrap_or_default();
    let state = match (known.not_after, &known.message) {
        (Some(_), _) => "valid",
        (None, Some(_)) => "failed",
        (None, None) if verified && terms.by_acme => "ordering",
        (None, None) => "waiting",
    };
    CertificateView {
        state: state.to_owned(),
        host: shown,
        valid_until: known.not_after,
        next_try_at: known.message.is_some().then_some(known.next).filter(|_| !known.ended),
        message: known.message,
    }
}

/// Whether mail is tracked, and the first thing to mend if not.
fn standing(settings: &Snapshot, terms: &Terms, domain: &SenderDomain) -> String {
    if settings.tracking_off {
        return "off: switched off for all mail".to_owned();
    }
    if settings.tracking_off_for.contains(&domain.name) {
        return "off: switched off for this domain".to_owned();
    }
    let what = match (domain.open_tracking, domain.click_tracking) {
        (false, false) => return "off".to_owned(),
        (true, true) => "opens and clicks",
        (true, false) => "opens",
        (false, true) => "clicks",
    };
    let Some(asked) = domain.tracking_subdomain() else { return "off: no tracking subdomain".to_owned() };
    let waits = match why_not(settings, terms, asked) {
        None => return format!("{what}, by {}", unicode(asked.host.as_str())),
        Some(why) => why,
    };
    match domain.active_subdomain(terms.demand) {
        // Its records were lost a while ago, and are looked for.
        Some(active) if active.labels == asked.labels => {
            format!("{what}, by {}; {waits}", unicode(active.host.as_str()))
        }
        Some(active) => format!("{what}, by {} for now; {waits}", unicode(active.host.as_str())),
        None => format!("off: {waits}"),
    }
}

fn why_not(settings: &Snapshot, terms: &Terms, asked: &Subdomain) -> Option<String> {
    let host = unicode(asked.host.as_str());
    if asked.by_operator.is_none() && !asked.cname.is_verified() {
        return Some(format!("{host} is not verified"));
    }
    if asked.by_operator.is_none() && asked.caa.as_ref().is_some_and(|caa| !caa.record.is_verified()) {
        return Some(format!("the CAA record for {host} is not verified"));
    }
    match (terms.demand, &asked.refused) {
        (Demand::Nothing, _) => None,
        (Demand::Answer, _) if asked.by_operator.is_some() => None,
        (Demand::Answer, Some((_, why))) => Some(format!("{host} does not answer over https: {why}")),
        (Demand::Answer, None) if asked.accepted.is_none() => Some(format!("{host} was not asked over https yet")),
        (Demand::Certificate, _) if asked.accepted.is_none() => {
            let why = settings.certificates.get(&asked.host).and_then(|state| state.message.clone());
            let why = why.or_else(|| why_not_ordered(terms, asked)).map_or_else(String::new, |why| format!(": {why}"));
            Some(format!("{host} has no certificate yet{why}"))
        }
        _ => None,
    }
}

/// Why no certificate will come by itself, also for a host that an operator has vouched for.
fn why_not_ordered(terms: &Terms, asked: &Subdomain) -> Option<String> {
    if !terms.by_acme {
        return Some("no pair of files that can be used names it".to_owned());
    }
    let caa = asked.caa.as_ref().filter(|caa| !caa.record.is_verified())?;
    let issuer = &terms.expected.caa_issuer;
    let unknown = || format!("the CAA records at {} do not let {issuer} issue one", caa.name);
    Some(asked.looks.caa_found.clone().unwrap_or_else(unknown))
}
