//! Recipients who opt out of tracking: their copies are left alone, and nothing but a keyed hash is kept of them.

use crate::common::{Client, Relay, Setup, Smarthost, ask_api, html, links, trackpost, until, without_received};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Sends to all of them; whose copies are tracked, in order.
fn tracked(relay: &Relay, smarthost: &Smarthost, to: &[&str]) -> Vec<String> {
    let message = html("x", &["https://example.net/"]);
    let before = smarthost.taken().len();
    Client::greeted(relay.smtp()).send("news@example.com", to, &message);
    relay.wait_until_empty();
    let mut tracked = Vec::new();
    for copy in &smarthost.taken()[before..] {
        match links(&copy.body).is_empty() {
            true => assert_eq!(without_received(&copy.body), message, "an untracked copy is the message"),
            false => tracked.extend(copy.to.iter().cloned()),
        }
    }
    tracked.sort();
    tracked
}

const ALL: &[&str] = &["ada@example.net", "grace@Example.NET", "alan@bücher.example"];

#[test]
fn their_copies_are_left_alone() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let plain = &["ada@example.net", "grace@example.net", "alan@xn--bcher-kva.example"];
    assert_eq!(tracked(&relay, &smarthost, plain).len(), 3);
    assert_eq!(relay.ok(&["recipient", "opt-out", ALL[0]]), "mail to ada@example.net is not tracked from now on\n");
    let made = relay.json(&["recipient", "opt-out", ALL[1], "--domain", "example.com"]);
    assert_eq!(made["domain"], "example.com");
    let again = relay.json(&["recipient", "opt-out", "GRACE@example.net", "--domain", "Example.com"]);
    assert_eq!(again, made, "twice is once");
    assert_eq!(tracked(&relay, &smarthost, plain), ["alan@xn--bcher-kva.example"]);
    relay.ok(&["recipient", "opt-out", ALL[2]]);
    assert_eq!(tracked(&relay, &smarthost, plain), [""; 0]);

    // A message to nobody else says why it was left alone.
    let id =
        Client::greeted(relay.smtp()).send("news@example.com", &["Ada@example.net"], &html("y", &["http://a.test/"]));
    let skipped = until("the report", || {
        let shown: Value = serde_json::from_str(&relay.run(&["queue", "show", &id, "--json"]).stdout).ok()?;
        shown["report"]["skipped"].as_str().map(str::to_owned)
    });
    assert_eq!(skipped, "opted-out");

    // That lasts.
    relay.kill();
    relay.start();
    assert_eq!(tracked(&relay, &smarthost, plain), [""; 0]);
    relay.ok(&["recipient", "opt-in", ALL[0]]);
    assert_eq!(relay.json(&["recipient", "opt-in", ALL[1]]), json!({"deleted": false}), "that is the other one");
    assert_eq!(tracked(&relay, &smarthost, plain), ["ada@example.net"]);
    assert_eq!(relay.json(&["recipient", "opt-in", ALL[1], "--domain", "example.com"]), json!({"deleted": true}));
    assert_eq!(tracked(&relay, &smarthost, plain), ["ada@example.net", "grace@example.net"]);
    for (arguments, why) in [
        (&["recipient", "opt-out", "ada"][..], "\"ada\" is no address"),
        (&["recipient", "opt-out", "ada@example.net", "--domain", "exmaple.com"], "no sender domain exmaple.com"),
    ] {
        let ran = relay.run(arguments);
        assert!(ran.code == Some(1) && ran.stderr.contains(why), "{}", ran.stderr);
    }
}

#[test]
fn only_a_keyed_hash_is_kept_and_its_key_is_not_done_without() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.ok(&["recipient", "opt-out", "quiet@example.net"]);
    let archive = relay.folder().join("saved.tar");
    relay.ok(&["backup", archive.to_str().unwrap()]);
    relay.stop();
    for entry in fs::read_dir(relay.data_dir().join("log")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(5).any(|w| w == b"quiet"));
    }
    let file = relay.data_dir().join("keys/privacy.key");
    let key = fs::read(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    fs::remove_file(&file).unwrap();
    let without = relay.run(&["serve"]);
    assert!(without.code == Some(1) && without.stderr.contains("privacy.key: it is gone"), "{without:?}");
    fs::write(&file, "xyz").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let damaged = relay.run(&["serve"]);
    assert!(damaged.code == Some(1) && damaged.stderr.contains("privacy.key: not a key file"), "{damaged:?}");

    let elsewhere = tempfile::tempdir().unwrap();
    let config = elsewhere.path().join("trackpost.toml");
    let ran = trackpost(&["restore", archive.to_str().unwrap(), "--config", config.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fs::read(elsewhere.path().join("data/keys/privacy.key")).unwrap(), key);
    fs::remove_dir_all(relay.data_dir()).unwrap();
    fs::rename(elsewhere.path().join("data"), relay.data_dir()).unwrap();
    relay.start();
    assert_eq!(relay.json(&["recipient", "opt-in", "quiet@example.net"]), json!({"deleted": true}));
    // With nobody opted out, nothing is lost with the key.
    relay.stop();
    fs::remove_file(&file).unwrap();
    relay.start();
    assert!(file.exists());
}

#[test]
fn over_the_api() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    relay.ok(&["domain", "add", "example.org"]);
    let id = |name: &str| relay.json(&["domain", "show", name])["id"].as_str().unwrap().to_owned();
    let (own, other) = (id("example.com"), id("example.org"));
    let key = |options: &[&str]| {
        let token = relay.ok(&[&["key", "create", "--name", "x"], options].concat());
        token.trim_end().to_owned()
    };
    let (full, tied) = (key(&[]), key(&["--domain", "example.com"]));
    let api = |key: &str, method: &str, path: &str, body| ask_api(relay.api(), key, method, path, body);
    let asked = |key: &str, query: &str| api(key, "GET", &format!("/opt-outs?{query}"), None);
    let state = |opted_out: bool| (200, json!({"object": "opt_out", "opted_out": opted_out}));

    let (status, made) = api(&full, "POST", "/opt-outs", Some(json!({"email": "Ada@example.net"})));
    assert_eq!((status, &made["object"], made.get("domain_id")), (201, &json!("opt_out"), None));
    assert!(made["created_at"].is_string() && !made.to_string().contains("da@"), "{made}");
    let (_, again) = api(&full, "POST", "/opt-outs", Some(json!({"email": "ada@example.net"})));
    assert_eq!(again, made);
    let body = json!({"email": "grace@example.net", "domain_id": own});
    let (status, scoped) = api(&tied, "POST", "/opt-outs", Some(body));
    assert_eq!((status, &scoped["domain_id"]), (201, &json!(own)));
    assert_eq!(asked(&full, "email=ADA%40example.net"), state(true));
    assert_eq!(asked(&tied, &format!("email=ada@example.net&domain_id={own}")), state(true), "of all is of each");
    assert_eq!(asked(&full, "email=grace@example.net"), state(false));
    assert_eq!(asked(&full, &format!("email=grace@example.net&domain_id={own}")), state(true));
    assert_eq!(asked(&full, &format!("email=grace@example.net&domain_id={other}")), state(false));
    assert_eq!(
        tracked(&relay, &smarthost, &["ada@example.net", "grace@example.net", "alan@example.net"]),
        ["alan@example.net"]
    );

    for method in ["GET", "DELETE"] {
        for (query, status, name) in [
            ("email=ada@example.net".to_owned(), 401, "restricted_api_key"),
            (format!("email=ada@example.net&domain_id={other}"), 404, "not_found"),
            (format!("domain_id={own}"), 422, "missing_required_field"),
            (format!("email=ada&domain_id={own}"), 422, "validation_error"),
            ("email=ada@example.net&domain_id=x".to_owned(), 422, "invalid_parameter"),
        ] {
            let (got, refused) = api(&tied, method, &format!("/opt-outs?{query}"), None);
            assert_eq!((got, &refused["name"]), (status, &json!(name)), "{method} {query}");
        }
    }
    for (body, status, name) in [
        (json!({"email": "ada@example.net"}), 401, "restricted_api_key"),
        (json!({"email": "ada@example.net", "domain_id": other}), 404, "not_found"),
        (json!({"domain_id": own}), 422, "missing_required_field"),
    ] {
        let (got, refused) = api(&tied, "POST", "/opt-outs", Some(body));
        assert_eq!((got, &refused["name"]), (status, &json!(name)));
    }
    let deleted = |deleted: bool| (200, json!({"object": "opt_out", "deleted": deleted}));
    let path = format!("/opt-outs?email=grace@example.net&domain_id={own}");
    assert_eq!(api(&tied, "DELETE", &path, None), deleted(true));
    assert_eq!(api(&tied, "DELETE", &path, None), deleted(false));
    assert_eq!(asked(&tied, &format!("email=grace@example.net&domain_id={own}")), state(false));
}
