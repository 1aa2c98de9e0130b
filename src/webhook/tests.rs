//! Endpoints of every kind, played by a receiver on this machine.
//!
//! One long file, since all of it plays on one `Place`: a relay without its listeners, and a `Receiver` that misbehaves.

use super::*;
use crate::clock;
use crate::config::{self, WebhookPorts};
use crate::domain::{Demand, Expected};
use crate::event::SigningSecret;
use crate::intake;
use crate::keys::{DkimKeys, TokenRing};
use crate::mail::{DomainName, QueueId};
use crate::ops::{NewWebhook, Terms, WebhookUpdate};
use crate::queue::{Queue, heads_of};
use crate::retry::Schedule;
use crate::settings::{ApiKey, Permission, Settings, Webhook};
use crate::spool::{Cursor, Log, Options};
use crate::store::{Delivery, DeliveryStatus, MaybeStore, NewDelivery, Order};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Clone, Debug)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    fn id(&self) -> &str {
        self.header("svix-id")
    }
}

/// What a receiver does with a request.
enum Answer {
    Status(u16),
    /// With this header line.
    With(u16, String),
    Never,
    Closes,
}

type Script = Arc<dyn Fn(&Seen, usize) -> Answer + Send + Sync>;

/// Answers by a script that is given each request and its number from 0.
struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    async fn start(script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    async fn start_with(
        tls: Option<tokio_rustls::TlsAcceptor>,
        script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, script): (Arc<Mutex<Vec<Seen>>>, Script) = (Arc::default(), Arc::new(script));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut talks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, script, tls) = (Arc::clone(&noted), Arc::clone(&script), tls.clone());
                talks.spawn(async move {
                    match tls {
                        None => talk(stream, &noted, &script).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => talk(stream, &noted, &script).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, with as many requests as it brings.
async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    noted: &Mutex<Vec<Seen>>,
    script: &Script,
) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length: usize = head.lines().find_map(|l| l.strip_prefix("content-length: "))?.parse().ok()?;
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let body = bytes[end..end + length].to_vec();
        bytes.drain(..end + length);
        let seen = Seen { head, body };
        let number = {
            let mut noted = noted.lock().unwrap();
            noted.push(seen.clone());
            noted.len() - 1
        };
        let (status, more) = match script(&seen, number) {
            Answer::Status(status) => (status, String::new()),
            Answer::With(status, line) => (status, format!("{line}\r\n")),
            Answer::Never => std::future::pending().await,
            Answer::Closes => return None,
        };
        let body = if status == 204 { "" } else { "content-length: 4\r\n\r\nnote" };
        let end = if status == 204 { "\r\n" } else { "" };
        let answer = format!("HTTP/1.1 {status} Said\r\n{more}{body}{end}");
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// A relay's parts that sending takes, with the task that sends.
struct Place {
    webhooks: Arc<Webhooks>,
    made: AtomicU32,
    running: Mutex<Option<(watch::Sender<bool>, JoinHandle<()>)>>,
    _dir: TempDir,
}

fn rules(retry: &[u64]) -> Rules {
    let retry = retry.iter().copied().map(Duration::from_millis).collect();
    Rules { retry, disable_after: Duration::from_secs(3_600), notify: None }
}

fn key() -> ApiKey {
    ApiKey::new(Uuid::nil(), "k".into(), "re_a", Permission::FullAccess, Vec::new(), 0)
}

impl Place {
    fn new(rules: Rules) -> Self {
        Self::with(rules, true, None)
    }

    fn with(rules: Rules, allow_private: bool, ca_file: Option<&Path>) -> Self {
        Self::on_ports(rules, allow_private, ca_file, WebhookPorts::Any)
    }

    fn on_ports(rules: Rules, allow_private: bool, ca_file: Option<&Path>, ports: WebhookPorts) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let (log, recovered) = Log::open(Options { min_free: 0, ..Options::new(dir.path()) }).unwrap();
        let (settings, _) = Settings::new(log.clone(), &recovered.settings);
        let settings = Arc::new(settings);
        let schedule = Schedule { pauses: vec![Duration::from_secs(60)], max_age: Duration::from_secs(3_600) };
        let queue = Arc::new(Queue::new(Vec::new(), heads_of(&log), clock::steady_ms(), &schedule));
        let store = MaybeStore::default();
        store.store(Some(Arc::new(Store::open(dir.path()).unwrap())));
        let name = |name| DomainName::parse(name).unwrap();
        let terms = Terms {
            expected: Expected { cname_target: name("track.example.net"), caa_issuer: name("ca.example.net") },
            demand: Demand::Nothing,
            by_acme: false,
            unsupported_suffixes: Vec::new(),
            policy_url: None,
            removed_domain_grace: Duration::ZERO,
            // Creation lets all through, so that sending is what is tested.
            private_webhooks: true,
            webhook_ports: WebhookPorts::Any,
        };
        let ops = Arc::new(Ops {
            settings: Arc::clone(&settings),
            keys: TokenRing::open(dir.path()).unwrap(),
            dkim: Arc::new(DkimKeys::new(dir.path())),
            dkim_turn: tokio::sync::Mutex::default(),
            queue: Arc::clone(&queue),
            log: log.clone(),
            store,
            webhooks: Arc::default(),
            forget: tokio::sync::mpsc::channel(1).0,
            privacy: Arc::new(crate::privacy::PrivacyKey::new(&[7; 32])),
            terms: ArcSwap::from_pointee(terms),
            readers: tokio::sync::Semaphore::new(crate::ops::READERS),
            forget_dns: AtomicBool::new(false),
        });
        let taken = intake::Rules { reject_unknown: false, max_messages: 9 };
        let hostname = "relay.example.net".into();
        let intake = Arc::new(Intake { log, queue, settings, hostname, rules: ArcSwap::from_pointee(taken) });
        // Nobody answers there.
        let config = config::Webhooks {
            notify: None,
            allow_private,
            ports,
            retry: rules.retry.clone(),
            disable_after: rules.disable_after,
            ca_file: ca_file.map(Path::to_owned),
        };
        let poster = Poster::new(&["127.0.0.1:9".parse().unwrap()], &config).unwrap();
        let webhooks = Arc::new(Webhooks { ops, intake, poster, rules: ArcSwap::from_pointee(rules) });
        Self { webhooks, made: AtomicU32::new(0), running: Mutex::default(), _dir: dir }
    }

    fn run(&self) {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(Arc::clone(&self.webhooks), stopped));
        *self.running.lock().unwrap() = Some((stop, task));
    }

    async fn stop(&self) {
        let (stop, task) = self.running.lock().unwrap().take().unwrap();
        stop.send_replace(true);
        task.await.unwrap();
    }

    fn store(&self) -> Arc<Store> {
        self.webhooks.ops.store.load_full().unwrap()
    }

    fn webhook(&self, id: Uuid) -> Option<Webhook> {
        self.webhooks.ops.settings.snapshot().webhooks.get(&id).cloned()
    }

    async fn endpoint(&self, url: &str) -> Uuid {
        let new = NewWebhook { endpoint: url.to_owned(), events: vec!["email.sent".to_owned()], enabled: true };
        crate::ops::webhook_create(&self.webhooks.ops, &key(), new).await.unwrap().id
    }

    /// An event of a message, or of none; its id.
    async fn tell(&self, webhook: Uuid, message: Option<u8>) -> String {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let (id, payload) = (format!("msg_{number}"), format!("{{\"number\": {number}}}"));
        let new = NewDelivery {
            webhook,
            id: &id,
            kind: "email.sent",
            created_at: 5,
            order: Order::new(Cursor::default(), number),
            email: message.map(|n| QueueId::from_bytes([n; 16])),
            recipient: None,
            payload: payload.as_bytes(),
        };
        let mut writes = Vec::new();
        store::delivery_writes(&new, &mut writes);
        self.store().commit(writes).await.unwrap();
        self.webhooks.ops.webhooks.notify_one();
        id
    }

    fn delivery(&self, webhook: Uuid, id: &str) -> Delivery {
        crate::ops::webhook_event(&self.webhooks.ops, &key(), webhook, id).unwrap()
    }

    fn status(&self, webhook: Uuid, id: &str) -> DeliveryStatus {
        self.delivery(webhook, id).state.status
    }

    fn attempts(&self, webhook: Uuid, id: &str) -> Vec<(u16, String)> {
        let all = crate::ops::webhook_attempts(&self.webhooks.ops, &key(), webhook, id, None, 99).unwrap().0;
        all.into_iter().map(|(_, attempt)| (attempt.status, attempt.response)).collect()
    }
}

/// Waits for what must come.
async fn until(what: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come");
}

fn ids(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(Seen::id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_signed_and_in_order() {
    let receiver = Receiver::start(|_, _| Answer::Status(204)).await;
    let place = Place::new(rules(&[10]));
    let hook = place.endpoint(&receiver.url()).await;
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(place.tell(hook, Some(1)).await);
    }
    place.run();
    until(|| place.status(hook, &told[4]) == DeliveryStatus::Success).await;
    let seen = receiver.seen();
    assert_eq!(ids(&seen), told);
    let first = &seen[0];
    assert_eq!(first.body, b"{\"number\": 0}");
    assert!(first.head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", first.head);
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!(first.header("user-agent"), concat!("trackpost/", env!("CARGO_PKG_VERSION")));
    let signed = |seen: &Seen, secret: &SigningSecret| {
        secret.sign(seen.id(), seen.header("svix-timestamp").parse().unwrap(), &seen.body)
    };
    let secret = place.webhook(hook).unwrap().secret;
    assert_eq!(first.header("svix-signature"), signed(first, &secret));
    for part in ["id", "timestamp", "signature"] {
        assert_eq!(first.header(&format!("svix-{part}")), first.header(&format!("webhook-{part}")));
    }
    // Both secrets, while both are good.
    let newer = crate::ops::webhook_rotate(&place.webhooks.ops, &key(), hook).await.unwrap();
    let last = place.tell(hook, None).await;
    until(|| place.status(hook, &last) == DeliveryStatus::Success).await;
    let seen = receiver.seen();
    let rotated = seen.last().unwrap();
    assert_eq!(rotated.header("svix-signature"), format!("{} {}", signed(rotated, &newer), signed(rotated, &secret)));
    assert_eq!(place.attempts(hook, &last), [(204, String::new())]);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_holds_back_its_message_alone() {
    // The first message's first event is taken at the third time, when all other messages' are through.
    let receiver = Receiver::start(|seen, number| match seen.id() {
        "msg_0" if number < 3 => Answer::Status(500),
        "msg_0" => Answer::Status(200),
        _ => Answer::Status(200),
    })
    .await;
    let place = Place::new(rules(&[300, 300, 300, 300, 300, 300]));
    let hook = place.endpoint(&receiver.url()).await;
    for message in [1, 1, 2, 3] {
        place.tell(hook, Some(message)).await;
    }
    place.run();
    until(|| place.status(hook, "msg_1") == DeliveryStatus::Success).await;
    let seen = receiver.seen();
    let at = |id: &str| seen.iter().rposition(|seen| seen.id() == id).unwrap();
    assert!(at("msg_1") > at("msg_0") && at("msg_0") > at("msg_2").max(at("msg_3")), "{:?}", ids(&seen));
    assert_eq!(seen.iter().filter(|seen| seen.id() == "msg_1").count(), 1);
    let attempts = place.attempts(hook, "msg_0");
    assert_eq!(attempts[0], (200, "note".to_owned()));
    assert!(attempts.len() > 1 && attempts[1..].iter().all(|(status, _)| *status == 500));
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_can_be_asked_for_again() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let receiver = Receiver::start(move |_, number| match (is_well.load(Ordering::Relaxed), number) {
        (true, _) => Answer::Status(200),
        (false, 1) => Answer::Closes,
        _ => Answer::Status(503),
    })
    .await;
    let place = Place::new(rules(&[10, 10]));
    let hook = place.endpoint(&receiver.url()).await;
    let id = place.tell(hook, Some(1)).await;
    place.run();
    until(|| place.status(hook, &id) == DeliveryStatus::Failed).await;
    let attempts = place.attempts(hook, &id);
    assert_eq!(attempts.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [503, 0, 503]);
    assert!(!attempts[1].1.is_empty());
    well.store(true, Ordering::Relaxed);
    crate::ops::webhook_replay(&place.webhooks.ops, &key(), hook, &id).await.unwrap();
    until(|| place.status(hook, &id) == DeliveryStatus::Success).await;
    assert_eq!(ids(&receiver.seen()), [&*id; 4]);
    let all = crate::ops::webhook_attempts(&place.webhooks.ops, &key(), hook, &id, None, 99).unwrap().0;
    let (page, more) =
        crate::ops::webhook_attempts(&place.webhooks.ops, &key(), hook, &id, Some(&all[0].0), 2).unwrap();
    assert_eq!((page, more), (all[1..3].to_vec(), true));
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_gone_is_disabled_and_the_operator_told() {
    let receiver = Receiver::start(|_, _| Answer::Status(410)).await;
    let notify = Some(Address::parse("ops@example.org").unwrap());
    let place = Place::new(Rules { notify, ..rules(&[10]) });
    let hook = place.endpoint(&receiver.url()).await;
    let id = place.tell(hook, Some(1)).await;
    place.run();
    until(|| place.webhook(hook).is_some_and(|hook| !hook.enabled)).await;
    let disabled = place.webhook(hook).unwrap();
    assert_eq!(disabled.disabled_because.as_deref(), Some("it answered 410 Gone"));
    let mail = place.webhooks.ops.queue.list(1)[0].id;
    let head = place.webhooks.ops.queue.show(&mail).unwrap().head;
    assert_eq!((head.envelope.sender.as_ref(), head.envelope.recipients.len()), (None, 1));
    assert_eq!(head.envelope.recipients[0].address.as_str(), "ops@example.org");
    let text = String::from_utf8(place.webhooks.ops.log.body(&mail).unwrap().to_vec()).unwrap();
    assert!(text.contains(&hook.to_string()) && text.contains("410 Gone"), "{text}");
    until(|| place.attempts(hook, &id).len() == 1).await;
    // What waited goes on once somebody enables it again.
    let update = WebhookUpdate { enabled: Some(true), ..WebhookUpdate::default() };
    crate::ops::webhook_update(&place.webhooks.ops, &key(), hook, update).await.unwrap();
    assert_eq!(place.webhook(hook).unwrap().disabled_because, None);
    until(|| receiver.count() == 2).await;
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_failures_disables() {
    let receiver = Receiver::start(|seen, _| Answer::Status(if seen.id() == "msg_0" { 200 } else { 500 })).await;
    let place = Place::new(Rules { disable_after: Duration::from_millis(300), ..rules(&[20; 500]) });
    let hook = place.endpoint(&receiver.url()).await;
    let well = place.tell(hook, Some(1)).await;
    place.run();
    until(|| place.status(hook, &well) == DeliveryStatus::Success).await;
    place.tell(hook, Some(2)).await;
    until(|| place.webhook(hook).is_some_and(|hook| !hook.enabled)).await;
    let disabled = place.webhook(hook).unwrap();
    assert!(disabled.disabled_because.unwrap().starts_with("every attempt since"));
    assert!(disabled.failing_since.is_some() && receiver.count() > 2);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_hangs_holds_up_no_other() {
    let (hangs, quick) =
        (Receiver::start(|_, _| Answer::Never).await, Receiver::start(|_, _| Answer::Status(200)).await);
    let place = Place::new(rules(&[10]));
    let (stuck, hook) = (place.endpoint(&hangs.url()).await, place.endpoint(&quick.url()).await);
    for message in 0..20 {
        place.tell(stuck, Some(message)).await;
        place.tell(hook, Some(message)).await;
    }
    place.run();
    until(|| quick.count() == 20 && hangs.count() == IN_FLIGHT).await;
    assert_eq!(hangs.count(), IN_FLIGHT, "and no more at once");
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_with_the_same_ids() {
    let hang = Arc::new(AtomicBool::new(true));
    let hangs = Arc::clone(&hang);
    let receiver = Receiver::start(move |_, _| match hangs.load(Ordering::Relaxed) {
        true => Answer::Never,
        false => Answer::Status(200),
    })
    .await;
    let place = Place::new(rules(&[10]));
    let hook = place.endpoint(&receiver.url()).await;
    let (first, second) = (place.tell(hook, Some(1)).await, place.tell(hook, Some(1)).await);
    place.run();
    until(|| receiver.count() == 1).await;
    place.stop().await;
    hang.store(false, Ordering::Relaxed);
    place.run();
    until(|| place.status(hook, &second) == DeliveryStatus::Success).await;
    assert_eq!(ids(&receiver.seen()), [&*first, &*first, &*second]);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_shut_is_waited_for() {
    let receiver = Receiver::start(|_, _| Answer::Status(200)).await;
    let place = Place::new(rules(&[10]));
    let hook = place.endpoint(&receiver.url()).await;
    let id = place.tell(hook, Some(1)).await;
    let store = place.webhooks.ops.store.swap(None);
    place.run();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(receiver.count(), 0);
    place.webhooks.ops.store.store(store);
    until(|| place.status(hook, &id) == DeliveryStatus::Success).await;
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_not_followed() {
    let other = Receiver::start(|_, _| Answer::Status(200)).await;
    let location = format!("location: {}", other.url());
    let receiver =
        Receiver::start(move |_, number| Answer::With(if number == 0 { 302 } else { 307 }, location.clone())).await;
    let place = Place::new(rules(&[10]));
    let hook = place.endpoint(&receiver.url()).await;
    let id = place.tell(hook, Some(1)).await;
    place.run();
    until(|| place.status(hook, &id) == DeliveryStatus::Failed).await;
    assert_eq!(place.attempts(hook, &id).iter().map(|(status, _)| *status).collect::<Vec<_>>(), [307, 302]);
    assert_eq!(other.count(), 0);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_addresses_are_not_connected_to() {
    let receiver = Receiver::start(|_, _| Answer::Status(200)).await;
    let place = Place::with(rules(&[10]), false, None);
    place.run();
    let port = receiver.address.port();
    for (url, why) in [
        (format!("https://127.0.0.1:{port}/"), "no public address"),
        (format!("https://[::ffff:127.0.0.1]:{port}/"), "no public address"),
        (format!("https://2130706433:{port}/"), "no public address"),
        (format!("https://localhost:{port}/"), "no public address"),
        (format!("http://127.0.0.1:{port}/"), "no public address"),
        (format!("http://localhost:{port}/"), "scheme"),
    ] {
        let hook = place.endpoint(&url).await;
        let id = place.tell(hook, Some(1)).await;
        until(|| !place.attempts(hook, &id).is_empty()).await;
        let (status, response) = place.attempts(hook, &id).pop().unwrap();
        assert!(status == 0 && response.contains(why), "{url}: {status} {response}");
    }
    assert_eq!(receiver.count(), 0);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_that_are_not_on_the_list_are_not_connected_to() {
    let receiver = Receiver::start(|_, _| Answer::Status(200)).await;
    let port = receiver.address.port();
    for (ports, status) in [(vec![443, 8443], 0), (vec![443, port], 200)] {
        let place = Place::on_ports(rules(&[10]), true, None, WebhookPorts::These(ports));
        place.run();
        let hook = place.endpoint(&format!("http://127.0.0.1:{port}/")).await;
        let id = place.tell(hook, Some(1)).await;
        until(|| !place.attempts(hook, &id).is_empty()).await;
        let (answered, response) = place.attempts(hook, &id).pop().unwrap();
        assert_eq!(answered, status, "{response}");
        assert!(status == 200 || response.contains("443, 8443"), "{response}");
        place.stop().await;
    }
    assert_eq!(receiver.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_verified() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let receiver = Receiver::start_with(Some(acceptor), |_, _| Answer::Status(200)).await;
    let url = format!("https://localhost:{}/", receiver.address.port());
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), made.cert.pem()).unwrap();
    for (ca_file, wanted) in [(None, 0), (Some(root.path()), 200)] {
        let place = Place::with(rules(&[10]), true, ca_file);
        let hook = place.endpoint(&url).await;
        let id = place.tell(hook, Some(1)).await;
        place.run();
        until(|| !place.attempts(hook, &id).is_empty()).await;
        let (status, response) = place.attempts(hook, &id).pop().unwrap();
        assert_eq!(status, wanted, "{response}");
        place.stop().await;
    }
    assert_eq!(receiver.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_an_endpoint_that_is_gone() {
    let receiver = Receiver::start(|_, _| Answer::Status(200)).await;
    let place = Place::new(rules(&[10]));
    let (gone, stays) = (place.endpoint(&receiver.url()).await, place.endpoint(&receiver.url()).await);
    place.run();
    let (first, second) = (place.tell(gone, Some(1)).await, place.tell(stays, Some(1)).await);
    until(|| place.status(gone, &first) == DeliveryStatus::Success).await;
    until(|| place.status(stays, &second) == DeliveryStatus::Success).await;
    crate::ops::webhook_delete(&place.webhooks.ops, &key(), gone).await.unwrap();
    until(|| store::deliveries(&place.store(), gone, None, 9).unwrap().is_empty()).await;
    assert_eq!(store::deliveries(&place.store(), stays, None, 9).unwrap().len(), 1);
    assert!(crate::ops::webhook_events(&place.webhooks.ops, &key(), gone, None, 9).is_err());
    place.stop().await;
}
