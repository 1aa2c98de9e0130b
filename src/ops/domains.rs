//! Sender domains and the panic switch.

use super::configuration::Configuration;
use super::domain_view::{DomainView, view};
use super::{OpError, Ops, Terms, dkim, domain_name};
use crate::clock;
use crate::domain::{self, Excluded, Finding, Region, SenderDomain};
use crate::mail::DomainName;
use crate::settings::{Change, Snapshot};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::Uuid;

/// A domain to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDomain {
    pub name: String,
    pub subdomain: Option<String>,
    pub open: bool,
    pub click: bool,
    #[serde(default)]
    pub region: Region,
    /// Addresses, and domains as `@example.com`, whose copies are never tracked.
    #[serde(default)]
    pub excluded: Vec<String>,
    /// Its mail is signed, with a key that is made.
    #[serde(default)]
    pub dkim: bool,
    /// The operator vouches for the subdomain.
    pub force_verified: bool,
}

/// What is to change; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainUpdate {
    pub subdomain: Option<String>,
    pub open: Option<bool>,
    pub click: Option<bool>,
    #[serde(default)]
    pub excluded: Option<Vec<String>>,
    #[serde(default)]
    pub dkim: Option<bool>,
    pub force_verified: bool,
    /// Nothing changes unless the domain is still configured so.
    #[serde(default)]
    pub expects: Option<Configuration>,
}

/// How a domain is to be verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// By DNS; an operator's earlier word still counts.
    #[default]
    Ask,
    /// The operator vouches for the subdomain.
    Force,
    /// The operator's word is taken back, and DNS decides.
    LeaveToDns,
}

pub async fn domain_add(ops: &Ops, new: NewDomain) -> Result<DomainView, OpError> {
    let name = domain::sender_domain(&new.name)?;
    let excluded = Excluded::parse(new.excluded.iter().map(String::as_str))?;
    let now = clock::unix_ms();
    let id = Uuid::from_bytes(*clock::queue_id().as_bytes());
    let turn = if new.dkim { Some(ops.dkim_turn.lock().await) } else { None };
    if ops.settings.snapshot().domains.contains_key(&name) {
        return Err(OpError::DomainExists(name));
    }
    let key = if new.dkim { Some(dkim::generate().await?) } else { None };
    let made = ops.settings.change_then(|settings| {
        if settings.domains.contains_key(&name) {
            return Err(OpError::DomainExists(name));
        }
        let mut domain = SenderDomain::new(name.clone(), id, now);
        (domain.region, domain.excluded) = (new.region, excluded);
        for earlier in settings.removed.values().filter(|earlier| earlier.name == name) {
            domain.comes_back(earlier);
        }
        (domain.open_tracking, domain.click_tracking) = (new.open, new.click);
        if let Some(labels) = &new.subdomain {
            set_subdomain(ops, settings, &mut domain, labels, now)?;
        }
        if new.force_verified {
            domain.verify_by_operator(now)?;
        }
        if let Some(key) = &key {
            dkim::place(ops, &mut domain, key, None, now)?;
        }
        let then = key.is_some().then(|| dkim::settling(ops, None, &domain));
        Ok((vec![Change::Domain(domain)], (), then))
    });
    made.await?;
    drop(turn);
    wait_for_caa(ops, id).await;
    domain_show(ops, id)
}

pub async fn domain_update(ops: &Ops, id: Uuid, update: DomainUpdate) -> Result<DomainView, OpError> {
    let excluded = update.excluded.as_ref().map(|all| Excluded::parse(all.iter().map(String::as_str))).transpose()?;
    let now = clock::unix_ms();
    let turn = if update.dkim.is_some() { Some(ops.dkim_turn.lock().await) } else { None };
    let has_key = {
        let settings = ops.settings.snapshot();
        let domain = settings.domain(id).ok_or(OpError::NoSuchDomain)?;
        // Before time is spent on making a key.
        update.check(domain)?;
        domain.dkim.newest().is_some()
    };
    let key = if update.dkim == Some(true) && !has_key { Some(dkim::generate().await?) } else { None };
    let changed = ops.settings.change_then(|settings| {
        let before = settings.domain(id).ok_or(OpError::NoSuchDomain)?;
        update.check(before)?;
        let mut domain = before.clone();
        domain.open_tracking = update.open.unwrap_or(domain.open_tracking);
        domain.click_tracking = update.click.unwrap_or(domain.click_tracking);
        domain.excluded = excluded.unwrap_or(domain.excluded);
        if let Some(labels) = &update.subdomain {
            set_subdomain(ops, settings, &mut domain, labels, now)?;
        }
        if update.force_verified {
            domain.verify_by_operator(now)?;
        }
        match (update.dkim, &key) {
            (_, Some(key)) => dkim::place(ops, &mut domain, key, None, now)?,
            (Some(on), None) => domain.dkim.switch(on)?,
            (None, None) => {}
        }
        let then = key.is_some().then(|| dkim::settling(ops, Some(before), &domain));
        let changes = if domain == *before { vec![] } else { vec![Change::Domain(domain)] };
        Ok::<_, OpError>((changes, (), then))
    });
    changed.await?;
    drop(turn);
    wait_for_caa(ops, id).await;
    domain_show(ops, id)
}

impl DomainUpdate {
    fn check(&self, domain: &SenderDomain) -> Result<(), OpError> {
        match &self.expects {
            Some(expected) if *expected != Configuration::of(domain) => Err(OpError::ChangedMeanwhile),
            _ => Ok(()),
        }
    }
}

fn set_subdomain(
    ops: &Ops,
    settings: &Snapshot,
    domain: &mut SenderDomain,
    labels: &str,
    now: u64,
) -> Result<(), OpError> {
    let before = domain.tracking_subdomain().map(|s| s.host.clone());
    domain.set_subdomain(labels, now)?;
    let terms = ops.terms.load();
    if let Some(subdomain) = domain.tracking_subdomain().filter(|s| s.host == terms.expected.cname_target) {
        return Err(OpError::HostIsTarget(subdomain.host.clone()));
    }
    let changed = domain.tracking_subdomain().filter(|subdomain| before.as_ref() != Some(&subdomain.host));
    if let Some(subdomain) = changed.filter(|_| terms.by_acme)
        && let Some(suffix) = domain::unsupported(&subdomain.host, &terms.unsupported_suffixes)
    {
        return Err(OpError::UnsupportedSuffix {
            host: subdomain.host.clone(),
            suffix: suffix.to_owned(),
            policy: terms.policy_url.clone(),
        });
    }
    if domain.tracking_subdomain().map(|s| &s.host) == before.as_ref() {
        return Ok(());
    }
    refuse_hosts_of_others(settings, domain, terms.removed_domain_grace, now)
}

/// A tracking host belongs to one domain: links.shop of example.com is links of shop.example.com. What lies under
/// another sender domain is that one's, and so is a host of one that was removed while its links still work; but a
/// domain may come back to its own. Whose it is is not said: not everybody who asks may know.
fn refuse_hosts_of_others(
    settings: &Snapshot,
    domain: &SenderDomain,
    grace: Duration,
    now: u64,
) -> Result<(), OpError> {
    let Some(asked) = domain.tracking_subdomain() else { return Ok(()) };
    let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let is_other = |other: &&SenderDomain| other.name != domain.name;
    let works = |other: &&SenderDomain| now < other.removed_at.unwrap_or(0).saturating_add(grace);
    let has = |other: &SenderDomain| other.subdomains().iter().any(|s| s.host == asked.host);
    let under = |other: &SenderDomain| asked.host.is_within(&other.name) && other.name.is_within(&domain.name);
    let taken = settings.domains.values().filter(is_other).any(|other| has(other) || under(other))
        || settings.removed.values().filter(is_other).filter(works).any(has);
    if taken { Err(OpError::HostTaken(asked.host.clone())) } else { Ok(()) }
}

/// Has the records of a domain looked at, at once and then again and again. Returns when the first look has ended, or
/// after `patience`.
pub async fn domain_verify(ops: &Ops, id: Uuid, how: Verify, patience: Duration) -> Result<DomainView, OpError> {
    let now = clock::unix_ms();
    // Said before the change is seen, so that no look in between takes its answer from what was known before.
    ops.forget_dns.store(true, Ordering::Release);
    let asked = ops.settings.change(|settings| {
        let mut domain = settings.domain(id).cloned().ok_or(OpError::NoSuchDomain)?;
        match how {
            Verify::Force => domain.verify_by_operator(now)?,
            Verify::LeaveToDns => domain.leave_to_dns(),
            Verify::Ask => {}
        }
        domain.verify(now);
        let asked: Vec<_> = domain.subdomains().iter().map(|s| (s.host.clone(), s.looks.asked)).collect();
        let keys = domain.dkim.keys().filter(|_| domain.dkim.is_on());
        let keys: Vec<_> = keys.map(|key| (key.public.clone(), key.looks.asked)).collect();
        // Orders that the CA had put an end to, or that wait for our time, are made again.
        let hosts = domain.subdomains().iter().map(|s| &s.host);
        let waiting = hosts.filter_map(|host| Some((host, settings.certificates.get(host)?.asked(now)?)));
        let mut changes: Vec<_> = waiting.map(|(host, state)| Change::Certificate(host.clone(), state)).collect();
        changes.push(Change::Domain(domain));
        Ok::<_, OpError>((changes, (asked, keys)))
    });
    let (hosts, keys) = asked.await?;
    wait_for(ops, patience, |settings| {
        let Some(domain) = settings.domain(id) else { return true };
        let is_past = |answered: u32, asked: u32| answered.wrapping_sub(asked) < u32::MAX / 2;
        let looked = hosts.iter().all(|(host, asked)| {
            let subdomain = domain.subdomains().iter().find(|s| s.host == *host);
            subdomain.is_none_or(|s| is_past(s.looks.answered, *asked))
        });
        looked
            && keys.iter().all(|(public, asked)| {
                let key = domain.dkim.keys().find(|key| key.public == *public);
                key.is_none_or(|key| is_past(key.looks.answered, *asked))
            })
    })
    .await;
    domain_show(ops, id)
}

/// Where a CAA record may have to be shown, the reply to a change waits a little for the first look.
async fn wait_for_caa(ops: &Ops, id: Uuid) {
    if !ops.terms.load().by_acme {
        return;
    }
    wait_for(ops, CAA_PATIENCE, |settings| {
        let seen = |s: &domain::Subdomain| s.caa_seen || s.looks.at.is_some();
        settings.domain(id).is_none_or(|domain| domain.tracking_subdomain().is_none_or(seen))
    })
    .await;
}

const CAA_PATIENCE: Duration = Duration::from_secs(3);

async fn wait_for(ops: &Ops, patience: Duration, done: impl Fn(&Snapshot) -> bool) {
    let mut changes = ops.settings.changes();
    let wait = async { while !done(&ops.settings.snapshot()) && changes.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(patience, wait).await;
}

/// Takes in what a look at a host of this domain has brought, which was `looked_at` as it began at `began`.
pub async fn domain_checked(
    ops: &Ops,
    id: Uuid,
    looked_at: &domain::Subdomain,
    finding: &Finding,
    began: u64,
) -> Result<(), OpError> {
    take_in(ops, id, |domain, terms| domain.checked(looked_at, finding, &terms.expected, terms.demand, began)).await
}

/// Lets `checked` put into a domain what was found, and says so where that changes how it stands. One that has gone
/// meanwhile is no fault.
pub(super) async fn take_in(
    ops: &Ops,
    id: Uuid,
    checked: impl FnOnce(&mut SenderDomain, &Terms),
) -> Result<(), OpError> {
    let terms = ops.terms.load_full();
    let standing = ops.settings.change(|settings| {
        let Some(mut domain) = settings.domain(id).cloned() else { return Ok::<_, OpError>((vec![], None)) };
        let before = Standing::of(&domain, &terms);
        checked(&mut domain, &terms);
        let after = Standing::of(&domain, &terms);
        Ok((vec![Change::Domain(domain)], Some((before, after))))
    });
    if let Some((before, after)) = standing.await? {
        after.tell_change_from(&before);
    }
    Ok(())
}

/// What of a domain is worth a line in the log when it changes.
#[derive(PartialEq)]
struct Standing {
    name: DomainName,
    status: &'static str,
    in_use: Option<String>,
    /// The selector of the key that signs.
    signs: Option<String>,
}

impl Standing {
    fn of(domain: &SenderDomain, terms: &Terms) -> Self {
        let in_use = domain.active_subdomain(terms.demand).map(|s| s.host.to_string());
        let signs = domain.dkim.signing().map(|key| key.selector.to_string());
        Self { name: domain.name.clone(), status: domain.status(), in_use, signs }
    }

    fn tell_change_from(&self, before: &Self) {
        if self != before {
            let (status, in_use, signs) = (self.status, self.in_use.as_deref(), self.signs.as_deref());
            tracing::info!(domain = %self.name, status, in_use, signs, "domain checked");
        }
    }
}

/// Removes a domain: its mail is no longer tracked, its links redirect unrecorded until the grace has passed. Returns
/// what becomes of the links, in a sentence.
pub async fn domain_remove(ops: &Ops, id: Uuid) -> Result<String, OpError> {
    let now = clock::unix_ms();
    let grace = ops.terms.load().removed_domain_grace;
    ops.settings
        .change_then(|settings| {
            let domain = settings.domain(id).cloned().ok_or(OpError::NoSuchDomain)?;
            let name = domain.name.clone();
            let shown = domain::unicode(name.as_str());
            let links = match grace {
                Duration::ZERO => "no longer work".to_owned(),
                _ => format!("go on redirecting, unrecorded, for {}", words(grace)),
            };
            let text = format!("{shown} is removed; links already sent {links}");
            // One record for all the times that it was here, or they would never grow fewer.
            let earlier: Vec<_> = settings.removed.values().filter(|earlier| earlier.name == name).collect();
            let dropped = earlier.iter().map(|earlier| Change::DropRemoved(earlier.id)).collect::<Vec<_>>();
            let kept = domain.clone().removed(earlier.iter().copied(), now).map(Change::Removed);
            let changes = dropped.into_iter().chain(kept).chain([Change::DropDomain(name)]).collect();
            Ok::<_, OpError>((changes, text, Some(dkim::removal_of_all(ops, &domain))))
        })
        .await
}

/// A duration as people say it, in the largest unit that leaves nothing out.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    match units.into_iter().find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length)) {
        Some((3_600, _)) if seconds == 3_600 => "an hour".to_owned(),
        Some((length, unit)) if seconds == length => format!("a {unit}"),
        Some((length, unit)) => format!("{} {unit}s", seconds / length),
        None => "a moment".to_owned(),
    }
}

/// The domain of this name.
pub fn domain_id(ops: &Ops, name: &str) -> Result<Uuid, OpError> {
    let name = domain_name(name)?;
    let settings = ops.settings.snapshot();
    settings.domains.get(&name).map(|domain| domain.id).ok_or(OpError::UnknownDomain(name))
}

/// All of them, in the order of their names.
pub fn domain_list(ops: &Ops) -> Vec<DomainView> {
    let (settings, terms) = (ops.settings.snapshot(), ops.terms.load());
    settings.domains.values().map(|domain| view(ops, &settings, &terms, domain)).collect()
}

pub fn domain_show(ops: &Ops, id: Uuid) -> Result<DomainView, OpError> {
    let settings = ops.settings.snapshot();
    let domain = settings.domain(id).ok_or(OpError::NoSuchDomain)?;
    Ok(view(ops, &settings, &ops.terms.load(), domain))
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
