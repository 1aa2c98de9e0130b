//! The relay without its listeners: log, queue, delivery, recorder and the operator's commands, on a runtime of its
//! own, so that dropping that is the end of the process.

use super::smarthost::Smarthost as Peer;
use crate::clock;
use crate::config::WebhookPorts;
use crate::domain::{Demand, Expected};
use crate::event::MachineList;
use crate::intake::{Intake, Rules};
use crate::keys::{DkimKeys, TokenRing};
use crate::mail::{Address, Body, DomainName, Envelope, QueueId, Recipient};
use crate::ops::{Ops, READERS, Terms};
use crate::outbound::{self, Delivery, Outbound, Routes, Smarthost, Style, Timeouts, TlsMode};
use crate::privacy::PrivacyKey;
use crate::queue::{Queue, heads_of};
use crate::recorder::{self, Keeping, Limits as Cached, Recorder, Webhooks};
use crate::retry::Schedule;
use crate::rewrite::{Limits, OnSigned, Scheme};
use crate::settings::Settings;
use crate::spool::{Entry, Faults, Log, Options};
use crate::store::{MaybeStore, Store};
use arc_swap::ArcSwap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

/// From a start to a stop or a crash.
pub struct Life {
    runtime: Runtime,
    pub ops: Arc<Ops>,
    pub intake: Arc<Intake>,
    pub store: MaybeStore,
    pub faults: Faults,
    stop_delivery: watch::Sender<bool>,
    stop_recorder: watch::Sender<bool>,
    delivery: JoinHandle<()>,
    recorder: JoinHandle<()>,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Life {
    pub fn start(dir: &Path, peer: &Peer, cached: usize) -> Self {
        let faults = Faults::default();
        let options = Options { min_free: 0, ..Options::new(dir) };
        let (log, recovered) = until("the log opens", || Log::open_with(options.clone(), faults.clone()).ok());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let keys = TokenRing::open(dir).unwrap();
        let (settings, unreadable) = Settings::new(log.clone(), &recovered.settings);
        assert!(unreadable.is_empty(), "{unreadable:?}");
        settings.note_beginning(recovered.records);
        let settings = Arc::new(settings);
        let privacy = Arc::new(PrivacyKey::new(&[7; 32]));
        let schedule = Schedule { pauses: vec![Duration::from_millis(30)], max_age: Duration::from_secs(3_600) };
        let queue = Arc::new(Queue::new(recovered.messages, heads_of(&log), clock::steady_ms(), &schedule));
        queue.hold(settings.snapshot().queue_held);
        let store = MaybeStore::default();
        let (stop_recorder, recording) = watch::channel(false);
        let (forget, asked) = mpsc::channel(16);
        let kick = Arc::new(tokio::sync::Notify::new());
        let forever = Duration::from_hours(1 << 20);
        let recorder = Recorder {
            data_dir: dir.to_owned(),
            log: log.clone(),
            store: Arc::clone(&store),
            events: broadcast::channel(16).0,
            machines: Arc::new(ArcSwap::from_pointee(MachineList::builtin())),
            left_alone: Box::new(|_, _| false),
            webhooks: Webhooks { settings: Arc::clone(&settings), kick: Arc::clone(&kick) },
            keeping: Arc::new(ArcSwap::from_pointee(Keeping { all: forever, traces: forever, size: u64::MAX })),
            limits: limits(cached),
            asked,
        };
        let recorder = runtime.spawn(recorder::run(recorder, recording));
        let name = |name| DomainName::parse(name).unwrap();
        let dkim = Arc::new(DkimKeys::new(dir));
        let ops = Arc::new(Ops {
            settings: Arc::clone(&settings),
            keys: keys.clone(),
            dkim: Arc::clone(&dkim),
            dkim_turn: tokio::sync::Mutex::default(),
            privacy: Arc::clone(&privacy),
            queue: Arc::clone(&queue),
            log: log.clone(),
            store: Arc::clone(&store),
            webhooks: kick,
            terms: ArcSwap::from_pointee(Terms {
                expected: Expected { cname_target: name("track.example.net"), caa_issuer: name("ca.example.net") },
                demand: Demand::Nothing,
                by_acme: false,
                unsupported_suffixes: Vec::new(),
                policy_url: None,
                removed_domain_grace: Duration::ZERO,
                private_webhooks: true,
                webhook_ports: WebhookPorts::Any,
            }),
            forget,
            readers: tokio::sync::Semaphore::new(READERS),
            forget_dns: AtomicBool::new(false),
        });
        let rules = ArcSwap::from_pointee(Rules { reject_unknown: false, max_messages: usize::MAX });
        let hostname = "relay.test".into();
        let intake = Arc::new(Intake { log, queue, settings: Arc::clone(&settings), hostname, rules });
        let style = Style {
            scheme: Scheme::Http,
            demand: Demand::Nothing,
            port: 0,
            on_signed: OnSigned::Skip,
            limits: Limits::default(),
        };
        let routes = Routes::new(settings, keys.signer, dkim, privacy, style);
        let delivery = Delivery { smarthosts: vec![smarthost(peer)], max_connections: 2, schedule };
        let outbound = Arc::new(Outbound::new(Arc::clone(&intake), routes, delivery));
        let (stop_delivery, delivering) = watch::channel(false);
        let delivery = runtime.spawn(outbound::run(outbound, delivering));
        Self { ops, intake, store, faults, stop_delivery, stop_recorder, delivery, recorder, runtime }
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Accepts a message to these addresses, in `subject`'s name.
    pub fn send(&self, subject: &str, to: &[String]) -> QueueId {
        let id = clock::queue_id();
        let recipients = to.iter().map(|to| Recipient::from(Address::parse(to).unwrap())).collect();
        // Nobody hears of what is refused, or there would be more mail than was sent.
        let envelope =
            Envelope { sender: None, recipients, body: Body::default(), smtputf8: false, ret: None, envid: None };
        let bytes = format!("From: news@example.com\r\nSubject: {subject}\r\n\r\nHello\r\n").into_bytes();
        self.block_on(self.intake.submit(id, envelope, bytes)).unwrap();
        id
    }

    /// Starts something that an operator asks for, lets it go on for so many turns, and hangs up.
    pub fn cut_short<T>(&self, work: impl Future<Output = T>, turns: usize) -> Option<T> {
        self.block_on(async {
            let mut work = std::pin::pin!(work);
            for _ in 0..turns {
                if let Ok(done) = tokio::time::timeout(Duration::from_millis(1), &mut work).await {
                    return Some(done);
                }
            }
            let waker = std::task::Waker::noop();
            match work.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
                std::task::Poll::Ready(done) => Some(done),
                std::task::Poll::Pending => None,
            }
        })
    }

    /// As a process that is killed: what was under way is not finished.
    pub fn crash(self) {
        self.runtime.shutdown_timeout(PATIENCE);
    }

    /// As a polite stop, once the queue is empty; gives the view back as it was left.
    pub fn stop(self) -> Arc<Store> {
        let Self { runtime, ops, store, stop_delivery, stop_recorder, delivery, recorder, .. } = self;
        // It opens a moment after the start, which may be just now.
        until("the view opens", || store.load_full());
        runtime.block_on(async {
            stop_delivery.send(true).unwrap();
            tokio::time::timeout(PATIENCE, delivery).await.expect("delivery stops").unwrap();
            // The recorder reads what is durable.
            ops.log.append(Entry::Hits(Vec::new())).await.unwrap();
            stop_recorder.send(true).unwrap();
            tokio::time::timeout(PATIENCE, recorder).await.expect("the recorder stops").unwrap();
        });
        store.load_full().expect("the view is open")
    }
}

/// The recorder's memory, so many of everything at most.
fn limits(cached: usize) -> Cached {
    let Cached { messages, recipients, unwritten_messages, unwritten_recipients, counted, people, hits, waiting } =
        Cached::default();
    Cached {
        messages: messages.min(cached),
        recipients: recipients.min(cached),
        unwritten_messages: unwritten_messages.min(cached),
        unwritten_recipients: unwritten_recipients.min(cached),
        counted: counted.min(cached),
        people: people.min(cached),
        hits: hits.min(cached),
        waiting,
    }
}

fn smarthost(peer: &Peer) -> Smarthost {
    Smarthost {
        host: "127.0.0.1".to_owned(),
        port: peer.port,
        tls: TlsMode::None,
        credentials: None,
        tls_config: Arc::new(outbound::client_tls(None, false).unwrap()),
        helo: "relay.test".to_owned(),
        timeouts: Timeouts::default(),
    }
}

/// Looks until there is something; fails by name after a while.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
