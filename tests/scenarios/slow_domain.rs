//! A recipient domain for which the smarthost takes its time does not keep the mail of others waiting.

use crate::common::{At, Client, Do, Gate, Setup, Smarthost, plain};

#[test]
fn others_are_served_meanwhile() {
    let gate = Gate::default();
    let shut = gate.clone();
    let smarthost = Smarthost::scripted(move |at| match at {
        At::Rcpt(address) if address.ends_with("@slow.example") => Do::Wait(shut.clone()),
        _ => Do::Go,
    });
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    let slow: Vec<_> = (0..60)
        .map(|n| {
            client.send("a@example.com", &[&format!("r{n}@slow.example")], &plain("example.com", &format!("slow{n}")))
        })
        .collect();
    for n in 0..10 {
        client.send("a@example.com", &[&format!("r{n}@fast.example")], &plain("example.com", &format!("fast{n}")));
    }
    smarthost.wait_for(10);
    assert!(smarthost.taken().iter().all(|taken| taken.text().contains("fast")));
    assert_eq!(relay.json(&["queue", "list"])["queued"], 60);
    gate.open();
    smarthost.wait_for(70);
    relay.wait_for_status(&slow[59], &["relayed"]);
    relay.wait_until_empty();
}
