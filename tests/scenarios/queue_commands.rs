//! What an operator does to mail that waits, and how it is found.

use crate::common::{At, Client, Do, Gate, Setup, Smarthost, plain};

#[test]
fn held_mail_is_accepted_and_waits_also_over_a_restart() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    assert!(relay.ok(&["queue", "hold"]).starts_with("the queue is held"));
    assert!(relay.ok(&["queue", "hold"]).contains("already"));
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "held"));
    relay.stop();
    relay.start();
    let shown = relay.run(&["queue", "list"]);
    assert!(shown.stderr.contains("the queue is held") && shown.stdout.contains(&id), "{shown:?}");
    assert_eq!((relay.json(&["queue", "list"])["held"].as_bool(), smarthost.connections()), (Some(true), 0));
    assert_eq!(relay.ok(&["queue", "release"]), "mail goes out again\n");
    smarthost.wait_for_text("held");
    relay.wait_until_empty();
    assert_eq!(relay.ok(&["queue", "release"]), "the queue was not held\n");
}

#[test]
fn a_message_is_retried_now_and_another_removed() {
    let smarthost = Smarthost::scripted(|at| match at {
        At::Rcpt(_) => Do::Say("450 4.2.0 Busy"),
        _ => Do::Go,
    });
    let relay = Setup::new(smarthost.address).with("queue.retry", "[\"1h\"]").start();
    let mut client = Client::greeted(relay.smtp());
    let [one, two, three] = ["one", "two", "three"]
        .map(|name| client.send("a@example.com", &["b@example.net"], &plain("example.com", name)));
    for id in [&one, &two, &three] {
        relay.wait_for_status(id, &["deferred"]);
    }
    assert_eq!(relay.ok(&["queue", "remove", &two]), "removed; 1 recipient had not been served\n");
    smarthost.change(|_| Do::Go);
    assert_eq!(relay.ok(&["queue", "retry", &one]), "1 message due now\n");
    smarthost.wait_for_text("one");
    relay.wait_for_status(&one, &["relayed"]);
    assert_eq!(relay.json(&["queue", "list"])["queued"], 1);
    assert_eq!(relay.json(&["queue", "retry", "all"])["due"], 1);
    smarthost.wait_for_text("three");
    relay.wait_until_empty();
    relay.wait_for_status(&two, &["removed"]);
    assert_eq!(smarthost.taken().len(), 2, "the removed one is not among them, and its sender is told nothing");
    for gone in [&two, "01a20bcb-f522-7113-8653-f1e598090d4a"] {
        for command in ["retry", "remove"] {
            let ran = relay.run(&["queue", command, gone]);
            assert!(ran.code == Some(1) && ran.stderr.contains("no message"), "{ran:?}");
        }
    }
    assert!(relay.run(&["queue", "remove", "x"]).stderr.contains("no queue id"));
}

#[test]
fn what_is_under_way_is_not_removed() {
    let gate = Gate::default();
    let shut = gate.clone();
    let smarthost = Smarthost::scripted(move |at| match at {
        At::Dot(_) => Do::Wait(shut.clone()),
        _ => Do::Go,
    });
    let relay = Setup::new(smarthost.address).start();
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "going"));
    relay.wait_for_status(&id, &["sending"]);
    let ran = relay.run(&["queue", "remove", &id]);
    assert!(ran.code == Some(1) && ran.stderr.contains("is being delivered at this moment"), "{ran:?}");
    gate.open();
    relay.wait_for_status(&id, &["relayed"]);
}

#[test]
fn mail_is_found_by_id_recipient_and_message_id() {
    let mut smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    let done = client.send("a@example.com", &["Ada@example.net", "b@example.net"], &plain("example.com", "done"));
    relay.wait_for_status(&done, &["relayed", "relayed"]);
    smarthost.stop();
    let waits = client.send("a@example.com", &["ada@example.net"], &plain("example.com", "waits"));
    let ids = |text: &str| -> Vec<String> {
        let found = relay.json(&["search", text]);
        found.as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&done), [&*done]);
    assert_eq!(ids(&waits), [&*waits]);
    assert_eq!(ids("ada@EXAMPLE.net"), [&*waits, &*done]);
    assert_eq!(ids("b@example.net"), [&*done]);
    assert_eq!(ids("done@example.com"), [&*done]);
    assert_eq!(ids("<waits@example.com>"), [&*waits]);
    assert!(ids("nobody@example.net").is_empty());
    let shown = relay.run(&["search", "ada@example.net"]);
    assert!(shown.stdout.contains("SUBJECT") && shown.stdout.contains("waits"), "{shown:?}");
}

#[test]
fn a_test_message_goes_through_everything() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let shown = relay.ok(&["test", "--to", "ada@example.net"]);
    assert!(shown.contains("to        ada@example.net  relayed") && shown.contains("1 rewritten"), "{shown}");
    smarthost.wait_for_text("postmaster@example.com");
    smarthost.change(|at| match at {
        At::Rcpt(_) => Do::Say("550 5.7.1 Not you"),
        _ => Do::Go,
    });
    let ran = relay.run(&["test", "--to", "ada@example.net", "--from", "me@example.org"]);
    assert!(ran.code == Some(1) && ran.stdout.contains("550 5.7.1 Not you"), "{ran:?}");
    assert_eq!(relay.run(&["test", "--to", "nonsense"]).code, Some(1));
}
