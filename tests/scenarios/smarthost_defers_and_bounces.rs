//! What a smarthost refuses: for now, and for good.

use crate::common::{At, Client, Do, Setup, Smarthost, plain};
use std::time::Instant;

/// `reply` to the first `times` questions at one step, all in order otherwise.
fn refusing(step: fn(&At<'_>) -> bool, reply: &'static str, mut times: u32) -> Smarthost {
    Smarthost::scripted(move |at| match step(at) && times > 0 {
        true => {
            times -= 1;
            Do::Say(reply)
        }
        false => Do::Go,
    })
}

const STEPS: [fn(&At<'_>) -> bool; 4] = [
    |at| matches!(at, At::Mail),
    |at| matches!(at, At::Rcpt(_)),
    |at| matches!(at, At::Data),
    |at| matches!(at, At::Dot(_)),
];

#[test]
fn a_4xx_is_tried_again_after_the_configured_pause() {
    for step in STEPS {
        let smarthost = refusing(step, "451 4.7.1 Greylisted, come back", 1);
        let relay = Setup::new(smarthost.address).with("queue.retry", "[\"4s\"]").start();
        let id =
            Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "later"));
        let sent = Instant::now();
        let shown = relay.wait_for_status(&id, &["deferred"]);
        let recipient = &shown["recipients"][0];
        assert_eq!(recipient["reply"], "451 4.7.1 Greylisted, come back");
        assert_eq!(recipient["attempts"], 1);
        let pause = recipient["next"].as_u64().unwrap() - recipient["at"].as_u64().unwrap();
        assert!((4_000..=4_500).contains(&pause), "{pause} ms");
        let list = relay.run(&["queue", "list"]).stdout;
        assert!(list.contains("deferred") && list.contains("Greylisted"), "{list}");
        smarthost.wait_for_text("later");
        assert!(sent.elapsed().as_millis() >= 3_900, "{:?}", sent.elapsed());
        relay.wait_for_status(&id, &["relayed"]);
        relay.wait_until_empty();
    }
}

#[test]
fn a_5xx_is_final_and_listed_with_the_reply() {
    for step in STEPS {
        let smarthost = refusing(step, "550 5.1.1 Nobody here", 1);
        let relay = Setup::new(smarthost.address).start();
        let mut client = Client::greeted(relay.smtp());
        let id = client.send("a@example.com", &["b@example.net"], &plain("example.com", "refused"));
        let shown = relay.wait_for_status(&id, &["bounced"]);
        // The notice to its sender goes the same way, some moments later.
        relay.wait_until_empty();
        assert_eq!(shown["recipients"][0]["reply"], "550 5.1.1 Nobody here");
        let failed = relay.queue_with_failed();
        assert_eq!((failed["queued"].as_u64(), &failed["failed"][0]["id"]), (Some(0), &id.into()));
        let list = relay.run(&["queue", "list"]).stdout;
        assert!(list.contains("1 failed") && list.contains("550 5.1.1 Nobody here"), "{list}");
        assert_eq!(relay.wait_for_events("email.bounced", 1)[0]["reply"], "550 5.1.1 Nobody here");
        // The connection is good for the next message, and the refused one is not tried again.
        client.send("a@example.com", &["b@example.net"], &plain("example.com", "second"));
        smarthost.wait_for_text("second");
        let mail = smarthost.taken().into_iter().filter(|taken| !taken.mail.starts_with("<>"));
        assert!(mail.into_iter().all(|taken| !taken.text().contains("refused")), "but for the notice to its sender");
    }
}

#[test]
fn what_is_deferred_for_too_long_is_given_up() {
    let smarthost = refusing(STEPS[1], "450 4.2.0 Mailbox busy", u32::MAX);
    let relay = Setup::new(smarthost.address).with("queue.max_age", "\"3s\"").start();
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "old"));
    let shown = relay.wait_for_status(&id, &["bounced"]);
    assert_eq!(shown["recipients"][0]["reply"], "450 4.2.0 Mailbox busy");
}
