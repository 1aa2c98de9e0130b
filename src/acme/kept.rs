//! Certificates with their keys as files, `keys/cert-HOST.pem`: each is whole or not there.

use crate::keys::{KeyError, Keys};
use crate::mail::DomainName;
use crate::tls::HostCertificate;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// Between two attempts to write what could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(60);
/// Longer names make no name of a file, which has 255 octets at most.
const MOST_IN_NAME: usize = 240;
/// Begins the names of files of such hosts; no host's name begins so.
const BY_DIGEST: char = '~';

/// The files of one folder of keys, written off the threads that answer clients.
pub struct Kept {
    keys: Keys,
    /// In use, but in no file yet. Held while one is written, so that nothing overwrites what is newer.
    unwritten: tokio::sync::Mutex<Unwritten>,
}

#[derive(Default)]
struct Unwritten {
    files: BTreeMap<DomainName, Vec<u8>>,
    tried: Option<Instant>,
}

/// The certificates that lie in the folder. One that does not fit its host, or that others may read, is left out and
/// ordered anew: one host's file stops neither mail nor the other hosts.
pub fn load(keys: &Keys) -> Result<Vec<(DomainName, HostCertificate)>, KeyError> {
    let mut found = Vec::new();
    keys.read(super::order::ACCOUNT_FILE)?;
    for name in keys.names("cert-", ".pem")? {
        let host = DomainName::parse(&name);
        if host.is_err() && !name.starts_with(BY_DIGEST) {
            continue;
        }
        let pem = match keys.read(&format!("cert-{name}.pem")) {
            Ok(Some(pem)) => pem,
            Ok(None) => continue,
            Err(e) => {
                tracing::error!("a certificate is not used: {e}");
                continue;
            }
        };
        let Some(host) = host.ok().or_else(|| host_in(&pem)) else { continue };
        match HostCertificate::read(&host, &pem, &pem) {
            Ok(certificate) => found.push((host, certificate)),
            Err(why) => tracing::error!("the certificate of {host} is not used: {why}"),
        }
    }
    Ok(found)
}

/// The name of a host's file.
fn file_of(host: &DomainName) -> String {
    if host.as_str().len() <= MOST_IN_NAME {
        return format!("cert-{host}.pem");
    }
    let digest: String = Sha256::digest(host.as_str()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("cert-{BY_DIGEST}{digest}.pem")
}

/// The host that a file is for whose name does not say it: its first line, which readers of PEM pass over.
fn host_in(pem: &[u8]) -> Option<DomainName> {
    let line = pem.split(|byte| *byte == b'\n').next()?;
    DomainName::parse(std::str::from_utf8(line).ok()?).ok()
}

impl Kept {
    pub fn new(keys: Keys) -> Self {
        Self { keys, unwritten: tokio::sync::Mutex::default() }
    }

    /// Whether a certificate for `host` could be put there.
    pub async fn probe(&self, host: &DomainName) -> Result<(), KeyError> {
        let _turn = self.unwritten.lock().await;
        let name = file_of(host);
        self.blocking(name.clone(), move |keys| keys.probe(&name)).await
    }

    /// Puts a key and its chain there; where that fails, it is tried again by [`Self::put_again`].
    pub async fn put(&self, host: &DomainName, pem: String) {
        let mut unwritten = self.unwritten.lock().await;
        let name = file_of(host);
        let whole = if name.contains(BY_DIGEST) { format!("{host}\n{pem}") } else { pem }.into_bytes();
        let (bytes, file) = (whole.clone(), name.clone());
        match self.blocking(name, move |keys| keys.write(&file, &bytes)).await {
            Ok(()) => drop(unwritten.files.remove(host)),
            Err(e) => {
                tracing::error!(%host, "its certificate is in use, but would be lost in a restart: {e}");
                unwritten.files.insert(host.clone(), whole);
                unwritten.tried = Some(Instant::now());
            }
        }
    }

    /// Tries to write what could not be written a while ago.
    pub async fn put_again(&self) {
        let mut unwritten = self.unwritten.lock().await;
        if unwritten.files.is_empty() || unwritten.tried.is_some_and(|tried| tried.elapsed() < WRITE_AGAIN) {
            return;
        }
        for (host, bytes) in unwritten.files.clone() {
            let name = file_of(&host);
            match self.blocking(name.clone(), move |keys| keys.write(&name, &bytes)).await {
                Ok(()) => {
                    tracing::info!(%host, "its certificate lies in its file now");
                    unwritten.files.remove(&host);
                }
                Err(e) => tracing::error!(%host, "its certificate still lies in no file: {e}"),
            }
        }
        unwritten.tried = Some(Instant::now());
    }

    /// Takes the file of a host away.
    pub async fn remove(&self, host: &DomainName) -> Result<(), KeyError> {
        let mut unwritten = self.unwritten.lock().await;
        unwritten.files.remove(host);
        let name = file_of(host);
        self.blocking(name.clone(), move |keys| keys.remove(&name)).await
    }

    async fn blocking(
        &self,
        name: String,
        work: impl FnOnce(&Keys) -> Result<(), KeyError> + Send + 'static,
    ) -> Result<(), KeyError> {
        let keys = self.keys.clone();
        let done = tokio::task::spawn_blocking(move || work(&keys)).await;
        done.unwrap_or_else(|e| Err(KeyError::Io(self.keys.path(&name), io::Error::other(e))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn pem(host: &DomainName) -> String {
        let made = rcgen::generate_simple_self_signed([host.to_string()]).unwrap();
        format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem())
    }

    fn hosts(keys: &Keys) -> Vec<String> {
        load(keys).unwrap().into_iter().map(|(host, _)| host.to_string()).collect()
    }

    #[tokio::test]
    async fn a_name_of_any_length_has_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, _) = Keys::open(dir.path()).unwrap();
        let kept = Kept::new(keys.clone());
        let long = name(&format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61)));
        assert_eq!(long.as_str().len(), 253);
        for host in [&long, &name("links.example.com")] {
            kept.probe(host).await.unwrap();
            kept.put(host, pem(host)).await;
        }
        let mut found = hosts(&keys);
        found.sort();
        assert_eq!(found, [long.as_str(), "links.example.com"]);
        kept.remove(&long).await.unwrap();
        assert_eq!(hosts(&keys), ["links.example.com"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, _) = Keys::open(dir.path()).unwrap();
        let kept = Kept::new(keys.clone());
        let host = name("links.example.com");
        let in_the_way = keys.path("cert-links.example.com.pem");
        fs::create_dir(&in_the_way).unwrap();
        assert!(kept.probe(&host).await.is_err());
        kept.put(&host, pem(&host)).await;
        fs::remove_dir(&in_the_way).unwrap();
        kept.put_again().await;
        assert!(!in_the_way.exists(), "not at once");
        tokio::time::advance(WRITE_AGAIN).await;
        kept.put_again().await;
        assert_eq!(hosts(&keys), ["links.example.com"]);
    }
}
