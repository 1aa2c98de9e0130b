//! Who is erased stays so: a store that is made anew and a copy of the log keep forgetting, and the log gives up what was
//! sent to them.

use crate::common::{Client, Relay, Setup, Smarthost, get, html, links, plain, until};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A relay with one message to ada and one to both, on the first of whose links both have clicked.
fn with_clicks(smarthost: &Smarthost) -> (Relay, [String; 2]) {
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let mut client = Client::greeted(relay.smtp());
    let (ada, bob) = ("ada@example.net", "bob@example.net");
    let alone = client.send("news@example.com", &[ada], &html("for-ada-alone", &["https://example.net/a"]));
    let both = client.send("news@example.com", &[ada, bob], &html("for-both", &["https://example.net/b"]));
    relay.wait_for_status(&alone, &["relayed"]);
    relay.wait_for_status(&both, &["relayed", "relayed"]);
    for taken in smarthost.taken() {
        let link = links(&taken.body).remove(0);
        assert_eq!(get(relay.web(), &link).status, 302);
    }
    relay.wait_for_events("email.clicked", 3);
    (relay, [alone, both])
}

/// Whether anything is left of her, once all of the log is in the history; bob is there.
fn is_forgotten(relay: &Relay, both: &str) -> bool {
    let last = Client::greeted(relay.smtp()).send("a@example.com", &["x@example.net"], &plain("example.com", "last"));
    relay.wait_for_status(&last, &["relayed"]);
    let bob = until("bob's clicks", || {
        let kept = relay.run(&["recipient", "export", "bob@example.net"]).stdout;
        kept.contains("email.clicked").then_some(kept)
    });
    assert!(bob.contains(both), "{bob}");
    let searched = relay.run(&["search", "ada@example.net"]).stdout;
    let events: Vec<_> =
        relay.events().iter().map(ToString::to_string).filter(|e| e.contains("ada@example.net")).collect();
    let kept = relay.run(&["recipient", "export", "ada@example.net"]).stdout;
    !searched.contains("ada@") && events.is_empty() && !kept.contains("ada@")
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn by_a_store_that_is_made_anew() {
    let smarthost = Smarthost::start();
    let (mut relay, [_, both]) = with_clicks(&smarthost);
    assert!(!is_forgotten(&relay, &both));
    relay.ok(&["recipient", "erase", "Ada@EXAMPLE.net"]);
    assert!(is_forgotten(&relay, &both));
    for _ in 0..2 {
        relay.stop();
        fs::remove_dir_all(relay.data_dir().join("store")).unwrap();
        relay.start();
        assert!(is_forgotten(&relay, &both), "the store was made anew");
    }
    // What is sent to her from now on is hers again.
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["ada@example.net"], &plain("example.com", "new"));
    let shown = relay.wait_for_status(&id, &["relayed"]);
    assert_eq!(shown["recipients"][0]["address"], "ada@example.net");
}

#[test]
fn by_a_copy_that_was_made_before_once_it_has_the_list() {
    let smarthost = Smarthost::start();
    let (mut relay, [_, both]) = with_clicks(&smarthost);
    relay.stop();
    let (data, before) = (relay.data_dir(), relay.folder().join("before"));
    copy(&data, &before);
    fs::remove_dir_all(before.join("store")).unwrap();
    relay.start();
    relay.ok(&["recipient", "erase", "ada@example.net"]);
    let list = relay.folder().join("erased.list");
    fs::write(&list, relay.ok(&["recipient", "erased"])).unwrap();
    let text = fs::read_to_string(&list).unwrap();
    assert!(text.lines().count() == 1 && !text.contains("ada"), "{text}");
    let refused = relay.run(&["recipient", "erased", "--add", list.to_str().unwrap()]);
    assert!(refused.code == Some(1), "while the server runs: {refused:?}");
    relay.stop();
    fs::remove_dir_all(&data).unwrap();
    copy(&before, &data);
    let added = relay.ok(&["recipient", "erased", "--add", list.to_str().unwrap()]);
    assert!(added.contains("1 erasures"), "{added}");
    relay.start();
    assert!(is_forgotten(&relay, &both));
}

#[test]
fn whatever_older_list_is_added_and_however_lists_are_put_together() {
    let smarthost = Smarthost::start();
    let (mut relay, [_, both]) = with_clicks(&smarthost);
    let erase = |relay: &Relay| {
        relay.ok(&["recipient", "erase", "ada@example.net"]);
        relay.ok(&["recipient", "erased"])
    };
    let older = erase(&relay);
    let mail = plain("example.com", "once-more");
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["ada@example.net"], &mail);
    relay.wait_for_status(&id, &["relayed"]);
    relay.stop();
    let (data, between) = (relay.data_dir(), relay.folder().join("between"));
    copy(&data, &between);
    relay.start();
    let newer = erase(&relay);
    assert_ne!(older, newer);
    let file = relay.folder().join("saved.tar");
    relay.ok(&["backup", file.to_str().unwrap()]);
    relay.stop();
    let list = relay.folder().join("erased.list");
    let list = list.to_str().unwrap();
    for (name, text, from) in [
        ("an older list", older.clone(), None),
        ("two, the newer one first, and a copy of between them", format!("{newer}{older}"), Some(&between)),
    ] {
        if let Some(from) = from {
            fs::remove_dir_all(&data).unwrap();
            copy(from, &data);
        }
        fs::write(list, text).unwrap();
        assert!(relay.ok(&["recipient", "erased", "--add", list]).contains("1 erasures"), "{name}");
        fs::remove_dir_all(data.join("store")).unwrap();
        relay.start();
        assert!(is_forgotten(&relay, &both), "{name}");
        assert_eq!(relay.ok(&["recipient", "erased"]), newer, "{name}");
        relay.stop();
    }
    fs::remove_dir_all(&data).unwrap();
    fs::write(list, older).unwrap();
    relay.ok(&["restore", file.to_str().unwrap(), "--erasures", list]);
    relay.start();
    assert_eq!(relay.ok(&["recipient", "erased"]), newer, "a restore with an older list");
}

#[test]
fn by_a_backup_and_what_is_made_of_it() {
    let smarthost = Smarthost::start();
    let (mut relay, _) = with_clicks(&smarthost);
    relay.ok(&["recipient", "erase", "ada@example.net"]);
    let file = relay.folder().join("saved.tar");
    relay.ok(&["backup", file.to_str().unwrap()]);
    relay.ok(&["recipient", "erase", "bob@example.net"]);
    let list = relay.folder().join("erased.list");
    let later = relay.ok(&["recipient", "erased"]);
    fs::write(&list, &later).unwrap();
    assert_eq!(later.lines().count(), 2);
    relay.stop();
    for (with_list, known) in [(false, 1), (true, 2)] {
        fs::remove_dir_all(relay.data_dir()).unwrap();
        let mut command = vec!["restore", file.to_str().unwrap()];
        if with_list {
            command.extend(["--erasures", list.to_str().unwrap()]);
        }
        let ran = relay.run(&command);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(ran.stderr.contains("--erasures"), !with_list, "{ran:?}");
        relay.start();
        let list = relay.json(&["recipient", "erased"]);
        assert_eq!(list.as_array().unwrap().len(), known);
        // Nothing of this log is of before: places in another are none here.
        let mut client = Client::greeted(relay.smtp());
        let id = client.send("a@example.com", &["ada@example.net"], &plain("example.com", "since"));
        let shown = relay.wait_for_status(&id, &["relayed"]);
        assert_eq!(shown["recipients"][0]["address"], "ada@example.net");
        relay.stop();
    }
}

#[test]
fn and_the_log_gives_up_what_was_sent_to_them() {
    let smarthost = Smarthost::start();
    let (relay, _) = with_clicks(&smarthost);
    let held = |text: &str| {
        let segments = fs::read_dir(relay.data_dir().join("log")).unwrap();
        let bytes = segments.filter_map(|segment| fs::read(segment.unwrap().path()).ok());
        bytes.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    assert!(held("for-ada-alone") && held("ada@example.net"));
    relay.ok(&["recipient", "erase", "ada@example.net"]);
    let mut off = true;
    until("the log to be freed", || {
        // Something is written, as on any relay; the switch is a setting.
        relay.ok(&["tracking", if off { "off" } else { "on" }, "example.org"]);
        off = !off;
        (!held("for-ada-alone") && !held("ada@example.net")).then_some(())
    });
}
