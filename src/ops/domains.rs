//! Sender domains and the panic switch.

use super::{OpError, Ops, domain_name};
use crate::clock;
use crate::domain::{SenderDomain, Verified};
use crate::mail::DomainName;
use crate::settings::{Change, Snapshot};
use serde::{Deserialize, Serialize};

/// A domain to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDomain {
    pub name: String,
    pub subdomain: Option<String>,
    pub open: bool,
    pub click: bool,
    /// The operator vouches for the subdomain.
    pub force_verified: bool,
}

/// What is to change; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainUpdate {
    pub name: String,
    pub subdomain: Option<String>,
    pub open: Option<bool>,
    pub click: Option<bool>,
    pub force_verified: bool,
}

/// A domain as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    pub id: String,
    pub name: String,
    pub open_tracking: bool,
    pub click_tracking: bool,
    /// The one asked for.
    pub tracking_subdomain: Option<String>,
    /// The one that new mail uses.
    pub active_tracking_subdomain: Option<String>,
    pub subdomains: Vec<SubdomainView>,
    /// In a few words: whether mail of the domain is tracked now, and if not, why.
    pub tracking: String,
    pub created_at: u64,
}

/// One tracking host of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubdomainView {
    pub host: String,
    /// `not_started`, or `verified`.
    pub status: String,
    /// True where an operator vouched for it and DNS was not asked.
    pub by_operator: bool,
}

pub async fn domain_add(ops: &Ops, new: NewDomain) -> Result<DomainView, OpError> {
    let name = domain_name(&new.name)?;
    let now = clock::unix_ms();
    let id = uuid::Uuid::from_bytes(*clock::queue_id().as_bytes());
    ops.settings
        .change(|settings| {
            if settings.domains.contains_key(&name) {
                return Err(OpError::DomainExists(name));
            }
            let mut domain = SenderDomain::new(name, id, now);
            (domain.open_tracking, domain.click_tracking) = (new.open, new.click);
            if let Some(labels) = &new.subdomain {
                domain.set_subdomain(labels, now)?;
            }
            if new.force_verified {
                domain.verify_by_operator(now)?;
            }
            refuse_hosts_of_others(settings, &domain)?;
            let view = view(settings, &domain);
            Ok((vec![Change::Domain(domain)], view))
        })
        .await
}

/// A tracking host belongs to one domain: links.shop of example.com is links of shop.example.com. Also of one that was
/// removed, whose links still work; but a domain may come back to its own.
fn refuse_hosts_of_others(settings: &Snapshot, domain: &SenderDomain) -> Result<(), OpError> {
    let others = settings.domains.values().chain(settings.removed.values()).filter(|other| other.name != domain.name);
    let taken = |host: &DomainName, other: &SenderDomain| other.subdomains().iter().any(|s| s.host == *host);
    for other in others {
        if let Some(subdomain) = domain.subdomains().iter().find(|s| taken(&s.host, other)) {
            return Err(OpError::HostTaken(subdomain.host.clone(), other.name.clone()));
        }
    }
    Ok(())
}

pub async fn domain_update(ops: &Ops, update: DomainUpdate) -> Result<DomainView, OpError> {
    let name = domain_name(&update.name)?;
    let now = clock::unix_ms();
    ops.settings
        .change(|settings| {
            let mut domain = settings.domains.get(&name).cloned().ok_or(OpError::UnknownDomain(name))?;
            domain.open_tracking = update.open.unwrap_or(domain.open_tracking);
            domain.click_tracking = update.click.unwrap_or(domain.click_tracking);
            if let Some(labels) = &update.subdomain {
                domain.set_subdomain(labels, now)?;
            }
            if update.force_verified {
                domain.verify_by_operator(now)?;
            }
            refuse_hosts_of_others(settings, &domain)?;
            let view = view(settings, &domain);
            Ok((vec![Change::Domain(domain)], view))
        })
        .await
}

/// Removes a domain: its mail is no longer tracked, its links redirect unrecorded until the grace has passed. Returns
/// what becomes of the links, in a sentence.
pub async fn domain_remove(ops: &Ops, name: &str) -> Result<String, OpError> {
    let name = domain_name(name)?;
    let now = clock::unix_ms();
    let days = ops.removed_domain_grace.as_secs() / 86_400;
    ops.settings
        .change(|settings| {
            let mut domain =
                settings.domains.get(&name).cloned().ok_or_else(|| OpError::UnknownDomain(name.clone()))?;
            domain.removed_at = Some(now);
            let text = match days {
                0 => format!("{name} is removed; links already sent no longer work"),
                days => format!("{name} is removed; links already sent go on redirecting, unrecorded, for {days} days"),
            };
            Ok((vec![Change::Removed(domain), Change::DropDomain(name)], text))
        })
        .await
}

pub fn domain_list(ops: &Ops) -> Vec<DomainView> {
    let settings = ops.settings.snapshot();
    settings.domains.values().map(|domain| view(&settings, domain)).collect()
}

pub fn domain_show(ops: &Ops, name: &str) -> Result<DomainView, OpError> {
    let name = domain_name(name)?;
    let settings = ops.settings.snapshot();
    let domain = settings.domains.get(&name).ok_or(OpError::UnknownDomain(name))?;
    Ok(view(&settings, domain))
}

/// The panic switch, for all mail or one sender domain.
pub async fn tracking_switch(ops: &Ops, domain: Option<&str>, on: bool) -> Result<String, OpError> {
    let domain = domain.map(domain_name).transpose()?;
    let whose = domain.as_ref().map_or("all mail".to_owned(), |name| format!("mail of {name}"));
    let change = Change::TrackingOff(domain, !on);
    ops.settings
        .change(|settings| {
            let text = match (on, settings.tracking_off) {
                (false, _) => format!("tracking is off for {whose}: it is relayed untouched"),
                (true, true) if matches!(change, Change::TrackingOff(Some(_), _)) => {
                    format!("tracking is on again for {whose}, but still off for all mail")
                }
                (true, _) => format!("tracking is on again for {whose}"),
            };
            Ok((vec![change], text))
        })
        .await
}

fn view(settings: &Snapshot, domain: &SenderDomain) -> DomainView {
    let labels = |s: &crate::domain::Subdomain| s.labels.clone();
    let subdomains = domain.subdomains().iter().map(|subdomain| SubdomainView {
        host: subdomain.host.to_string(),
        status: if subdomain.verified == Verified::No { "not_started" } else { "verified" }.to_owned(),
        by_operator: matches!(subdomain.verified, Verified::ByOperator { .. }),
    });
    DomainView {
        id: domain.id.to_string(),
        name: domain.name.to_string(),
        open_tracking: domain.open_tracking,
        click_tracking: domain.click_tracking,
        tracking_subdomain: domain.tracking_subdomain().map(labels),
        active_tracking_subdomain: domain.active_subdomain().map(labels),
        subdomains: subdomains.collect(),
        tracking: standing(settings, domain, &domain.name),
        created_at: domain.created_at,
    }
}

fn standing(settings: &Snapshot, domain: &SenderDomain, name: &DomainName) -> String {
    if settings.tracking_off {
        return "off: switched off for all mail".to_owned();
    }
    if settings.tracking_off_for.contains(name) {
        return "off: switched off for this domain".to_owned();
    }
    let what = match (domain.open_tracking, domain.click_tracking) {
        (false, false) => return "off".to_owned(),
        (true, true) => "opens and clicks",
        (true, false) => "opens",
        (false, true) => "clicks",
    };
    match (domain.active_subdomain(), domain.tracking_subdomain()) {
        (Some(active), _) => format!("{what}, by {}", active.host),
        (None, Some(asked)) => format!("off: {} is not verified", asked.host),
        (None, None) => "off: no tracking subdomain".to_owned(),
    }
}
