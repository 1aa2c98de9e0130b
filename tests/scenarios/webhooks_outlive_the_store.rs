//! How far webhooks were told is in the log: a lost store tells nothing again that was told long before, and nothing is
//! left out.

use crate::common::{Client, Relay, Setup, Smarthost, ask_api, plain, until};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// An endpoint that answers with a status, and keeps what it was told.
#[derive(Clone)]
struct Endpoint {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    /// The status that was answered, and the event.
    told: Arc<Mutex<Vec<(u16, Value)>>>,
}

impl Endpoint {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Self { address, status: Arc::new(AtomicU16::new(200)), told: Arc::default() };
        let answering = endpoint.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answering = answering.clone();
                thread::spawn(move || answering.talk(stream));
            }
        });
        endpoint
    }

    fn talk(&self, mut stream: std::net::TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if let Some((_, value)) =
                    line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                {
                    length = value.trim().parse().ok()?;
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let status = self.status.load(Ordering::SeqCst);
            self.told.lock().unwrap().push((status, serde_json::from_slice(&body).ok()?));
            write!(stream, "HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n").ok()?;
        }
    }

    /// How often the endpoint was asked about an event of this kind whose data hold the text, and answered so.
    fn times(&self, status: u16, kind: &str, text: &str) -> usize {
        let told = self.told.lock().unwrap();
        told.iter()
            .filter(|(s, event)| *s == status && event["type"] == kind && event.to_string().contains(text))
            .count()
    }

    fn wait(&self, status: u16, kind: &str, text: &str) {
        until(&format!("{kind} of {text}"), || (self.times(status, kind, text) > 0).then_some(()));
    }
}

fn told_of(relay: &Relay, endpoint: &Endpoint, events: &[&str]) {
    let key = relay.ok(&["key", "create", "--name", "app"]);
    let body = json!({ "endpoint": format!("http://{}/hook", endpoint.address), "events": events });
    let (status, answer) = ask_api(relay.api(), key.trim(), "POST", "/webhooks", Some(body));
    assert_eq!(status, 201, "{answer}");
}

fn relay(smarthost: &Smarthost) -> Relay {
    let setup = Setup::new(smarthost.address).with("webhooks.allow_private", "true");
    setup.with("webhooks.retry", "[\"1s\", \"1s\", \"1s\", \"1h\"]").start()
}

#[test]
fn what_waited_is_told_and_nothing_else_again() {
    let smarthost = Smarthost::start();
    let mut relay = relay(&smarthost);
    let endpoint = Endpoint::start();
    told_of(&relay, &endpoint, &["email.delivered"]);
    let send = |relay: &Relay, subject: &str| {
        Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", subject));
    };
    send(&relay, "was-told");
    endpoint.wait(200, "email.delivered", "was-told");
    endpoint.status.store(500, Ordering::SeqCst);
    send(&relay, "still-waits");
    endpoint.wait(500, "email.delivered", "still-waits");
    relay.stop();
    fs::remove_dir_all(relay.data_dir().join("store")).unwrap();
    endpoint.status.store(200, Ordering::SeqCst);
    relay.start();
    endpoint.wait(200, "email.delivered", "still-waits");
    send(&relay, "is-new");
    endpoint.wait(200, "email.delivered", "is-new");
    for subject in ["was-told", "still-waits", "is-new"] {
        assert_eq!(endpoint.times(200, "email.delivered", subject), 1, "{subject}");
    }
}

#[test]
fn domains_that_changed_meanwhile_are_told() {
    let smarthost = Smarthost::start();
    let mut relay = relay(&smarthost);
    let endpoint = Endpoint::start();
    told_of(&relay, &endpoint, &["domain.created", "domain.updated", "domain.deleted"]);
    relay.track_example_com();
    endpoint.wait(200, "domain.created", "example.com");
    let created = endpoint.times(200, "domain.created", "example.com");
    relay.stop();
    let store = relay.data_dir().join("store");
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "not a folder").unwrap();
    relay.start();
    relay.ok(&["domain", "remove", "example.com"]);
    relay.stop();
    fs::remove_file(&store).unwrap();
    relay.start();
    endpoint.wait(200, "domain.deleted", "example.com");
    assert_eq!(endpoint.times(200, "domain.created", "example.com"), created, "it is no news");
}
