//! Certificates for the tracking hosts, ordered from a CA (ACME, RFC 8555) when a host verifies and again when a third
//! of the lifetime is left. Never in a handshake, and never for a host that is not configured and verified.
//!
//! Which hosts those are says [`crate::ops::hosts_with_certificates`]; pauses after failures are
//! [`crate::domain::CertificateState`]'s and kept in the settings, so that a restart goes on with them. A certificate
//! and its key are one file, `keys/cert-HOST.pem`, which is whole or not there.

mod client;
mod files;
mod order;

pub use files::{follow_files, judge_folder, read_folder, tell};

use crate::clock;
use crate::domain::OrderFailure;
use crate::keys::{KeyError, Keys};
use crate::mail::DomainName;
use crate::ops::{self, Ops};
use crate::tls::{Challenges, HostCertificate, HostCertificates};
use client::CaClient;
use order::{AtCa, Issued};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

/// Orders that are under way at once, each for another host.
const AT_ONCE: usize = 4;
/// Even with nothing due: the clock may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// For one order in all.
const PATIENCE: Duration = Duration::from_secs(300);
/// After a state could not be written down.
const WRITE_PAUSE: Duration = Duration::from_secs(5);

/// What ordering takes.
pub struct Acme {
    ops: Arc<Ops>,
    certificates: Arc<HostCertificates>,
    ca: AtCa,
}

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
    ) -> Result<Self, String> {
        let keys = ops.keys.keys.clone();
        let ca = AtCa {
            client: CaClient::new(ca.root)?,
            directory: ca.directory,
            contact: ca.contact,
            keys,
            challenges,
            account: tokio::sync::Mutex::default(),
        };
        Ok(Self { ops, certificates, ca })
    }
}

/// Whether the CA answers; the text says why not. `root` is a root (PEM) beside the system's.
pub async fn directory_answers(directory: &str, root: Option<&Path>) -> Result<(), String> {
    CaClient::new(root)?.answers(directory).await
}

/// The certificates that lie in the folder of keys. One that does not fit its host, or that others may read, is left
/// out and ordered anew: one host's file stops neither mail nor the other hosts.
pub fn load(keys: &Keys) -> Result<Vec<(DomainName, HostCertificate)>, KeyError> {
    let mut found = Vec::new();
    keys.read(order::ACCOUNT_FILE)?;
    for name in keys.names("cert-", ".pem")? {
        let Ok(host) = DomainName::parse(&name) else { continue };
        let read = match keys.read(&file_of(&host)) {
            Ok(Some(pem)) => HostCertificate::read(&host, &pem, &pem),
            Ok(None) => continue,
            Err(e) => Err(e.to_string()),
        };
        match read {
            Ok(certificate) => found.push((host, certificate)),
            Err(why) => tracing::error!("the certificate of {host} is not used: {why}"),
        }
    }
    Ok(found)
}

fn file_of(host: &DomainName) -> String {
    format!("cert-{host}.pem")
}

/// Orders what is due, until `stop`.
pub async fn run(acme: Arc<Acme>, mut stop: watch::Receiver<bool>) {
    let mut changes = acme.ops.settings.changes();
    let mut orders: JoinSet<()> = JoinSet::new();
    let mut under_way: HashMap<Id, DomainName> = HashMap::new();
    loop {
        changes.borrow_and_update();
        files::tell(&acme.ops, &acme.certificates).await;
        let now = clock::unix_ms();
        let mut wake = now + LONGEST_SLEEP.as_millis() as u64;
        // A link must not be written on the strength of a certificate that has ended since.
        for held in acme.certificates.all().iter().filter(|held| held.usable_until() > now) {
            wake = wake.min(held.usable_until());
        }
        for (host, due) in acme.due(now) {
            if under_way.values().any(|other| *other == host) {
                continue;
            }
            if due > now {
                wake = wake.min(due);
            } else if under_way.len() < AT_ONCE {
                let (acme, ordered) = (Arc::clone(&acme), host.clone());
                let order = async move { acme.order(&ordered).await };
                under_way.insert(orders.spawn(order).id(), host);
            }
        }
        let sleep = Duration::from_millis(wake.saturating_sub(clock::unix_ms()));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(ended) = orders.join_next_with_id() => {
                let id = ended.map_or_else(|e| e.id(), |(id, ())| id);
                under_way.remove(&id);
            }
            () = tokio::time::sleep(sleep) => {}
            _ = async { drop(stop.wait_for(|stop| *stop).await) } => return,
        }
    }
}

impl Acme {
    /// Every host that is to have a certificate, with the time of its next order.
    fn due(&self, now: u64) -> Vec<(DomainName, u64)> {
        let settings = self.ops.settings.snapshot();
        let hosts = ops::hosts_with_certificates(&settings, &self.ops.terms.load(), now);
        let due = |host: DomainName| {
            let state = settings.certificates.get(&host);
            if state.is_some_and(|state| state.ended) {
                return None;
            }
            let held = self.certificates.get(&host);
            // One whose file was lost is ordered at once, unless that fails.
            let pause = state.filter(|state| held.is_some() || state.message.is_some()).map_or(0, |state| state.next);
            let renewal = held.map_or(0, |held| renew_at(&host, &held));
            Some((host, renewal.max(pause)))
        };
        hosts.into_iter().filter_map(due).collect()
    }

    async fn order(&self, host: &DomainName) {
        tracing::info!(%host, "ordering a certificate");
        let ordered = tokio::time::timeout(PATIENCE, self.ca.order(host)).await.unwrap_or_else(|_| {
            let message = format!("the CA did not end the order within {} s", PATIENCE.as_secs());
            Err(OrderFailure { message, retry_after: None, refused: false })
        });
        let used = ordered.and_then(|issued| self.take(host, &issued));
        let failure = match used {
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

    /// Puts a certificate on disk and then into use. Returns when it ends.
    fn take(&self, host: &DomainName, issued: &Issued) -> Result<u64, OrderFailure> {
        let failed = |message: String| OrderFailure { message, retry_after: None, refused: false };
        let certificate = HostCertificate::read(host, issued.chain.as_bytes(), issued.key.as_bytes())
            .map_err(|why| failed(format!("the CA's certificate is of no use: {why}")))?;
        let now = clock::unix_ms();
        if certificate.not_after <= now || certificate.not_before > now + 3_600_000 {
            return Err(failed(
                "the CA's certificate is not valid now: is the clock of this machine right?".to_owned(),
            ));
        }
        let pem = format!("{}{}", issued.key, issued.chain);
        self.ca.keys.write(&file_of(host), pem.as_bytes()).map_err(|e| failed(e.to_string()))?;
        tracing::info!(%host, "certificate issued");
        let not_after = certificate.not_after;
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
