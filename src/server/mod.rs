//! All the wiring: parts are brought up in order, each is told when to stop, and they are awaited in the order in
//! which mail flows through them, so that what was accepted is delivered or safe in the log.

mod front;
mod listen;
mod lost;
mod modes;
mod offline;
mod online;
mod parts;
mod reload;
mod systemd;
#[cfg(test)]
mod tests;

pub use offline::{Findings, check_files};
pub use online::{Probe, check_online};

use crate::acme;
use crate::admin;
use crate::api;
use crate::clock;
use crate::config::Config;
use crate::dashboard;
use crate::event::{Event, Hit};
use crate::health::Watch;
use crate::http;
use crate::inbound::{self, Inbound, Listener, Memory};
use crate::intake::Intake;
use crate::keys::{DkimKeys, KeyError, TokenRing};
use crate::meters;
use crate::ops::Ops;
use crate::outbound::{self, Outbound, Routes, TlsError};
use crate::queue::{Queue, heads_of};
use crate::recorder::{self, Recorder};
use crate::settings::{Settings, Snapshot};
use crate::spool::{Entry, Log, OpenError, Options, Unwritten};
use crate::store::MaybeStore;
use crate::supervise;
use crate::tls::{CertificateError, Challenges, ServerTls};
use crate::track::{HostState, Hosts, Secure, Tracker, hits};
use crate::verify;
use crate::webhook::{self, Poster, Webhooks};
use arc_swap::ArcSwap;
use front::ApiFront;
use listen::bind;
use reload::Reloaded;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

/// Why the server does not start. The operator's to mend.
#[derive(Debug)]
pub enum StartError {
    Log(OpenError),
    Keys(KeyError),
    Bind(SocketAddr, io::Error),
    Admin(PathBuf, io::Error),
    /// What a socket unit passed does not go with the configuration.
    Sockets(String),
    Tls(TlsError),
    Certificate(CertificateError),
    Signals(io::Error),
    /// TLS for the tracking hosts, or the way to the CA, cannot be set up.
    Rustls(String),
    /// The resolver cannot be set up.
    Dns(String),
    /// The way to endpoints cannot be set up.
    Webhooks(String),
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
            Self::Sockets(why) => write!(f, "a socket that systemd passed: {why}"),
            Self::Tls(e) => write!(f, "{e}"),
            Self::Certificate(e) => write!(f, "{e}"),
            Self::Rustls(why) => write!(f, "tracking.tls: {why}"),
            Self::Webhooks(why) => write!(f, "webhooks: {why}"),
            Self::Dns(why) => write!(f, "dns.servers: {why}"),
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
    /// The tracking hosts over TLS of our own.
    pub secure: Vec<SocketAddr>,
    pub api: Option<SocketAddr>,
}

/// How long the last hits may take to be written.
const HITS_PATIENCE: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT, then drains; what the log could not be told.
pub async fn serve(config: Config) -> Result<Unwritten, StartError> {
    modes::owner_alone();
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

/// Runs until `end` resolves, then drains; what the log could not be told. `ready` is told once everything listens.
pub async fn serve_until(
    config: Config,
    ready: impl FnOnce(Bound),
    end: impl Future<Output = ()>,
) -> Result<Unwritten, StartError> {
    let meters = meters::install();
    let mut sockets = systemd::Sockets::take()?;
    systemd::ignore_file_size_signal();
    let files = systemd::raise_file_limit();
    let wanted = parts::files_wanted(&config);
    if files < wanted {
        tracing::warn!(
            files,
            wanted,
            "fewer files may be open than there may be connections: raise LimitNOFILE (ulimit -n -H), \
             or lower smtp.max_connections"
        );
    }
    let hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    let options = Options {
        segment_size: config.spool.segment_size,
        min_free: config.queue.min_free,
        // Addresses and agents of hits lie in it.
        max_age: Some(config.events.raw_retention.max(Duration::from_hours(24))),
        ..Options::new(&config.data_dir)
    };
    modes::narrow(&config.data_dir);
    let (log, recovered) = Log::open(options).map_err(StartError::Log)?;
    tracing::info!(queued = recovered.messages.len(), took_ms = recovered.took.as_millis() as u64, "log recovered");
    let keys = TokenRing::open(&config.data_dir).map_err(StartError::Keys)?;
    let (settings, unreadable) = Settings::new(log.clone(), &recovered.settings);
    // What is not known for certain to be nobody's stays.
    let knows_any = !settings.snapshot().domains.is_empty() || !settings.snapshot().removed.is_empty();
    let all_known = unreadable.is_empty() && recovered.bad_records == 0 && knows_any;
    for key in unreadable {
        tracing::error!("the setting {key} cannot be read and is left out");
    }
    settings.note_beginning(recovered.records);
    let hashed = !settings.snapshot().opt_outs.is_empty() || !settings.erasures().is_empty();
    let privacy = Arc::new(keys.keys.privacy_key(hashed).map_err(StartError::Keys)?);
    settings.erasures().hash_with(Arc::clone(&privacy));
    let settings = Arc::new(settings);
    let challenges = Challenges::default();
    let certificates = parts::host_certificates(&config, &keys)?;
    let queue = Arc::new(Queue::new(recovered.messages, heads_of(&log), clock::steady_ms(), &config.queue.schedule));
    queue.hold(settings.snapshot().queue_held);
    let hosts = Arc::new(ArcSwap::from_pointee(Hosts::default()));
    let (served, grace) = (Arc::clone(&hosts), config.tracking.removed_domain_grace);
    settings.derive(move |settings| served.store(Arc::new(served_hosts(settings, grace))));

    let tls = parts::submission_tls(&config)?;
    let mut bound = Bound::default();
    let mut smtp = Vec::new();
    for listener in &config.smtp.listeners {
        let socket = bind(&mut sockets, listener.address).await?;
        bound.smtp.extend(socket.local_addr());
        let terms = parts::terms(&config, listener, tls.as_ref());
        smtp.push(Listener { socket: Arc::new(socket), terms: Arc::new(ArcSwap::from_pointee(terms)) });
    }
    let mut web = Vec::new();
    for address in &config.tracking.http {
        let socket = bind(&mut sockets, *address).await?;
        bound.tracking.extend(socket.local_addr());
        web.push(socket);
    }
    let mut secure_web = Vec::new();
    for address in &config.tracking.https {
        let socket = bind(&mut sockets, *address).await?;
        bound.secure.extend(socket.local_addr());
        secure_web.push(socket);
    }
    let api_socket = bind(&mut sockets, config.api.address).await?;
    bound.api = api_socket.local_addr().ok();
    sockets.all_taken()?;

    let commands =
        admin::listen(&config.data_dir).map_err(|e| StartError::Admin(admin::socket(&config.data_dir), e))?;

    let (stop_accepting, accepting) = watch::channel(false);
    let (stop_delivery, delivering) = watch::channel(false);
    let (stop_recorder, recording) = watch::channel(false);
    let (stop_hits, taking_hits) = watch::channel(false);
    let (forget, asked) = mpsc::channel(16);
    let webhook_news = Arc::new(tokio::sync::Notify::new());
    let keeping = Arc::new(ArcSwap::from_pointee(parts::keeping(&config)));
    let (events, _) = broadcast::channel::<Arc<Event>>(1_024);

    let store = MaybeStore::default();
    let health = Arc::new(Watch::new(log.clone(), Arc::clone(&store), Arc::clone(&queue)));
    let machines = Arc::new(ArcSwap::new(Arc::clone(&config.events.machines)));
    let recorder = tokio::spawn(recorder::run(
        Recorder {
            data_dir: config.data_dir.clone(),
            log: log.clone(),
            store: Arc::clone(&store),
            events: events.clone(),
            left_alone: parts::left_alone(Arc::clone(&settings), Arc::clone(&privacy)),
            webhooks: recorder::Webhooks { settings: Arc::clone(&settings), kick: Arc::clone(&webhook_news) },
            keeping: Arc::clone(&keeping),
            limits: recorder::Limits::default(),
            asked,
            machines: Arc::clone(&machines),
        },
        recording,
    ));
    let intake = Arc::new(Intake {
        log: log.clone(),
        queue: Arc::clone(&queue),
        settings: Arc::clone(&settings),
        hostname: config.hostname.as_str().into(),
        rules: ArcSwap::from_pointee(parts::intake_rules(&config)),
    });
    let dkim = Arc::new(DkimKeys::new(&config.data_dir));
    if all_known {
        parts::sweep_dkim(&dkim, &settings.snapshot());
    }
    let ops = Arc::new(Ops {
        settings: Arc::clone(&settings),
        keys: keys.clone(),
        dkim: Arc::clone(&dkim),
        dkim_turn: tokio::sync::Mutex::default(),
        privacy: Arc::clone(&privacy),
        queue: Arc::clone(&queue),
        log: log.clone(),
        store: Arc::clone(&store),
        webhooks: webhook_news,
        terms: ArcSwap::from_pointee(parts::terms_of_domains(&config)),
        forget,
        readers: tokio::sync::Semaphore::new(crate::ops::READERS),
        forget_dns: AtomicBool::new(false),
    });
    if let Some(hosts) = &certificates {
        // Before the first delivery: the settings may know of a certificate whose file is gone.
        acme::tell(&ops, hosts).await;
    }
    let style = parts::style(&config);
    let routes = Routes::new(Arc::clone(&settings), Arc::clone(&keys.signer), dkim, privacy, style);
    let mut outbound = Outbound::new(Arc::clone(&intake), routes, parts::delivery(&config)?);
    outbound.history = Some(lost::history(&store));
    let outbound = Arc::new(outbound);
    if !recovered.lost.is_empty() {
        tokio::spawn(lost::tell_senders(Arc::clone(&outbound), Arc::clone(&store), recovered.lost));
    }
    let delivery = tokio::spawn(outbound::run(Arc::clone(&outbound), delivering));

    let mut fronts = JoinSet::new();
    let (hit_queue, hit_writer) = hits(crate::track::DEFAULT_PLACES);
    let hit_log = log.clone();
    let anonymize = config.events.anonymize_ip;
    let hits_done = tokio::spawn(hit_writer.run(
        move |mut batch| {
            if anonymize {
                batch.iter_mut().for_each(Hit::anonymize);
            }
            hit_log.append(Entry::Hits(batch))
        },
        taking_hits,
    ));
    let tracker = Arc::new(Tracker::new(
        Arc::clone(&keys.signer),
        Arc::clone(&keys.verifier),
        Arc::clone(&hosts),
        hit_queue,
        config.tracking.cname_target.clone(),
        challenges.clone(),
    ));
    let before = parts::before_tracking(&config);
    for socket in web {
        tracing::info!(address = %shown(&socket), "tracking host listens");
        let (tracker, before) = (Arc::clone(&tracker), before.clone());
        let limits = parts::tracking_limits(&config);
        fronts.spawn(listener(socket, None, limits, before, tracker, accepting.clone()));
    }
    if let Some(hosts) = &certificates {
        let tls = Arc::new(ServerTls::of_hosts(Arc::clone(hosts)).map_err(|e| StartError::Rustls(e.to_string()))?);
        for socket in secure_web {
            tracing::info!(address = %shown(&socket), "tracking host listens over TLS");
            let (tracker, before) = (Arc::new(Secure(Arc::clone(&tracker))), before.clone());
            let limits = parts::tracking_limits(&config);
            fronts.spawn(listener(socket, Some(Arc::clone(&tls)), limits, before, tracker, accepting.clone()));
        }
    }
    let (fed, stop) = (Arc::clone(&health), accepting.clone());
    let begin = move || systemd::feed_watchdog(Arc::clone(&fed), stop.clone());
    fronts.spawn(supervise::run("health", begin, accepting.clone()));
    tracing::info!(address = %shown(&api_socket), "API listens");
    let before = http::Fronts { trusted_proxies: config.api.trusted_proxies.clone().into(), ..http::Fronts::default() };
    let (kept, watched, stop) = (meters.clone(), Arc::clone(&health), accepting.clone());
    let begin = move || parts::keep_meters(kept.clone(), Arc::clone(&watched), stop.clone());
    fronts.spawn(supervise::run("health", begin, accepting.clone()));
    let front = Arc::new(ApiFront {
        api: api::Served::new(
            Arc::clone(&ops),
            meters,
            health,
            NonZeroU32::new(config.api.rate_limit),
            config.api.address.ip().to_canonical(),
        ),
        dashboard: dashboard::Served::new(Arc::clone(&ops), parts::dashboard(&config, &bound.smtp)),
    });
    let limits = http::Limits { connections: parts::API_CONNECTIONS, ..http::Limits::default() };
    let api_tls = parts::api_tls(&config)?;
    if let Some(tls) = api_tls.clone() {
        fronts.spawn(follow(tls, accepting.clone()));
    }
    fronts.spawn(listener(api_socket, api_tls, limits, before, front, accepting.clone()));
    if let Some(hosts) = certificates {
        parts::keep_certificates(&config, &ops, hosts, challenges, &mut fronts, accepting.clone())?;
    }
    let (port, private) = (config.tracking.link_port, config.webhooks.allow_private);
    let looker = verify::Looker::new(Arc::clone(&ops), &config.dns.servers, port, private).map_err(StartError::Dns)?;
    let (looker, stop) = (Arc::new(looker), accepting.clone());
    let begin = move || verify::run(Arc::clone(&looker), stop.clone());
    fronts.spawn(supervise::run("verification", begin, accepting.clone()));
    let poster = Poster::new(&config.dns.servers, &config.webhooks);
    let webhooks = Arc::new(Webhooks {
        ops: Arc::clone(&ops),
        intake: Arc::clone(&intake),
        poster: poster.map_err(StartError::Webhooks)?,
        rules: ArcSwap::from_pointee(parts::webhook_rules(&config)),
    });
    let (sending, stop) = (Arc::clone(&webhooks), accepting.clone());
    let begin = move || webhook::run(Arc::clone(&sending), stop.clone());
    fronts.spawn(supervise::run("webhooks", begin, accepting.clone()));
    let (telling, stop) = (Arc::clone(&ops), accepting.clone());
    let begin = move || webhook::tell_of_domains(Arc::clone(&telling), stop.clone());
    fronts.spawn(supervise::run("webhooks", begin, accepting.clone()));
    let (commands, of, to, stop) = (Arc::new(commands), Arc::clone(&ops), Arc::clone(&intake), accepting.clone());
    let begin =
        move || admin::serve(Arc::clone(&commands), Arc::clone(&of), Arc::clone(&to), events.clone(), stop.clone());
    fronts.spawn(supervise::run("command line", begin, accepting.clone()));
    let memory = Memory::new(config.smtp.max_message_size);
    let inbound = Arc::new(Inbound::new(Arc::clone(&intake), memory, parts::inbound_rules(&config)));
    let shutdown = config.smtp.timeouts.shutdown;
    let terms = config.smtp.listeners.iter().zip(&smtp).map(|(listener, l)| (listener.address, Arc::clone(&l.terms)));
    if let Some(tls) = tls.clone() {
        fronts.spawn(follow(tls, accepting.clone()));
    }
    let reloaded = Reloaded {
        terms: terms.collect(),
        intake,
        inbound: Arc::clone(&inbound),
        outbound,
        ops,
        keeping,
        machines,
        webhooks,
        tls,
        config,
    };
    fronts.spawn(reload::run(reloaded, hangup, accepting.clone()));
    for listener in smtp {
        tracing::info!(address = %shown(&listener.socket), "SMTP listens");
        let (inbound, stop) = (Arc::clone(&inbound), accepting.clone());
        let begin = move || inbound::serve(Arc::clone(&inbound), listener.clone(), stop.clone());
        fronts.spawn(supervise::run("SMTP listener", begin, accepting.clone()));
    }
    tracing::info!("ready");
    systemd::ready();

    ready(bound);
    end.await;
    tracing::info!("stopping");
    systemd::stopping(2 * shutdown + Duration::from_secs(20));
    let _ = stop_accepting.send(true);
    let drained = tokio::time::timeout(shutdown, async { while fronts.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("sessions were cut at the deadline; what they had not been told to be accepted they send again");
        fronts.shutdown().await;
    }
    // Nobody is answered any more, so no hit comes behind these: what was answered is written down.
    let _ = stop_hits.send(true);
    if tokio::time::timeout(HITS_PATIENCE, hits_done).await.is_err() {
        tracing::error!("the last opens and clicks could not be written in time, and are lost");
    }
    let _ = stop_delivery.send(true);
    let mut delivery = delivery;
    if tokio::time::timeout(shutdown, &mut delivery).await.is_err() {
        // Nothing may go out whose outcome the log no longer takes.
        tracing::warn!("deliveries were cut at the deadline; what the smarthost had not answered is sent again");
        delivery.abort();
        let _ = delivery.await;
    }
    let _ = stop_recorder.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(10), recorder).await;
    let unwritten = tokio::task::spawn_blocking(move || log.close()).await.unwrap_or_default();
    tracing::info!(queued = queue.len(), "stopped");
    Ok(unwritten)
}

/// A listener for HTTP, until `stop`.
async fn listener<H: http::Handler>(
    socket: TcpListener,
    tls: Option<Arc<ServerTls>>,
    limits: http::Limits,
    fronts: http::Fronts,
    handler: Arc<H>,
    stop: watch::Receiver<bool>,
) {
    let (socket, stopped) = (Arc::new(socket), stop.clone());
    let begin = move || {
        let (socket, handler) = (Arc::clone(&socket), Arc::clone(&handler));
        http::serve(socket, tls.clone(), limits, fronts.clone(), handler, stopped.clone())
    };
    supervise::run("HTTP listener", begin, stop).await;
}

/// Takes certificates anew when their files change, until `stop`.
async fn follow(tls: Arc<ServerTls>, stop: watch::Receiver<bool>) {
    let stopped = stop.clone();
    let begin = move || {
        let (tls, stop) = (Arc::clone(&tls), stopped.clone());
        async move { tls.follow(stop).await }
    };
    supervise::run("certificates", begin, stop).await;
}

fn shown(socket: &TcpListener) -> String {
    socket.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
}

fn served_hosts(settings: &Snapshot, grace: Duration) -> Hosts {
    let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let active = settings.domains.values().map(|domain| (domain, HostState::Active));
    let removed = settings
        .removed
        .values()
        .map(|domain| (domain, HostState::Removed { until: domain.removed_at.unwrap_or(0).saturating_add(grace) }));
    let hosts = active
        .chain(removed)
        .flat_map(|(domain, state)| domain.subdomains().iter().map(move |subdomain| (subdomain.host.clone(), state)));
    let hosts = Hosts::new(hosts);
    let all = settings.domains.values().chain(settings.removed.values());
    let senders = all.filter(|domain| settings.kills.holds_sender(&domain.name));
    let theirs = senders.flat_map(|domain| domain.subdomains().iter().map(move |subdomain| (domain, &subdomain.host)));
    // A host of a domain that was removed may be another's by now.
    let still = theirs
        .filter(|(domain, host)| domain.removed_at.is_none() || hosts.state(host.as_str()) != Some(HostState::Active));
    let killed: Vec<_> = still.map(|(_, host)| host.clone()).collect();
    hosts.with_kills(Arc::clone(&settings.kills), killed)
}
