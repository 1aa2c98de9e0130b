//! `tracking.tls = "files"`: somebody else brings the certificates, `HOST.pem` and `HOST.key` in a folder, and changes
//! them when he likes.

use crate::clock;
use crate::mail::DomainName;
use crate::ops::{self, Ops};
use crate::tls::{HostCertificate, HostCertificates};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Inode, size and time of both files.
type Stamp = [(u64, u64, i64, i64); 2];

/// Takes what lies in the folder, now and again whenever it changes, until `stop`. A pair that does not fit leaves the
/// one before it in use, since the two are rarely replaced at one moment.
pub async fn follow_files(
    ops: Arc<Ops>,
    hosts: Arc<HostCertificates>,
    folder: PathBuf,
    mut stop: watch::Receiver<bool>,
) {
    let mut held: HashMap<DomainName, HostCertificate> = HashMap::new();
    let mut seen: BTreeMap<DomainName, Stamp> = BTreeMap::new();
    let mut changes = ops.settings.changes();
    loop {
        changes.borrow_and_update();
        let now = match stamps(&folder) {
            Ok(now) => now,
            Err(e) => {
                tracing::error!("{}: {e}", folder.display());
                seen.clone()
            }
        };
        for (host, stamp) in &now {
            if seen.get(host) == Some(stamp) {
                continue;
            }
            match read(&folder, host) {
                Ok(certificate) => {
                    tracing::info!(%host, "certificate taken");
                    held.insert(host.clone(), certificate);
                }
                Err(why) => tracing::warn!(%host, "its certificate is not taken: {why}"),
            }
        }
        held.retain(|host, _| now.contains_key(host));
        seen = now;
        hosts.replace(held.iter().map(|(host, certificate)| (host.clone(), certificate.clone())));
        tell(&ops, &hosts).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = changes.changed() => if changed.is_err() { return },
            _ = async { drop(stop.wait_for(|stop| *stop).await) } => return,
        }
    }
}

fn stamps(folder: &Path) -> io::Result<BTreeMap<DomainName, Stamp>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let chain = entry?.path();
        let name = chain.file_stem().filter(|_| chain.extension().is_some_and(|e| e == "pem"));
        let Some(Ok(host)) = name.and_then(|name| name.to_str()).map(DomainName::parse) else { continue };
        let key = chain.with_extension("key");
        let stamp = |path: &Path| fs::metadata(path).map(|m| (m.ino(), m.len(), m.mtime(), m.mtime_nsec()));
        if let (Ok(chain), Ok(key)) = (stamp(&chain), stamp(&key)) {
            found.insert(host, [chain, key]);
        }
    }
    Ok(found)
}

fn read(folder: &Path, host: &DomainName) -> Result<HostCertificate, String> {
    let file = |ending: &str| {
        let path = folder.join(format!("{host}.{ending}"));
        fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    HostCertificate::read(host, &file("pem")?, &file("key")?)
}

/// Keeps the settings true to which certificates can be used at this moment.
pub(super) async fn tell(ops: &Ops, hosts: &HostCertificates) {
    let now = clock::unix_ms();
    let settings = ops.settings.snapshot();
    let mut stale: Vec<(DomainName, Option<u64>)> = Vec::new();
    for subdomain in settings.domains.values().flat_map(|domain| domain.subdomains().iter()) {
        let held = hosts.get(&subdomain.host).filter(|held| held.not_before <= now && now < held.usable_until());
        let known = settings.certificates.get(&subdomain.host).and_then(|state| state.not_after);
        if held.as_ref().map(|held| held.not_after) != known || held.is_some() != subdomain.accepted.is_some() {
            stale.push((subdomain.host.clone(), held.map(|held| held.not_after)));
        }
    }
    let target = ops.terms.load().expected.cname_target.clone();
    let held = hosts.get(&target).map(|held| held.not_after);
    if settings.certificates.get(&target).and_then(|state| state.not_after) != held {
        stale.push((target, held));
    }
    for (host, not_after) in stale {
        if let Err(e) = ops::certificate_in_use(ops, &host, not_after).await {
            tracing::error!(%host, "the state of its certificate could not be written down: {e}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
