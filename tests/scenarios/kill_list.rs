//! The kill list: links that are switched off answer 410 at once, and leave no trace.

use crate::common::{Client, FIREFOX, HOST, Relay, Setup, Smarthost, ask_api, get, html, links, pixel, request, until};
use serde_json::json;

/// Sends a message with these links; its id, its tracked links, its pixel.
fn sent(relay: &Relay, smarthost: &Smarthost, urls: &[&str]) -> (String, Vec<String>, String) {
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.org"], &html("x", urls));
    let body = smarthost.wait_for_text(&id).body;
    (id, links(&body), pixel(&body).expect("it has a pixel"))
}

fn statuses(relay: &Relay, links: &[String]) -> Vec<u16> {
    links.iter().map(|link| get(relay.web(), link).status).collect()
}

#[test]
fn a_killed_link_is_gone_from_that_moment_on() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let (id, links, pixel) = sent(&relay, &smarthost, &["https://a.example.net/offer", "https://example.test/?a=1"]);
    assert_eq!(statuses(&relay, &links), [302, 302]);
    let all = [
        ("message", &*id, [410, 410]),
        ("link", "https://a.example.net/offer", [410, 302]),
        ("domain", "example.net", [410, 302]),
        ("domain", "EXAMPLE.test", [302, 410]),
        ("domain", "example.com", [410, 410]),
        ("domain", "net.test", [302, 302]),
    ];
    for (kind, value, wanted) in all {
        let said = relay.ok(&["kill", "add", kind, value]);
        assert_eq!(said, format!("{kind} {}: links are answered 410 from now on\n", value.to_lowercase()));
        assert_eq!(statuses(&relay, &links), wanted, "{kind} {value}");
        relay.ok(&["kill", "remove", kind, value]);
        assert_eq!(statuses(&relay, &links), [302, 302], "{kind} {value}");
        let again = relay.run(&["kill", "remove", kind, value]);
        assert!(again.code == Some(1) && again.stderr.contains("not on the kill list"), "{}", again.stderr);
    }

    relay.ok(&["kill", "add", "message", &id]);
    let other = sent(&relay, &smarthost, &["https://other.test/"]);
    for link in &links {
        let answers = [get(relay.web(), link), request(relay.web(), "HEAD", link, FIREFOX)];
        for answer in &answers {
            assert_eq!((answer.status, answer.header("location")), (410, ""));
            assert_eq!((answer.header("cache-control"), answer.header("x-robots-tag")), ("no-store", "noindex"));
        }
        assert_eq!(String::from_utf8_lossy(&answers[0].body), "This link was switched off by its sender.\n");
        assert_eq!(answers[1].body, b"");
    }
    let image = get(relay.web(), &pixel);
    assert_eq!((image.status, image.header("content-type")), (200, "image/gif"));
    relay.wait_for_events("email.opened", 1);
    // It is on disk as well.
    relay.stop();
    relay.start();
    assert_eq!((statuses(&relay, &links), statuses(&relay, &other.1)), (vec![410, 410], vec![302]));
    let clicked = |id: &str| {
        let clicks = relay.wait_for_events("email.clicked", 1);
        clicks.iter().filter(|click| click["email_id"] == id).filter_map(|click| click["count"].as_u64()).sum::<u64>()
    };
    until("the click on the other message", || (clicked(&other.0) == 1).then_some(()));
    // Those before it was killed: one, and one after each of the six kills.
    let before = 1 + all.len() as u64;
    let redirected = all.iter().flat_map(|(.., wanted)| wanted).filter(|status| **status == 302).count() as u64;
    assert_eq!(clicked(&id), 2 * before + redirected);
}

#[test]
fn the_list_and_what_cannot_stand_on_it() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    assert_eq!(relay.ok(&["kill", "list"]), "the kill list is empty\n");
    assert_eq!(relay.json(&["kill", "list"]), json!([]));
    let first = relay.json(&["kill", "add", "domain", "bücher.example"]);
    assert_eq!((&first["kind"], &first["value"]), (&json!("domain"), &json!("xn--bcher-kva.example")));
    let link = relay.json(&["kill", "add", "link", "https://bücher.example/a b"]);
    assert_eq!(link["value"], "https://xn--bcher-kva.example/a%20b");
    assert_eq!(relay.json(&["kill", "add", "domain", "Bücher.example"]), first, "twice is once");
    assert_eq!(relay.json(&["kill", "list"]), json!([link, first]));
    let shown = relay.ok(&["kill", "list"]);
    assert!(shown.contains("link    https://xn--bcher-kva.example/a%20b") && shown.contains("domain  "), "{shown}");
    let long = format!("https://example.com/{}", "x".repeat(8_000));
    for (kind, value, why) in [
        ("message", "x", "a UUID"),
        ("link", "example.com", "absolute http or https URL"),
        ("link", "ftp://example.com/", "absolute http or https URL"),
        ("link", &*long, "8000 bytes at most"),
        ("domain", "127.0.0.1", "is an IP address"),
    ] {
        let ran = relay.run(&["kill", "add", kind, value]);
        assert!(ran.code == Some(1) && ran.stderr.contains(why), "{value}: {}", ran.stderr);
    }
    assert_eq!(relay.json(&["kill", "list"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn over_the_api() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let key = |options: &[&str]| {
        let token = relay.ok(&[&["key", "create", "--name", "x"], options].concat());
        token.trim_end().to_owned()
    };
    let (full, tied) = (key(&[]), key(&["--domain", "example.com"]));
    let sending = key(&["--permission", "sending_access"]);
    let api = |key: &str, method: &str, path: &str, body| ask_api(relay.api(), key, method, path, body);
    let (_, sent, _) = sent(&relay, &smarthost, &["https://a.example.net/", "https://b.example.net/"]);
    assert!(sent[0].contains(HOST));

    let wanted = json!({"type": "link", "value": "https://a.example.net/"});
    for restricted in [&tied, &sending] {
        for (method, path) in [("POST", "/kill-list"), ("GET", "/kill-list"), ("DELETE", "/kill-list/x")] {
            let (status, refused) = api(restricted, method, path, Some(wanted.clone()));
            assert_eq!((status, &refused["name"]), (401, &json!("restricted_api_key")), "{method}");
        }
    }
    let (status, made) = api(&full, "POST", "/kill-list", Some(wanted.clone()));
    assert_eq!((status, &made["object"], &made["type"]), (201, &json!("kill"), &json!("link")));
    assert_eq!(made["value"], wanted["value"]);
    assert!(made["created_at"].as_str().is_some_and(|at| at.ends_with("+00:00")), "{made}");
    assert_eq!(api(&full, "POST", "/kill-list", Some(wanted)), (201, made.clone()), "twice is once");
    assert_eq!(statuses(&relay, &sent), [410, 302]);

    let (_, second) = api(&full, "POST", "/kill-list", Some(json!({"type": "domain", "value": "b.example.net"})));
    assert_eq!(statuses(&relay, &sent), [410, 410]);
    let (_, page) = api(&full, "GET", "/kill-list?limit=1", None);
    assert_eq!((&page["object"], &page["has_more"]), (&json!("list"), &json!(true)));
    assert_eq!((page["data"].as_array().map(Vec::len), &page["data"][0]["id"]), (Some(1), &second["id"]));
    let after = format!("/kill-list?after={}", second["id"].as_str().unwrap());
    let (_, rest) = api(&full, "GET", &after, None);
    assert_eq!((&rest["has_more"], &rest["data"][0]["id"]), (&json!(false), &made["id"]));

    for (body, name) in [
        (json!({}), "missing_required_field"),
        (json!({"type": "link"}), "missing_required_field"),
        (json!({"type": "host", "value": "x"}), "validation_error"),
        (json!({"type": "message", "value": "x"}), "validation_error"),
        (json!({"type": "link", "value": 1}), "validation_error"),
    ] {
        let (status, refused) = api(&full, "POST", "/kill-list", Some(body));
        assert_eq!((status, &refused["name"]), (422, &json!(name)));
    }
    let path = format!("/kill-list/{}", made["id"].as_str().unwrap());
    let deleted = json!({"object": "kill", "id": made["id"], "deleted": true});
    assert_eq!(api(&full, "DELETE", &path, None), (200, deleted));
    assert_eq!(statuses(&relay, &sent), [302, 410]);
    assert_eq!(api(&full, "DELETE", &path, None).0, 404);
}
