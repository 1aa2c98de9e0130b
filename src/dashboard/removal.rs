//! Removing a domain: what follows is spelled out before.

use super::Dashboard;
use super::domain::Reached;
use super::domains::LIST;
use super::error::Error;
use super::frame::{Confirm, Section, page};
use super::words::{counted, cut, sentence, span, time};
use crate::clock;
use crate::domain::{SenderDomain, unicode};
use crate::ops;
use crate::settings::Snapshot;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use std::time::Duration;

/// Asks before it is done.
pub async fn confirm(State(dashboard): State<Arc<Dashboard>>, reached: Reached) -> Result<Response, Error> {
    let (settings, terms) = (dashboard.ops.settings.snapshot(), dashboard.ops.terms.load());
    let (grace, target) = (terms.removed_domain_grace, terms.expected.cname_target.as_str());
    let Reached { signed, domain } = &reached;
    let mut consequences = vec![of_mail(domain)];
    consequences.extend(of_links(domain, grace, target, clock::unix_ms()));
    consequences.extend(of_others(domain, &settings, signed.is_operator()));
    consequences.push("It can be added again, and has to be verified again then.".to_owned());
    let name = unicode(domain.name.as_str());
    page(&Confirm {
        frame: dashboard.frame(signed, Section::Domains, &format!("Remove {name}?")),
        consequences,
        action: format!("{}/delete", reached.root()),
        button: "Remove this domain",
        back: format!("{}/configuration", reached.root()),
    })
}

pub async fn delete(State(dashboard): State<Arc<Dashboard>>, reached: Reached) -> Result<Response, Error> {
    let done = ops::domain_remove(&dashboard.ops, reached.domain.id).await?;
    Ok(dashboard.done(&reached.signed, LIST, sentence(&done)))
}

fn of_mail(domain: &SenderDomain) -> String {
    let name = unicode(domain.name.as_str());
    let keys = match domain.dkim.keys().next() {
        Some(_) => " It is no longer signed: the DKIM keys are thrown away.",
        None => "",
    };
    format!(
        "Mail of {name} is no longer tracked: it is relayed as it comes, or refused where this relay takes mail of its \
         sender domains alone.{keys}"
    )
}

/// What becomes of links already sent. Nothing where there can be none.
fn of_links(domain: &SenderDomain, grace: Duration, target: &str, now: u64) -> Vec<String> {
    let hosts: Vec<_> = domain.subdomains().iter().filter(|s| s.proven).map(|s| unicode(s.host.as_str())).collect();
    if hosts.is_empty() {
        return Vec::new();
    }
    let hosts = match hosts.len() {
        0..=5 => hosts.join(", "),
        many => format!("{} and {} more", hosts[..5].join(", "), many - 5),
    };
    let keep = format!(
        "To keep them working for good, put a proxy of your own before {target} first, which takes over these hosts \
         and sets X-Forwarded-Host; docs/tls.md has one under “When a customer leaves”."
    );
    let ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    match ms {
        0 => vec![format!("Links in mail already sent, which lead over {hosts}, stop working at once."), keep],
        _ => vec![
            format!(
                "Links in mail already sent, which lead over {hosts}, go on redirecting for {}, until {} UTC, but opens \
                 and clicks are no longer recorded. After that they break.",
                span(ms),
                time(now.saturating_add(ms))
            ),
            "Leave the DNS records of these hosts as they are until then. Afterwards they can be removed.".to_owned(),
            keep,
        ],
    }
}

/// What becomes of keys, webhooks and history. Names of keys are the operator's to see.
fn of_others(domain: &SenderDomain, settings: &Snapshot, operator: bool) -> Vec<String> {
    let mut all = Vec::new();
    let keys = settings.api_keys.values().filter(|key| key.domains.iter().any(|tie| tie.id == domain.id));
    let names: Vec<_> = keys.map(|key| cut(&key.name, 50)).collect();
    let left = "no longer show or change anything of it. They may still send its mail, until it is added again.";
    match names.len() {
        0 => {}
        _ if !operator => all.push(format!("API keys that are tied to it, yours among them, {left}")),
        1..=5 => all.push(format!("API keys that are tied to it ({}) {left}", names.join(", "))),
        many => all.push(format!("The {many} API keys that are tied to it {left}")),
    }
    let tied = |webhook: &&crate::settings::Webhook| webhook.domains.iter().any(|tie| tie.id == domain.id);
    let webhooks = settings.webhooks.values().filter(tied).count() as u64;
    if webhooks > 0 {
        let is = if webhooks == 1 { "is" } else { "are" };
        all.push(format!(
            "{} made for it {is} told of the removal, and of nothing after it.",
            counted(webhooks, "webhook")
        ));
    }
    all.push(match operator {
        true => "What was recorded of its mail stays, for as long as events are kept.".to_owned(),
        false => "What was recorded of its mail is no longer shown to you.".to_owned(),
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::DomainName;
    use crate::settings::{ApiKey, Permission, Tie};
    use uuid::Uuid;

    const DAYS_90: Duration = Duration::from_hours(90 * 24);

    fn domain() -> SenderDomain {
        SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::from_u128(7), 0)
    }

    #[test]
    fn links_are_spoken_of_where_there_can_be_some() {
        let said = |domain: &SenderDomain, grace| of_links(domain, grace, "track.example.net", 0).join(" ");
        let mut domain = domain();
        domain.set_subdomain("links", 0).unwrap();
        assert_eq!(said(&domain, DAYS_90), "", "never verified");
        domain.verify_by_operator(0).unwrap();
        let text = said(&domain, DAYS_90);
        for part in ["links.example.com", "for 90 days, until 1970-04-01 00:00 UTC", "DNS records", "track.example.net"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(said(&domain, Duration::ZERO).contains("stop working at once"));
    }

    #[test]
    fn names_of_keys_are_the_operators_to_see() {
        let (domain, mut settings) = (domain(), Snapshot::default());
        assert_eq!(of_others(&domain, &settings, true).len(), 1);
        for (n, tied) in [(1, true), (2, false)] {
            let tie = Tie { id: domain.id, name: domain.name.clone() };
            let ties = if tied { vec![tie] } else { vec![] };
            let id = Uuid::from_u128(n);
            let key = ApiKey::new(id, format!("key-{n}"), "re_a", Permission::FullAccess, ties, 0);
            settings.api_keys.insert(id, key);
        }
        let operator = of_others(&domain, &settings, true).concat();
        assert!(operator.contains("(key-1)") && !operator.contains("key-2"), "{operator}");
        let customer = of_others(&domain, &settings, false).concat();
        assert!(customer.contains("yours among them") && !customer.contains("key-1"), "{customer}");
    }
}
