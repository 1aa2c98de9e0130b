//! `check --online`: tries what the configuration names, and says what would fail.

use super::parts;
use crate::acme;
use crate::admin::{self, CallError, Request};
use crate::config::{Config, TrackingTls};
use crate::mail::DomainName;
use crate::ops::DomainView;
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
/// runs.
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
    let mut probes = Vec::new();
    for domain in domains {
        let Ok(name) = DomainName::parse(&domain.name) else { continue };
        for record in domain.records.iter().filter(|record| record.kind == "CNAME") {
            let Ok(host) = DomainName::parse(&record.name) else { continue };
            let wrong = verify::found_instead(dns, &host, &name, &config.tracking.cname_target).await;
            let found = wrong.map_or_else(|| Ok(format!("leads to {}", config.tracking.cname_target)), Err);
            probes.push(Probe { what: format!("tracking host {host}"), found });
        }
    }
    probes
}
