//! The whole relay in this process, where panics can be planned: each ends one turn of a task, and nothing else.

use super::{Bound, serve_until};
use crate::admin::{self, Request};
use crate::config::Config;
use crate::spool::{Log, Options};
use crate::supervise::PLANNED;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(30);

const WAITS: &str = "waits for the smarthost";

/// A relay with a smarthost that takes everything.
struct World {
    _folder: TempDir,
    data_dir: PathBuf,
    bound: Bound,
    taken: Arc<Mutex<Vec<String>>>,
    /// Until it is open, the smarthost does not answer for what says [`WAITS`].
    gate: watch::Sender<bool>,
    end: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl World {
    /// `plan` is told the data folder before the relay starts.
    async fn start(hostname: &str, plan: impl FnOnce(&str)) -> Self {
        // Fails only where a test before has done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = TempDir::new().unwrap();
        let (gate, opens) = watch::channel(false);
        let (smarthost, taken) = smarthost(opens).await;
        let file = folder.path().join("trackpost.toml");
        let text = format!(
            "hostname = \"{hostname}\"\n[[smtp.listener]]\naddress = \"127.0.0.1:0\"\n[smarthost]\n\
             address = \"{smarthost}\"\ntls = \"none\"\n[queue]\nretry = [\"1s\"]\nmin_free = \"1MiB\"\n[tracking]\n\
             http = [\"127.0.0.1:0\"]\nlink_scheme = \"http\"\n[api]\naddress = \"127.0.0.1:0\"\n"
        );
        fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        let data_dir = config.data_dir.clone();
        plan(data_dir.to_str().unwrap());
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let served = serve_until(config, |bound| drop(ready.send(bound)), async move { drop(ended.await) });
            assert_eq!(served.await.unwrap().entries, 0);
        });
        let bound = started.await.unwrap();
        Self { _folder: folder, data_dir, bound, taken, gate, end, server }
    }

    async fn send(&self, subject: &str) -> String {
        submit(self.bound.smtp[0], subject).await
    }

    async fn wait_for(&self, subject: &str) {
        let line = format!("Subject: {subject}\r\n");
        until(subject, async || locked(&self.taken).iter().any(|text| text.contains(&line)).then_some(())).await;
    }

    async fn show(&self, id: &str) -> Value {
        admin::ask(&self.data_dir, &Request::QueueShow(id.to_owned())).await.unwrap()
    }

    async fn stop(self) {
        let _ = self.end.send(());
        tokio::time::timeout(DEADLINE, self.server).await.unwrap().unwrap();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plan(place: &'static str, what: &str, times: u32) {
    locked(&PLANNED).push((place, what.to_owned(), times));
}

/// Panics that are still to come.
fn planned(place: &str, what: &str) -> u32 {
    locked(&PLANNED).iter().find(|(at, wanted, _)| *at == place && wanted == what).map_or(0, |plan| plan.2)
}

async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "still waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn smarthost(opens: watch::Receiver<bool>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take(stream, Arc::clone(&kept), opens.clone()));
        }
    });
    (address, taken)
}

async fn take(stream: TcpStream, taken: Arc<Mutex<Vec<String>>>, mut opens: watch::Receiver<bool>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mx.test\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let reply = match line.trim_end() {
            "DATA" => {
                stream.write_all(b"354 go\r\n").await.ok()?;
                let mut text = String::new();
                while !text.ends_with("\r\n.\r\n") {
                    if stream.read_line(&mut text).await.ok()? == 0 {
                        return None;
                    }
                }
                let waits = text.contains(WAITS);
                locked(&taken).push(text);
                if waits {
                    opens.wait_for(|open| *open).await.ok()?;
                }
                "250 2.0.0 Ok\r\n"
            }
            _ => "250 2.0.0 Ok\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
    }
}

/// Sends a message; its queue id.
async fn submit(smtp: SocketAddr, subject: &str) -> String {
    let mut stream = TcpStream::connect(smtp).await.unwrap();
    let message = format!(
        "EHLO client.test\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nFrom: a@example.com\r\n\
         Subject: {subject}\r\n\r\nHello\r\n.\r\nQUIT\r\n"
    );
    let mut said = String::new();
    // A command at a time, since a client that talks early is turned away.
    let mut buffer = [0; 4096];
    for part in message.split_inclusive("DATA\r\n").flat_map(|part| match part.contains("EHLO") {
        true => part.split_inclusive("\r\n").collect::<Vec<_>>(),
        false => vec![part],
    }) {
        let n = stream.read(&mut buffer).await.unwrap();
        said += std::str::from_utf8(&buffer[..n]).unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
    }
    stream.read_to_string(&mut said).await.unwrap();
    let id = said.split("queued as ").nth(1).unwrap_or_else(|| panic!("{said}"));
    id.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_attempt_panics_is_deferred_and_holds_up_no_other() {
    let world = World::start("attempt.panics.test", |_| ()).await;
    plan("attempt", "poison", 1_000);
    let id = world.send("poison").await;
    // As many as there are workers at first, so that none is left if each panic took one.
    for n in 0..12 {
        world.send(&format!("healthy {n}")).await;
    }
    for n in 0..12 {
        world.wait_for(&format!("healthy {n}")).await;
    }
    until("the poison to be deferred", async || {
        let text = world.show(&id).await.to_string();
        (text.contains("internal error") && text.contains("deferred")).then_some(())
    })
    .await;
    // It is tried again with its pauses, of a second here, and not at once.
    let before = planned("attempt", "poison");
    until("another attempt", async || (planned("attempt", "poison") < before).then_some(())).await;
    assert!(planned("attempt", "poison") > 1_000 - 60);
    locked(&PLANNED).retain(|(at, what, _)| (*at, &**what) != ("attempt", "poison"));
    world.wait_for("poison").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delivery_loop_and_the_recorder_begin_again_after_panics() {
    let mut data = String::new();
    let world = World::start("loop.panics.test", |data_dir| {
        data = data_dir.to_owned();
        plan("delivery", "loop.panics.test", 2);
        plan("recorder", data_dir, 2);
    })
    .await;
    let id = world.send("after the panics").await;
    world.wait_for("after the panics").await;
    until("the recorder to have it", async || {
        let events = Request::EventsTail { limit: 100, follow: false };
        let answer = admin::ask(&world.data_dir, &events).await.ok()?.to_string();
        answer.contains(&id).then_some(())
    })
    .await;
    assert_eq!((planned("delivery", "loop.panics.test"), planned("recorder", &data)), (0, 0));
    // Later panics, while it is idle.
    plan("delivery", "loop.panics.test", 1);
    let id = world.send("and again").await;
    world.wait_for("and again").await;
    assert!(!id.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_the_delivery_loop_panics_is_not_sent_again() {
    let world = World::start("workers.outlive.test", |_| ()).await;
    let id = world.send(WAITS).await;
    world.wait_for(WAITS).await;
    plan("delivery", "workers.outlive.test", 1);
    world.send("after the panic").await;
    world.wait_for("after the panic").await;
    assert_eq!(planned("delivery", "workers.outlive.test"), 0);
    world.gate.send(true).unwrap();
    until("it to be delivered", async || world.show(&id).await.to_string().contains("relayed").then_some(())).await;
    let taken = Arc::clone(&world.taken);
    world.stop().await;
    assert_eq!(locked(&taken).iter().filter(|text| text.contains(WAITS)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_was_under_way_when_the_delivery_loop_panicked() {
    let world = World::start("panics.and.stops.test", |_| ()).await;
    world.send(WAITS).await;
    world.wait_for(WAITS).await;
    plan("delivery", "panics.and.stops.test", 1_000);
    world.send("never taken").await;
    until("the panic", async || (planned("delivery", "panics.and.stops.test") < 1_000).then_some(())).await;
    let World { _folder, data_dir, gate, end, server, .. } = world;
    end.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.send(true).unwrap();
    tokio::time::timeout(DEADLINE, server).await.unwrap().unwrap();
    let (_, recovered) = Log::open(Options::new(data_dir)).unwrap();
    assert_eq!(recovered.messages.len(), 1, "what was answered is on record");
}
