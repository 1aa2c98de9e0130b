//! A certificate for each tracking host, chosen by the name that the client asks for (SNI, RFC 6066 §3) and swapped
//! while connections go on. A name without one gets an alert and nothing else: there is no default certificate.

use crate::mail::DomainName;
use arc_swap::ArcSwap;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// A certificate chain with its key, and what it says of itself.
#[derive(Clone, Debug)]
pub struct HostCertificate {
    key: Arc<CertifiedKey>,
    /// Milliseconds since 1970, as all times here.
    pub not_before: u64,
    pub not_after: u64,
    /// Nobody vouches for it but itself: no browser takes it.
    pub is_self_signed: bool,
}

/// The certificates in use, by host.
#[derive(Default)]
pub struct HostCertificates(ArcSwap<HashMap<Box<str>, HostCertificate>>);

impl HostCertificate {
    /// Reads a chain (PEM, the host's own first) and its key (PEM), which must fit together and name `host`. The text
    /// says what is wrong.
    pub fn read(host: &DomainName, chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let own = chain.first().ok_or("it holds no certificate")?;
        let (_, parsed) = X509Certificate::from_der(own).map_err(|e| format!("the certificate cannot be read: {e}"))?;
        if !names(&parsed, host) {
            return Err(format!("the certificate does not name {host}"));
        }
        let is_self_signed = parsed.issuer().as_raw() == parsed.subject().as_raw();
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
        let validity = parsed.validity();
        let (not_before, not_after) = (ms(validity.not_before.timestamp()), ms(validity.not_after.timestamp()));
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("the key cannot be read: {e}"))?;
        let key = any_supported_type(&key).map_err(|e| format!("the key cannot be used: {e}"))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|e| format!("the certificate is not for this key: {e}"))?;
        Ok(Self { key: Arc::new(certified), not_before, not_after, is_self_signed })
    }

    /// When to have another: a third of the lifetime before the end, however long that is.
    pub fn renew_at(&self) -> u64 {
        self.not_after.saturating_sub(self.not_after.saturating_sub(self.not_before) / 3)
    }

    /// Until when links may be written that rest on it: a little before the end, since mail is not read at once.
    pub fn usable_until(&self) -> u64 {
        const MARGIN_MS: u64 = 3_600_000;
        self.not_after.saturating_sub(MARGIN_MS.min(self.not_after.saturating_sub(self.not_before) / 20))
    }
}

fn names(certificate: &X509Certificate<'_>, host: &DomainName) -> bool {
    let extensions = certificate.extensions().iter();
    let names = extensions.filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.flatten().any(|name| match name {
        GeneralName::DNSName(name) => match name.strip_prefix("*.") {
            Some(parent) => host.as_str().split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            None => name.eq_ignore_ascii_case(host.as_str()),
        },
        _ => false,
    })
}

impl HostCertificates {
    /// Whether there is one for this name, as a client writes it.
    pub fn knows(&self, name: &str) -> bool {
        let table = self.0.load();
        let known = table.contains_key(name) || table.contains_key(&*name.to_ascii_lowercase());
        if !known {
            metrics::counter!("trackpost_tls_unknown_hosts_total").increment(1);
        }
        known
    }

    pub fn get(&self, host: &DomainName) -> Option<HostCertificate> {
        self.0.load().get(host.as_str()).cloned()
    }

    pub fn all(&self) -> Vec<HostCertificate> {
        self.0.load().values().cloned().collect()
    }

    /// Uses this certificate from the next handshake on.
    pub fn put(&self, host: &DomainName, certificate: HostCertificate) {
        self.0.rcu(|held| {
            let mut table = HashMap::clone(held);
            table.insert(host.as_str().into(), certificate.clone());
            table
        });
    }

    /// Goes on without one for this host. Whether there was one.
    pub fn remove(&self, host: &DomainName) -> bool {
        let before = self.0.rcu(|held| {
            let mut table = HashMap::clone(held);
            table.remove(host.as_str());
            table
        });
        before.contains_key(host.as_str())
    }

    /// Goes on with these alone.
    pub fn replace(&self, all: impl IntoIterator<Item = (DomainName, HostCertificate)>) {
        let table = all.into_iter().map(|(host, certificate)| (host.as_str().into(), certificate)).collect();
        self.0.store(Arc::new(table));
    }
}

impl ResolvesServerCert for HostCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().and_then(|name| {
            let table = self.0.load();
            // Names come in lower case from most clients; rustls has checked that it is one.
            match table.get(name) {
                Some(found) => Some(Arc::clone(&found.key)),
                None => table.get(&*name.to_ascii_lowercase()).map(|found| Arc::clone(&found.key)),
            }
        })
    }
}

impl fmt::Debug for HostCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.load().keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let host = name("links.example.com");
        let (chain, key) = made(&["links.example.com"]);
        let (_, other_key) = made(&["links.example.com"]);
        let read = |chain: &str, key: &str| HostCertificate::read(&host, chain.as_bytes(), key.as_bytes());
        let good = read(&chain, &key).unwrap();
        assert!(good.not_before < good.renew_at() && good.renew_at() < good.usable_until());
        assert!(good.usable_until() < good.not_after);
        assert!(read(&chain, &other_key).unwrap_err().contains("not for this key"));
        assert!(read("", &key).unwrap_err().contains("no certificate"));
        assert!(read(&chain, "").unwrap_err().contains("key cannot be read"));
        let (other, key) = made(&["other.example.com"]);
        assert!(read(&other, &key).unwrap_err().contains("does not name"));
        for (names, fits) in [
            (&["*.example.com"][..], true),
            (&["a.example.com", "LINKS.example.com"], true),
            (&["*.links.example.com"], false),
            (&["example.com"], false),
        ] {
            let (chain, key) = made(names);
            assert_eq!(read(&chain, &key).is_ok(), fits, "{names:?}");
        }
    }

    #[test]
    fn one_that_vouches_for_itself_is_told_from_one_that_a_ca_signed() {
        let host = name("links.example.com");
        let (chain, key) = made(&[host.as_str()]);
        assert!(HostCertificate::read(&host, chain.as_bytes(), key.as_bytes()).unwrap().is_self_signed);
        let mut of_ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        of_ca.distinguished_name.push(rcgen::DnType::CommonName, "Root");
        of_ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::Issuer::new(of_ca, rcgen::KeyPair::generate().unwrap());
        let own_key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec![host.to_string()]).unwrap().signed_by(&own_key, &ca).unwrap();
        let read = HostCertificate::read(&host, own.pem().as_bytes(), own_key.serialize_pem().as_bytes());
        assert!(!read.unwrap().is_self_signed);
    }

    #[test]
    fn hosts_come_and_go() {
        let hosts = HostCertificates::default();
        let (one, two) = (name("one.example.com"), name("two.example.com"));
        let certificate = |host: &DomainName| {
            let (chain, key) = made(&[host.as_str()]);
            HostCertificate::read(host, chain.as_bytes(), key.as_bytes()).unwrap()
        };
        hosts.put(&one, certificate(&one));
        hosts.put(&two, certificate(&two));
        assert!(hosts.get(&one).is_some() && hosts.get(&two).is_some());
        hosts.replace([(two.clone(), certificate(&two))]);
        assert!(hosts.get(&one).is_none() && hosts.get(&two).is_some());
        assert!(hosts.remove(&two) && !hosts.remove(&two));
        assert!(hosts.get(&two).is_none());
    }
}
