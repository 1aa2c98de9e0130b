//! Passwords that are guessed: one answer for all of them, fewer and fewer tries, and no harm to others.

use super::submission::plain_response;
use crate::common::{Client, Setup, Smarthost, plain, until};
use std::time::Instant;

#[test]
fn three_failures_end_the_session_and_the_next_one_waits() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).with("listener.auth", "\"required\"").start();
    let key = relay.ok(&["key", "create", "--name", "app"]).trim().to_owned();
    let mut client = Client::greeted(relay.smtp());
    client.expect("AUTH PLAIN AHJlc2VuZAA=", "535 5.7.8 ");
    client.expect(&format!("AUTH PLAIN {}", plain_response("re_wrong")), "535 5.7.8 ");
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key[..key.len() - 1])), "421 4.7.0 ");
    assert!(client.is_closed());
    let mut client = Client::greeted(relay.smtp());
    let began = Instant::now();
    client.expect(&format!("AUTH PLAIN {}", plain_response("re_wrong")), "535 5.7.8 ");
    assert!(began.elapsed().as_millis() >= 400, "after {:?}", began.elapsed());
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "right-in-the-end"));
    smarthost.wait_for_text("right-in-the-end");
    let log = relay.logged("").join("\n");
    assert!(log.contains("authentication failed") && !log.contains("re_"), "{log}");
}

#[test]
fn wrong_passwords_and_unknown_users_are_answered_alike() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).with("listener.auth", "\"optional\"").start();
    relay.ok(&["key", "create", "--name", "app"]);
    let mut client = Client::greeted(relay.smtp());
    let one = client.ask("AUTH PLAIN AHJlc2VuZABub3BlCg==");
    let other = client.ask("AUTH PLAIN AHNvbWVib2R5AG5vcGUK");
    assert_eq!(one, other);
    // Malformed ones are no guesses, and cancelling is none.
    client.expect("AUTH PLAIN !", "501 5.5.2 ");
    client.expect("AUTH LOGIN", "334 ");
    client.expect("*", "501 5.7.0 ");
    client.expect("AUTH CRAM-MD5", "504 5.5.4 ");
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "trusted-anyway"));
}

#[test]
fn eight_hundred_failures_from_elsewhere_do_not_hold_up_the_right_key() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).with("listener.auth", "\"required\"").start();
    let key = relay.ok(&["key", "create", "--name", "app"]).trim().to_owned();
    let wrong = format!("AUTH PLAIN {}\r\n", plain_response("re_wrong"));
    let from = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Client::greeted_from([127, 1, high, low], relay.smtp())
    };
    let mut guessers: Vec<_> = (1..=400).map(from).collect();
    guessers.iter_mut().for_each(|client| client.write(format!("{wrong}{wrong}")));
    until("failures", || (relay.logged("authentication failed").len() >= 400).then_some(()));
    // The pause is longer now than anybody waits.
    from(401).expect(wrong.trim_end(), "454 4.7.0 ");
    let mut client = from(402);
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "not-held-up"));
    smarthost.wait_for_text("not-held-up");
}
