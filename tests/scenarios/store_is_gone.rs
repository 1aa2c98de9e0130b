//! The store is a view: without it mail flows and links redirect, and it is made anew from the log.

use crate::common::{Client, Setup, Smarthost, get, html, links, plain};
use std::fs;

#[test]
fn deleted_it_is_made_anew_and_nothing_is_delivered_again() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let mut client = Client::greeted(relay.smtp());
    let id = client.send("news@example.com", &["ada@example.net"], &html("tracked", &["https://example.net/"]));
    let link = links(&smarthost.wait_for_text(&id).body).remove(0);
    assert_eq!(get(relay.web(), &link).status, 302);
    let other = client.send("a@example.org", &["b@example.net"], &plain("example.org", "other"));
    let shown = relay.wait_for_status(&id, &["relayed"]);
    relay.wait_for_status(&other, &["relayed"]);
    relay.wait_for_events("email.clicked", 1);
    let mut before = relay.events();
    for end in ["stopped", "killed"] {
        match end {
            "stopped" => drop(relay.stop()),
            _ => relay.kill(),
        }
        fs::remove_dir_all(relay.data_dir().join("store")).unwrap();
        relay.start();
        assert_eq!(relay.wait_for_status(&id, &["relayed"]), shown, "{end}");
        relay.wait_for_events("email.clicked", 1);
        let mut after = relay.events();
        // The click of the turn before may be among them.
        let last = before.iter().filter_map(|event| event["at"].as_u64()).max();
        after.retain(|event| event["at"].as_u64() <= last);
        // A click is judged again, by what the log tells of the delivery.
        [&mut before, &mut after]
            .into_iter()
            .flatten()
            .for_each(|event| ["class", "reason"].iter().for_each(|key| drop(event[*key].take())));
        assert_eq!(before, after, "{end}");
        assert_eq!(get(relay.web(), &link).status, 302);
    }
    let last = Client::greeted(relay.smtp()).send("a@example.org", &["b@example.net"], &plain("example.org", "last"));
    smarthost.wait_for_text(&last);
    assert_eq!(smarthost.messages().len(), 3);
}

#[test]
fn unusable_it_takes_history_away_and_nothing_else() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.stop();
    let store = relay.data_dir().join("store");
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "not a folder").unwrap();
    relay.start();
    relay.wait_for_log("the store does not open");
    relay.track_example_com();
    let message = html("x", &["https://example.net/"]);
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
    let link = links(&smarthost.wait_for_text(&id).body).remove(0);
    assert_eq!(get(relay.web(), &link).header("location"), "https://example.net/");
    // Commands work, and say what is missing.
    relay.wait_until_empty();
    assert!(relay.ok(&["domain", "show", "example.com"]).contains("opens and clicks"));
    relay.ok(&["key", "create", "--name", "app"]);
    let list = relay.run(&["queue", "list"]);
    assert!(list.code == Some(0) && list.stderr.contains("the store is not open"), "{list:?}");
    let events = relay.run(&["events", "tail"]);
    assert!(events.code == Some(1) && events.stderr.contains("the store is not open"), "{events:?}");
    // When it can be had again, history is there from the log.
    relay.stop();
    fs::remove_file(&store).unwrap();
    relay.start();
    relay.wait_for_status(&id, &["relayed"]);
    relay.wait_for_events("email.clicked", 1);
    assert_eq!(smarthost.messages().len(), 1);
}
