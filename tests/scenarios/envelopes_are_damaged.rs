//! Both copies of an envelope are damaged on the disk: the history helps out, or at least the sender is told.

use crate::common::{Client, Relay, Setup, Smarthost, plain, until};
use std::fs;

/// A relay without a smarthost, with one message for `lost@example.net` and one for `sound@example.net` in its queue and
/// its history.
fn with_two(smarthost: &Smarthost) -> (Relay, String) {
    let relay = Setup::new(smarthost.address).with("queue.retry", "[\"1h\"]").start();
    let mut client = Client::greeted(relay.smtp());
    let [id, _] = ["lost", "sound"].map(|name| {
        client.send("a@example.com", &[&format!("{name}@example.net")], &plain("example.com", &format!("{name} one")))
    });
    relay.wait_for_events("email.delivery_delayed", 2);
    until("the queue to know why", || relay.json(&["queue", "list"])["smarthost"].as_str().map(str::to_owned));
    (relay, id)
}

/// Changes a letter of the recipient in each copy of the envelope, and not in the message. How many there were.
fn damage(relay: &Relay) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(relay.data_dir().join("log")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let wanted = b"lost@example.net";
        for at in 1..bytes.len().saturating_sub(wanted.len()) {
            if bytes[at..].starts_with(wanted) && bytes[at - 1] != b'<' {
                bytes[at] ^= 1;
                found += 1;
            }
        }
        fs::write(path, bytes).unwrap();
    }
    found
}

#[test]
fn a_message_that_the_history_knows_is_delivered_all_the_same() {
    let mut smarthost = Smarthost::down();
    let (mut relay, id) = with_two(&smarthost);
    relay.stop();
    assert_eq!(damage(&relay), 2);
    smarthost.listen();
    relay.start();
    let taken = smarthost.wait_for(2);
    assert!(taken.iter().any(|message| message.text().contains("Subject: lost one")));
    relay.wait_until_empty();
    assert!(relay.wait_for_log("that of the history is used").contains(&id));
    relay.wait_for_status(&id, &["relayed"]);
}

#[test]
fn where_the_log_lost_all_but_its_id_the_sender_is_told() {
    let mut smarthost = Smarthost::down();
    let (mut relay, id) = with_two(&smarthost);
    relay.kill();
    assert_eq!(damage(&relay), 2);
    smarthost.listen();
    relay.start();
    smarthost.wait_for_text("Subject: sound one");
    let notice = smarthost.wait_for_text("Final-Recipient: rfc822; lost@example.net");
    assert_eq!(notice.to, ["a@example.com"]);
    assert!(notice.text().contains("Action: failed"), "{}", notice.text());
    assert!(relay.wait_for_log("its sender is told").contains(&id));
    relay.wait_for_status(&id, &["bounced"]);
    // It is told once.
    relay.stop();
    let before = smarthost.messages().len();
    relay.start();
    relay.wait_for_log("ready");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(smarthost.messages().len(), before);
}
