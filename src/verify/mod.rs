//! Looking at DNS: which tracking host or DKIM key is due, what stands there, and whether a browser would reach us. Facts
//! go to [`crate::ops::domain_checked`] and [`crate::ops::dkim_checked`]; what they mean is [`crate::domain`]'s.
//!
//! When to look next is part of a domain's settings, so a restart goes on where it was.

mod dns;
mod reach;

use crate::clock;
use crate::domain::{
    Browser, CnameFound, Demand, DkimKey, Expected, Finding, Looks, NotKnown, Record, SenderDomain, Subdomain,
};
use crate::mail::DomainName;
use crate::ops::{self, Ops};
use crate::supervise;
pub use dns::Dns;
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use uuid::Uuid;

/// Looks that are under way at once; and so many more for what somebody waits for, so that domains whose name servers
/// are dead hold nobody up.
const AT_ONCE: usize = 16;
const AT_ONCE_ASKED: usize = 64;
/// Even with nothing due: the clock may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// After a finding could not be written down.
const WRITE_PAUSE: Duration = Duration::from_secs(5);
/// After a look that panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// What looking at hosts takes.
pub struct Looker {
    ops: Arc<Ops>,
    dns: Dns,
    /// Of the links that we write; 0: the usual one.
    link_port: u16,
    /// Hosts within networks of our own may be asked.
    allow_private: bool,
}

impl Looker {
    /// Asks `servers`, or those of the system where there are none.
    pub fn new(ops: Arc<Ops>, servers: &[SocketAddr], link_port: u16, allow_private: bool) -> Result<Self, String> {
        Ok(Self { ops, dns: Dns::new(servers)?, link_port, allow_private })
    }
}

/// What stands at a tracking host of `domain` instead of a CNAME to `target`; nothing where it is right.
pub async fn found_instead(dns: &Dns, host: &DomainName, domain: &DomainName, target: &DomainName) -> Option<String> {
    let cname = dns.tracking(host, domain, target).await;
    let labels = host.as_str().strip_suffix(domain.as_str()).unwrap_or(host.as_str()).trim_end_matches('.');
    Finding { cname, caa: None, browser: Browser::NotAsked }.cname_text(host, labels, target)
}

/// Why a CA would issue nothing for `host`, a tracking host of `domain` that is not looked at any more; nothing where
/// nothing is in the way. Asked anew, whatever was kept.
pub async fn obstacle(dns: &Dns, host: &DomainName, domain: &DomainName, expected: &Expected) -> Option<String> {
    dns.forget();
    let target = &expected.cname_target;
    let (mut cname, caa) = tokio::join!(dns.tracking(host, domain, target), dns.caa(host));
    if let Ok(CnameFound::Addresses(found)) = &cname
        && let Ok(ours) = dns.addresses(target.as_str()).await
        && found.iter().all(|address| ours.contains(address))
    {
        // The provider has put our addresses in the CNAME's place.
        cname = Ok(CnameFound::Target);
    }
    let finding = Finding { cname, caa: Some(caa), browser: Browser::NotAsked };
    let labels = host.as_str().strip_suffix(domain.as_str()).unwrap_or(host.as_str()).trim_end_matches('.');
    finding.cname_text(host, labels, target).or_else(|| finding.caa_text(&expected.caa_issuer))
}

/// One tracking host of one domain, or where one of its DKIM keys is published.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Site {
    id: Uuid,
    name: String,
}

/// What is looked at, as it is when the look begins.
enum Subject<'a> {
    Host(Cow<'a, Subdomain>),
    Key(Cow<'a, DkimKey>),
}

impl Subject<'_> {
    fn name(&self, domain: &DomainName) -> String {
        match self {
            Self::Host(host) => host.host.to_string(),
            Self::Key(key) => key.selector.record_name(domain),
        }
    }

    /// Somebody waits for what comes of it.
    fn is_asked_for(&self) -> bool {
        let is_open = |looks: &Looks| looks.asked != looks.answered;
        match self {
            Self::Host(host) => is_open(&host.looks),
            Self::Key(key) => is_open(&key.looks),
        }
    }

    fn into_owned(self) -> Subject<'static> {
        match self {
            Self::Host(host) => Subject::Host(Cow::Owned(host.into_owned())),
            Self::Key(key) => Subject::Key(Cow::Owned(key.into_owned())),
        }
    }
}

/// Looks at what is due, until `stop`.
pub async fn run(looker: Arc<Looker>, mut stop: watch::Receiver<bool>) {
    let mut changes = looker.ops.settings.changes();
    let mut looks: JoinSet<()> = JoinSet::new();
    let mut under_way: HashMap<Id, Site> = HashMap::new();
    loop {
        changes.borrow_and_update();
        if looker.ops.forget_dns.swap(false, Ordering::AcqRel) {
            looker.dns.forget();
        }
        let now = clock::unix_ms();
        let mut wake = now + LONGEST_SLEEP.as_millis() as u64;
        let (settings, terms) = (looker.ops.settings.snapshot(), looker.ops.terms.load_full());
        let mut due: Vec<(u64, &SenderDomain, Subject<'_>)> = Vec::new();
        for domain in settings.domains.values() {
            let hosts = domain.due(terms.demand, terms.by_acme, now);
            due.extend(hosts.map(|(at, host)| (at, domain, Subject::Host(Cow::Borrowed(host)))));
            due.extend(domain.dkim_due(now).map(|(at, key)| (at, domain, Subject::Key(Cow::Borrowed(key)))));
        }
        due.sort_by_key(|(at, _, subject)| (!subject.is_asked_for(), *at));
        for (at, domain, subject) in due {
            let site = Site { id: domain.id, name: subject.name(&domain.name) };
            if under_way.values().any(|other| *other == site) {
                continue;
            }
            let most = if subject.is_asked_for() { AT_ONCE + AT_ONCE_ASKED } else { AT_ONCE };
            if at > now {
                wake = wake.min(at);
            } else if under_way.len() < most {
                let look = look(Arc::clone(&looker), domain.name.clone(), subject.into_owned(), site.clone());
                under_way.insert(looks.spawn(look).id(), site);
            }
        }
        let sleep = Duration::from_millis(wake.saturating_sub(clock::unix_ms()));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(ended) = looks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(e) => {
                        let id = e.id();
                        supervise::joined::<()>("verification", Err(e));
                        // It is due again at once.
                        tokio::time::sleep(AFTER_PANIC).await;
                        id
                    }
                };
                under_way.remove(&id);
            }
            () = tokio::time::sleep(sleep) => {}
            _ = async { drop(stop.wait_for(|stop| *stop).await) } => return,
        }
    }
}

async fn look(looker: Arc<Looker>, domain: DomainName, subject: Subject<'static>, site: Site) {
    let (started, ops) = (clock::unix_ms(), &looker.ops);
    let written = match &subject {
        Subject::Host(host) => {
            let finding = looker.find(&domain, host).await;
            ops::domain_checked(ops, site.id, host, &finding, started).await
        }
        Subject::Key(key) => {
            let finding = looker.dns.key_record(&site.name, &domain).await;
            tracing::debug!(name = site.name, ?finding, "looked at");
            ops::dkim_checked(ops, site.id, key, &finding, started).await
        }
    };
    if let Err(e) = written {
        tracing::error!(name = site.name, "what DNS says could not be written down: {e}");
        tokio::time::sleep(WRITE_PAUSE).await;
    }
}

impl Looker {
    async fn find(&self, domain: &DomainName, subdomain: &Subdomain) -> Finding {
        let terms = self.ops.terms.load_full();
        let host = &subdomain.host;
        let cname = match subdomain.cname {
            Record::NotStarted => Err(NotKnown("nobody asked".to_owned())),
            _ => self.dns.tracking(host, domain, &terms.expected.cname_target).await,
        };
        let caa = match terms.by_acme {
            true => Some(self.dns.caa(host).await),
            false => None,
        };
        let mut finding = Finding { cname, caa, browser: Browser::NotAsked };
        if let (_, Some(set)) = finding.caa_evidence(&terms.expected.caa_issuer)
            && set.at_target
        {
            let issuer = &terms.expected.caa_issuer;
            tracing::warn!(%host, "the CAA records at {} do not name {issuer}: no certificate can be had", set.name);
        }
        let right = finding.cname_evidence() == crate::domain::Evidence::Good;
        if right && terms.demand == Demand::Answer && subdomain.by_operator.is_none() {
            let signer = self.ops.keys.signer.load_full();
            finding.browser = reach::ask(&self.dns, host, self.link_port, &signer, self.allow_private).await;
        }
        tracing::debug!(%host, ?finding, "looked at");
        finding
    }
}
