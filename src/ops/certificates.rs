//! Certificates of the tracking hosts: what became of an order, and which hosts may have one.

use super::{OpError, Ops, Terms};
use crate::clock;
use crate::domain::{CertificateState, Demand, OrderFailure, SenderDomain, Subdomain};
use crate::mail::DomainName;
use crate::settings::{Change, Snapshot};

/// The hosts that are to have a certificate: those that are configured and lead here, so that no stranger makes us
/// order one, and those of removed domains within their grace.
pub fn hosts_with_certificates(settings: &Snapshot, terms: &Terms, now: u64) -> Vec<DomainName> {
    if terms.demand != Demand::Certificate {
        return Vec::new();
    }
    let grace = u64::try_from(terms.removed_domain_grace.as_millis()).unwrap_or(u64::MAX);
    // One whose record was lost, or whose CAA records forbid us by now, would only get a refusal.
    let wanted = |s: &&Subdomain| s.is_verified() && s.caa.as_ref().is_none_or(|caa| caa.record.is_verified());
    let of_domains = settings.domains.values().flat_map(|domain| domain.subdomains().iter().filter(wanted));
    let within = |domain: &&SenderDomain| now < domain.removed_at.unwrap_or(0).saturating_add(grace);
    let removed = settings.removed.values().filter(within);
    let removed = removed.flat_map(|domain| domain.subdomains().iter().filter(|s| s.proven));
    let mut hosts = vec![terms.expected.cname_target.clone()];
    hosts.extend(of_domains.chain(removed).map(|s| s.host.clone()));
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// A certificate for `host` was issued now, and is in use until `not_after`.
pub async fn certificate_issued(ops: &Ops, host: &DomainName, not_after: u64) -> Result<(), OpError> {
    let state = CertificateState::issued_now(not_after, clock::unix_ms());
    let noted = ops.settings.change(|_| Ok::<_, OpError>((vec![Change::Certificate(host.clone(), state)], ())));
    noted.await?;
    certificate_in_use(ops, host, Some(not_after)).await
}

/// A certificate for `host` is in use until `not_after`, or none is. Its domain is tracked with it from then on.
pub async fn certificate_in_use(ops: &Ops, host: &DomainName, not_after: Option<u64>) -> Result<(), OpError> {
    let terms = ops.terms.load_full();
    let now = clock::unix_ms();
    let known = ops.settings.change(|settings| {
        let mut changes = Vec::new();
        let before = settings.certificates.get(host);
        let after = match not_after {
            Some(not_after) if before.and_then(|state| state.not_after) != Some(not_after) => {
                Some(CertificateState::issued(not_after))
            }
            None if before.is_some_and(|state| state.not_after.is_some()) => {
                before.map(|state| CertificateState { not_after: None, ..state.clone() })
            }
            _ => None,
        };
        changes.extend(after.map(|state| Change::Certificate(host.clone(), state)));
        for domain in settings.domains.values() {
            let mut changed = domain.clone();
            if changed.certificate(host, not_after.is_some(), terms.demand, now) {
                changes.push(Change::Domain(changed));
            }
        }
        Ok::<_, OpError>((changes, ()))
    });
    known.await
}

/// An order failed.
pub async fn certificate_failed(ops: &Ops, host: &DomainName, failure: &OrderFailure) -> Result<(), OpError> {
    let [jitter] = clock::random::<1>();
    let now = clock::unix_ms();
    ops.settings
        .change(|settings| {
            let before = settings.certificates.get(host).cloned().unwrap_or_default();
            let after = before.failed(failure, jitter, now);
            Ok::<_, OpError>((vec![Change::Certificate(host.clone(), after)], ()))
        })
        .await
}
