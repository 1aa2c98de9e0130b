//! Certificates for the tracking hosts, ordered from a CA (ACME, RFC 8555) when a host verifies and again when a third
//! of the lifetime is left. Never in a handshake, and never for a host that is not configured and verified.
//!
//! Which hosts those are says [`crate::ops::hosts_with_certificates`]; pauses after failures are
//! [`crate::domain::CertificateState`]'s and kept in the settings, so that a restart goes on with them. `client` is the
//! way to the CA, `order` one order, `kept` has the files, and `files` those that somebody else brings.

mod client;
mod files;
mod kept;
mod order;

pub use files::{follow_files, judge_folder, read_folder, tell};
pub use kept::load;

use crate::clock;
use crate::domain::OrderFailure;
use crate::mail::DomainName;
use crate::ops::{self, Ops, WantedHost};
use crate::supervise;
use crate::tls::{Challenges, HostCertificate, HostCertificates};
use client::CaClient;
use kept::Kept;
use order::{AtCa, Issued};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

/// Orders that are under way at once, each for another host.
const AT_ONCE: usize = 4;
/// Of these, orders for hosts of one sender domain, so that one whose name servers are slow leaves room for others.
const AT_ONCE_OF_ONE: usize = 2;
/// Even with nothing due: the clock may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// For one order in all.
const PATIENCE: Duration = Duration::from_secs(300);
/// After a state could not be written down.
const WRITE_PAUSE: Duration = Duration::from_secs(5);
/// After an order that panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// What ordering takes.
pub struct Acme {
    ops: Arc<Ops>,
    certificates: Arc<HostCertificates>,
    ca: AtCa,
    kept: Kept,
    obstacle: Obstacle,
}

/// Looks at DNS: why the CA would issue nothing for a tracking host (first) of a sender domain (second), or nothing where
/// nothing is in the way.
pub type Obstacle =
    Box<dyn Fn(DomainName, DomainName) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync>;

/// Where certificates are ordered.
pub struct Ca<'a> {
    pub directory: String,
    pub contact: Option<String>,
    /// PEM, a root beside the system's.
    pub root: Option<&'a Path>,
}

impl Acme {
    pub fn new(
        ops: Arc<Ops>,
        certificates: Arc<HostCertificates>,
        challenges: Challenges,
        ca: Ca<'_>,
        obstacle: Obstacle,
    ) -> Result<Self, String> {
        let keys = ops.keys.keys.clone();
        let kept = Kept::new(keys.clone());
        let ca = AtCa {
            client: CaClient::new(ca.root)?,
            directory: ca.directory,
            contact: ca.contact,
            keys,
            challenges,
            account: tokio::sync::Mutex::default(),
        };
        Ok(Self { ops, certificates, ca, kept, obstacle })
    }
}

/// Whether the CA answers; the text says why not. `root` is a root (PEM) beside the system's.
pub async fn directory_answers(directory: &str, root: Option<&Path>) -> Result<(), String> {
    CaClient::new(root)?.answers(directory).await
}

/// Orders what is due, until `stop`.
pub async fn run(acme: Arc<Acme>, mut stop: watch::Receiver<bool>) {
    let mut changes = acme.ops.settings.changes();
    let mut orders: JoinSet<()> = JoinSet::new();
    let mut under_way: HashMap<Id, WantedHost> = HashMap::new();
    // Nobody else asks for it, and all hosts of customers lead there.
    if let Err(e) = ops::target_asked(&acme.ops).await {
        tracing::error!("an order for the target of the CNAMEs could not be asked for: {e}");
    }
    loop {
        changes.borrow_and_update();
        files::tell(&acme.ops, &acme.certificates).await;
        acme.kept.put_again().await;
        let now = clock::unix_ms();
        let mut wake = now + LONGEST_SLEEP.as_millis() as u64;
        // A link must not be written on the strength of a certificate that has ended since.
        for held in acme.certificates.all().iter().filter(|held| held.usable_until() > now) {
            wake = wake.min(held.usable_until());
        }
        acme.forget_hosts_of_nobody(now, |host| under_way.values().any(|other| other.host == *host)).await;
        for (wanted, due) in acme.due(now) {
            if under_way.values().any(|other| other.host == wanted.host) {
                continue;
            }
            let of_one = under_way.values().filter(|other| wanted.of.is_some() && other.of == wanted.of).count();
            if due > now {
                wake = wake.min(due);
            } else if under_way.len() < AT_ONCE && of_one < AT_ONCE_OF_ONE {
                let (acme, ordered) = (Arc::clone(&acme), wanted.clone());
                let order = async move { acme.order(&ordered).await };
                under_way.insert(orders.spawn(order).id(), wanted);
            }
        }
        let sleep = Duration::from_millis(wake.saturating_sub(clock::unix_ms()));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(ended) = orders.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(e) => {
                        let id = e.id();
                        supervise::joined::<()>("certificates", Err(e));
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

impl Acme {
    /// Every host that is to have a certificate, with the time of its next order; those that wait longest come first.
    fn due(&self, now: u64) -> Vec<(WantedHost, u64)> {
        let settings = self.ops.settings.snapshot();
        let hosts = ops::hosts_with_certificates(&settings, &self.ops.terms.load(), now);
        let due = |wanted: WantedHost| {
            let state = settings.certificates.get(&wanted.host);
            if state.is_some_and(|state| state.ended) {
                return None;
            }
            let held = self.certificates.get(&wanted.host);
            // One whose file was lost is ordered at once, unless that fails.
            let pause = state.filter(|state| held.is_some() || state.message.is_some()).map_or(0, |state| state.next);
            let renewal = held.map_or(0, |held| renew_at(&wanted.host, &held));
            Some((wanted, renewal.max(pause)))
        };
        let mut all: Vec<_> = hosts.into_iter().filter_map(due).collect();
        all.sort_by_key(|(_, due)| *due);
        all
    }

    /// Takes away certificate and key of hosts that are nobody's any more, but for those that are being ordered.
    async fn forget_hosts_of_nobody(&self, now: u64, is_ordered: impl Fn(&DomainName) -> bool) {
        let hosts = ops::hosts_of_nobody(&self.ops.settings.snapshot(), &self.ops.terms.load(), now);
        for host in hosts.into_iter().filter(|host| !is_ordered(host)) {
            if self.certificates.remove(&host) {
                tracing::info!(%host, "its certificate is taken away: the host is nobody's any more");
            }
            if let Err(e) = self.kept.remove(&host).await {
                tracing::warn!(%host, "its certificate could not be taken away: {e}");
                continue;
            }
            if let Err(e) = ops::certificate_dropped(&self.ops, &host).await {
                tracing::error!(%host, "that its certificate is gone could not be written down: {e}");
            }
        }
    }

    async fn order(&self, wanted: &WantedHost) {
        let host = &wanted.host;
        let failure = match self.try_order(wanted).await {
            Ok(not_after) => {
                metrics::counter!("trackpost_certificates_issued_total").increment(1);
                if let Err(e) = ops::certificate_issued(&self.ops, host, not_after).await {
                    tracing::error!(%host, "the state of its certificate could not be written down: {e}");
                }
                return;
            }
            Err(failure) => failure,
        };
        metrics::counter!("trackpost_certificate_failures_total").increment(1);
        tracing::warn!(%host, "no certificate: {}", failure.message);
        match ops::certificate_failed(&self.ops, host, &failure).await {
            Ok(()) => {}
            Err(e) => {
                tracing::error!(%host, "the failure could not be written down: {e}");
                tokio::time::sleep(WRITE_PAUSE).await;
            }
        }
    }

    /// An order, unless it is clear before that it would be wasted. Returns when the certificate ends.
    async fn try_order(&self, wanted: &WantedHost) -> Result<u64, OrderFailure> {
        let host = &wanted.host;
        self.kept.probe(host).await.map_err(|e| OrderFailure::new(format!("there is no place to keep it: {e}")))?;
        if let Some(domain) = wanted.of.as_ref().filter(|_| wanted.unwatched)
            && let Some(why) = (self.obstacle)(host.clone(), domain.clone()).await
        {
            return Err(OrderFailure::new(why));
        }
        tracing::info!(%host, "ordering a certificate");
        let ordered = tokio::time::timeout(PATIENCE, self.ca.order(host)).await.unwrap_or_else(|_| {
            Err(OrderFailure::new(format!("the CA did not end the order within {} s", PATIENCE.as_secs())))
        });
        self.take(host, &ordered?).await
    }

    /// Puts a certificate into use and on disk. Returns when it ends. One that cannot be written stays in use all the
    /// same: another one would be of no more use, and the CA issues so many and no more.
    async fn take(&self, host: &DomainName, issued: &Issued) -> Result<u64, OrderFailure> {
        let certificate = HostCertificate::read(host, issued.chain.as_bytes(), issued.key.as_bytes())
            .map_err(|why| OrderFailure::new(format!("the CA's certificate is of no use: {why}")))?;
        let now = clock::unix_ms();
        if certificate.not_after <= now || certificate.not_before > now + 3_600_000 {
            let message = "the CA's certificate is not valid now: is the clock of this machine right?".to_owned();
            return Err(OrderFailure { in_vain: true, ..OrderFailure::new(message) });
        }
        let not_after = certificate.not_after;
        self.kept.put(host, format!("{}{}", issued.key, issued.chain)).await;
        tracing::info!(%host, "certificate issued");
        self.certificates.put(host, certificate);
        Ok(not_after)
    }
}

/// Hosts whose certificates were issued together are not renewed together: up to a fifth of the last third earlier.
fn renew_at(host: &DomainName, held: &HostCertificate) -> u64 {
    let mut hasher = DefaultHasher::new();
    host.hash(&mut hasher);
    let third = held.not_after.saturating_sub(held.renew_at());
    held.renew_at().saturating_sub(third / 5 * (hasher.finish() % 256) / 256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_are_spread_over_a_fifth_of_the_last_third() {
        let (begin, end) = ((2026, 1, 1), (2026, 4, 1));
        let times: Vec<u64> = (0..200)
            .map(|number| {
                let host = DomainName::parse(&format!("links.d{number}.example.com")).unwrap();
                let mut params = rcgen::CertificateParams::new([host.to_string()]).unwrap();
                params.not_before = rcgen::date_time_ymd(begin.0, begin.1, begin.2);
                params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
                let key = rcgen::KeyPair::generate().unwrap();
                let pem = params.self_signed(&key).unwrap().pem();
                let held = HostCertificate::read(&host, pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
                let (third, at) = ((held.not_after - held.not_before) / 3, renew_at(&host, &held));
                assert_eq!(held.renew_at(), held.not_after - third);
                assert!(held.renew_at() - third / 5 <= at && at <= held.renew_at());
                assert_eq!(at, renew_at(&host, &held), "a host has its time");
                at
            })
            .collect();
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        // A fifth of 30 days is six; 200 hosts that are spread leave no end of it empty.
        assert!(last - first > 5 * 86_400_000, "all within {} ms", last - first);
        let day = |at: &u64| (at - first) / 86_400_000;
        let fullest = (0..6).map(|wanted| times.iter().filter(|at| day(at) == wanted).count()).max().unwrap();
        assert!(fullest < 100, "{fullest} of 200 on one day");
    }
}
