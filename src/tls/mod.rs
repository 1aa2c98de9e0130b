//! TLS where we are the server: certificate and key from files, taken anew when the files change; and, for the tracking
//! hosts, a certificate for each by the name that the client asks for ([`HostCertificates`]).
//!
//! A change is seen by the files' metadata, a few seconds after it was made; sessions go on with what they began with.
//! Files that do not fit together leave what was in force, since the two are rarely replaced at one moment. One crypto
//! provider, ring, named here so that nothing depends on what the process installed.

mod challenges;
mod hosts;

pub use challenges::{CHALLENGE_PATH, Challenges};
pub use hosts::{HostCertificate, HostCertificates};

use crate::config::CertificateFiles;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a certificate cannot be used. The operator's fault; the text names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError {
    pub path: PathBuf,
    pub text: String,
}

/// A certificate chain with its key, as they lie in two files.
pub struct ServerTls {
    files: Option<ArcSwap<CertificateFiles>>,
    /// Where each host has its own.
    hosts: Option<Arc<HostCertificates>>,
    current: ArcSwap<ServerConfig>,
}

impl ServerTls {
    pub fn open(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let current = ArcSwap::from_pointee(load(files)?);
        Ok(Self { files: Some(ArcSwap::from_pointee(files.clone())), hosts: None, current })
    }

    /// A certificate for each host; these change by themselves.
    pub fn of_hosts(hosts: Arc<HostCertificates>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&hosts) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are resumed without a table of ours, which 10,000 clients would overflow (RFC 5077, RFC 8446 §2.2).
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self { files: None, hosts: Some(hosts), current: ArcSwap::from_pointee(config) })
    }

    /// Goes on with these files, which may be others than before.
    pub fn reopen(&self, files: &CertificateFiles) -> Result<(), CertificateError> {
        let config = load(files)?;
        if let Some(held) = &self.files {
            held.store(Arc::new(files.clone()));
            self.current.store(Arc::new(config));
        }
        Ok(())
    }

    /// Whether there is a certificate for what a client asks for (SNI).
    pub fn knows(&self, name: Option<&str>) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| name.is_some_and(|name| hosts.knows(name)))
    }

    /// What a handshake that begins now uses.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Looks at the files again and again until `stop`, and takes what has changed.
    pub async fn follow(&self, mut stop: watch::Receiver<bool>) {
        let Some(held) = &self.files else { return };
        let mut seen = stamps(&held.load());
        loop {
            let pause = tokio::time::timeout(LOOK_EVERY, stop.wait_for(|stop| *stop));
            if pause.await.is_ok() {
                return;
            }
            let files = held.load_full();
            let now = stamps(&files);
            if now == seen {
                continue;
            }
            seen = now;
            match load(&files) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    tracing::info!(file = %files.certificate.display(), "the certificate was taken anew");
                }
                // Said once for each change, since it may be half of one.
                Err(e) => tracing::warn!("the certificate before stays in use: {e}"),
            }
        }
    }
}

/// Whether a key that somebody else brings is kept well enough: a group may read it, as where many services share one.
/// The text says what to do.
pub fn key_is_private(mode: u32) -> Result<(), String> {
    match mode & 0o027 {
        0 => Ok(()),
        _ => Err(format!("mode {:04o} lets others at this key; chmod 640 it", mode & 0o777)),
    }
}

fn load(files: &CertificateFiles) -> Result<ServerConfig, CertificateError> {
    let fault = |path: &Path, text: String| CertificateError { path: path.to_owned(), text };
    let of_chain = |e: rustls::pki_types::pem::Error| fault(&files.certificate, e.to_string());
    let chain = CertificateDer::pem_file_iter(&files.certificate).map_err(of_chain)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(of_chain)?;
    if chain.is_empty() {
        return Err(fault(&files.certificate, "holds no certificate".to_owned()));
    }
    let mode = fs::metadata(&files.key).map_err(|e| fault(&files.key, e.to_string()))?.mode();
    key_is_private(mode).map_err(|why| fault(&files.key, why))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| fault(&files.key, e.to_string()))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(&files.certificate, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| fault(&files.key, format!("does not go with {}: {e}", files.certificate.display())))
}

/// What tells one state of the files from another; nothing for one that is not there.
fn stamps(files: &CertificateFiles) -> [Option<(u64, u64, i64, i64)>; 2] {
    [&files.certificate, &files.key].map(|path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    })
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.text)
    }
}

impl std::error::Error for CertificateError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn made(name: &str, dir: &Path) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let files = CertificateFiles { certificate: dir.join("c.pem"), key: dir.join("k.pem") };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_pair_is_taken_and_a_torn_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = made("one.example.com", dir.path());
        let tls = Arc::new(ServerTls::open(&files).unwrap());
        let first = tls.current();
        let (stop, stopping) = watch::channel(false);
        let following = tokio::spawn({
            let tls = Arc::clone(&tls);
            async move { tls.follow(stopping).await }
        });
        tokio::time::sleep(LOOK_EVERY * 2).await;
        assert!(Arc::ptr_eq(&first, &tls.current()));
        let other = tempfile::tempdir().unwrap();
        let second = made("two.example.com", other.path());
        fs::copy(&second.certificate, &files.certificate).unwrap();
        tokio::time::sleep(LOOK_EVERY * 2).await;
        assert!(Arc::ptr_eq(&first, &tls.current()), "the key is still the first one's");
        fs::copy(&second.key, &files.key).unwrap();
        tokio::time::sleep(LOOK_EVERY * 2).await;
        assert!(!Arc::ptr_eq(&first, &tls.current()));
        stop.send(true).unwrap();
        following.await.unwrap();
    }

    #[test]
    fn faults_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let files = made("one.example.com", dir.path());
        let other = tempfile::tempdir().unwrap();
        let second = made("two.example.com", other.path());
        let mixed = CertificateFiles { certificate: files.certificate.clone(), key: second.key.clone() };
        assert_eq!(ServerTls::open(&mixed).err().map(|e| e.path), Some(second.key));
        for (mode, refused) in [(0o644, true), (0o666, true), (0o620, true), (0o640, false), (0o400, false)] {
            fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
            let said = ServerTls::open(&files).err().map(|e| (e.path, e.text));
            let want = format!("mode {mode:04o} lets others at this key; chmod 640 it");
            assert_eq!(said, refused.then_some((files.key.clone(), want)));
        }
        fs::write(&files.certificate, "nothing").unwrap();
        let error = ServerTls::open(&files).err().unwrap();
        assert_eq!((error.path, &*error.text), (files.certificate, "holds no certificate"));
    }
}
