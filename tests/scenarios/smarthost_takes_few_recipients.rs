//! A smarthost that takes so many recipients a transaction and answers the others with 452: they follow at once.

use crate::common::{At, Client, Do, Setup, Smarthost, html, plain};
use std::collections::BTreeSet;

/// Takes `most` recipients a transaction.
fn taking(most: usize) -> Smarthost {
    let mut taken = 0;
    Smarthost::scripted(move |at| match at {
        At::Mail => {
            taken = 0;
            Do::Go
        }
        At::Rcpt(_) if taken == most => Do::Say("452 4.5.3 Too many recipients"),
        At::Rcpt(_) => {
            taken += 1;
            Do::Go
        }
        _ => Do::Go,
    })
}

#[test]
fn the_rest_goes_in_the_next_transaction_at_once() {
    let smarthost = taking(3);
    let relay = Setup::new(smarthost.address).with("queue.retry", "[\"1h\"]").start();
    let recipients: Vec<_> = (0..8).map(|n| format!("r{n}@example.net")).collect();
    let recipients: Vec<_> = recipients.iter().map(|r| &**r).collect();
    let id = Client::greeted(relay.smtp()).send("a@example.com", &recipients, &plain("example.com", "eight"));
    relay.wait_for_status(&id, &["relayed"; 8]);
    let taken = smarthost.taken();
    assert_eq!(taken.iter().map(|taken| taken.to.len()).collect::<Vec<_>>(), [3, 3, 2]);
    let all: BTreeSet<_> = taken.iter().flat_map(|taken| &taken.to).map(|to| &**to).collect();
    assert_eq!(all, recipients.into_iter().collect());
}

#[test]
fn up_to_a_hundred_share_a_transaction() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let recipients: Vec<_> = (0..250).map(|n| format!("r{n}@example.net")).collect();
    let recipients: Vec<_> = recipients.iter().map(|r| &**r).collect();
    let id = Client::greeted(relay.smtp()).send("a@example.com", &recipients, &plain("example.com", "many"));
    relay.wait_for_status(&id, &["relayed"; 250]);
    assert_eq!(smarthost.taken().iter().map(|taken| taken.to.len()).collect::<Vec<_>>(), [100, 100, 50]);
}

#[test]
fn a_single_recipient_who_is_put_off_is_no_crowd() {
    let smarthost = taking(0);
    let relay = Setup::new(smarthost.address).with("queue.retry", "[\"1h\"]").start();
    relay.track_example_com();
    let recipients = ["ada@example.net", "grace@example.org"];
    let message = html("x", &["https://example.net/"]);
    let id = Client::greeted(relay.smtp()).send("news@example.com", &recipients, &message);
    let shown = relay.wait_for_status(&id, &["deferred", "deferred"]);
    assert_eq!(shown["recipients"][0]["reply"], "452 4.5.3 Too many recipients");
}
