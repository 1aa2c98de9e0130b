//! The tracking hosts over real TCP: what each request is answered, and what is recorded of it.

use super::*;
use crate::http::{Fronts, Limits, serve};
use crate::kill::{Kill, KillKind, KillList, Killed};
use crate::token::{Signer, TokenKey, Width};
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const LINKS: &str = "links.example.com";
const OTHER: &str = "links.example.org";
const UNKNOWN: &str = "forgotten.example.net";
const REMOVED: &str = "removed.example.com";
const GONE: &str = "gone.example.com";
const TARGET: &str = "track.relay.example.net";
const URL: &str = "https://Example.com/a?b=c&d=%0D%0Ax#frag";
const CHROME: &str = "Mozilla/5.0 Chrome/141";

fn name(host: &str) -> DomainName {
    DomainName::parse(host).unwrap()
}

fn key() -> TokenKey {
    TokenKey { id: 1, secret: [7; 32] }
}

fn click_token(host: &str) -> String {
    click_to(host, URL)
}

fn click_to(host: &str, url: &str) -> String {
    let mut token = Vec::new();
    let signer = Signer::new(&key()).for_host(&name(host));
    signer.click(&QueueId::from_bytes([5; 16]), 3, 4, Width::for_message(10, 10), url, &mut token);
    String::from_utf8(token).unwrap()
}

fn open_token(host: &str) -> String {
    let mut token = Vec::new();
    Signer::new(&key()).for_host(&name(host)).open(
        &QueueId::from_bytes([5; 16]),
        3,
        Width::for_message(10, 10),
        &mut token,
    );
    String::from_utf8(token).unwrap()
}

fn tracker(queue: HitQueue) -> Tracker {
    tracker_with(queue, Arc::default())
}

fn tracker_with(queue: HitQueue, kills: Arc<KillList>) -> Tracker {
    let hosts = Hosts::new([
        (name(LINKS), HostState::Active),
        (name(OTHER), HostState::Active),
        (name(REMOVED), HostState::Removed { until: u64::MAX }),
        (name(GONE), HostState::Removed { until: 1 }),
    ])
    .with_kills(kills, []);
    let signer = Arc::new(ArcSwap::from_pointee(Signer::new(&key())));
    let verifier = Arc::new(ArcSwap::from_pointee(Verifier::new(&[key()])));
    Tracker::new(signer, verifier, Arc::new(ArcSwap::from_pointee(hosts)), queue, name(TARGET), Challenges::default())
}

struct Site {
    address: SocketAddr,
    down: watch::Sender<bool>,
    writer: tokio::task::JoinHandle<()>,
    written: Arc<Mutex<Vec<Hit>>>,
}

async fn site(trusted: &[&str]) -> Site {
    site_with(trusted, Arc::default()).await
}

async fn site_with(trusted: &[&str], kills: Arc<KillList>) -> Site {
    let (queue, writer) = hits(DEFAULT_PLACES);
    let (down, shutdown) = watch::channel(false);
    let written = Arc::new(Mutex::new(Vec::new()));
    let keep = written.clone();
    let write = move |batch: Vec<Hit>| {
        keep.lock().unwrap().extend(batch);
        std::future::ready(Ok::<_, Infallible>(()))
    };
    let writer = tokio::spawn(writer.run(write, shutdown.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let trusted: Arc<[IpNet]> = trusted.iter().map(|net| net.parse().unwrap()).collect();
    let fronts = Fronts { trusted_proxies: trusted, ..Fronts::default() };
    tokio::spawn(serve(listener, None, Limits::default(), fronts, Arc::new(tracker_with(queue, kills)), shutdown));
    Site { address, down, writer, written }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Headers but Date.
    fn lasting(&self) -> Vec<(&str, &str)> {
        self.headers.iter().filter(|(name, _)| *name != "date").map(|(n, v)| (&**n, &**v)).collect()
    }
}

impl Site {
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let split = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(all[..split].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(headers.insert(name.to_ascii_lowercase(), value.to_owned()).is_none(), "{name} twice");
        }
        Answer { status, headers, body: all[split + 4..].to_vec() }
    }

    async fn ask(&self, method: &str, host: &str, path: &str, more: &str) -> Answer {
        let agent = format!("User-Agent: {CHROME}\r\n");
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{agent}{more}\r\n")).await
    }

    async fn get(&self, host: &str, path: &str) -> Answer {
        self.ask("GET", host, path, "").await
    }

    /// Shuts down and gives all that was recorded.
    async fn recorded(self) -> Vec<Hit> {
        self.down.send(true).unwrap();
        self.writer.await.unwrap();
        std::mem::take(&mut self.written.lock().unwrap())
    }
}

#[tokio::test]
async fn a_click_redirects_and_is_recorded() {
    let site = site(&[]).await;
    let before = now_ms();
    let answer = site.get(LINKS, &format!("/c/{}", click_token(LINKS))).await;
    assert_eq!(answer.status, 302);
    assert_eq!(
        answer.lasting(),
        [
            ("cache-control", "no-store, private"),
            ("connection", "close"),
            ("content-length", "0"),
            ("location", URL),
            ("referrer-policy", "no-referrer"),
            ("x-robots-tag", "noindex"),
        ]
    );
    assert!(answer.header("date").is_some() && answer.body.is_empty());
    let hits = site.recorded().await;
    let want = Hit {
        id: QueueId::from_bytes([5; 16]),
        recipient: 3,
        kind: HitKind::Click { link: 4, url: URL.into() },
        at: hits[0].at,
        count: 1,
        address: [127, 0, 0, 1].into(),
        agent: CHROME.into(),
        head: false,
        repeat: false,
    };
    assert!((before..=now_ms()).contains(&hits[0].at));
    assert_eq!(hits, [want]);
}

#[tokio::test]
async fn a_pixel_is_always_a_gif_and_recorded_if_the_token_is_good() {
    let site = site(&[]).await;
    let good = format!("/o/{}.gif", open_token(LINKS));
    let bent = format!("//o/{}.gif?x=y", open_token(LINKS));
    let foreign = format!("/o/{}.gif", open_token(OTHER));
    let click = format!("/o/{}.gif", click_token(LINKS));
    for path in [&*good, &bent, "/o/x.gif", "/o/", "/o/%00", &foreign, &click] {
        let answer = site.get(LINKS, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.body, PIXEL, "{path}");
        assert_eq!(answer.header("content-type"), Some("image/gif"));
        assert_eq!(answer.header("cache-control"), Some("no-store, private"));
    }
    let hits = site.recorded().await;
    assert_eq!(hits.iter().map(|h| (&h.kind, h.count)).collect::<Vec<_>>(), [(&HitKind::Open, 1), (&HitKind::Open, 1)]);
    assert_eq!((hits[0].repeat, hits[1].repeat), (false, true));
}

#[tokio::test]
async fn head_is_answered_like_get_and_recorded_as_such() {
    let site = site(&[]).await;
    for path in [
        format!("/c/{}", click_token(LINKS)),
        format!("/o/{}.gif", open_token(LINKS)),
        "/c/x".into(),
        "/robots.txt".into(),
        "/favicon.ico".into(),
        "/".into(),
    ] {
        let (get, head) = (site.get(LINKS, &path).await, site.ask("HEAD", LINKS, &path, "").await);
        assert_eq!((head.status, head.lasting()), (get.status, get.lasting()), "{path}");
        assert!(head.body.is_empty());
    }
    let hits = site.recorded().await;
    assert_eq!(hits.iter().map(|h| h.head).collect::<Vec<_>>().len(), 4);
    assert_eq!(hits.iter().filter(|h| h.head).count(), 2);
}

#[tokio::test]
async fn every_failure_of_a_click_is_the_same_404() {
    let site = site(&[]).await;
    let good = click_token(LINKS);
    let mut tampered = good.clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let first = site.get(LINKS, "/c/x").await;
    assert_eq!(first.status, 404);
    for path in [
        "/c/".to_owned(),
        format!("/c/{}", String::from_utf8(tampered).unwrap()),
        format!("/c/{}", &good[..good.len() - 1]),
        format!("/c/{good}A"),
        format!("/c/{good}="),
        format!("/c/{good}%0d%0aLocation:%20http://evil.example/"),
        format!("/c/{good}/../../x"),
        format!("/c/{}", click_token(OTHER)),
        format!("/c/{}", open_token(LINKS)),
        format!("/c/{}", "A".repeat(10_000)),
        "/c/http://evil.example/".into(),
        "/c/%68ttp:%2f%2fevil.example".into(),
    ] {
        let answer = site.get(LINKS, &path).await;
        assert_eq!((answer.status, answer.lasting(), &answer.body), (404, first.lasting(), &first.body), "{path}");
    }
    assert_eq!(site.recorded().await, []);
}

#[tokio::test]
async fn what_mail_programs_and_scanners_do_to_a_url_does_not_break_it() {
    let site = site(&[]).await;
    let good = click_token(LINKS);
    let encoded: String = good.bytes().map(|b| format!("%{b:02X}")).collect();
    for path in [
        format!("//c/{good}"),
        format!("/c//{good}"),
        format!("/c/{good}/"),
        format!("/c/{good}."),
        format!("/c/{good})."),
        format!("/c/{good}?utm_source=x&redirect=http://evil.example/"),
        format!("/c/{good}?"),
        format!("/c/{encoded}"),
        format!("/%63/{good}"),
        format!("http://{LINKS}/c/{good}"),
        format!("HTTP://{}:8080/c/{good}", LINKS.to_uppercase()),
    ] {
        let answer = site.get(LINKS, &path).await;
        assert_eq!((answer.status, answer.header("location")), (302, Some(URL)), "{path}");
    }
    for host in ["LINKS.Example.COM", "links.example.com:8080", "links.example.com."] {
        assert_eq!(site.get(host, &format!("/c/{good}")).await.status, 302, "{host}");
    }
    // The target's host counts, not Host.
    assert_eq!(site.get(LINKS, &format!("http://{OTHER}/c/{good}")).await.status, 404);
    let counted: u32 = site.recorded().await.iter().map(|h| h.count).sum();
    assert_eq!(counted, 14);
}

#[tokio::test]
async fn hosts_and_what_becomes_of_their_links() {
    let site = site(&[]).await;
    for (host, click, open) in
        [(LINKS, 302, 200), (OTHER, 302, 200), (UNKNOWN, 302, 200), (REMOVED, 302, 200), (GONE, 410, 200)]
    {
        let answer = site.get(host, &format!("/c/{}", click_token(host))).await;
        assert_eq!(answer.status, click, "{host}");
        assert_eq!(answer.header("location"), (click == 302).then_some(URL), "{host}");
        assert_eq!(site.get(host, &format!("/o/{}.gif", open_token(host))).await.status, open, "{host}");
    }
    // Without a valid token, unknown hosts are not served, not even politely.
    for path in ["/", "/robots.txt", "/favicon.ico", "/c/x", "/o/x.gif", &format!("/c/{}", click_token(LINKS))] {
        for host in [UNKNOWN, "127.0.0.1", "[::1]:80", "localhost", "com"] {
            assert_eq!(site.get(host, path).await.status, 421, "{host} {path}");
        }
    }
    for host in [LINKS, REMOVED, GONE, TARGET] {
        assert_eq!(site.get(host, "/c/x").await.status, 404, "{host}");
        assert_eq!(site.get(host, "/nothing").await.status, 404, "{host}");
        let robots = site.get(host, "/robots.txt").await;
        assert_eq!((robots.status, &*robots.body), (200, &b"User-agent: *\nDisallow: /\n"[..]), "{host}");
        assert_eq!(robots.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(site.get(host, "/favicon.ico").await.status, 204, "{host}");
        assert_eq!(site.get(host, "/").await.status, 200, "{host}");
    }
    // Three hosts that are active or at least not known to be removed, a click and an open each.
    let counted: u32 = site.recorded().await.iter().map(|h| h.count).sum();
    assert_eq!(counted, 6);
}

#[tokio::test]
async fn other_methods() {
    let site = site(&[]).await;
    let path = format!("/c/{}", click_token(LINKS));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "get"] {
        let answer = site.ask(method, LINKS, &path, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_eq!(answer.header("location"), None);
    }
    let large = site.ask("POST", LINKS, &path, "Content-Length: 100000000000\r\n").await;
    assert_eq!((large.status, large.header("connection")), (405, Some("close")));
    assert_eq!(site.recorded().await, []);
}

#[tokio::test]
async fn forwarded_headers_count_from_trusted_proxies() {
    let path = format!("/c/{}", click_token(LINKS));
    let forwarded = format!("X-Forwarded-Host: {LINKS}\r\nX-Forwarded-For: 192.0.2.7\r\n");
    for (trusted, host, headers, status, address) in [
        (&[][..], "edge.example", &*forwarded, 421, None),
        (&[][..], LINKS, "X-Forwarded-For: 192.0.2.7\r\n", 302, Some([127, 0, 0, 1])),
        (&[][..], LINKS, "X-Forwarded-Host: links.example.org\r\n", 302, Some([127, 0, 0, 1])),
        (&["127.0.0.1/32"][..], "edge.example", &forwarded, 302, Some([192, 0, 2, 7])),
        (&["127.0.0.1/32"][..], LINKS, "X-Forwarded-Host: links.example.org\r\n", 404, None),
        // On cname_target anyone may say which host the token was for; only a trusted proxy's hit is recorded.
        (&[][..], TARGET, &forwarded, 302, None),
        (&[][..], TARGET, "", 404, None),
        (&[][..], TARGET, "X-Forwarded-Host: links.example.org\r\n", 404, None),
        (&[][..], TARGET, "X-Forwarded-Host: links.example.com/\r\n", 404, None),
        (&["127.0.0.1/32"][..], TARGET, &forwarded, 302, Some([192, 0, 2, 7])),
        (
            &["127.0.0.1/32"][..],
            "edge.example",
            "X-Forwarded-Host: links.example.com, track.relay.example.net\r\n",
            302,
            None,
        ),
    ] {
        let site = site(trusted).await;
        let answer = site.ask("GET", host, &path, headers).await;
        assert_eq!(answer.status, status, "{trusted:?} {host} {headers:?}");
        let recorded: Vec<_> = site.recorded().await.iter().map(|h| h.address).collect();
        let want: Vec<_> = address.into_iter().map(std::net::IpAddr::from).collect();
        assert_eq!(recorded, want, "{trusted:?} {host} {headers:?}");
    }
}

#[tokio::test]
async fn cname_target_redirects_for_ever_unrecorded() {
    for trusted in [&[][..], &["127.0.0.1/32"][..]] {
        let site = site(trusted).await;
        for host in [REMOVED, GONE] {
            let forwarded = format!("X-Forwarded-Host: {host}\r\n");
            let click = site.ask("GET", TARGET, &format!("/c/{}", click_token(host)), &forwarded).await;
            assert_eq!((click.status, click.header("location")), (302, Some(URL)), "{host}");
            let open = site.ask("GET", TARGET, &format!("/o/{}.gif", open_token(host)), &forwarded).await;
            assert_eq!(open.status, 200);
        }
        assert_eq!(site.recorded().await, []);
    }
}

#[tokio::test]
async fn a_killed_link_is_gone_and_leaves_no_trace() {
    let message = QueueId::from_bytes([5; 16]).to_string();
    for (kind, value) in [(KillKind::Message, &*message), (KillKind::Link, URL), (KillKind::Domain, "example.com")] {
        let mut kills = KillList::default();
        kills.insert(Kill::parse(kind, value).unwrap(), Killed { id: uuid::Uuid::nil(), added_at: 1 });
        let site = site_with(&[], Arc::new(kills)).await;
        for host in [LINKS, OTHER, UNKNOWN, REMOVED, GONE] {
            let path = format!("/c/{}", click_token(host));
            let (get, head) = (site.get(host, &path).await, site.ask("HEAD", host, &path, "").await);
            assert_eq!((get.status, get.header("location")), (410, None), "{kind} {host}");
            assert_eq!(get.body, b"This link was switched off by its sender.\n", "{kind} {host}");
            assert_eq!(get.header("cache-control"), Some("no-store"));
            assert_eq!(get.header("x-robots-tag"), Some("noindex"));
            assert_eq!(get.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!((head.status, head.lasting(), &*head.body), (410, get.lasting(), &b""[..]), "{kind} {host}");
            let forwarded = format!("X-Forwarded-Host: {host}\r\n");
            assert_eq!(site.ask("GET", TARGET, &path, &forwarded).await.body, get.body, "{kind} {host}");
        }
        // What is not signed is no link, killed or not.
        assert_eq!(site.get(LINKS, "/c/x").await.status, 404);
        let other = site.get(LINKS, &format!("/c/{}", click_to(LINKS, "https://example.net/"))).await;
        assert_eq!(other.status, if kind == KillKind::Message { 410 } else { 302 }, "{kind}");
        let pixel = site.get(LINKS, &format!("/o/{}.gif", open_token(LINKS))).await;
        assert_eq!((pixel.status, &*pixel.body), (200, &PIXEL[..]));
        let recorded = site.recorded().await;
        assert_eq!(recorded.iter().filter(|hit| hit.kind == HitKind::Open).count(), 1);
        assert_eq!(recorded.len(), if kind == KillKind::Message { 1 } else { 2 });
    }
}

#[tokio::test]
async fn agents_are_cut_at_a_character() {
    for (agent, want) in [
        (b"".to_vec(), 0),
        (b"x".repeat(512), 512),
        (b"x".repeat(513), 512),
        ([&b"x".repeat(511)[..], "ä".as_bytes()].concat(), 511),
        ("ä".repeat(300).into_bytes(), 512),
        (b"\xff".repeat(600), 510),
        ("🦀".repeat(200).into_bytes(), 512),
    ] {
        let text = agent_text(&agent);
        assert_eq!(text.len(), want, "{text}");
        assert!(String::from_utf8_lossy(&agent).starts_with(&*text));
    }
}

#[tokio::test]
async fn a_stuck_writer_does_not_stop_redirects() {
    let (queue, _writer) = hits(4);
    let tracker = tracker(queue.clone());
    let client = local(LINKS);
    let path = format!("/c/{}", click_token(LINKS));
    for _ in 0..6 {
        let started = std::time::Instant::now();
        assert_eq!(tracker.answer(&Method::GET, &path, &client, b"", 0).await.status(), 302);
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }
    assert_eq!(queue.lost(), 2);
}

fn local(host: &str) -> Client {
    let peer = [127, 0, 0, 1].into();
    Client { address: peer, peer, from_proxy: false, host: host.into(), forwarded_hosts: Vec::new() }
}

proptest! {
    /// Whatever the request, a Location is what was signed for the host that was asked for.
    #[test]
    fn a_location_is_always_a_signed_destination(
        bend in "[ -~]{0,12}",
        place in 0usize..300,
        replaced in "[ -~]{0,3}",
        host in prop::sample::select(vec![LINKS, OTHER, UNKNOWN, REMOVED, GONE, TARGET, "", "evil.example"]),
        claimed in prop::sample::select(vec![LINKS, OTHER, GONE, TARGET, "evil.example"]),
        signed_for in prop::sample::select(vec![LINKS, OTHER, UNKNOWN, GONE]),
        from_proxy: bool,
    ) {
        let url = format!("https://{signed_for}.example/");
        let mut path = format!("/c/{}{bend}", click_to(signed_for, &url));
        let place = place.min(path.len());
        let end = (place + replaced.len()).min(path.len());
        path.replace_range(place..end, &replaced);
        let (queue, _writer) = hits(100);
        let client = Client { from_proxy, forwarded_hosts: vec![claimed.into()], ..local(host) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = runtime.block_on(tracker(queue).answer(&Method::GET, &path, &client, b"", 5));
        let asked = [client.trusted_host(), if host == TARGET { claimed } else { "" }];
        match answer.headers().get(LOCATION) {
            Some(location) => {
                prop_assert_eq!(answer.status(), 302);
                prop_assert_eq!(location.as_bytes(), url.as_bytes());
                prop_assert!(asked.contains(&signed_for) || (from_proxy && claimed == TARGET));
            }
            None => prop_assert!([404, 410, 421, 200].contains(&answer.status().as_u16())),
        }
    }

    #[test]
    fn any_path_and_host_is_answered(path in "\\PC{0,80}", host in "\\PC{0,30}", agent: Vec<u8>) {
        let (queue, _writer) = hits(100);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = runtime.block_on(tracker(queue).answer(&Method::GET, &path, &local(&host), &agent, 5));
        prop_assert_eq!(answer.headers().get(LOCATION), None);
        agent_text(&agent);
    }
}
