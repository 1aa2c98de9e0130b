//! A certificate of its own for a listener, which clients here believe and no others.

use super::Setup;
use rcgen::CertifiedKey;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

pub struct Certificate {
    folder: TempDir,
}

/// Whom a client believes.
#[derive(Clone)]
pub struct Trust(pub Arc<ClientConfig>);

impl Certificate {
    /// In a folder of its own, for relay.example.net.
    pub fn new() -> (Self, Trust) {
        let certificate = Self { folder: tempfile::tempdir().unwrap() };
        let trust = certificate.replace();
        (certificate, trust)
    }

    /// Writes another one to the same files.
    pub fn replace(&self) -> Trust {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["relay.example.net".to_owned()]).unwrap();
        fs::write(self.path("cert.pem"), cert.pem()).unwrap();
        fs::write(self.path("key.pem"), signing_key.serialize_pem()).unwrap();
        fs::set_permissions(self.path("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(cert.der().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Trust(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn used_by(&self, setup: Setup) -> Setup {
        let quoted = |name| format!("\"{}\"", self.path(name).display());
        setup.with("smtp.certificate_file", &quoted("cert.pem")).with("smtp.key_file", &quoted("key.pem"))
    }
}
