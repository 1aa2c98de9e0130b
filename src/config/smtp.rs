//! `[smtp]`: where mail comes in, who may send, and what it may cost. Never an open relay.

use super::reach::{Bound, is_reachable, too_wide};
use super::section::{NOT_HERE, Section};
use super::value::{KIB, MIB, network, number, one_of, rate, shown, size, socket_address, some_time};
use crate::mail::Role;
use ipnet::IpNet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The largest `max_message_size`: the memory for large messages, which one message reserves whole.
pub const LARGE_POOL: u64 = 72 * MIB;
/// Recipients that a tracking token can count.
pub const MAX_RECIPIENTS: usize = 0x8000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Bytes, said in EHLO (RFC 1870). Up to [`LARGE_POOL`].
    pub max_message_size: u64,
    pub max_recipients: usize,
    /// Over all listeners.
    pub max_connections: usize,
    /// Of `max_connections`, those that one client may hold.
    pub max_connections_per_client: usize,
    /// Bytes a second below which a client in DATA is cut off; 0: none.
    pub min_data_rate: u64,
    /// Never missing where a listener speaks TLS.
    pub certificate: Option<CertificateFiles>,
    pub timeouts: SmtpTimeouts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub role: Role,
    pub tls: ListenerTls,
    pub auth: ListenerAuth,
    pub tied_mail_from: TiedMailFrom,
    /// Clients that may send without AUTH.
    pub trusted_networks: Vec<IpNet>,
    pub bare_newline: BareNewline,
    /// Peers whose connections must begin with a PROXY v2 header; where there are any, all others are refused.
    pub proxy_protocol: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerTls {
    None,
    StartTls,
    Implicit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerAuth {
    None,
    Optional,
    Required,
}

/// What MAIL FROM may name where a client's key is tied to domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TiedMailFrom {
    Own,
    Any,
}

/// What becomes of a bare CR or LF in DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    Reject,
    Normalize,
}

/// A certificate chain and its key, both PEM. They could be opened when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl CertificateFiles {
    /// False for those that systemd hands to the service alone, seen from outside of it.
    pub fn are_here(&self) -> bool {
        ![&self.certificate, &self.key].into_iter().any(|path| path.starts_with(NOT_HERE))
    }
}

/// `[smtp.timeouts]` (RFC 5321 §4.5.3.2.7 and its neighbours). None is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpTimeouts {
    /// For the PROXY header and for TLS, each.
    pub handshake: Duration,
    /// For the next command.
    pub command: Duration,
    /// For the rest of a command line that has begun.
    pub line: Duration,
    /// For the next piece of a message.
    pub data: Duration,
    /// For open sessions to end when the server stops.
    pub shutdown: Duration,
}

pub(super) fn read(s: &mut Section<'_>, bound: &mut Bound) -> Smtp {
    let certificate = read_certificate(s);
    let no_certificate = certificate.is_none() && !s.is_bad(&["certificate_file", "key_file"]);
    let listeners = s.sections("listener", |l| read_listener(l, bound, no_certificate));
    s.refuse(listeners.as_ref().is_some_and(Vec::is_empty), &["listener"], "no listener");
    // Without any, an empty section gives the default one.
    let listeners =
        listeners.unwrap_or_else(|| s.absent("listener", |l| vec![read_listener(l, bound, no_certificate)]));
    Smtp {
        listeners,
        max_message_size: read_message_size(s),
        max_recipients: s.value("max_recipients", number(1..=MAX_RECIPIENTS), 1_000),
        max_connections: s.value("max_connections", number(1..=1_000_000), 10_000),
        max_connections_per_client: s.value("max_connections_per_client", number(1..=1_000_000), 100),
        min_data_rate: s.value("min_data_rate", rate, 500),
        certificate,
        timeouts: s.section("timeouts", |t| SmtpTimeouts {
            handshake: t.value("handshake", some_time, Duration::from_secs(30)),
            command: t.value("command", some_time, Duration::from_mins(5)),
            line: t.value("line", some_time, Duration::from_secs(30)),
            data: t.value("data", some_time, Duration::from_mins(3)),
            shutdown: t.value("shutdown", some_time, Duration::from_secs(30)),
        }),
    }
}

fn read_message_size(s: &mut Section<'_>) -> u64 {
    let size = s.value("max_message_size", size, 50 * MIB);
    s.refuse(size == 0, &["max_message_size"], "0 leaves no room for a message");
    let pool = shown(LARGE_POOL);
    let message = format!("{} is more than the memory for large messages, {pool}", shown(size));
    s.refuse(size > LARGE_POOL, &["max_message_size"], message);
    s.warn(size < 64 * KIB, &["max_message_size"], "RFC 5321 asks for at least 64KiB");
    size
}

fn read_listener(l: &mut Section<'_>, bound: &mut Bound, no_certificate: bool) -> Listener {
    let role = [("submission", Role::Submission), ("inbound", Role::Inbound)];
    let tls = [("none", ListenerTls::None), ("starttls", ListenerTls::StartTls), ("implicit", ListenerTls::Implicit)];
    let auth =
        [("none", ListenerAuth::None), ("optional", ListenerAuth::Optional), ("required", ListenerAuth::Required)];
    let mail_from = [("own", TiedMailFrom::Own), ("any", TiedMailFrom::Any)];
    let newline = [("reject", BareNewline::Reject), ("normalize", BareNewline::Normalize)];
    let listener = Listener {
        address: l.value("address", socket_address, SocketAddr::from(([127, 0, 0, 1], 2525))),
        role: l.value("role", one_of(&role), Role::Submission),
        tls: l.value("tls", one_of(&tls), ListenerTls::None),
        auth: l.value("auth", one_of(&auth), ListenerAuth::None),
        tied_mail_from: l.value("tied_mail_from", one_of(&mail_from), TiedMailFrom::Own),
        trusted_networks: l.list("trusted_networks", network, loopback()),
        bare_newline: l.value("bare_newline", one_of(&newline), BareNewline::Reject),
        proxy_protocol: read_balancers(l),
    };
    bound.claim(l, "address", &[listener.address]);
    l.warn(
        listener.auth == ListenerAuth::Required
            && l.is_set("trusted_networks")
            && !listener.trusted_networks.is_empty(),
        &["trusted_networks", "auth"],
        "has no effect: AUTH is required of all; \"optional\" lets these send without it",
    );
    let message = format!("{} needs certificate_file and key_file in [smtp]", l.written("tls"));
    l.refuse(no_certificate && listener.tls != ListenerTls::None, &["tls"], message);
    keep_closed(l, &listener);
    listener
}

/// Refuses what would let strangers send, or passwords be read on the way.
fn keep_closed(l: &mut Section<'_>, listener: &Listener) {
    // Behind a proxy the clients are those of the proxy, wherever we listen.
    let reachable = is_reachable(listener.address) || !listener.proxy_protocol.is_empty();
    let (address, auth) = (listener.address, listener.auth != ListenerAuth::None);
    let trusts = l.is_set("trusted_networks") && !listener.trusted_networks.is_empty();
    l.refuse(
        reachable && !auth && !trusts,
        &["address", "auth", "trusted_networks", "proxy_protocol"],
        format_args!(
            "{address} is reachable from outside loopback and has neither AUTH nor trusted_networks of its own: an \
             open relay is not started"
        ),
    );
    if let Some(wide) = too_wide(&listener.trusted_networks) {
        let message = format!("trusts {wide}, which holds strangers: an open relay is not started");
        l.refuse(true, &["trusted_networks"], message);
    }
    l.refuse(
        reachable && auth && listener.tls == ListenerTls::None,
        &["auth", "address", "tls", "proxy_protocol"],
        "AUTH without TLS is for loopback alone: passwords would cross the network in clear",
    );
}

/// The trusted networks of a listener that names none.
fn loopback() -> [IpNet; 2] {
    let v4 = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    [IpNet::V4(v4), IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128))]
}

/// `proxy_protocol`: load balancers that name their clients.
pub(super) fn read_balancers(s: &mut Section<'_>) -> Vec<IpNet> {
    let balancers = s.list("proxy_protocol", network, []);
    if let Some(wide) = too_wide(&balancers) {
        let message = format!("{wide} holds strangers, who could then claim any client address");
        s.refuse(true, &["proxy_protocol"], message);
    }
    balancers
}

/// `certificate_file` and `key_file`, of which neither goes without the other.
pub(super) fn read_certificate(s: &mut Section<'_>) -> Option<CertificateFiles> {
    let (certificate, key) = (s.readable_file("certificate_file"), s.readable_file("key_file"));
    s.refuse(certificate.is_some() && key.is_none(), &["certificate_file", "key_file"], "goes with a key_file");
    s.refuse(key.is_some() && certificate.is_none(), &["key_file", "certificate_file"], "goes with a certificate_file");
    Some(CertificateFiles { certificate: certificate?, key: key? })
}
