//! `[tracking]`, `[api]`, `[dns]` and `[acme]`: what is served over HTTP, and what that rests on.

use super::reach::{Bound, is_reachable, too_wide};
use super::section::Section;
use super::smtp::{CertificateFiles, read_balancers, read_certificate};
use super::value::{address, domain, domain_suffix, duration, network, number, one_of, socket_address, web_address};
use crate::mail::{Address, DomainName};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml_edit::Value;
use url::Url;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    pub http: Vec<SocketAddr>,
    /// Empty where TLS is external.
    pub https: Vec<SocketAddr>,
    pub tls: TrackingTls,
    /// Where customers' CNAMEs lead; itself a served host.
    pub cname_target: DomainName,
    /// Of the links that we write.
    pub link_scheme: LinkScheme,
    /// Of the links that we write; 0: none.
    pub link_port: u16,
    /// Peers whose X-Forwarded-For and X-Forwarded-Host count.
    pub trusted_proxies: Vec<IpNet>,
    /// Load balancers, which name the client in a PROXY header; if there are any, all others are refused.
    pub proxy_protocol: Vec<IpNet>,
    /// How long the links of a removed domain go on redirecting; zero: not at all.
    pub removed_domain_grace: Duration,
}

/// Who ends TLS for the tracking hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackingTls {
    /// Someone in front of us.
    External,
    /// We, with certificates ordered by `[acme]`.
    Acme,
    /// We, with `HOST.pem` and `HOST.key` in this folder, which was there when the configuration was read.
    Files(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkScheme {
    Http,
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    pub address: SocketAddr,
    /// Where it is there, the API speaks TLS.
    pub certificate: Option<CertificateFiles>,
    pub trusted_proxies: Vec<IpNet>,
    /// Requests that a key may make in a second; 0: as many as it likes.
    pub rate_limit: u32,
    /// Where browsers find us, if not at `address`.
    pub public_url: Option<Url>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Empty: those of the system.
    pub servers: Vec<SocketAddr>,
}

/// Where certificates are ordered; of use with [`TrackingTls::Acme`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    pub directory: Url,
    /// Without `mailto:`.
    pub contact: Option<Address>,
    /// A root certificate besides those of the system, for a private CA.
    pub ca_file: Option<PathBuf>,
    /// What a CAA record must allow (RFC 8659 §4.2).
    pub caa_issuer: DomainName,
    /// Ends of domain names that the CA does not serve, in lower case, without a dot in front.
    pub unsupported_suffixes: Vec<String>,
    /// Where the CA says whom it does not serve.
    pub policy_url: Option<Url>,
}

pub(super) fn read_tracking(s: &mut Section<'_>, bound: &mut Bound, hostname: &str) -> Tracking {
    let scheme = [("http", LinkScheme::Http), ("https", LinkScheme::Https)];
    let http = s.list("http", socket_address, [SocketAddr::from(([127, 0, 0, 1], 8080))]);
    let https = s.list("https", socket_address, []);
    bound.claim(s, "http", &http);
    bound.claim(s, "https", &https);
    s.warn(
        http.is_empty() && https.is_empty(),
        &["http", "https"],
        "links in sent mail lead nowhere without a listener",
    );
    let tls = read_tracking_tls(s, &http, &https);
    let link_scheme = s.value("link_scheme", one_of(&scheme), LinkScheme::Https);
    let plain = link_scheme == LinkScheme::Http && tls != TrackingTls::External;
    s.warn(plain, &["link_scheme", "tls"], "links are written with http although there is TLS for them");
    Tracking {
        http,
        https,
        tls,
        cname_target: read_cname_target(s, hostname),
        link_scheme,
        link_port: s.value("link_port", number(0..=u16::MAX), 0),
        trusted_proxies: read_proxies(s),
        proxy_protocol: read_balancers(s),
        removed_domain_grace: s.value("removed_domain_grace", duration, Duration::from_hours(90 * 24)),
    }
}

fn read_tracking_tls(s: &mut Section<'_>, http: &[SocketAddr], https: &[SocketAddr]) -> TrackingTls {
    #[derive(Clone, Copy, PartialEq)]
    enum By {
        External,
        Acme,
        Files,
    }
    let words = [("external", By::External), ("acme", By::Acme), ("files", By::Files)];
    let by = s.value("tls", one_of(&words), By::External);
    let folder = s.path("certificates_dir");
    let external = by == By::External;
    s.refuse(external && !https.is_empty(), &["https", "tls"], "https listeners need tls = \"acme\" or \"files\"");
    s.refuse(
        !external && https.is_empty(),
        &["tls", "https"],
        format_args!("{} needs a listener in https", s.written("tls")),
    );
    let challenge = "\"acme\" needs a listener in http: the CA asks there (HTTP-01)";
    s.refuse(by == By::Acme && http.is_empty(), &["tls", "http"], challenge);
    let missing = folder.as_ref().is_some_and(|folder| s.opens(folder) && !folder.is_dir());
    s.refuse(missing, &["certificates_dir"], format_args!("{} is not a folder", s.written("certificates_dir")));
    s.refuse(by == By::Files && folder.is_none(), &["tls", "certificates_dir"], "\"files\" needs certificates_dir");
    match (by, folder) {
        (By::Acme, _) => TrackingTls::Acme,
        (By::Files, Some(folder)) => TrackingTls::Files(folder),
        _ => TrackingTls::External,
    }
}

fn read_cname_target(s: &mut Section<'_>, hostname: &str) -> DomainName {
    let given = s.option("cname_target", domain);
    given.or_else(|| DomainName::parse(&format!("track.{hostname}")).ok()).unwrap_or_else(|| {
        s.refuse(true, &["cname_target"], format_args!("no name can be put before the hostname {hostname:?}"));
        // Never seen: the file has a fault.
        DomainName::parse("track.invalid").expect("a domain name")
    })
}

/// `trusted_proxies`. Strangers among them can only forge the address that is recorded.
fn read_proxies(s: &mut Section<'_>) -> Vec<IpNet> {
    let proxies = s.list("trusted_proxies", network, []);
    if let Some(wide) = too_wide(&proxies) {
        let message = format!("{wide} holds strangers, who can then forge the address that is recorded for them");
        s.warn(true, &["trusted_proxies"], message);
    }
    proxies
}

pub(super) fn read_api(s: &mut Section<'_>, bound: &mut Bound) -> Api {
    let address = s.value("address", socket_address, SocketAddr::from(([127, 0, 0, 1], 8081)));
    bound.claim(s, "address", &[address]);
    let tls = s.value("tls", one_of(&[("none", false), ("files", true)]), false);
    let certificate = read_certificate(s);
    let no_files = certificate.is_none() && !s.is_bad(&["certificate_file", "key_file"]);
    s.refuse(tls && no_files, &["tls"], "\"files\" needs certificate_file and key_file");
    s.warn(certificate.is_some() && !tls, &["tls", "certificate_file"], "the certificate is used with \"files\" alone");
    let trusted_proxies = read_proxies(s);
    let keys = ["address", "tls", "trusted_proxies"];
    let open = is_reachable(address) && !tls;
    let message = "is reachable from outside loopback without TLS: API keys would cross the network in clear; set tls, \
                   or trusted_proxies where a proxy in front ends TLS";
    s.refuse(open && trusted_proxies.is_empty(), &keys, message);
    if let Some(wide) = too_wide(&trusted_proxies) {
        let message = format!("{wide} holds strangers: without TLS off loopback only your own proxies may be trusted");
        s.refuse(open, &["trusted_proxies", "address", "tls"], message);
    }
    Api {
        address,
        certificate: certificate.filter(|_| tls),
        trusted_proxies,
        rate_limit: s.value("rate_limit", number(0..=1_000_000), 50),
        public_url: s.option("public_url", web_address(&["https", "http"])),
    }
}

pub(super) fn read_dns(s: &mut Section<'_>) -> Dns {
    let server = |value: &Value| match socket_address(value)? {
        server if server.port() == 0 => Err(format!("\"{server}\" has port 0")),
        server => Ok(server),
    };
    Dns { servers: s.list("servers", server, []) }
}

pub(super) fn read_acme(s: &mut Section<'_>) -> Acme {
    let contact = |value: &Value| match value.as_str().and_then(|text| text.strip_prefix("mailto:")) {
        Some(text) => address(&Value::from(text)),
        None => address(value),
    };
    let known = |text: &str| Url::parse(text).expect("an address of the web");
    let issuer = DomainName::parse("letsencrypt.org").expect("a domain name");
    Acme {
        // RFC 8555 §6.1: HTTPS only.
        directory: s.value(
            "directory",
            web_address(&["https"]),
            known("https://acme-v02.api.letsencrypt.org/directory"),
        ),
        contact: s.option("contact", contact),
        ca_file: s.readable_file("ca_file"),
        caa_issuer: s.value("caa_issuer", domain, issuer),
        unsupported_suffixes: s.list("unsupported_suffixes", domain_suffix, []),
        policy_url: s.option("policy_url", web_address(&["https", "http"])),
    }
}
