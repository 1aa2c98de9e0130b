//! `tracking.tls = "files"`: somebody else brings the certificates, `HOST.pem` and `HOST.key` in a folder, and changes
//! them when he likes.

use crate::clock;
use crate::mail::DomainName;
use crate::ops::{self, Ops};
use crate::tls::{HostCertificate, HostCertificates, key_is_private};
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

/// Inode, size and time of change of both files.
type Stamp = [(u64, u64, i64, i64); 2];

/// Takes what lies in the folder, now and again whenever it changes, until `stop`. A pair that does not fit leaves the
/// one before it in use, since the two are rarely replaced at one moment.
pub async fn follow_files(
    ops: Arc<Ops>,
    hosts: Arc<HostCertificates>,
    folder: PathBuf,
    mut stop: watch::Receiver<bool>,
) {
    let (mut held, mut seen) = (HashMap::new(), BTreeMap::new());
    let mut changes = ops.settings.changes();
    loop {
        changes.borrow_and_update();
        if let Ok((held_now, seen_now)) = tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || {
                look(&folder, &mut held, &mut seen);
                (held, seen)
            }
        })
        .await
        {
            (held, seen) = (held_now, seen_now);
        } else {
            (held, seen) = (HashMap::new(), BTreeMap::new());
        }
        hosts.replace(held.iter().map(|(host, certificate)| (host.clone(), certificate.clone())));
        tell(&ops, &hosts).await;
        let ends = held.values().map(HostCertificate::usable_until).filter(|end| *end > clock::unix_ms()).min();
        let pause = ends.map_or(LOOK_EVERY, |end| Duration::from_millis(end.saturating_sub(clock::unix_ms())));
        tokio::select! {
            () = tokio::time::sleep(pause.min(LOOK_EVERY)) => {}
            changed = changes.changed() => if changed.is_err() { return },
            _ = async { drop(stop.wait_for(|stop| *stop).await) } => return,
        }
    }
}

/// What lies in the folder now, before anybody asks.
pub fn read_folder(folder: &Path) -> Vec<(DomainName, HostCertificate)> {
    let mut held = HashMap::new();
    look(folder, &mut held, &mut BTreeMap::new());
    held.into_iter().collect()
}

/// What lies in the folder, each host with what is wrong with its pair, if something is.
pub fn judge_folder(folder: &Path) -> io::Result<BTreeMap<DomainName, Result<HostCertificate, String>>> {
    let hosts = stamps(folder)?.into_keys();
    Ok(hosts.map(|host| (host.clone(), read(folder, &host))).collect())
}

/// Takes in what has changed since the state that was `seen`.
fn look(folder: &Path, held: &mut HashMap<DomainName, HostCertificate>, seen: &mut BTreeMap<DomainName, Stamp>) {
    let now = match stamps(folder) {
        Ok(now) => now,
        Err(e) => return tracing::error!("{}: {e}", folder.display()),
    };
    for (host, stamp) in &now {
        if seen.get(host) == Some(stamp) {
            continue;
        }
        match read(folder, host) {
            Ok(certificate) => {
                tracing::info!(%host, "certificate taken");
                if certificate.is_self_signed {
                    tracing::warn!(%host, "its certificate is signed by itself: browsers refuse the links to it");
                }
                held.insert(host.clone(), certificate);
            }
            Err(why) => tracing::warn!(%host, "its certificate is not taken: {why}"),
        }
    }
    held.retain(|host, _| now.contains_key(host));
    *seen = now;
}

fn stamps(folder: &Path) -> io::Result<BTreeMap<DomainName, Stamp>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let chain = entry?.path();
        let name = chain.file_stem().filter(|_| chain.extension().is_some_and(|e| e == "pem"));
        let Some(Ok(host)) = name.and_then(|name| name.to_str()).map(DomainName::parse) else { continue };
        let key = chain.with_extension("key");
        // All zeroes for what is not there, or no file: reading will say what is wrong, once.
        let stamp = |path: &Path| match fs::metadata(path) {
            Ok(m) => (m.ino(), m.len(), m.ctime(), m.ctime_nsec()),
            Err(_) => (0, 0, 0, 0),
        };
        found.insert(host, [stamp(&chain), stamp(&key)]);
    }
    Ok(found)
}

fn read(folder: &Path, host: &DomainName) -> Result<HostCertificate, String> {
    let file = |ending: &str, judge: fn(u32) -> Result<(), String>| {
        let path = folder.join(format!("{host}.{ending}"));
        let said = |e: io::Error| format!("{}: {e}", path.display());
        let meta = fs::metadata(&path).map_err(said)?;
        if !meta.is_file() {
            return Err(format!("{}: it is no file", path.display()));
        }
        judge(meta.mode()).map_err(|why| format!("{}: {why}", path.display()))?;
        fs::read(&path).map_err(said)
    };
    HostCertificate::read(host, &file("pem", |_| Ok(()))?, &file("key", key_is_private)?)
}

/// Keeps the settings true to which certificates can be used at this moment.
pub async fn tell(ops: &Ops, hosts: &HostCertificates) {
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
