//! A smarthost that takes its time behind one message's final dot: what else is there does not wait for it, and no
//! client waits for delivery.

use crate::common::{At, Client, Do, Gate, Setup, Smarthost, crlf, plain, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Does not answer for messages that hold this word until the gate is open.
const LATE: &str = "late-one";

/// The second counts those that wait for it.
fn smarthost(gate: &Gate) -> (Smarthost, Arc<AtomicUsize>) {
    let (shut, late) = (gate.clone(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&late);
    let smarthost = Smarthost::scripted(move |at| match at {
        At::Dot(taken) if taken.text().contains(LATE) => {
            counted.fetch_add(1, Ordering::SeqCst);
            Do::Wait(shut.clone())
        }
        _ => Do::Go,
    });
    (smarthost, late)
}

#[test]
fn a_message_that_comes_alone_has_a_connection_of_its_own() {
    let gate = Gate::default();
    let (smarthost, late) = smarthost(&gate);
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    // As many as there are workers at first, and more; each comes alone, when all that there are have something to do.
    for n in 0..5 {
        client.send("a@example.com", &[&format!("r@d{n}.example")], &plain("example.com", &format!("{LATE}-{n}")));
        until("the smarthost to have it", || (late.load(Ordering::SeqCst) == n + 1).then_some(()));
        // Whoever makes workers has nothing to do by then, and looks again only when it is told.
        let stalled = Instant::now();
        until("it to be quiet", || (stalled.elapsed() > Duration::from_millis(800)).then_some(()));
        let began = Instant::now();
        let text = format!("prompt-{n}");
        client.send("a@example.com", &["b@example.net"], &plain("example.com", &text));
        smarthost.wait_for_text(&text);
        assert!(began.elapsed() < Duration::from_secs(4), "{n}: {:?}", began.elapsed());
    }
    gate.open();
    smarthost.wait_for(10);
    relay.wait_until_empty();
}

#[test]
fn no_250_waits_while_the_queue_is_held_or_one_domain_is_slow() {
    let gate = Gate::default();
    let (smarthost, _) = smarthost(&gate);
    let relay = Setup::new(smarthost.address).with("smarthost.max_connections", "4").start();
    let mut client = Client::greeted(relay.smtp());
    let large = "a line of forty characters, and its end\n".repeat(6_000);
    let mut longest = Duration::ZERO;
    let mut send = |to: &str, text: &str| {
        let began = Instant::now();
        let message = format!("From: news@example.com\nTo: {to}\nSubject: {text}\n\n{large}");
        client.send("a@example.com", &[to], &crlf(&message));
        longest = longest.max(began.elapsed());
    };
    // 18 MB for one domain, which is more than is kept in memory.
    relay.ok(&["queue", "hold"]);
    (0..72).for_each(|n| send("r@slow.example", &format!("{LATE} {n}")));
    relay.ok(&["queue", "release"]);
    (0..4).for_each(|n| send("r@slow.example", &format!("{LATE} again {n}")));
    send("r@other.example", "the mail of others");
    assert!(longest < Duration::from_secs(3), "one waited for {longest:?}");
    smarthost.wait_for_text("the mail of others");
    gate.open();
    smarthost.wait_for(77);
    relay.wait_until_empty();
}
