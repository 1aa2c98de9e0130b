//! `trackpost domain update` and `remove`, and what becomes of links already sent.

use crate::common::{Client, HOST, Relay, Setup, Smarthost, get, html, links, pixel, request, without_received};

fn send_tracked(relay: &Relay, smarthost: &Smarthost) -> (String, Option<String>, String) {
    let message = html("x", &["https://example.net/"]);
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
    let copy = smarthost.wait_for_text(&id);
    (links(&copy.body).pop().unwrap_or_default(), pixel(&copy.body), copy.text())
}

#[test]
fn opens_and_clicks_are_switched_apart() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    for (open, click) in [(false, true), (true, false), (false, false), (true, true)] {
        let (open_is, click_is) = (open.to_string(), click.to_string());
        relay.ok(&["domain", "update", "example.com", "--open", &open_is, "--click", &click_is]);
        let (link, pixel, _) = send_tracked(&relay, &smarthost);
        assert_eq!((pixel.is_some(), !link.is_empty()), (open, click));
    }
}

#[test]
fn a_changed_subdomain_waits_for_its_verification_and_the_old_one_is_served_on() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let (old, ..) = send_tracked(&relay, &smarthost);
    relay.ok(&["domain", "update", "example.com", "--subdomain", "go"]);
    let (between, ..) = send_tracked(&relay, &smarthost);
    assert!(between.starts_with(&format!("http://{HOST}/")), "the new one is not verified: {between}");
    relay.ok(&["domain", "update", "example.com", "--force-verified"]);
    let (_, _, text) = send_tracked(&relay, &smarthost);
    assert!(text.contains("http://go.example.com/c/"), "{text}");
    assert_eq!(get(relay.web(), &old).status, 302);
    let again = relay.run(&["domain", "update", "example.com", "--subdomain", "three"]);
    assert_eq!(again.code, Some(1), "one change in 24 hours");
    for taken_away in ["", "bad-", "a..b"] {
        let ran = relay.run(&["domain", "update", "example.com", "--subdomain", taken_away]);
        assert_eq!(ran.code, Some(1), "{taken_away:?}: {}", ran.stdout);
    }
}

#[test]
fn links_of_a_removed_domain_redirect_unrecorded() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let (link, pixel, _) = send_tracked(&relay, &smarthost);
    let text = relay.ok(&["domain", "remove", "example.com"]);
    assert!(text.contains("90 days"), "{text}");
    let message = html("after", &["https://example.net/"]);
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
    assert_eq!(without_received(&smarthost.wait_for_text(&id).body), message);
    for _ in 0..2 {
        let answer = get(relay.web(), &link);
        assert_eq!((answer.status, answer.header("location")), (302, "https://example.net/"));
        assert_eq!(get(relay.web(), pixel.as_ref().unwrap()).status, 200);
        relay.kill();
        relay.start();
    }
    // A hit that is recorded shows that those before it were not.
    relay.ok(&["domain", "add", "example.org", "--subdomain", "links", "--click", "--force-verified"]);
    let other = String::from_utf8(message).unwrap().replace("news@example.com", "news@example.org");
    let id = Client::greeted(relay.smtp()).send("news@example.org", &["ada@example.net"], other.as_bytes());
    let text = smarthost.wait_for_text(&id).text();
    let start = text.find("http://links.example.org/c/").unwrap();
    let later = text[start..].split('"').next().unwrap();
    assert_eq!(request(relay.web(), "GET", later, "x").status, 302);
    let clicks = relay.wait_for_events("email.clicked", 1);
    assert!(clicks.len() == 1 && clicks[0]["email_id"] == *id, "{clicks:?}");
    assert!(relay.events().iter().all(|event| event["type"] != "email.opened"));
}

#[test]
fn without_a_grace_they_are_gone_at_once() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).with("tracking.removed_domain_grace", "\"0\"").start();
    relay.track_example_com();
    let (link, ..) = send_tracked(&relay, &smarthost);
    relay.ok(&["domain", "remove", "example.com"]);
    let answer = get(relay.web(), &link);
    assert_eq!((answer.status, answer.header("location")), (410, ""));
    // It can be set up again, and then its links work again.
    relay.track_example_com();
    assert_eq!(get(relay.web(), &link).status, 302);
}
