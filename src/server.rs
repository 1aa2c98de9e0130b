//! All the wiring: parts are brought up in order, each is told when to stop, and they are awaited in the order in
//! which mail flows through them, so that what was accepted is delivered or safe in the log.

use crate::admin;
use crate::config::{self, Config};
use crate::event::{AgentList, Event};
use crate::http;
use crate::inbound::{self, ConnectionLimits, Inbound, Listener, Memory};
use crate::intake::Intake;
use crate::keys::{KeyError, TokenRing};
use crate::ops::Ops;
use crate::outbound::{self, Outbound, Routes, Smarthost, Style, TlsError, TlsMode};
use crate::queue::Queue;
use crate::recorder::{self, Recorder};
use crate::rewrite::{Limits, OnSigned, Scheme};
use crate::settings::Settings;
use crate::smtp::{Auth, BareNewline, SessionConfig, Timeouts};
use crate::spool::{Entry, Log, OpenError, Options};
use crate::store::MaybeStore;
use crate::track::{HostState, Hosts, Tracker, hits};
use arc_swap::ArcSwap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

/// Why the server does not start. The operator's to mend.
#[derive(Debug)]
pub enum StartError {
    Log(OpenError),
    Keys(KeyError),
    Bind(SocketAddr, io::Error),
    Admin(PathBuf, io::Error),
    Tls(TlsError),
    Signals(io::Error),
    /// A setting that this version reads and cannot act on yet.
    NotBuilt(&'static str),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(e) => write!(f, "{e}"),
            Self::Keys(e) => write!(f, "{e}"),
            Self::Bind(address, e) => write!(f, "cannot listen on {address}: {e}"),
            Self::Admin(path, e) => write!(f, "cannot listen on {}: {e}", path.display()),
            Self::Tls(e) => write!(f, "{e}"),
            Self::Signals(e) => write!(f, "cannot listen for signals: {e}"),
            Self::NotBuilt(what) => write!(f, "{what} is not supported by this version"),
        }
    }
}

impl std::error::Error for StartError {}

/// The addresses that the server listens on, with the ports that the system chose where the configuration says 0.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    pub smtp: Vec<SocketAddr>,
    pub tracking: Vec<SocketAddr>,
}

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn serve(config: Config) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let told = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve_until(config, |_| (), told).await
}

/// Runs until `end` resolves, then drains. `ready` is told once everything listens.
pub async fn serve_until(
    config: Config,
    ready: impl FnOnce(Bound),
    end: impl Future<Output = ()>,
) -> Result<(), StartError> {
    refuse_what_is_not_built(&config)?;
    let options = Options {
        segment_size: config.spool.segment_size,
        min_free: config.queue.min_free,
        ..Options::new(&config.data_dir)
    };
    let (log, recovered) = Log::open(options).map_err(StartError::Log)?;
    tracing::info!(queued = recovered.messages.len(), took_ms = recovered.took.as_millis() as u64, "log recovered");
    let keys = TokenRing::open(&config.data_dir).map_err(StartError::Keys)?;
    let (settings, unreadable) = Settings::new(log.clone(), &recovered.settings);
    for key in unreadable {
        tracing::error!("the setting {key} cannot be read and is left out");
    }
    let settings = Arc::new(settings);
    let queue = Arc::new(Queue::new(recovered.messages));
    let hosts = Arc::new(ArcSwap::from_pointee(served_hosts(&settings, config.tracking.removed_domain_grace)));

    let mut bound = Bound::default();
    let mut smtp = Vec::new();
    for listener in &config.smtp.listeners {
        let socket = bind(listener.address).await?;
        bound.smtp.extend(socket.local_addr());
        smtp.push(Listener {
            socket,
            session: Arc::new(session_config(&config, listener)),
            trusted_networks: listener.trusted_networks.clone(),
        });
    }
    let mut web = Vec::new();
    for address in &config.tracking.http {
        let socket = bind(*address).await?;
        bound.tracking.extend(socket.local_addr());
        web.push(socket);
    }

    let commands =
        admin::listen(&config.data_dir).map_err(|e| StartError::Admin(admin::socket(&config.data_dir), e))?;

    let (stop_accepting, accepting) = watch::channel(false);
    let (stop_delivery, delivering) = watch::channel(false);
    let (stop_recorder, recording) = watch::channel(false);
    let (events, _) = broadcast::channel::<Arc<Event>>(1_024);

    let store = MaybeStore::default();
    let recorder = tokio::spawn(recorder::run(
        Recorder {
            data_dir: config.data_dir.clone(),
            log: log.clone(),
            store: Arc::clone(&store),
            events: events.clone(),
            agents: AgentList::builtin(),
        },
        recording,
    ));
    let routes = Routes::new(Arc::clone(&settings), Arc::clone(&keys.signer), style(&config));
    let max_connections = config.smarthosts.first().map_or(1, |smarthost| smarthost.max_connections);
    let outbound = Arc::new(Outbound::new(
        log.clone(),
        Arc::clone(&queue),
        routes,
        smarthosts(&config)?,
        max_connections,
        config.queue.schedule.clone(),
    ));
    let delivery = tokio::spawn(outbound::run(outbound, delivering));

    let mut fronts = JoinSet::new();
    let (hit_queue, hit_writer) = hits(crate::track::DEFAULT_PLACES);
    let hit_log = log.clone();
    let hits_done = tokio::spawn(hit_writer.run(move |batch| hit_log.append(Entry::Hits(batch)), accepting.clone()));
    let tracker = Arc::new(Tracker::new(
        Arc::clone(&keys.verifier),
        Arc::clone(&hosts),
        hit_queue,
        config.tracking.cname_target.clone(),
    ));
    let proxies: Arc<[ipnet::IpNet]> = config.tracking.trusted_proxies.clone().into();
    for socket in web {
        tracing::info!(address = %shown(&socket), "tracking host listens");
        let (tracker, proxies, stop) = (Arc::clone(&tracker), Arc::clone(&proxies), accepting.clone());
        fronts.spawn(async move { http::serve(socket, http::Limits::default(), proxies, tracker, stop).await });
    }
    let grace = config.tracking.removed_domain_grace;
    let follow = follow_settings(Arc::clone(&settings), hosts, grace, accepting.clone());
    fronts.spawn(follow);
    let ops = Arc::new(Ops {
        settings: Arc::clone(&settings),
        keys,
        queue: Arc::clone(&queue),
        store,
        removed_domain_grace: grace,
    });
    fronts.spawn(admin::serve(commands, ops, events, accepting.clone()));
    let intake = Arc::new(Intake {
        log: log.clone(),
        queue: Arc::clone(&queue),
        settings,
        hostname: config.hostname.as_str().into(),
        reject_unknown: config.unknown_domains == config::UnknownDomains::Reject,
        max_messages: usize::try_from(config.queue.max_messages).unwrap_or(usize::MAX),
    });
    let limits =
        ConnectionLimits { all: config.smtp.max_connections, per_client: config.smtp.max_connections_per_client };
    let timeouts = Timeouts {
        command: config.smtp.timeouts.command,
        data_block: config.smtp.timeouts.data,
        handshake: config.smtp.timeouts.handshake,
        ..Timeouts::default()
    };
    let memory = Memory::new(config.smtp.max_message_size);
    let inbound = Arc::new(Inbound::new(intake, memory, timeouts, limits));
    for listener in smtp {
        tracing::info!(address = %shown(&listener.socket), "SMTP listens");
        fronts.spawn(inbound::serve(Arc::clone(&inbound), listener, accepting.clone()));
    }
    tracing::info!("ready");

    ready(bound);
    end.await;
    tracing::info!("stopping");
    let _ = stop_accepting.send(true);
    let drained = tokio::time::timeout(config.smtp.timeouts.shutdown, async {
        while fronts.join_next().await.is_some() {}
        let _ = hits_done.await;
    });
    if drained.await.is_err() {
        tracing::warn!("sessions were cut at the deadline; none of their messages had been accepted");
        fronts.shutdown().await;
    }
    let _ = stop_delivery.send(true);
    let _ = tokio::time::timeout(config.smtp.timeouts.shutdown, delivery).await;
    let _ = stop_recorder.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(10), recorder).await;
    let _ = tokio::task::spawn_blocking(move || log.close()).await;
    tracing::info!(queued = queue.len(), "stopped");
    Ok(())
}

/// A setting that is silently ignored would be worse than one that is refused.
fn refuse_what_is_not_built(config: &Config) -> Result<(), StartError> {
    for listener in &config.smtp.listeners {
        if listener.tls != config::ListenerTls::None {
            return Err(StartError::NotBuilt("smtp.listener.tls other than none"));
        }
        if listener.auth != config::ListenerAuth::None {
            return Err(StartError::NotBuilt("smtp.listener.auth other than none"));
        }
        if !listener.proxy_protocol.is_empty() {
            return Err(StartError::NotBuilt("smtp.listener.proxy_protocol"));
        }
    }
    if config.tracking.tls != config::TrackingTls::External {
        return Err(StartError::NotBuilt("tracking.tls other than external"));
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|e| StartError::Bind(address, e))
}

fn shown(socket: &TcpListener) -> String {
    socket.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
}

fn session_config(config: &Config, listener: &config::Listener) -> SessionConfig {
    SessionConfig {
        hostname: config.hostname.clone(),
        max_message_size: config.smtp.max_message_size,
        max_recipients: config.smtp.max_recipients,
        starttls: false,
        auth: Auth::None,
        bare_newline: match listener.bare_newline {
            config::BareNewline::Reject => BareNewline::Reject,
            config::BareNewline::Normalize => BareNewline::Normalize,
        },
    }
}

fn style(config: &Config) -> Style {
    Style {
        scheme: match config.tracking.link_scheme {
            config::LinkScheme::Http => Scheme::Http,
            config::LinkScheme::Https => Scheme::Https,
        },
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

/// Keeps the table of served hosts true to the settings.
async fn follow_settings(
    settings: Arc<Settings>,
    hosts: Arc<ArcSwap<Hosts>>,
    grace: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut changes = settings.changes();
    loop {
        hosts.store(Arc::new(served_hosts(&settings, grace)));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn served_hosts(settings: &Settings, grace: Duration) -> Hosts {
    let settings = settings.snapshot();
    let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let active = settings.domains.values().map(|domain| (domain, HostState::Active));
    let removed = settings
        .removed
        .values()
        .map(|domain| (domain, HostState::Removed { until: domain.removed_at.unwrap_or(0).saturating_add(grace) }));
    let hosts = active
        .chain(removed)
        .flat_map(|(domain, state)| domain.subdomains().iter().map(move |subdomain| (subdomain.host.clone(), state)));
    Hosts::new(hosts)
}
