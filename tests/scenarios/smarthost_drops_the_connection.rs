//! A connection that breaks in the middle of a message: it is tried again as the same message, and where it may have
//! been taken already, the log says so.

use crate::common::{At, Client, Do, Gate, Setup, Smarthost, Taken, crlf, plain};

/// Hangs up once at this step.
fn dropping(step: fn(&At<'_>) -> bool) -> Smarthost {
    let mut done = false;
    Smarthost::scripted(move |at| match step(at) && !done {
        true => {
            done = true;
            Do::HangUp
        }
        false => Do::Go,
    })
}

fn message_id(taken: &Taken) -> String {
    let text = taken.text();
    text.lines().find(|line| line.starts_with("Message-ID:")).unwrap_or_default().to_owned()
}

const MAYBE: &str = "the connection broke after the final dot: the message may arrive twice";

#[test]
fn before_the_message_it_is_tried_again() {
    for step in [|at: &At<'_>| matches!(at, At::Rcpt(_)), |at: &At<'_>| matches!(at, At::Data)] {
        let smarthost = dropping(step);
        let relay = Setup::new(smarthost.address).start();
        let id =
            Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "again"));
        let taken = smarthost.wait_for_text(&id);
        assert_eq!(message_id(&taken), "Message-ID: <again@example.com>");
        relay.wait_for_status(&id, &["relayed"]);
        assert!(relay.logged(MAYBE).is_empty());
        assert_eq!(smarthost.messages().len(), 1);
    }
}

#[test]
fn in_the_middle_of_the_message_it_is_tried_again() {
    let smarthost = dropping(|at| matches!(at, At::Middle));
    let relay = Setup::new(smarthost.address).start();
    // More than the system's buffers hold, so that the end cannot have been written.
    let line = format!("{}\r\n", "x".repeat(998));
    let message = [plain("example.com", "big"), line.repeat(12_000).into_bytes()].concat();
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &message);
    smarthost.wait_for_text(&id);
    relay.wait_for_status(&id, &["relayed"]);
    assert!(relay.logged(MAYBE).is_empty());
    assert_eq!(smarthost.messages().len(), 1);
}

#[test]
fn after_the_dot_it_is_tried_again_and_logged_as_a_possible_duplicate() {
    let smarthost = dropping(|at| matches!(at, At::Dot(_)));
    let relay = Setup::new(smarthost.address).start();
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "twice"));
    smarthost.wait_for_text(&id);
    relay.wait_for_status(&id, &["relayed"]);
    let messages = smarthost.messages();
    assert_eq!(messages.len(), 2);
    assert!(!messages[0].answered && messages[1].answered);
    assert_eq!(messages[0].body, messages[1].body, "the same message, its Message-ID included");
    let logged = relay.logged(MAYBE);
    assert!(logged.len() == 1 && logged[0].contains(&id), "{logged:?}");
}

#[test]
fn a_slow_answer_after_the_dot_is_waited_for() {
    let gate = Gate::default();
    let shut = gate.clone();
    let smarthost = Smarthost::scripted(move |at| match at {
        At::Dot(taken) if taken.text().contains("Subject: slow") => Do::Wait(shut.clone()),
        _ => Do::Go,
    });
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    let slow = client.send("a@example.com", &["b@example.net"], &crlf("Subject: slow\n\nx\n"));
    // Others pass it by meanwhile.
    for n in 0..20 {
        let id = client.send("a@example.com", &["b@example.net"], &plain("example.com", &format!("m{n}")));
        smarthost.wait_for_text(&id);
    }
    relay.wait_for_status(&slow, &["sending"]);
    gate.open();
    relay.wait_for_status(&slow, &["relayed"]);
    assert_eq!(smarthost.messages().len(), 21);
    assert!(relay.logged(MAYBE).is_empty());
}
