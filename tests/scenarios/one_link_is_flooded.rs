//! One address that hits one link without end is a few clicks, one entry and few records.

use crate::common::{Client, FIREFOX, Relay, Setup, Smarthost, ask_api, html, links, until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

/// So many requests of each of two, on one connection each.
const HITS: usize = 2_000;

/// Clicks again and again; every other time under another name, where `names` says so.
fn flood(address: SocketAddr, url: &str, names: bool) {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut answer = [0; 4_096];
    for n in 0..HITS {
        let agent = if names { format!("{FIREFOX} {n}") } else { FIREFOX.to_owned() };
        // In one write: the parts of one would wait for each other's acknowledgements.
        let lines = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n\r\n");
        stream.write_all(lines.as_bytes()).unwrap();
        let mut read = 0;
        while !answer[..read].windows(4).any(|end| end == b"\r\n\r\n") {
            read += stream.read(&mut answer[read..]).unwrap();
        }
        assert!(answer.starts_with(b"HTTP/1.1 302"), "{}", String::from_utf8_lossy(&answer[..read]));
    }
}

fn totals(relay: &Relay, key: &str) -> Value {
    let metrics = "metrics=clicked,clicked_human,clicked_machine,unique_clicked_human";
    let (status, body) = ask_api(relay.api(), key, "GET", &format!("/emails/metrics?{metrics}"), None);
    assert_eq!(status, 200, "{body}");
    body["totals"].clone()
}

#[test]
fn a_flood_is_few_clicks_and_few_records() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).with("api.rate_limit", "0").start();
    relay.track_example_com();
    let key = relay.ok(&["key", "create", "--name", "all"]).trim().to_owned();
    let urls = ["https://example.net/1", "https://example.net/2", "https://example.net/3"];
    Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &html("x", &urls));
    let links = links(&smarthost.wait_for(1)[0].body);
    let delivered = relay.wait_for_events("email.delivered", 1)[0]["at"].as_u64().unwrap();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    until("two seconds after delivery", || (now() > delivered + 2_000).then_some(()));
    let web = relay.web();
    thread::scope(|scope| {
        scope.spawn(|| flood(web, &links[0], false));
        scope.spawn(|| flood(web, &links[1], true));
    });
    let totals = until("all to be counted", || {
        let now = totals(&relay, &key);
        (now["clicked"].as_u64() == Some(2 * HITS as u64)).then_some(now)
    });
    // Two links, each of which may begin anew once while this goes on.
    let human = totals["clicked_human"].as_u64().unwrap();
    assert!((2..=120).contains(&human), "{totals}");
    assert_eq!(totals["clicked_human"].as_u64().unwrap() + totals["clicked_machine"].as_u64().unwrap(), 4_000);
    assert_eq!(totals["unique_clicked_human"], 1, "whoever it was may be a person");
    let clicks = relay.wait_for_events("email.clicked", 3);
    let floods = clicks.iter().filter(|click| click["reason"] == "flood").count();
    assert!((2..=4).contains(&floods) && clicks.len() <= 100, "{floods} of {}", clicks.len());
}
