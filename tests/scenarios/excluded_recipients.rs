//! Recipients that a domain excludes get the message as it came; all others are tracked.

use crate::common::{Client, Setup, Smarthost, html, links, without_received};

#[test]
fn their_copies_are_left_alone() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    relay.ok(&["domain", "update", "example.com", "--exclude", "@staff.example.com,Seed@example.net"]);
    let shown = relay.ok(&["domain", "show", "example.com"]);
    assert!(shown.contains("excluded   @staff.example.com, seed@example.net"), "{shown}");
    let message = html("x", &["https://example.net/"]);
    let all = ["ada@example.net", "SEED@example.net", "a@staff.example.com", "grace@example.net"];
    let id = Client::greeted(relay.smtp()).send("news@example.com", &all, &message);
    relay.wait_until_empty();
    let copies = smarthost.taken();
    let mut told = Vec::new();
    for copy in &copies {
        let tracked = !links(&copy.body).is_empty();
        assert!(tracked || without_received(&copy.body) == message, "an untracked copy is the message");
        told.extend(copy.to.iter().map(|to| (to.clone(), tracked)));
    }
    told.sort();
    let wanted = all.map(|to| (to.to_owned(), to.ends_with("@example.net") && !to.starts_with("SEED")));
    let mut wanted = wanted.to_vec();
    wanted.sort();
    assert_eq!(told, wanted);
    assert_eq!(copies.len(), 3, "those who get the same share a transaction");
    relay.wait_for_status(&id, &["relayed"; 4]);
    assert_eq!(relay.json(&["queue", "show", &id])["report"]["links_rewritten"], 1);

    // With nobody else among the recipients, the message is left alone altogether, and says why.
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["b@staff.example.com"], &message);
    smarthost.wait_for_text(&id);
    relay.wait_for_status(&id, &["relayed"]);
    assert_eq!(relay.json(&["queue", "show", &id])["report"]["skipped"], "excluded-recipient");

    relay.ok(&["domain", "update", "example.com", "--exclude", ""]);
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["b@staff.example.com"], &message);
    assert_eq!(links(&smarthost.wait_for_text(&id).body).len(), 1);
    let bad = relay.run(&["domain", "update", "example.com", "--exclude", "example.net"]);
    assert!(bad.code == Some(1) && bad.stderr.contains("@example.com"), "{}", bad.stderr);
}
