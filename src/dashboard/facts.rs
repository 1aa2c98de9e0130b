//! Gathers what the overview judges: from the settings, the queue and the log. Nothing here reads the disk.

use super::needs::{CertificateFact, DomainFact, Facts, Trouble, WebhookFact};
use crate::domain::{CertificateState, Demand, Record, SenderDomain, Subdomain, unicode};
use crate::mail::DomainName;
use crate::ops::{self, Ops, Terms};
use crate::settings::{ApiKey, Snapshot};
use uuid::Uuid;

/// Domains of which it is told in words what stands in the way; more are not named.
const MOST: usize = 8;

/// Everything that a key may know of. What became of copies is not in it.
pub fn gather(ops: &Ops, key: &ApiKey, now: u64) -> Facts {
    let settings = ops.settings.snapshot();
    let terms = ops.terms.load();
    let operator = key.domains.is_empty();
    let own = || settings.domains.values().filter(|domain| key.reaches(domain));
    let is_off = |domain: &&SenderDomain| settings.tracking_off_for.contains(&domain.name);
    let mut domains: Vec<_> = own()
        // Where somebody has switched tracking off, that is what is told.
        .filter(|domain| !is_off(domain))
        .filter_map(|domain| Some((trouble(domain, terms.demand)?, domain)))
        .collect();
    domains.sort_by_key(|(trouble, _)| *trouble);
    let domain = |(n, (trouble, domain)): (usize, (Trouble, &SenderDomain))| DomainFact {
        id: domain.id,
        name: unicode(domain.name.as_str()),
        trouble,
        // Where tracking is off for all mail, that is all it would say.
        why: if n < MOST && !settings.tracking_off { why(ops, domain.id) } else { String::new() },
    };
    let webhooks = settings.webhooks.values().filter(|webhook| key.reaches_webhook(webhook));
    let mut facts = Facts {
        now,
        operator,
        tracking_off: settings.tracking_off,
        tracking_off_for: own().filter(is_off).map(|domain| unicode(domain.name.as_str())).collect(),
        domains: domains.into_iter().enumerate().map(domain).collect(),
        certificates: certificates(&settings, &terms, own(), operator),
        webhooks: webhooks
            .map(|webhook| WebhookFact {
                id: webhook.id,
                endpoint: webhook.endpoint.clone(),
                disabled: webhook.disabled_because.clone(),
                failing_since: webhook.failing_since.filter(|_| webhook.enabled),
            })
            .collect(),
        ..Facts::default()
    };
    if operator {
        let queue = ops.queue.figures();
        facts.smarthost = ops.queue.unreachable().map(|down| (down.since, down.why.into()));
        facts.held = ops.queue.is_held();
        (facts.waiting, facts.oldest) = (queue.ready + queue.deferred + queue.sending, queue.oldest);
        facts.log_full = ops.log.is_full();
        facts.store_shut = ops.store.load().is_none();
    }
    facts
}

/// In the words that the domain's own page has for it.
fn why(ops: &Ops, id: Uuid) -> String {
    let Ok(view) = ops::domain_show(ops, id) else { return String::new() };
    // It often begins with a host, which a capital letter would change.
    let says = |text: &str| format!("{}.", text.strip_prefix("off: ").unwrap_or(text));
    let is_tracked = !view.tracking.starts_with("off");
    match view.signing.starts_with("off: ") && (is_tracked || view.tracking == "off") {
        true => format!("Signing is off: {}", says(&view.signing)),
        false if is_tracked => format!("Tracked: {}", says(&view.tracking)),
        false => says(&view.tracking),
    }
}

/// What is wrong with a domain that is to be tracked or signed.
fn trouble(domain: &SenderDomain, demand: Demand) -> Option<Trouble> {
    let is_gone = |record: Record| matches!(record, Record::TemporaryFailure { .. });
    let asked = domain.tracking_subdomain();
    let by_dns = asked.filter(|subdomain| subdomain.by_operator.is_none());
    let of_host = by_dns.into_iter().flat_map(|s| [Some(s.cname), s.caa.as_ref().map(|caa| caa.record)]).flatten();
    let of_key = domain.dkim.newest().filter(|_| domain.dkim.is_on()).map(|key| key.record);
    let is_wanted = domain.open_tracking || domain.click_tracking;
    match domain.status() {
        "failed" => Some(Trouble::Failed),
        _ if of_host.chain(of_key).any(is_gone) => Some(Trouble::Lost),
        _ if is_wanted && domain.active_subdomain(demand).is_none() => Some(Trouble::Untracked),
        "verified" => None,
        _ => Some(Trouble::Waiting),
    }
}

/// Of the hosts that serve links of these domains, and of the name that all of them lead to.
fn certificates<'a>(
    settings: &Snapshot,
    terms: &Terms,
    domains: impl Iterator<Item = &'a SenderDomain>,
    operator: bool,
) -> Vec<CertificateFact> {
    // Somebody else ends TLS, or nobody does.
    if terms.demand == Demand::Answer || terms.demand == Demand::Nothing && !terms.by_acme {
        return Vec::new();
    }
    let fact = |host: &DomainName, domain: Option<Uuid>, state: &CertificateState| CertificateFact {
        host: unicode(host.as_str()),
        domain,
        not_after: state.not_after,
        failed: state.message.clone(),
        is_ordered: terms.by_acme,
    };
    // Where links are plain HTTP, those alone that led to HTTPS before need one.
    let needs = |state: &&CertificateState| terms.demand == Demand::Certificate || state.had();
    let of_host = |domain: Uuid, subdomain: &Subdomain| {
        let state = settings.certificates.get(&subdomain.host).filter(needs)?;
        Some(fact(&subdomain.host, Some(domain), state))
    };
    let hosts = domains.flat_map(|domain| domain.subdomains().iter().filter_map(move |s| of_host(domain.id, s)));
    let target = &terms.expected.cname_target;
    let of_target = settings.certificates.get(target).filter(|state| operator && state.had());
    hosts.chain(of_target.map(|state| fact(target, None, state))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Expected;
    use std::time::Duration;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn domain(n: u128) -> SenderDomain {
        let mut domain = SenderDomain::new(name(&format!("{n}.example.com")), Uuid::from_u128(n), 0);
        domain.set_subdomain("links", 0).unwrap();
        domain
    }

    #[test]
    fn what_is_wrong_with_domains() {
        let mut plain = SenderDomain::new(name("plain.example.com"), Uuid::nil(), 0);
        assert_eq!(trouble(&plain, Demand::Nothing), None, "nothing is wanted of it");
        plain.open_tracking = true;
        assert_eq!(trouble(&plain, Demand::Nothing), Some(Trouble::Untracked), "it has no subdomain");
        let mut vouched = domain(1);
        assert_eq!(trouble(&vouched, Demand::Nothing), Some(Trouble::Waiting));
        vouched.click_tracking = true;
        assert_eq!(trouble(&vouched, Demand::Nothing), Some(Trouble::Untracked));
        vouched.verify_by_operator(0).unwrap();
        assert_eq!(trouble(&vouched, Demand::Nothing), None);
        assert_eq!(trouble(&vouched, Demand::Certificate), Some(Trouble::Untracked), "it has no certificate");
    }

    #[test]
    fn whose_certificates() {
        let terms = |demand, by_acme| Terms {
            expected: Expected { cname_target: name("track.example.net"), caa_issuer: name("ca.example.net") },
            demand,
            by_acme,
            unsupported_suffixes: Vec::new(),
            policy_url: None,
            removed_domain_grace: Duration::from_hours(24),
            private_webhooks: false,
            webhook_ports: crate::config::WebhookPorts::Any,
        };
        let domains = [domain(1), domain(2)];
        let mut settings = Snapshot::default();
        for host in ["links.1.example.com", "track.example.net", "links.9.example.com"] {
            settings.certificates.insert(name(host), CertificateState::issued(7));
        }
        let hosts = |terms: &Terms, own: &[SenderDomain], operator| -> Vec<_> {
            certificates(&settings, terms, own.iter(), operator).into_iter().map(|c| c.host).collect()
        };
        let https = terms(Demand::Certificate, true);
        assert_eq!(hosts(&https, &domains, true), ["links.1.example.com", "track.example.net"]);
        assert_eq!(hosts(&https, &domains[..1], false), ["links.1.example.com"]);
        assert!(hosts(&https, &domains[1..], false).is_empty());
        assert!(hosts(&terms(Demand::Answer, false), &domains, true).is_empty());
        assert!(hosts(&terms(Demand::Nothing, false), &domains, true).is_empty());
        assert_eq!(hosts(&terms(Demand::Nothing, true), &domains, true).len(), 2, "links over HTTPS are on their way");
    }
}
