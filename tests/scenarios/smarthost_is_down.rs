//! A smarthost that cannot be reached: mail is taken, waits, and goes when it comes.

use crate::common::{Client, Do, Setup, Smarthost, plain, until};
use std::time::Instant;

#[test]
fn mail_waits_for_it_and_the_queue_says_why() {
    let mut smarthost = Smarthost::down();
    let relay = Setup::new(smarthost.address).with("queue.retry", "[\"1h\"]").start();
    let mut client = Client::greeted(relay.smtp());
    let mut ids: Vec<_> = (0..3)
        .map(|n| client.send("a@example.com", &["b@example.net"], &plain("example.com", &format!("m{n}"))))
        .collect();
    let why = until("the queue to say why", || relay.json(&["queue", "list"])["smarthost"].as_str().map(str::to_owned));
    assert!(why.contains("refused"), "{why}");
    let list = relay.json(&["queue", "list"]);
    assert_eq!(list["queued"], 3);
    let listed: Vec<_> = list["messages"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    // Two of one millisecond have no order.
    ids.sort();
    assert_eq!(listed, ids);
    let shown = relay.run(&["queue", "list"]);
    assert!(shown.stderr.contains("the smarthost cannot be reached, mail waits: "), "{}", shown.stderr);
    assert!(shown.stdout.contains("3 in the queue") && shown.stdout.contains("b@example.net"), "{}", shown.stdout);
    let tried = relay.wait_for_events("email.delivery_delayed", 1);
    assert!(tried[0]["reply"].as_str().unwrap().contains("refused"), "{tried:?}");

    // Not an hour later but as soon as it is there.
    smarthost.listen();
    smarthost.wait_for(3);
    relay.wait_until_empty();
    assert_eq!(relay.json(&["queue", "list"])["smarthost"], serde_json::Value::Null);
}

#[test]
fn after_a_crash_mail_still_goes_as_soon_as_it_answers() {
    let mut smarthost = Smarthost::down();
    let mut relay = Setup::new(smarthost.address).with("queue.retry", "[\"1h\"]").start();
    let mut client = Client::greeted(relay.smtp());
    for n in 0..30 {
        client.send("a@example.com", &["b@example.net"], &plain("example.com", &format!("m{n}")));
    }
    until("all to be deferred", || {
        let list = relay.json(&["queue", "list"]);
        let messages = list["messages"].as_array()?;
        (messages.len() == 30 && messages.iter().all(|m| m["recipients"][0]["status"] == "deferred")).then_some(())
    });
    drop(client);
    relay.kill();
    // Still away at the next start: the reason is known, and said.
    relay.start();
    relay.wait_for_log("the smarthost cannot be reached, mail waits");
    assert!(relay.json(&["queue", "list"])["smarthost"].as_str().unwrap().contains("refused"));
    relay.kill();
    smarthost.listen();
    relay.start();
    smarthost.wait_for(30);
    relay.wait_until_empty();
    assert_eq!(smarthost.messages().len(), 30, "each once");
    assert!(smarthost.connections() <= 5, "{} connections", smarthost.connections());
}

#[test]
fn one_connection_looks_after_it_not_a_storm() {
    for refusal in [Do::HangUp, Do::Say("421 4.3.2 Not now"), Do::Say("554 5.3.2 No mail here")] {
        let refuse = move || match &refusal {
            Do::Say(reply) => Do::Say(reply),
            _ => Do::HangUp,
        };
        let smarthost = Smarthost::scripted(move |_| refuse());
        let relay = Setup::new(smarthost.address).start();
        let mut client = Client::greeted(relay.smtp());
        let began = Instant::now();
        for n in 0..50 {
            client.send("a@example.com", &["b@example.net"], &plain("example.com", &format!("m{n}")));
        }
        // 0.5 s, 1 s and 2 s behind the first failures.
        until("some probes", || (began.elapsed().as_millis() > 3_000).then_some(()));
        let connections = smarthost.connections();
        assert!((2..=12).contains(&connections), "{connections} connections in {:?}", began.elapsed());
        assert_eq!(relay.logged("the smarthost cannot be reached").len(), 1);
        smarthost.change(|_| Do::Go);
        smarthost.wait_for(50);
        relay.wait_until_empty();
        assert_eq!(smarthost.messages().len(), 50, "each once");
    }
}

#[test]
fn it_goes_away_in_between() {
    let mut smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "before"));
    smarthost.wait_for_text("before");
    smarthost.stop();
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "during"));
    relay.wait_for_log("the smarthost cannot be reached");
    smarthost.listen();
    smarthost.wait_for_text("during");
    relay.wait_until_empty();
    assert_eq!(smarthost.messages().len(), 2);
}

#[test]
fn the_next_smarthost_in_line_takes_its_place() {
    let (first, second) = (Smarthost::down(), Smarthost::start());
    let fallback = format!("[{{ address = \"{}\", tls = \"none\" }}]", second.address);
    let relay = Setup::new(first.address).with("smarthost.fallback", &fallback).start();
    Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "detour"));
    second.wait_for_text("detour");
    relay.wait_until_empty();
}
