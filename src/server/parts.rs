//! From the configuration to the parts that act on it. Nothing is started here, so that a reload can make all parts
//! of a new configuration before it swaps the first.

use super::StartError;
use crate::acme;
use crate::config::{self, Config};
use crate::dashboard;
use crate::domain::{Demand, Expected};
use crate::health::Watch;
use crate::http;
use crate::inbound::{self, Encryption, Terms};
use crate::intake;
use crate::keys::{DkimKeys, TokenRing};
use crate::mail::{DomainName, Role};
use crate::meters::Meters;
use crate::ops;
use crate::outbound::{self, Delivery, Smarthost, Style, TlsMode};
use crate::privacy::PrivacyKey;
use crate::recorder::{Keeping, LeftAlone};
use crate::rewrite::{Limits, OnSigned, Scheme};
use crate::settings::{Settings, Snapshot};
use crate::smtp::{Auth, BareNewline, SessionConfig, Timeouts};
use crate::spool::disk_bytes;
use crate::supervise;
use crate::tls::{Challenges, HostCertificates, ServerTls};
use crate::verify;
use crate::webhook;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The certificates of the tracking hosts, with those that lie there already; nothing where someone else ends TLS.
pub fn host_certificates(config: &Config, keys: &TokenRing) -> Result<Option<Arc<HostCertificates>>, StartError> {
    if config.tracking.tls == config::TrackingTls::External {
        return Ok(None);
    }
    let hosts = HostCertificates::default();
    if config.tracking.tls == config::TrackingTls::Acme {
        hosts.replace(acme::load(&keys.keys).map_err(StartError::Keys)?);
    }
    if let config::TrackingTls::Files(folder) = &config.tracking.tls {
        hosts.replace(acme::read_folder(folder));
    }
    Ok(Some(Arc::new(hosts)))
}

/// Starts what keeps these certificates fresh.
pub fn keep_certificates(
    config: &Config,
    ops: &Arc<ops::Ops>,
    hosts: Arc<HostCertificates>,
    challenges: Challenges,
    fronts: &mut JoinSet<()>,
    stop: watch::Receiver<bool>,
) -> Result<(), StartError> {
    match &config.tracking.tls {
        config::TrackingTls::External => {}
        config::TrackingTls::Files(folder) => {
            let (ops, folder, stopped) = (Arc::clone(ops), folder.clone(), stop.clone());
            let begin =
                move || acme::follow_files(Arc::clone(&ops), Arc::clone(&hosts), folder.clone(), stopped.clone());
            fronts.spawn(supervise::run("certificates", begin, stop));
        }
        config::TrackingTls::Acme => {
            let ca = acme::Ca {
                directory: config.acme.directory.to_string(),
                contact: config.acme.contact.as_ref().map(ToString::to_string),
                root: config.acme.ca_file.as_deref(),
            };
            let dns = Arc::new(verify::Dns::new(&config.dns.servers).map_err(StartError::Dns)?);
            let known = Arc::clone(ops);
            let obstacle: acme::Obstacle = Box::new(move |host, domain| {
                let (dns, terms) = (Arc::clone(&dns), known.terms.load_full());
                Box::pin(async move { verify::obstacle(&dns, &host, &domain, &terms.expected).await })
            });
            let acme = acme::Acme::new(Arc::clone(ops), hosts, challenges, ca, obstacle).map_err(StartError::Rustls)?;
            let (acme, stopped) = (Arc::new(acme), stop.clone());
            fronts.spawn(supervise::run("certificates", move || acme::run(Arc::clone(&acme), stopped.clone()), stop));
        }
    }
    Ok(())
}

/// Puts in order what was measured, and looks whether mail makes progress, until `stop`.
pub async fn keep_meters(meters: Meters, health: Arc<Watch>, mut stop: watch::Receiver<bool>) {
    let mut was_well = true;
    while tokio::time::timeout(UPKEEP, stop.wait_for(|stop| *stop)).await.is_err() {
        meters.upkeep();
        let progress = health.progress();
        match (was_well, progress.is_well()) {
            (true, false) => tracing::error!("no progress: {}", progress.in_one_line()),
            (false, true) => tracing::warn!("progress again: {}", progress.in_one_line()),
            _ => {}
        }
        was_well = progress.is_well();
    }
}

/// The certificate of the API, where it speaks TLS itself.
pub fn api_tls(config: &Config) -> Result<Option<Arc<ServerTls>>, StartError> {
    let files = config.api.certificate.as_ref();
    files.map(|files| ServerTls::open(files).map(Arc::new)).transpose().map_err(StartError::Certificate)
}

/// What the dashboard has to know; `listening` are the addresses of the listeners for mail, in their order.
pub fn dashboard(config: &Config, listening: &[SocketAddr]) -> dashboard::Setup {
    let is_plain = |listener: &config::Listener| {
        listener.role == Role::Submission
            && listener.tls == config::ListenerTls::None
            && listener.auth != config::ListenerAuth::Required
    };
    let mut listeners = config.smtp.listeners.iter().zip(listening);
    dashboard::Setup {
        // Ours, or that of a proxy.
        secure: config.api.certificate.is_some()
            || config.api.public_url.as_ref().is_some_and(|url| url.scheme() == "https"),
        hostname: DomainName::parse(&config.hostname).ok(),
        smtp: listeners.find(|(listener, _)| is_plain(listener)).map(|(_, address)| *address),
    }
}

/// Mends what a crash has left of a change of DKIM keys, and removes those of domains that are gone. To be asked only
/// where no setting was lost: a domain that could not be read still needs its keys.
pub fn sweep_dkim(files: &DkimKeys, settings: &Snapshot) {
    let removed: BTreeSet<_> = settings.removed.values().map(|domain| &domain.name).collect();
    let unknown = files.sweep(|name| settings.domains.contains_key(name) || removed.contains(name));
    let keys = settings.domains.values().flat_map(|domain| domain.dkim.keys().map(move |key| (&domain.name, key)));
    let unused = files.settle_all(keys.map(|(name, key)| (name, &key.selector, &key.public[..])));
    for (found, whose) in [(unknown, "of a domain that is gone"), (unused, "that no domain took")] {
        match found {
            Ok(files) => {
                for file in files {
                    tracing::warn!(file = %file.display(), "a DKIM key was left {whose}, and is removed");
                }
            }
            Err(e) => tracing::warn!("DKIM keys {whose} could not be looked for: {e}"),
        }
    }
}

/// What stands before the tracking listeners.
pub fn before_tracking(config: &Config) -> http::Fronts {
    http::Fronts {
        trusted_proxies: config.tracking.trusted_proxies.clone().into(),
        balancers: config.tracking.proxy_protocol.clone().into(),
    }
}

/// What the configuration says of domains.
pub fn terms_of_domains(config: &Config) -> ops::Terms {
    ops::Terms {
        expected: Expected {
            cname_target: config.tracking.cname_target.clone(),
            caa_issuer: config.acme.caa_issuer.clone(),
        },
        demand: demand(config),
        by_acme: config.tracking.tls == config::TrackingTls::Acme,
        unsupported_suffixes: config.acme.unsupported_suffixes.clone(),
        policy_url: config.acme.policy_url.as_ref().map(ToString::to_string),
        removed_domain_grace: config.tracking.removed_domain_grace,
        private_webhooks: config.webhooks.allow_private,
        webhook_ports: config.webhooks.ports.clone(),
    }
}

/// What must be true of a host before links lead there.
fn demand(config: &Config) -> Demand {
    match (config.tracking.link_scheme, &config.tracking.tls) {
        (config::LinkScheme::Http, _) => Demand::Nothing,
        (config::LinkScheme::Https, config::TrackingTls::External) => Demand::Answer,
        (config::LinkScheme::Https, _) => Demand::Certificate,
    }
}

/// Between two times that what was measured is put in order.
const UPKEEP: Duration = Duration::from_secs(5);

/// The API is for few.
pub const API_CONNECTIONS: usize = 1_000;

/// Limits of the tracking hosts. What is answered at the end of the drain can still be recorded behind it.
pub fn tracking_limits(config: &Config) -> http::Limits {
    let limits = http::Limits::default();
    let drain_time = limits.drain_time.min(config.smtp.timeouts.shutdown * 3 / 4);
    http::Limits { connections: config.smtp.max_connections, drain_time, ..limits }
}

/// Files that are open when there are as many connections as there may be.
pub fn files_wanted(config: &Config) -> u64 {
    let http = config.smtp.max_connections * config.tracking.http.len() + API_CONNECTIONS;
    let out: usize = config.smarthosts.iter().map(|smarthost| smarthost.max_connections).sum();
    (config.smtp.max_connections + http + out + 200) as u64
}

/// What is taken from clients.
pub fn intake_rules(config: &Config) -> intake::Rules {
    intake::Rules {
        reject_unknown: config.unknown_domains == config::UnknownDomains::Reject,
        max_messages: usize::try_from(config.queue.max_messages).unwrap_or(usize::MAX),
    }
}

/// Limits of connections.
pub fn inbound_rules(config: &Config) -> inbound::Rules {
    let times = &config.smtp.timeouts;
    inbound::Rules {
        timeouts: Timeouts {
            command: times.command,
            line: times.line,
            data_block: times.data,
            handshake: times.handshake,
            data_rate: config.smtp.min_data_rate,
            ..Timeouts::default()
        },
        max_connections: config.smtp.max_connections,
        max_connections_per_client: config.smtp.max_connections_per_client,
    }
}

/// Where mail goes.
pub fn delivery(config: &Config) -> Result<Delivery, StartError> {
    Ok(Delivery {
        smarthosts: smarthosts(config)?,
        max_connections: config.smarthosts.first().map_or(1, |smarthost| smarthost.max_connections),
        schedule: config.queue.schedule.clone(),
    })
}

/// The certificate of the SMTP listeners, where one of them speaks TLS.
pub fn submission_tls(config: &Config) -> Result<Option<Arc<ServerTls>>, StartError> {
    let files = config.smtp.certificate.as_ref().filter(|_| speaks_tls(config));
    files.map(|files| ServerTls::open(files).map(Arc::new)).transpose().map_err(StartError::Certificate)
}

/// Whether a listener for mail speaks TLS.
pub fn speaks_tls(config: &Config) -> bool {
    config.smtp.listeners.iter().any(|listener| listener.tls != config::ListenerTls::None)
}

/// What one listener offers. `tls` is there where the configuration has a listener that speaks TLS.
pub fn terms(config: &Config, listener: &config::Listener, tls: Option<&Arc<ServerTls>>) -> Terms {
    let encryption = match (listener.tls, tls) {
        (config::ListenerTls::StartTls, Some(tls)) => Encryption::StartTls(Arc::clone(tls)),
        (config::ListenerTls::Implicit, Some(tls)) => Encryption::Implicit(Arc::clone(tls)),
        _ => Encryption::None,
    };
    let everybody_authenticates = listener.auth == config::ListenerAuth::Required;
    Terms {
        session: Arc::new(session_config(config, listener, &encryption)),
        trusted_networks: if everybody_authenticates { Vec::new() } else { listener.trusted_networks.clone() },
        proxies: listener.proxy_protocol.clone(),
        encryption,
        role: listener.role,
        mail_from: match listener.tied_mail_from {
            config::TiedMailFrom::Own => intake::MailFrom::Own,
            config::TiedMailFrom::Any => intake::MailFrom::Any,
        },
    }
}

/// Whether a listener that runs with `terms` does what the configuration asks for: TLS cannot be turned on or off while
/// it listens.
pub fn encrypts_as(terms: &Terms, tls: config::ListenerTls) -> bool {
    matches!(
        (&terms.encryption, tls),
        (Encryption::None, config::ListenerTls::None)
            | (Encryption::StartTls(_), config::ListenerTls::StartTls)
            | (Encryption::Implicit(_), config::ListenerTls::Implicit)
    )
}

fn session_config(config: &Config, listener: &config::Listener, encryption: &Encryption) -> SessionConfig {
    SessionConfig {
        hostname: config.hostname.clone(),
        max_message_size: config.smtp.max_message_size,
        max_recipients: config.smtp.max_recipients,
        starttls: matches!(encryption, Encryption::StartTls(_)),
        auth: match listener.auth {
            config::ListenerAuth::None => Auth::None,
            config::ListenerAuth::Optional => Auth::Optional,
            config::ListenerAuth::Required => Auth::Required,
        },
        bare_newline: match listener.bare_newline {
            config::BareNewline::Reject => BareNewline::Reject,
            config::BareNewline::Normalize => BareNewline::Normalize,
        },
    }
}

/// How endpoints are told of events.
pub fn webhook_rules(config: &Config) -> webhook::Rules {
    webhook::Rules {
        retry: config.webhooks.retry.clone(),
        disable_after: config.webhooks.disable_after,
        notify: config.webhooks.notify.clone(),
    }
}

/// How links are written.
pub fn style(config: &Config) -> Style {
    Style {
        scheme: match config.tracking.link_scheme {
            config::LinkScheme::Http => Scheme::Http,
            config::LinkScheme::Https => Scheme::Https,
        },
        demand: demand(config),
        port: config.tracking.link_port,
        on_signed: match config.rewrite.on_signed {
            config::OnSigned::Skip => OnSigned::Skip,
            config::OnSigned::Rewrite => OnSigned::Rewrite,
        },
        limits: Limits {
            max_link_length: config.rewrite.max_link_length,
            max_links: config.rewrite.max_links,
            max_html_size: usize::try_from(config.rewrite.max_html_size).unwrap_or(usize::MAX),
        },
    }
}

/// The smarthosts, in the order in which they are tried.
fn smarthosts(config: &Config) -> Result<Vec<Smarthost>, StartError> {
    let made = config.smarthosts.iter().map(|smarthost| {
        let tls = match smarthost.tls {
            config::SmarthostTls::None => TlsMode::None,
            config::SmarthostTls::Opportunistic => TlsMode::Opportunistic,
            config::SmarthostTls::Required => TlsMode::Required,
            config::SmarthostTls::Implicit => TlsMode::Implicit,
        };
        let verify = matches!(tls, TlsMode::Required | TlsMode::Implicit);
        let tls_config = outbound::client_tls(smarthost.ca_file.as_deref(), verify).map_err(StartError::Tls)?;
        let t = &smarthost.timeouts;
        Ok(Smarthost {
            host: smarthost.host.clone(),
            port: smarthost.port,
            tls,
            credentials: smarthost.credentials.as_ref().map(|c| outbound::Credentials {
                username: c.username.clone(),
                password: c.password.reveal().to_owned(),
            }),
            tls_config: Arc::new(tls_config),
            helo: config.hostname.clone(),
            timeouts: outbound::Timeouts {
                connect: t.connect,
                greeting: t.greeting,
                ehlo: t.ehlo,
                mail: t.mail,
                rcpt: t.rcpt,
                data: t.data,
                block: t.block,
                dot: t.dot,
                quit: t.quit,
            },
        })
    });
    made.collect()
}

/// Who gets untracked copies of a sender domain's mail: who is excluded or has opted out.
pub fn left_alone(settings: Arc<Settings>, privacy: Arc<PrivacyKey>) -> LeftAlone {
    Box::new(move |domain, address| {
        let settings = settings.snapshot();
        let name = DomainName::parse(domain).ok();
        let known = name.as_ref().and_then(|name| settings.domains.get(name));
        known.is_some_and(|domain| domain.excluded.holds(address))
            || settings.opted_out(&privacy, name.as_ref(), address)
    })
}

/// How long the history keeps what. It never takes more than half of what the disk has beyond what is kept free for mail.
pub fn keeping(config: &Config) -> Keeping {
    let events = &config.events;
    let disk = disk_bytes(&config.data_dir).map_or(u64::MAX, |disk| disk.saturating_sub(config.queue.min_free) / 2);
    Keeping { all: events.retention, traces: events.raw_retention, size: events.max_size.min(disk) }
}
