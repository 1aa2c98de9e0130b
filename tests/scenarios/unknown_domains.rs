//! Mail of a domain that nobody set up: relayed as it came, or refused.

use crate::common::{Client, Setup, Smarthost, plain, without_received};
use std::fs;
use std::path::Path;

/// Every mail of the fixtures, from one domain that is not set up and another that has no tracking.
#[test]
fn every_octet_but_for_received_leaves_as_it_came() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.ok(&["domain", "add", "shop.example.com", "--subdomain", "links", "--force-verified"]);
    let mut client = Client::greeted(relay.smtp());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mail");
    let mut sent = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let message = fs::read(&file).unwrap();
        client.begin("news@shop.example.com", &["ada@example.net"]);
        let reply = client.data(&message);
        let clean = !message.contains(&0) && has_whole_line_ends(&message);
        let track = message
            .windows(16)
            .any(|w| w.eq_ignore_ascii_case(b"x-trackpost-track") || w.eq_ignore_ascii_case(b"X-Trackpost-Tra"));
        assert_eq!(reply.starts_with("250 "), clean, "{}: {reply}", file.display());
        if !clean || track {
            continue;
        }
        let id = reply.rsplit(' ').next().unwrap();
        let arrived = smarthost.wait_for_text(id);
        assert_eq!(arrived.to, ["ada@example.net"]);
        let (got, want) = (without_received(&arrived.body), &message[..]);
        assert!(got == want || got == [want, b"\r\n"].concat(), "{} was changed", file.display());
        sent += 1;
    }
    assert!(sent > 50, "only {sent}");
    relay.wait_until_empty();
    assert_eq!(smarthost.connections(), 1, "one message after the other needs no second connection");
}

fn has_whole_line_ends(message: &[u8]) -> bool {
    let bare_lf = message.iter().enumerate().any(|(at, b)| *b == b'\n' && (at == 0 || message[at - 1] != b'\r'));
    let bare_cr = message.iter().enumerate().any(|(at, b)| *b == b'\r' && message.get(at + 1) != Some(&b'\n'));
    !bare_lf && !bare_cr
}

#[test]
fn they_are_refused_where_the_operator_wants_it() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).with("unknown_domains", "\"reject\"").start();
    relay.track_example_com();
    let mut client = Client::greeted(relay.smtp());
    client.begin("news@example.com", &["ada@example.net"]);
    // What counts is the From header, not the envelope.
    let reply = client.data(&plain("sub.example.com", "unknown"));
    assert_eq!(reply, "550 5.7.1 The domain of the From header is not set up here");
    client.send("bounce@example.org", &["ada@example.net"], &plain("Example.COM", "known"));
    smarthost.wait_for_text("known");
    assert_eq!(smarthost.messages().len(), 1);
}
