//! What one customer does with a key of theirs keeps nobody else from anything.

use super::submission::plain_response;
use crate::common::{Certificate, Client, DEADLINE, Relay, Setup, Smarthost, ask_api, plain};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;

fn relay(smarthost: &Smarthost) -> Relay {
    let relay = Setup::new(smarthost.address).with("api.rate_limit", "0").start();
    for domain in ["one.example", "two.example"] {
        relay.ok(&["domain", "add", domain]);
    }
    relay
}

fn key(relay: &Relay, domain: Option<&str>) -> String {
    let tie: Vec<_> = domain.iter().flat_map(|domain| ["--domain", *domain]).collect();
    relay.ok(&[&["key", "create", "--name", "a key"], &tie[..]].concat()).trim().to_owned()
}

#[test]
fn one_customers_webhooks_leave_room_for_others() {
    let smarthost = Smarthost::start();
    let relay = relay(&smarthost);
    let hook = json!({"endpoint": "https://hooks.example.net/", "events": ["email.sent"]});
    let make = |key: &str| ask_api(relay.api(), key, "POST", "/webhooks", Some(hook.clone()));
    let (greedy, other, operator) =
        (key(&relay, Some("one.example")), key(&relay, Some("two.example")), key(&relay, None));
    let refused = (0..200).map(|_| make(&greedy)).find(|(status, _)| *status != 201);
    let (status, body) = refused.expect("there is an end to it");
    assert_eq!((status, &body["name"]), (422, &json!("validation_error")), "{body}");
    assert!(body["message"].as_str().unwrap().contains("keys of these domains have"), "{body}");
    assert_eq!(make(&key(&relay, Some("one.example"))).0, 422, "another key is no other customer");
    assert_eq!((make(&other).0, make(&operator).0), (201, 201));
}

/// Signs in, or asks for a page; the status and the cookie.
fn ask(relay: &Relay, method: &str, path: &str, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(relay.api()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (host, length) = (relay.api(), body.len());
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let lines = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n{kind}\r\nContent-Length: \
         {length}\r\n{head}Connection: close\r\n\r\n{body}"
    );
    stream.write_all(lines.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap_or_default();
    (answer[9..12].parse().unwrap(), cookie.split(';').next().unwrap_or_default().to_owned())
}

#[test]
fn one_customers_sign_ins_are_slowed_and_end_no_other_session() {
    let smarthost = Smarthost::start();
    let relay = relay(&smarthost);
    let sign_in = |key: &str| ask(&relay, "POST", "/dashboard/sign-in", "", &format!("key={key}"));
    let is_in = |cookie: &str| ask(&relay, "GET", "/dashboard", &format!("Cookie: {cookie}\r\n"), "").0 == 200;
    let (greedy, operator) = (key(&relay, Some("one.example")), key(&relay, None));
    let (status, session) = sign_in(&operator);
    assert_eq!(status, 303);
    let statuses: Vec<u16> = (0..100).map(|_| sign_in(&greedy).0).collect();
    assert_eq!(statuses[..20], [303; 20]);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(is_in(&session));
    assert_eq!(sign_in(&operator).0, 303, "from the same address");
}

#[test]
fn one_customers_mail_leaves_room_in_the_queue_for_others() {
    let smarthost = Smarthost::start();
    let (certificate, trust) = Certificate::new();
    let setup = Setup::new(smarthost.address)
        .with("listener.tls", "\"implicit\"")
        .with("listener.auth", "\"required\"")
        .with("queue.max_messages", "20");
    let relay = certificate.used_by(setup).start();
    for domain in ["one.example", "two.example"] {
        relay.ok(&["domain", "add", domain]);
    }
    relay.ok(&["queue", "hold"]);
    let (greedy, other, operator) =
        (key(&relay, Some("one.example")), key(&relay, Some("two.example")), key(&relay, None));
    let send = |key: &str, domain: &str| {
        let mut client = Client::connect_tls(relay.smtp(), &trust);
        client.reply();
        client.expect("EHLO app.example.com", "250-");
        client.expect(&format!("AUTH PLAIN {}", plain_response(key)), "235 ");
        client.begin(&format!("a@{domain}"), &["b@example.net"]);
        client.data(&plain(domain, "x"))
    };
    for _ in 0..5 {
        let reply = send(&greedy, "one.example");
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let refused = send(&greedy, "one.example");
    assert!(refused.starts_with("451 4.3.1 ") && refused.contains("share"), "{refused}");
    // Also where another key's mail of that domain has filled it, others are not kept out.
    for (key, domain, count) in [(&other, "two.example", 5), (&operator, "one.example", 9)] {
        for _ in 0..count {
            let reply = send(key, domain);
            assert!(reply.starts_with("250 "), "{domain}: {reply}");
        }
    }
    assert!(send(&other, "two.example").starts_with("451 "));
    // What leaves makes room.
    relay.ok(&["queue", "release"]);
    relay.wait_until_empty();
    assert!(send(&greedy, "one.example").starts_with("250 "));
}
