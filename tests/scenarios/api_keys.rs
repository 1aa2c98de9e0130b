//! `trackpost key …`: API keys, and the key that signs links.

use crate::common::{Client, Setup, Smarthost, get, html, links};
use std::fs;

#[test]
fn a_key_is_made_listed_and_revoked() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let token = relay.ok(&["key", "create", "--name", "app"]);
    assert!(token.starts_with("re_") && token.trim_end().len() > 40 && token.lines().count() == 1, "{token:?}");
    let restricted = ["key", "create", "--name", "mailer", "--permission", "sending_access", "--domain", "example.com"];
    relay.ok(&restricted);
    let unknown = relay.run(&["key", "create", "--name", "x", "--domain", "example.org"]);
    assert_eq!((unknown.code, &*unknown.stdout), (Some(1), ""));
    relay.kill();
    relay.start();
    let keys = relay.json(&["key", "list"]);
    let keys = keys.as_array().unwrap();
    assert_eq!(keys.len(), 2);
    let mailer = keys.iter().find(|key| key["name"] == "mailer").unwrap();
    assert_eq!(
        (&*mailer["permission"].to_string(), &*mailer["domains"][0].to_string()),
        ("\"sending_access\"", "\"example.com\"")
    );
    let text = relay.ok(&["key", "list"]);
    assert!(!text.contains(token.trim()), "the token is shown once only");
    relay.ok(&["key", "revoke", mailer["id"].as_str().unwrap()]);
    assert_eq!(relay.run(&["key", "revoke", mailer["id"].as_str().unwrap()]).code, Some(1));
    let left = relay.json(&["key", "list"]);
    assert_eq!(left.as_array().unwrap().iter().map(|key| &key["name"]).collect::<Vec<_>>(), ["app"]);
    // Nothing on disk or in the log gives the token away.
    let (needle, mut looked) = (token.trim().as_bytes(), 0);
    for entry in fs::read_dir(relay.data_dir().join("log")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(needle.len()).any(|w| w == needle));
        looked += 1;
    }
    assert!(looked > 0 && relay.logged(token.trim()).is_empty());
}

#[test]
fn links_work_on_after_the_signing_key_was_rotated() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let message = html("x", &["https://example.net/"]);
    let mut sent = Vec::new();
    for _ in 0..3 {
        let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
        sent.push(links(&smarthost.wait_for_text(&id).body).remove(0));
        relay.ok(&["key", "rotate"]);
    }
    // Version and key id lead a token, so a new key shows in its first characters.
    let start = |link: &String| link.split("/c/").nth(1).unwrap()[..3].to_owned();
    assert_ne!(start(&sent[0]), start(&sent[1]));
    for _ in 0..2 {
        for link in &sent {
            assert_eq!(get(relay.web(), link).header("location"), "https://example.net/");
        }
        relay.kill();
        relay.start();
    }
}
