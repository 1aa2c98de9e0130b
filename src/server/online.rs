//! `check --online`: tries what the configuration names, and says what would fail.

use super::parts;
use crate::acme;
use crate::admin::{self, CallError, Request};
use crate::config::{Config, TrackingTls};
use crate::mail::DomainName;
use crate::ops::{CertificateView, DomainView};
use crate::outbound::Connection;
use crate::verify;
use std::time::Duration;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub what: String,
    /// What was found, or what would fail.
    pub found: Result<String, String>,
}

/// For one attempt.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tries the smarthosts, the names of the tracking hosts, and the CA. Domains are those of the running server, if one
/// runs; it is asked what becomes of their mail.
pub async fn check_online(config: &Config) -> Vec<Probe> {
    let mut probes = smarthosts(config).await;
    match verify::Dns::new(&config.dns.servers) {
        Ok(dns) => {
            probes.push(target(&dns, &config.tracking.cname_target).await);
            probes.extend(domains(config, &dns).await);
        }
        Err(why) => probes.push(Probe { what: "DNS".to_owned(), found: Err(why) }),
    }
    if config.tracking.tls == TrackingTls::Acme {
        let found = acme::directory_answers(config.acme.directory.as_str(), config.acme.ca_file.as_deref()).await;
        let what = format!("CA {}", config.acme.directory);
        probes.push(Probe { what, found: found.map(|()| "answers".to_owned()) });
    }
    probes
}

async fn smarthosts(config: &Config) -> Vec<Probe> {
    let delivery = match parts::delivery(config) {
        Ok(delivery) => delivery,
        Err(e) => return vec![Probe { what: "smarthost".to_owned(), found: Err(e.to_string()) }],
    };
    let mut probes = Vec::new();
    for smarthost in delivery.smarthosts {
        let what = format!("smarthost {}:{}", smarthost.host, smarthost.port);
        let found = match tokio::time::timeout(PATIENCE, Connection::open(&smarthost)).await {
            Ok(Ok(connection)) => {
                let encrypted = if connection.is_encrypted() { "with TLS" } else { "without TLS" };
                let login = if smarthost.credentials.is_some() { ", logged in" } else { "" };
                connection.quit().await;
                Ok(format!("answers {encrypted}{login}"))
            }
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
        };
        probes.push(Probe { what, found });
    }
    probes
}

async fn target(dns: &verify::Dns, target: &DomainName) -> Probe {
    let found = match dns.addresses(target.as_str()).await {
        Ok(addresses) if addresses.is_empty() => {
            Err("it has no address: the CNAMEs of all tracking hosts lead nowhere".to_owned())
        }
        Ok(addresses) => Ok(addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        Err(e) => Err(format!("not known: {e}")),
    };
    Probe { what: format!("tracking.cname_target {target}"), found }
}

async fn domains(config: &Config, dns: &verify::Dns) -> Vec<Probe> {
    let what = "domains".to_owned();
    let answer = match admin::ask(&config.data_dir, &Request::DomainList).await {
        Ok(answer) => answer,
        Err(CallError::NoServer(..)) => {
            return vec![Probe { what, found: Ok("not looked at: no server runs that knows them".to_owned()) }];
        }
        Err(e) => return vec![Probe { what, found: Err(e.to_string()) }],
    };
    let domains: Vec<DomainView> = match serde_json::from_value(answer) {
        Ok(domains) => domains,
        Err(e) => return vec![Probe { what, found: Err(format!("the server's answer cannot be read: {e}")) }],
    };
    let mut probes: Vec<_> = domains.first().and_then(|any| judged(&any.target_certificate)).into_iter().collect();
    for domain in domains {
        let Ok(name) = DomainName::parse(&domain.name) else { continue };
        for record in domain.records.iter().filter(|record| record.kind == "CNAME") {
            let Ok(host) = DomainName::parse(&record.name) else { continue };
            let wrong = verify::found_instead(dns, &host, &name, &config.tracking.cname_target).await;
            let leads_here = wrong.is_none();
            let found = wrong.map_or_else(|| Ok(format!("leads to {}", config.tracking.cname_target)), Err);
            probes.push(Probe { what: format!("tracking host {host}"), found });
            probes.extend(certificate(&domain, &host).filter(|_| leads_here));
        }
        probes.extend(mail(&domain));
    }
    probes
}

/// What the server says of the certificate of a host that leads here; nothing where it has none to say.
fn certificate(domain: &DomainView, host: &DomainName) -> Option<Probe> {
    let is_of = |certificate: &&CertificateView| {
        certificate.host.as_deref().is_some_and(|name| DomainName::parse(name).is_ok_and(|name| name == *host))
    };
    domain.certificates.iter().find(is_of).and_then(judged)
}

fn judged(certificate: &CertificateView) -> Option<Probe> {
    let host = certificate.host.as_deref()?;
    let found = match (&certificate.message, &*certificate.state) {
        (Some(why), "valid") => Err(format!("it is valid, but its renewal failed: {why}")),
        (Some(why), _) => Err(format!("there is none: {why}")),
        (None, "valid") => Ok("it is valid".to_owned()),
        // Whether mail has to wait for it is said of the mail.
        (None, _) => return None,
    };
    Some(Probe { what: format!("certificate of {host}"), found })
}

/// What becomes of a domain's mail at this moment. What an operator has switched off is no fault.
fn mail(domain: &DomainView) -> Vec<Probe> {
    let probe = |what: &str, said: &String| {
        let meant = !said.starts_with("off: ") || said.starts_with("off: switched off");
        let found = if meant { Ok(said.clone()) } else { Err(said.clone()) };
        Probe { what: format!("{what} for {}", domain.name), found }
    };
    let signing = domain.dkim.then(|| probe("signing", &domain.signing));
    std::iter::once(probe("tracking", &domain.tracking)).chain(signing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(tracking: &str, signing: &str, certificate: CertificateView) -> DomainView {
        DomainView {
            id: String::new(),
            name: "example.com".to_owned(),
            status: "verified".to_owned(),
            open_tracking: true,
            click_tracking: true,
            tracking_subdomain: Some("links".to_owned()),
            active_tracking_subdomain: None,
            records: Vec::new(),
            tracking: tracking.to_owned(),
            certificate: certificate.clone(),
            certificates: vec![certificate],
            target_certificate: CertificateView::default(),
            dkim: !signing.is_empty(),
            signing: signing.to_owned(),
            excluded_recipients: Vec::new(),
            region: String::new(),
            created_at: 0,
            next_change_at: None,
        }
    }

    #[test]
    fn mail_that_goes_untracked_or_unsigned_is_a_fault() {
        for (tracking, signing, faults) in [
            ("opens and clicks, by links.example.com", "with selector trackpost", [false, false]),
            ("off", "off", [false, false]),
            ("off: switched off for all mail", "with selector trackpost; trackpost2 is not verified", [false, false]),
            ("off: no tracking subdomain", "off: keys/x.key: mode 0644 lets others read this key", [true, true]),
        ] {
            let probes = mail(&domain(tracking, signing, CertificateView::default()));
            assert_eq!(probes.iter().map(|probe| probe.found.is_err()).collect::<Vec<_>>(), faults, "{tracking}");
        }
        assert_eq!(mail(&domain("off", "", CertificateView::default())).len(), 1, "DKIM is not asked for");
    }

    #[test]
    fn an_order_that_failed_is_a_fault_also_while_a_certificate_is_there() {
        let host = DomainName::parse("links.example.com").unwrap();
        let of = |state: &str, message: Option<&str>| {
            let view = CertificateView {
                state: state.to_owned(),
                host: Some(host.to_string()),
                message: message.map(str::to_owned),
                ..CertificateView::default()
            };
            certificate(&domain("off", "", view), &host).map(|probe| probe.found.is_err())
        };
        assert_eq!(of("valid", None), Some(false));
        assert_eq!(of("valid", Some("the CA is down")), Some(true));
        assert_eq!(of("failed", Some("the CA is down")), Some(true));
        assert_eq!(of("waiting", None), None);
    }
}
