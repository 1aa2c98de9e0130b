//! Looking at DNS: which tracking host or DKIM key is due, what stands there, and whether a browser would reach us. Facts
//! go to [`crate::ops::domain_checked`] and [`crate::ops::dkim_checked`]; what they mean is [`crate::domain`]'s.
//!
//! When to look next is part of a domain's settings, so a restart goes on where it was.

mod dns;
mod reach;

use crate::clock;
use crate::domain::{Browser, Demand, DkimKey, Finding, NotKnown, Record, Subdomain};
use crate::mail::DomainName;
use crate::ops::{self, Ops};
use dns::Dns;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use uuid::Uuid;

/// Looks that are under way at once.
const AT_ONCE: usize = 16;
/// Even with nothing due: the clock may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// After a finding could not be written down.
const WRITE_PAUSE: Duration = Duration::from_secs(5);

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

/// One tracking host of one domain, or where one of its DKIM keys is published.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Site {
    id: Uuid,
    name: String,
}

/// What is looked at, as it is when the look begins.
enum Subject {
    Host(Subdomain),
    Key(DkimKey),
}

impl Subject {
    fn name(&self, domain: &DomainName) -> String {
        match self {
            Self::Host(host) => host.host.to_string(),
            Self::Key(key) => key.selector.record_name(domain),
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
        let mut is_due = |at: u64| {
            if at > now {
                wake = wake.min(at);
            }
            at <= now
        };
        for domain in settings.domains.values() {
            let hosts = domain.due(terms.demand, terms.by_acme, now).filter(|(at, _)| is_due(*at));
            let mut subjects: Vec<_> = hosts.map(|(_, host)| Subject::Host(host.clone())).collect();
            let keys = domain.dkim_due(now).filter(|(at, _)| is_due(*at));
            subjects.extend(keys.map(|(_, key)| Subject::Key(key.clone())));
            for subject in subjects {
                let site = Site { id: domain.id, name: subject.name(&domain.name) };
                if under_way.len() < AT_ONCE && !under_way.values().any(|other| *other == site) {
                    let look = look(Arc::clone(&looker), domain.name.clone(), subject, site.clone());
                    under_way.insert(looks.spawn(look).id(), site);
                }
            }
        }
        let sleep = Duration::from_millis(wake.saturating_sub(clock::unix_ms()));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(ended) = looks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(e) => {
                        tracing::error!("a look at DNS failed: {e}");
                        e.id()
                    }
                };
                under_way.remove(&id);
            }
            () = tokio::time::sleep(sleep) => {}
            _ = async { drop(stop.wait_for(|stop| *stop).await) } => return,
        }
    }
}

async fn look(looker: Arc<Looker>, domain: DomainName, subject: Subject, site: Site) {
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
