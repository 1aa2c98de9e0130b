//! The listener over real TCP: limits, time-outs, shutdown.

use super::*;
use ::http::StatusCode;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

const BODIES: BodyLimits = BodyLimits { whole: 10, small: 8, time: Duration::from_millis(200) };
static ROOM: Semaphore = Semaphore::const_new(1);

/// Says who asked for what; `/slow` takes 300 ms, `/body` gives a body of up to 10 bytes back.
struct Echo;

impl Handler for Echo {
    async fn handle(&self, request: Request, client: Client) -> Response {
        match request.uri().path() {
            "/slow" => {
                sleep(Duration::from_millis(300)).await;
                plain(StatusCode::OK, "slow")
            }
            "/body" => match read_body(request.into_body(), BODIES, &ROOM).await {
                Ok(bytes) => Response::new(Full::new(bytes)),
                Err(error) => {
                    let mut refused = Response::new(Full::new(error.to_string().into()));
                    *refused.status_mut() = match error {
                        BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                        BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
                        BodyError::Broken => StatusCode::BAD_REQUEST,
                        BodyError::Busy => StatusCode::TOO_MANY_REQUESTS,
                    };
                    refused
                }
            },
            path => Response::new(Full::new(format!("{} {} {path}", client.address, client.trusted_host()).into())),
        }
    }
}

struct Site {
    address: SocketAddr,
    down: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn site(limits: Limits, trusted: &[&str]) -> Site {
    site_behind(&[], limits, trusted).await
}

async fn site_behind(balancers: &[&str], limits: Limits, trusted: &[&str]) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let nets = |nets: &[&str]| -> Arc<[IpNet]> { nets.iter().map(|net| net.parse().unwrap()).collect() };
    let (down, shutdown) = watch::channel(false);
    let fronts = Fronts { trusted_proxies: nets(trusted), balancers: nets(balancers) };
    let task = tokio::spawn(serve(listener, None, limits, fronts, Arc::new(Echo), shutdown));
    Site { address, down, task }
}

impl Site {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `text` on a connection of its own and reads until the server closes.
    async fn say(&self, text: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may refuse a large request before all of it is sent.
        let _ = stream.write_all(text).await;
        rest(&mut stream).await
    }
}

/// All that comes until the server closes, within five seconds.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    loop {
        match timeout(Duration::from_secs(5), stream.read(&mut buf)).await {
            Ok(Ok(0) | Err(_)) => return String::from_utf8_lossy(&all).into_owned(),
            Ok(Ok(n)) => all.extend_from_slice(&buf[..n]),
            Err(_) => panic!("still open after {:?}", String::from_utf8_lossy(&all)),
        }
    }
}

/// Reads up to `end`.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !all.ends_with(end.as_bytes()) {
            all.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(Duration::from_secs(5), reading).await.unwrap();
    String::from_utf8(all).unwrap()
}

const ASK: &[u8] = b"GET /a HTTP/1.1\r\nHost: links.example.com\r\n\r\n";

fn close(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

#[tokio::test]
async fn the_handler_learns_who_asks_for_which_host() {
    for (trusted, headers, want) in [
        (
            &[][..],
            "Host: A.example:80\r\nX-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Host: b.example\r\n",
            "127.0.0.1 a.example /a",
        ),
        (
            &["127.0.0.0/8"][..],
            "Host: A.example\r\nX-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Host: b.example\r\n",
            "192.0.2.9 b.example /a",
        ),
    ] {
        let answer = site(Limits::default(), trusted).await.say(&close("/a", headers)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(want), "{answer}");
    }
    let site = site(Limits::default(), &[]).await;
    for headers in ["", "Host: a/b\r\n", "Host: a\r\nHost: a\r\n", "Host: a\tb\r\n", "Host: \r\n"] {
        let answer = site.say(&close("/a", headers)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers:?}: {answer}");
    }
    let old = site.say(b"GET /a HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 ") && old.ends_with("127.0.0.1  /a"), "{old}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let site = site(Limits::default(), &[]).await;
    let many: Vec<u8> = (0..50)
        .flat_map(|i| format!("GET /{i}. HTTP/1.1\r\nHost: a.example\r\n\r\n").into_bytes())
        .chain(close("/last.", "Host: a.example\r\n"))
        .collect();
    let answers = site.say(&many).await;
    let paths: Vec<_> = answers.split("a.example /").skip(1).map(|a| a.split('.').next().unwrap()).collect();
    let want: Vec<_> = (0..50).map(|i| i.to_string()).chain(["last".into()]).collect();
    assert_eq!(paths, want);
}

#[tokio::test]
async fn heads_are_bounded() {
    let site = site(Limits::default(), &[]).await;
    let with = |bytes: usize| close("/a", &format!("Host: a.example\r\nX: {}\r\n", "x".repeat(bytes)));
    assert!(site.say(&with(15 * 1024)).await.starts_with("HTTP/1.1 200 "));
    for large in [17 * 1024, 1_000_000] {
        let answer = site.say(&with(large)).await;
        // A client that is still sending may see the reset before it sees the answer.
        assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{large}: {answer}");
    }
    let many = "X: y\r\n".repeat(200);
    assert!(site.say(&close("/a", &format!("Host: a.example\r\n{many}"))).await.starts_with("HTTP/1.1 431 "));
    let long = site.say(&close(&format!("/{}", "a".repeat(20_000)), "Host: a.example\r\n")).await;
    assert!(long.starts_with("HTTP/1.1 4") || long.is_empty(), "{long}");
    assert!(site.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    assert!(site.say(b"EHLO a.example\r\nMAIL FROM:<>\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn bodies_are_bounded() {
    let site = site(Limits::default(), &[]).await;
    let post = |headers: &str, body: &str| {
        format!("POST /body HTTP/1.1\r\nHost: a.example\r\nconnection: close\r\n{headers}\r\n{body}").into_bytes()
    };
    for (headers, body, want) in [
        ("Content-Length: 10\r\n", "0123456789", "200"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", "200"),
        ("Content-Length: 11\r\n", "0123456789x", "413"),
        ("Content-Length: 100000000000\r\n", "", "413"),
        ("Transfer-Encoding: chunked\r\n", "b\r\n0123456789x\r\n0\r\n\r\n", "413"),
        ("Transfer-Encoding: chunked\r\n", "zz\r\n", "400"),
        ("Content-Length: 10\r\n", "slow", "408"),
        // Two lengths that differ are how requests are smuggled (RFC 9112 §6.3).
        ("Content-Length: 3\r\nContent-Length: 4\r\n", "abc", "400"),
    ] {
        let answer = site.say(&post(headers, body)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {want} ")), "{headers:?} {body:?}: {answer}");
    }
    // A body that nobody reads does not become the next request.
    let hidden = String::from_utf8(ASK.to_vec()).unwrap();
    let get = format!("GET /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n{hidden}");
    let answer = site.say(get.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

fn short() -> Limits {
    Limits {
        head_time: Duration::from_millis(200),
        idle_time: Duration::from_millis(800),
        drain_time: Duration::from_secs(2),
        ..Limits::default()
    }
}

#[tokio::test]
async fn slow_and_silent_clients_are_closed() {
    let site = site(short(), &[]).await;
    let within = |since: Instant, low, high| {
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(low) && took < Duration::from_millis(high), "{took:?}");
    };
    let silent = async {
        let since = Instant::now();
        assert_eq!(site.say(b"").await, "");
        within(since, 790, 3_000);
    };
    let trickling = async {
        let (since, mut stream) = (Instant::now(), site.connect().await);
        for byte in ASK.iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() || since.elapsed() > Duration::from_millis(190) {
                break;
            }
            sleep(Duration::from_millis(15)).await;
        }
        rest(&mut stream).await;
        within(since, 190, 790);
    };
    let idle_after_an_answer = async {
        let mut stream = site.connect().await;
        stream.write_all(ASK).await.unwrap();
        until(&mut stream, "links.example.com /a").await;
        sleep(Duration::from_millis(500)).await;
        stream.write_all(ASK).await.unwrap();
        let since = Instant::now();
        until(&mut stream, "links.example.com /a").await;
        assert_eq!(rest(&mut stream).await, "");
        within(since, 790, 3_000);
    };
    let slow_handler = async {
        // Longer than the head's time, and no fault of the client's.
        assert!(site.say(&close("/slow", "Host: a.example\r\n")).await.ends_with("slow"));
    };
    tokio::join!(silent, trickling, idle_after_an_answer, slow_handler);
}

#[tokio::test]
async fn clients_that_do_not_read_are_closed() {
    let limits = Limits { write_time: Duration::from_millis(200), ..Limits::default() };
    let site = site(limits, &[]).await;
    let mut stream = site.connect().await;
    let writing = async { while stream.write_all(&ASK.repeat(1_000)).await.is_ok() {} };
    timeout(Duration::from_secs(5), writing).await.expect("the server closes");
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_per_client() {
    let busy = "HTTP/1.1 503 ";
    for (limits, trusted, fits) in [
        (Limits { connections: 3, ..Limits::default() }, &[][..], 3),
        (Limits { connections_per_client: 2, loopback_is_many: false, ..Limits::default() }, &[][..], 2),
        (Limits { connections: 3, connections_per_client: 2, ..Limits::default() }, &[][..], 3),
        (Limits { connections: 3, connections_per_client: 2, ..Limits::default() }, &["127.0.0.1/32"][..], 3),
    ] {
        let site = site(limits, trusted).await;
        let mut held = Vec::new();
        for _ in 0..fits {
            let mut stream = site.connect().await;
            stream.write_all(ASK).await.unwrap();
            until(&mut stream, "links.example.com /a").await;
            held.push(stream);
        }
        assert!(rest(&mut site.connect().await).await.starts_with(busy));
        drop(held.pop());
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let answer = site.say(&close("/a", "Host: a.example\r\n")).await;
            if answer.starts_with("HTTP/1.1 200 ") {
                break;
            }
            assert!(Instant::now() < deadline, "a place is not given back: {answer}");
        }
    }
}

/// A PROXY v2 header, of a client by its last number in 192.0.2.0/24; of nobody for 0 (LOCAL).
fn from_client(client: u8) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    match client {
        0 => [&signature[..], &[0x20, 0, 0, 0]].concat(),
        _ => [&signature[..], &[0x21, 0x11, 0, 12, 192, 0, 2, client, 192, 0, 2, 1, 156, 64, 0, 80]].concat(),
    }
}

#[tokio::test]
async fn a_balancer_says_who_its_client_is() {
    let site = site_behind(&["127.0.0.0/8"], short(), &["192.0.2.9/32"]).await;
    let ask = close("/a", "Host: links.example.com\r\nX-Forwarded-For: 203.0.113.5\r\n");
    for (client, want) in [(7, "192.0.2.7 "), (9, "203.0.113.5 "), (0, "127.0.0.1 ")] {
        let answer = site.say(&[&from_client(client)[..], &ask].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(want), "{client}: {answer}");
    }
    // In pieces, and with the request long after.
    let mut stream = site.connect().await;
    for byte in from_client(7) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    sleep(Duration::from_millis(20)).await;
    stream.write_all(&ask).await.unwrap();
    assert!(rest(&mut stream).await.contains("192.0.2.7 links.example.com /a"));
    let version_1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 80\r\n";
    for bad in [&b""[..], &version_1[..], &from_client(7)[..13]] {
        assert_eq!(site.say(&[bad, &ask].concat()).await, "", "{bad:?}");
    }
    // Who sends no header gets no answer, and is not waited for.
    assert_eq!(rest(&mut site.connect().await).await, "");
}

#[tokio::test]
async fn only_the_balancers_may_connect() {
    let site = site_behind(&["192.0.2.0/24"], short(), &["127.0.0.1/32"]).await;
    assert!(rest(&mut site.connect().await).await.starts_with("HTTP/1.1 403 "));
    // What was not read may take the answer with it; no other comes.
    let answer = site.say(&[&from_client(7)[..], &close("/a", "Host: a.example\r\n")].concat()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn a_balancers_clients_are_counted_each() {
    let limits = Limits { connections: 6, connections_per_client: 2, ..Limits::default() };
    let site = site_behind(&["127.0.0.1/32"], limits, &["192.0.2.9/32"]).await;
    let mut held = Vec::new();
    for client in [7, 7, 8] {
        let mut stream = site.connect().await;
        stream.write_all(&[&from_client(client)[..], ASK].concat()).await.unwrap();
        until(&mut stream, "links.example.com /a").await;
        held.push(stream);
    }
    let ask = close("/a", "Host: a.example\r\n");
    let say = async |client: u8| site.say(&[&from_client(client)[..], &ask].concat()).await;
    assert!(site.say(&from_client(7)).await.starts_with("HTTP/1.1 503 "));
    for client in [8, 9, 0] {
        assert!(say(client).await.starts_with("HTTP/1.1 200 "), "{client}");
    }
    // One of 7's goes, and what was counted for it with it.
    drop(held.remove(0));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !say(7).await.starts_with("HTTP/1.1 200 ") {
        assert!(Instant::now() < deadline, "a place is not given back");
    }
}

#[tokio::test]
async fn shutdown_lets_requests_end() {
    let site = site(short(), &[]).await;
    let (mut idle, mut fresh, mut slow, mut stuck) =
        (site.connect().await, site.connect().await, site.connect().await, site.connect().await);
    idle.write_all(ASK).await.unwrap();
    until(&mut idle, "links.example.com /a").await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    stuck.write_all(b"POST /body HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let since = Instant::now();
    site.down.send(true).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut fresh).await, "");
    assert!(since.elapsed() < short().idle_time, "{:?}", since.elapsed());
    assert!(rest(&mut slow).await.ends_with("slow"));
    assert!(rest(&mut stuck).await.starts_with("HTTP/1.1 408 "));
    timeout(Duration::from_secs(5), site.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(site.address).await.is_err());
}
