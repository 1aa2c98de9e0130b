//! `/metrics`: what Prometheus reads, and who may.

use crate::common::{
    At, Client, DEADLINE, Do, FIREFOX, Relay, Setup, Smarthost, html, links, pixel, plain, request, until,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Asks with more lines of header; status, head and body.
fn ask(address: SocketAddr, lines: &[&str]) -> (u16, String, String) {
    ask_as("localhost", address, lines)
}

/// The same, for a host by another name.
fn ask_as(host: &str, address: SocketAddr, lines: &[&str]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

/// Every series with its value. Fails on a line that the exposition format does not have.
fn series(page: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let (mut found, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(is_name(name) && !rest.is_empty(), "{line}");
            match what {
                "HELP" => {}
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                    assert!(kinds.insert(name.to_owned(), rest.to_owned()).is_none(), "twice: {line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (family, labels) = name.split_once('{').unwrap_or((name, "}"));
        assert!(is_name(family) && family.starts_with("trackpost_") && labels.ends_with('}'), "{line}");
        let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|end| family.strip_suffix(end));
        let kind = kinds.get(family).or_else(|| of_histogram.filter_map(|base| kinds.get(base)).next());
        assert!(kind.is_some(), "without a type: {line}");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(found.insert(name.to_owned(), value).is_none(), "twice: {line}");
    }
    found
}

fn scrape(relay: &Relay) -> BTreeMap<String, f64> {
    let (status, head, body) = ask(relay.api(), &[]);
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(head.contains("cache-control: no-store") && !head.contains("ratelimit"), "{head}");
    series(&body)
}

#[test]
fn figures_follow_mail_and_clicks() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let before = scrape(&relay);
    for name in [
        "trackpost_messages_accepted_total",
        "trackpost_deliveries_total{outcome=\"bounced\"}",
        "trackpost_hits_total{class=\"machine\"}",
        "trackpost_hits_lost_total",
        "trackpost_history_lost_total",
        "trackpost_queue_messages{state=\"deferred\"}",
        "trackpost_queue_oldest_seconds",
        "trackpost_queue_held",
        "trackpost_log_full",
        "trackpost_log_sync_failures_total",
    ] {
        assert_eq!(before.get(name), Some(&0.0), "{name}");
    }
    assert!(before["trackpost_disk_free_bytes"] > 1e6 && before["trackpost_smarthost_reachable"] == 1.0);
    assert_eq!(before.get(concat!("trackpost_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")), Some(&1.0));

    let mut client = Client::greeted(relay.smtp());
    client.send("news@example.com", &["ada@example.net"], &html("x", &["https://example.net/"]));
    client.send("news@example.com", &["ada@example.net"], &plain("example.com", "y"));
    let copies = smarthost.wait_for(2);
    let copy = copies.iter().find(|copy| !links(&copy.body).is_empty()).unwrap();
    let web = relay.web();
    assert_eq!(request(web, "GET", &pixel(&copy.body).unwrap(), FIREFOX).status, 200);
    assert_eq!(request(web, "HEAD", &links(&copy.body)[0], FIREFOX).status, 302);
    let broken = links(&copy.body)[0].replace("/c/", "/c/A");
    request(web, "GET", &broken, FIREFOX);

    let after = until("all to be counted", || {
        let now = scrape(&relay);
        let hits = now["trackpost_hits_total{class=\"human\"}"] + now["trackpost_hits_total{class=\"unknown\"}"];
        let machine = now["trackpost_hits_total{class=\"machine\"}"];
        (hits + machine == 2.0 && machine >= 1.0 && now["trackpost_store_open"] == 1.0).then_some(now)
    });
    for (name, value) in [
        ("trackpost_messages_accepted_total", 2.0),
        ("trackpost_deliveries_total{outcome=\"sent\"}", 2.0),
        ("trackpost_messages_tracked_total", 1.0),
        ("trackpost_messages_untracked_total{reason=\"no-html\"}", 1.0),
        ("trackpost_rewrite_seconds_count", 2.0),
        ("trackpost_rewrite_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("trackpost_token_failures_total{kind=\"click\"}", 1.0),
        ("trackpost_connections{protocol=\"smtp\"}", 1.0),
    ] {
        assert_eq!(after.get(name), Some(&value), "{name}");
    }
    assert!(after["trackpost_log_sync_seconds_count"] >= 2.0);
    assert!(after["trackpost_log_sync_seconds_sum"] > 0.0 && after["trackpost_connections{protocol=\"http\"}"] >= 1.0);
    drop(client);
    until("the connection to be gone", || {
        (scrape(&relay)["trackpost_connections{protocol=\"smtp\"}"] == 0.0).then_some(())
    });

    // What waits, and why.
    relay.ok(&["queue", "hold"]);
    Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &plain("example.com", "z"));
    let held = scrape(&relay);
    assert_eq!((held["trackpost_queue_held"], held["trackpost_queue_messages{state=\"ready\"}"]), (1.0, 1.0));
    until("it to get older", || (scrape(&relay)["trackpost_queue_oldest_seconds"] > 0.0).then_some(()));
}

#[test]
fn a_smarthost_that_is_gone_shows() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = Setup::new(nobody).start();
    Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &plain("example.com", "z"));
    until("it to be noticed", || {
        let now = scrape(&relay);
        let waiting: f64 = ["ready", "deferred", "sending"]
            .iter()
            .map(|state| now[&format!("trackpost_queue_messages{{state=\"{state}\"}}")])
            .sum();
        (now["trackpost_smarthost_reachable"] == 0.0 && waiting == 1.0).then_some(())
    });
}

#[test]
fn who_may_read_them() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let key = |options: &[&str]| {
        let token = relay.ok(&[&["key", "create", "--name", "k"], options].concat());
        format!("Authorization: Bearer {}", token.trim())
    };
    let (full, sending) = (key(&[]), key(&["--permission", "sending_access"]));
    let tied = key(&["--domain", "example.com"]);
    let (proxied, forwarded) = ("X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1");
    for (lines, status, name) in [
        (&[proxied][..], 401, "missing_api_key"),
        (&[forwarded], 401, "missing_api_key"),
        (&[proxied, "Authorization: Bearer re_wrong"], 403, "invalid_api_key"),
        (&[proxied, &sending], 401, "restricted_api_key"),
        (&[proxied, &tied], 401, "restricted_api_key"),
    ] {
        let (got, _, body) = ask(relay.api(), lines);
        assert_eq!(got, status, "{lines:?} {body}");
        assert!(body.contains(&format!("\"name\":\"{name}\"")) && !body.contains("trackpost_"), "{lines:?} {body}");
    }
    let (status, _, body) = ask(relay.api(), &[proxied, &full]);
    assert!(status == 200 && !series(&body).is_empty());
    // Not counted with what the API is asked.
    assert!((0..60).all(|_| ask(relay.api(), &[]).0 == 200));
}

#[test]
fn a_page_whose_name_leads_here_reads_nothing() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let api = relay.api();
    let port = api.port();
    for host in ["rebind.example", "localhost.example", "192.0.2.7", "[2001:db8::1]"] {
        let (status, _, body) = ask_as(&format!("{host}:{port}"), api, &[]);
        assert_eq!(status, 401, "{host}: {body}");
    }
    for host in ["localhost", "127.0.0.1", "[::1]", "metrics.localhost"] {
        assert_eq!(ask_as(&format!("{host}:{port}"), api, &[]).0, 200, "{host}");
    }
    // With a key, the name does not matter.
    let key = relay.ok(&["key", "create", "--name", "metrics"]);
    assert_eq!(ask_as("relay.example.net", api, &[&format!("Authorization: Bearer {}", key.trim())]).0, 200);
}

#[test]
fn a_deferred_message_that_is_removed_leaves_no_trace_in_the_queue() {
    let smarthost = Smarthost::scripted(|at| match at {
        At::Rcpt(_) => Do::Say("450 4.2.0 Busy"),
        _ => Do::Go,
    });
    let relay = Setup::new(smarthost.address).with("queue.retry", "[\"1h\"]").start();
    let mut client = Client::greeted(relay.smtp());
    let [one, two] =
        ["one", "two"].map(|name| client.send("a@example.com", &["b@example.net"], &plain("example.com", name)));
    for id in [&one, &two] {
        relay.wait_for_status(id, &["deferred"]);
    }
    let queued = || {
        let found = scrape(&relay);
        ["ready", "deferred", "sending"].map(|state| found[&format!("trackpost_queue_messages{{state=\"{state}\"}}")])
    };
    assert_eq!(queued(), [0.0, 2.0, 0.0]);
    relay.ok(&["queue", "remove", &one]);
    assert_eq!(queued(), [0.0, 1.0, 0.0]);
    relay.ok(&["queue", "hold"]);
    relay.ok(&["queue", "retry", &two]);
    assert_eq!(queued(), [1.0, 0.0, 0.0]);
    relay.ok(&["queue", "remove", &two]);
    assert_eq!(queued(), [0.0; 3]);
}
