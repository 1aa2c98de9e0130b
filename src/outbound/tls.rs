//! TLS towards the smarthost: when it is used, and which certificates are believed.
//!
//! The handshake itself happens in [`super::stream`]. One crypto provider, ring, named here so that nothing depends
//! on what the process installed.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether and how the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    None,
    /// STARTTLS where it is offered, without a look at the certificate (RFC 7435); plaintext where it is not offered,
    /// is refused, or the handshake fails. It keeps a listener out, not an attacker in the middle.
    #[default]
    Opportunistic,
    /// STARTTLS (RFC 3207) with a verified certificate, or no delivery.
    Required,
    /// TLS from the first octet (RFC 8314 §3.3) with a verified certificate.
    Implicit,
}

/// Why there is no TLS configuration. The operator's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// `ca_file` cannot be read, holds no certificate, or one that is none.
    CaFile { path: PathBuf, text: String },
    /// The system has no root certificates, and no `ca_file` is given.
    NoRoots { text: String },
}

/// The TLS configuration of a smarthost.
///
/// With `verify`, its certificate must lead to a root of the system or of `ca_file` (PEM, any number of
/// certificates) and name the host. Without, any certificate will do, as [`TlsMode::Opportunistic`] wants it; then
/// `ca_file` is not read.
pub fn client_tls(ca_file: Option<&Path>, verify: bool) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = builder(provider);
    if verify {
        return Ok(builder.with_root_certificates(roots(ca_file)?).with_no_client_auth());
    }
    let verifier = Arc::new(AnyCertificate(algorithms));
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    // Old system stores hold certificates that cannot be parsed; the others still count.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let fault = |text: String| TlsError::CaFile { path: path.to_owned(), text };
        let mut found = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fault(e.to_string()))? {
            roots.add(certificate.map_err(|e| fault(e.to_string()))?).map_err(|e| fault(e.to_string()))?;
            found = true;
        }
        if !found {
            return Err(fault("holds no certificate".to_owned()));
        }
    }
    if roots.is_empty() {
        let causes: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots { text: causes.join("; ") });
    }
    Ok(roots)
}

/// Believes every certificate, but still has the peer prove that it holds the key.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaFile { path, text } => write!(f, "{}: {text}", path.display()),
            Self::NoRoots { text } if text.is_empty() => f.write_str("the system has no root certificates"),
            Self::NoRoots { text } => write!(f, "the system has no root certificates: {text}"),
        }
    }
}

impl std::error::Error for TlsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn faults_of_the_ca_file_are_named() {
        let mut empty = tempfile::NamedTempFile::new().unwrap();
        writeln!(empty, "no certificate here").unwrap();
        let mut broken = tempfile::NamedTempFile::new().unwrap();
        writeln!(broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----").unwrap();
        for path in [Path::new("/nonexistent/ca.pem"), empty.path(), broken.path()] {
            match client_tls(Some(path), true) {
                Err(TlsError::CaFile { path: named, text }) => {
                    assert_eq!(named, path);
                    assert!(!text.is_empty());
                }
                other => panic!("{path:?}: {other:?}"),
            }
        }
        assert!(client_tls(Some(empty.path()), false).is_ok(), "not read where nothing is verified");
    }
}
