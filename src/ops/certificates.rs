//! Certificates of the tracking hosts: what became of an order, which hosts may have one, and which no longer.

use super::{OpError, Ops, Terms};
use crate::clock;
use crate::domain::{CertificateState, Demand, OrderFailure, SenderDomain, Subdomain};
use crate::mail::DomainName;
use crate::settings::{Change, Snapshot};
use std::collections::{BTreeMap, HashSet};

/// A host that is to have a certificate from a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedHost {
    pub host: DomainName,
    /// The sender domain whose tracking host it is; none for the target of the CNAMEs.
    pub of: Option<DomainName>,
    /// Nobody keeps looking whether its records are right, so look before an order.
    pub unwatched: bool,
}

/// The hosts that are to have a certificate: those that are configured and lead here, so that no stranger makes us
/// order one, and those of removed domains within their grace. Where new links are plain HTTP, those alone that had one
/// before, since links over HTTPS are on their way.
pub fn hosts_with_certificates(settings: &Snapshot, terms: &Terms, now: u64) -> Vec<WantedHost> {
    if !terms.by_acme {
        return Vec::new();
    }
    let target = &terms.expected.cname_target;
    let mut wanted = BTreeMap::from([(target, WantedHost { host: target.clone(), of: None, unwatched: false })]);
    let had = |s: &Subdomain| settings.certificates.get(&s.host).is_some_and(CertificateState::had);
    let needs = |s: &Subdomain| terms.demand == Demand::Certificate || had(s);
    // One whose record was lost, or whose CAA records forbid us by now, would only get a refusal.
    let leads_here = |s: &Subdomain| s.is_verified() && s.caa.as_ref().is_none_or(|caa| caa.record.is_verified());
    for domain in settings.domains.values() {
        let asked = domain.tracking_subdomain().map(|s| &s.host);
        for s in domain.subdomains().iter().filter(|s| leads_here(s) && needs(s)) {
            let unwatched = asked != Some(&s.host) && s.by_operator.is_none();
            let of = Some(domain.name.clone());
            wanted.entry(&s.host).or_insert_with(|| WantedHost { host: s.host.clone(), of, unwatched });
        }
    }
    for domain in within_grace(settings, terms, now) {
        for s in domain.subdomains().iter().filter(|s| s.proven && needs(s)) {
            let (of, unwatched) = (Some(domain.name.clone()), s.by_operator.is_none());
            wanted.entry(&s.host).or_insert_with(|| WantedHost { host: s.host.clone(), of, unwatched });
        }
    }
    wanted.into_values().collect()
}

/// Removed domains whose links still redirect.
fn within_grace<'a>(settings: &'a Snapshot, terms: &Terms, now: u64) -> impl Iterator<Item = &'a SenderDomain> {
    let grace = u64::try_from(terms.removed_domain_grace.as_millis()).unwrap_or(u64::MAX);
    settings.removed.values().filter(move |domain| now < domain.removed_at.unwrap_or(0).saturating_add(grace))
}

/// Hosts of which a certificate is known although they are nobody's any more: their domain was removed and its grace is
/// over, or the target is another one.
pub fn hosts_of_nobody(settings: &Snapshot, terms: &Terms, now: u64) -> Vec<DomainName> {
    let domains = settings.domains.values().chain(within_grace(settings, terms, now));
    let hosts: HashSet<_> = domains.flat_map(|domain| domain.subdomains().iter().map(|s| &s.host)).collect();
    let is_nobodys = |host: &DomainName| *host != terms.expected.cname_target && !hosts.contains(host);
    // Of one that had none, what keeps the next order back is all there is, and stays until it is of no use.
    let known = settings.certificates.iter().filter(|(_, state)| state.had() || state.is_idle(now));
    known.map(|(host, _)| host).filter(|host| is_nobodys(host)).cloned().collect()
}

/// The certificate of a host that is nobody's is gone. What keeps the next order back outlives it, so that removing a
/// domain and adding it again is no way around a pause.
pub async fn certificate_dropped(ops: &Ops, host: &DomainName) -> Result<(), OpError> {
    let terms = ops.terms.load_full();
    let now = clock::unix_ms();
    let dropped = ops.settings.change(|settings| {
        let state = settings.certificates.get(host).filter(|_| hosts_of_nobody(settings, &terms, now).contains(host));
        let change = state.and_then(|state| match state.is_idle(now) {
            true => Some(Change::DropCertificate(host.clone())),
            false if state.had() => {
                let kept = CertificateState { not_after: None, had: false, ..state.clone() };
                Some(Change::Certificate(host.clone(), kept))
            }
            false => None,
        });
        Ok::<_, OpError>((change.into_iter().collect(), ()))
    });
    dropped.await
}

/// The operator, or a start, asks for the certificate of the target of all CNAMEs.
pub async fn target_asked(ops: &Ops) -> Result<(), OpError> {
    let target = ops.terms.load().expected.cname_target.clone();
    let now = clock::unix_ms();
    let asked = ops.settings.change(|settings| {
        let state = settings.certificates.get(&target).and_then(|state| state.asked(now));
        Ok::<_, OpError>((state.map(|state| Change::Certificate(target.clone(), state)).into_iter().collect(), ()))
    });
    asked.await
}

/// A certificate for `host` was issued now, and is in use until `not_after`.
pub async fn certificate_issued(ops: &Ops, host: &DomainName, not_after: u64) -> Result<(), OpError> {
    let terms = ops.terms.load_full();
    let now = clock::unix_ms();
    // In one change, or it would be shown as valid before links lead to its host.
    let noted = ops.settings.change(|settings| {
        let state = CertificateState::issued_now(not_after, now);
        let changes = std::iter::once(Change::Certificate(host.clone(), state));
        Ok::<_, OpError>((changes.chain(domains_with(settings, host, true, terms.demand, now)).collect(), ()))
    });
    noted.await
}

/// A certificate for `host` is in use until `not_after`, or none is. Its domain is tracked with it from then on.
pub async fn certificate_in_use(ops: &Ops, host: &DomainName, not_after: Option<u64>) -> Result<(), OpError> {
    let terms = ops.terms.load_full();
    let now = clock::unix_ms();
    let known = ops.settings.change(|settings| {
        let before = settings.certificates.get(host);
        let after = match not_after {
            Some(not_after) if before.and_then(|state| state.not_after) != Some(not_after) => {
                Some(CertificateState::issued(not_after))
            }
            None if before.is_some_and(|state| state.not_after.is_some()) => {
                before.map(|state| CertificateState { not_after: None, had: true, ..state.clone() })
            }
            _ => None,
        };
        let state = after.map(|state| Change::Certificate(host.clone(), state));
        let domains = domains_with(settings, host, not_after.is_some(), terms.demand, now);
        Ok::<_, OpError>((state.into_iter().chain(domains).collect(), ()))
    });
    known.await
}

/// What changes for domains with this host now that its certificate is there, or is not.
fn domains_with(
    settings: &Snapshot,
    host: &DomainName,
    there: bool,
    demand: Demand,
    now: u64,
) -> impl Iterator<Item = Change> {
    settings.domains.values().filter_map(move |domain| {
        let mut changed = domain.clone();
        changed.certificate(host, there, demand, now).then_some(Change::Domain(changed))
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Expected;
    use std::time::Duration;
    use uuid::Uuid;

    const DAY: u64 = 86_400_000;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn terms(demand: Demand) -> Terms {
        Terms {
            expected: Expected { cname_target: name("track.example.net"), caa_issuer: name("ca.example.net") },
            demand,
            by_acme: true,
            unsupported_suffixes: Vec::new(),
            policy_url: None,
            removed_domain_grace: Duration::from_hours(24),
            private_webhooks: false,
            webhook_ports: crate::config::WebhookPorts::Any,
        }
    }

    fn domain(of: &str) -> SenderDomain {
        let mut domain = SenderDomain::new(name(of), Uuid::from_u128(of.len() as u128), 0);
        domain.set_subdomain("links", 0).unwrap();
        domain.verify_by_operator(0).unwrap();
        domain
    }

    /// example.com is here, gone.example.com was removed at the time 0.
    fn settings() -> Snapshot {
        let (here, gone) = (domain("example.com"), domain("gone.example.com").removed([], 0).unwrap());
        let mut settings = Snapshot::default();
        settings.domains.insert(here.name.clone(), here);
        settings.removed.insert(gone.id, gone);
        settings
    }

    fn wanted(settings: &Snapshot, terms: &Terms, now: u64) -> Vec<String> {
        hosts_with_certificates(settings, terms, now).into_iter().map(|wanted| wanted.host.to_string()).collect()
    }

    #[test]
    fn who_may_have_one() {
        let (mut settings, https, http) = (settings(), terms(Demand::Certificate), terms(Demand::Nothing));
        let all = ["links.example.com", "links.gone.example.com", "track.example.net"];
        assert_eq!(wanted(&settings, &https, DAY - 1), all);
        assert_eq!(wanted(&settings, &https, DAY), [all[0], all[2]]);
        assert_eq!(wanted(&settings, &http, 0), [all[2]], "nobody has seen links over HTTPS");
        settings.certificates.insert(name(all[0]), CertificateState::issued(9));
        assert_eq!(wanted(&settings, &http, 0), [all[0], all[2]]);
        // It has ended since, and orders fail.
        let ended = CertificateState { not_after: None, ..CertificateState::issued(9) };
        let failing = ended.failed(&OrderFailure::new("no".to_owned()), 0, 0);
        settings.certificates.insert(name(all[0]), failing);
        assert_eq!(wanted(&settings, &http, 0), [all[0], all[2]]);
        assert!(wanted(&settings, &Terms { by_acme: false, ..https }, 0).is_empty());
    }

    #[test]
    fn who_is_nobodys() {
        let (mut settings, terms) = (settings(), terms(Demand::Certificate));
        let gone = name("links.gone.example.com");
        for host in ["links.example.com", "links.gone.example.com", "track.example.net"] {
            settings.certificates.insert(name(host), CertificateState::issued(9));
        }
        assert!(hosts_of_nobody(&settings, &terms, DAY - 1).is_empty());
        assert_eq!(hosts_of_nobody(&settings, &terms, DAY), std::slice::from_ref(&gone));
        // An order that has to wait is remembered for as long as that, should the domain come back.
        let limited = OrderFailure { retry_after: Some(2 * DAY), ..OrderFailure::new("later".to_owned()) };
        settings.certificates.insert(gone.clone(), CertificateState::default().failed(&limited, 0, 0));
        assert!(hosts_of_nobody(&settings, &terms, 2 * DAY - 1).is_empty());
        assert_eq!(hosts_of_nobody(&settings, &terms, 2 * DAY), [gone]);
    }
}
