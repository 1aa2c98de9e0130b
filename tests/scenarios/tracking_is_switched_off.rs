//! `trackpost tracking off` and `on`: in force from that second on.

use crate::common::{Client, Setup, Smarthost, crlf, get, html, links, without_received};

#[test]
fn for_all_mail_and_for_one_domain() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    relay.ok(&["domain", "add", "example.org", "--subdomain", "links", "--open", "--click", "--force-verified"]);
    let mut client = Client::greeted(relay.smtp());
    let message = |domain: &str| {
        let text = String::from_utf8(html("x", &["https://example.net/"])).unwrap();
        text.replace("news@example.com", &format!("news@{domain}")).into_bytes()
    };
    let mut is_tracked = |domain: &str| {
        let id = client.send("news@example.com", &["ada@example.net"], &message(domain));
        let arrived = smarthost.wait_for_text(&id);
        let untouched = without_received(&arrived.body) == message(domain);
        assert_eq!(untouched, !arrived.text().contains(&format!("http://links.{domain}/c/")));
        !untouched
    };
    assert!(is_tracked("example.com"));
    relay.ok(&["tracking", "off"]);
    assert!(!is_tracked("example.com") && !is_tracked("example.org"));
    let shown = relay.ok(&["domain", "list"]);
    assert!(shown.contains("off: switched off for all mail"), "{shown}");
    relay.ok(&["tracking", "on"]);
    assert!(is_tracked("example.com") && is_tracked("example.org"));
    relay.ok(&["tracking", "off", "example.com"]);
    assert!(!is_tracked("example.com") && is_tracked("example.org"));
    relay.ok(&["tracking", "on", "example.com"]);
    assert!(is_tracked("example.com") && is_tracked("example.org"));
}

#[test]
fn links_already_sent_go_on_and_are_recorded_and_the_switch_survives_a_kill() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let message = html("x", &["https://example.net/"]);
    Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
    let link = links(&smarthost.wait_for(1)[0].body).remove(0);
    relay.ok(&["tracking", "off"]);
    relay.kill();
    relay.start();
    assert_eq!(get(relay.web(), &link).status, 302);
    relay.wait_for_events("email.clicked", 1);
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
    assert_eq!(without_received(&smarthost.wait_for_text(&id).body), message);
}

#[test]
fn a_message_can_ask_for_less() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let plain = html("x", &["https://example.net/"]);
    for (wish, clicks, opens) in [("none", false, false), ("clicks", true, false), ("opens", false, true)] {
        let message = [crlf(&format!("X-Trackpost-Track: {wish}\n")), plain.clone()].concat();
        let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
        let arrived = smarthost.wait_for_text(&id).text();
        assert_eq!((arrived.contains("/c/"), arrived.contains("/o/")), (clicks, opens), "{wish}: {arrived}");
        assert!(!arrived.to_lowercase().contains("x-trackpost-track"), "{arrived}");
    }
}
