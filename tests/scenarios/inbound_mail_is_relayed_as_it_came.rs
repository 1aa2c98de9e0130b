//! A listener with `role = "inbound"`: whatever From says, its mail is neither tracked nor counted, and loses nothing.

use crate::common::{Client, Relay, Setup, Smarthost, crlf, html, links, until, without_received};
use std::fs;

/// As a stranger writes it, with everything that means something in mail that leaves.
fn stranger(subject: &str) -> Vec<u8> {
    let mut message = crlf("X-Trackpost-Track: clicks\nX-Trackpost-Tag: campaign=spring\n");
    message.extend(html(subject, &["https://example.com/sale"]));
    message
}

#[test]
fn its_mail_leaves_as_it_came_also_after_a_restart() {
    let smarthost = Smarthost::start();
    let setup = Setup::new(smarthost.address).with("listener.role", "\"inbound\"");
    let mut relay = setup.with("unknown_domains", "\"reject\"").start();
    relay.track_example_com();
    let message = stranger("at-once");
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &message);
    assert_eq!(without_received(&smarthost.wait_for_text("at-once").body), message);
    relay.wait_for_status(&id, &["relayed"]);
    let shown = relay.json(&["queue", "show", &id]);
    assert_eq!(shown["report"]["skipped"], "inbound", "{shown}");
    assert!(shown["from_domain"].is_null() && shown["tags"].as_array().is_some_and(Vec::is_empty), "{shown}");
    let unknown = stranger("unknown").iter().map(|b| if *b == b'@' { b'+' } else { *b }).collect::<Vec<_>>();
    Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &unknown);

    relay.ok(&["queue", "hold"]);
    let message = stranger("kept");
    Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &message);
    relay.kill();
    relay.start();
    relay.ok(&["queue", "release"]);
    assert_eq!(without_received(&smarthost.wait_for_text("kept").body), message);
    relay.wait_until_empty();
    // Once history is open.
    relay.events();
    let stats = relay.json(&["domain", "stats", "example.com"]);
    assert_eq!(stats["total"]["sent"], 0, "it is nobody's mail: {stats}");
}

#[test]
fn the_role_is_changed_by_a_reload_and_a_stranger_may_still_not_send() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let mut client = Client::greeted(relay.smtp());
    client.send("a@example.com", &["b@example.net"], &stranger("before"));
    assert_eq!(links(&smarthost.wait_for_text("before").body).len(), 1);
    reload(&relay, "role = \"inbound\"");
    client.send("a@example.com", &["b@example.net"], &stranger("begun before"));
    assert_eq!(links(&smarthost.wait_for_text("begun before").body).len(), 1, "sessions keep what they began with");
    let mut client = Client::greeted(relay.smtp());
    client.send("a@example.com", &["b@example.net"], &stranger("after"));
    assert!(links(&smarthost.wait_for_text("after").body).is_empty());
    reload(&relay, "role = \"inbound\"\nauth = \"optional\"\ntrusted_networks = [\"192.0.2.0/24\"]");
    let mut client = Client::greeted(relay.smtp());
    client.expect("MAIL FROM:<a@example.com>", "530 5.7.0 ");
}

/// With these lines in place of those of the listener before.
fn reload(relay: &Relay, lines: &str) {
    let file = relay.folder().join("trackpost.toml");
    let text = fs::read_to_string(&file).unwrap();
    let rest: Vec<_> = text.lines().filter(|line| !line.starts_with("role")).collect();
    fs::write(&file, rest.join("\n").replace("[[smtp.listener]]", &format!("[[smtp.listener]]\n{lines}"))).unwrap();
    let before = relay.logged("was reloaded").len();
    relay.signal(libc::SIGHUP);
    until("the reload", || (relay.logged("was reloaded").len() > before).then_some(()));
}
