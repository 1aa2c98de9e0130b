//! Mail of a domain that nobody set up: relayed as it came, or refused.

use crate::common::{Client, Setup, Smarthost, plain, queue_id, without_received};
use std::fs;
use std::path::Path;

/// All mail of the fixtures, while its domain is unknown, and then known and without tracking.
#[test]
fn every_octet_but_for_received_leaves_as_it_came() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    for known in [false, true] {
        if known {
            relay.ok(&["domain", "add", "shop.example.com", "--subdomain", "links", "--force-verified"]);
        }
        let mut sent = 0;
        for (name, message) in fixtures() {
            client.begin("news@shop.example.com", &["ada@example.net"]);
            let reply = client.data(&message);
            if !is_clean(&message) {
                assert!(reply.starts_with("550 5."), "{name}: {reply}");
                continue;
            }
            let arrived = smarthost.wait_for_text(&queue_id(&reply));
            assert_eq!(arrived.to, ["ada@example.net"]);
            let (got, want) = (without_received(&arrived.body), without_ours(&message));
            assert!(got == want || got == [&want[..], b"\r\n"].concat(), "{name} was changed, known: {known}");
            sent += 1;
        }
        assert!(sent > 50, "only {sent}");
    }
    relay.wait_until_empty();
    // A second is opened where the next message came before the reply to the last one was read.
    assert!(smarthost.connections() <= 4, "{} connections for one message after the other", smarthost.connections());
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mail");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mail = files.filter(|file| file.extension().is_some_and(|extension| extension == "eml"));
    mail.map(|file| (file.display().to_string(), fs::read(&file).unwrap())).collect()
}

/// No NUL, and every line ends in CRLF.
fn is_clean(message: &[u8]) -> bool {
    let text: Vec<u8> =
        message.split(|b| *b == b'\n').flat_map(|line| line.strip_suffix(b"\r").unwrap_or(line)).copied().collect();
    let ends = message.iter().filter(|b| **b == b'\n').count();
    !text.contains(&0) && !text.contains(&b'\r') && message.len() == text.len() + 2 * ends
}

/// Without the fields of its header that are addressed to the relay and never leave it.
fn without_ours(message: &[u8]) -> Vec<u8> {
    let is_ours = |line: &[u8]| line.get(..12).is_some_and(|start| start.eq_ignore_ascii_case(b"x-trackpost-"));
    let (mut in_header, mut in_ours) = (true, false);
    let mut kept = Vec::new();
    for line in message.split_inclusive(|b| *b == b'\n') {
        in_header &= line != b"\r\n";
        // A folded line belongs to the field before it.
        in_ours = in_header && if line.starts_with(b" ") || line.starts_with(b"\t") { in_ours } else { is_ours(line) };
        if !in_ours {
            kept.extend_from_slice(line);
        }
    }
    kept
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
