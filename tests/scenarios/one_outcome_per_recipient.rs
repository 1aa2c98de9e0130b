//! Recipients of one transaction each have an outcome of their own.

use crate::common::{At, Client, Do, Setup, Smarthost, plain};

#[test]
fn one_is_taken_one_deferred_and_one_refused() {
    let mut busy = true;
    let smarthost = Smarthost::scripted(move |at| match at {
        At::Rcpt("gone@example.net") => Do::Say("550 5.1.1 No such user"),
        At::Rcpt("busy@example.net") if std::mem::take(&mut busy) => Do::Say("450 4.2.1 Busy"),
        _ => Do::Go,
    });
    let relay = Setup::new(smarthost.address).with("queue.retry", "[\"3s\"]").start();
    let recipients = ["gone@example.net", "busy@example.net", "here@example.net"];
    let id = Client::greeted(relay.smtp()).send("a@example.com", &recipients, &plain("example.com", "three"));
    let shown = relay.wait_for_status(&id, &["bounced", "deferred", "relayed"]);
    let reply = |n: usize| shown["recipients"][n]["reply"].as_str().unwrap().to_owned();
    assert_eq!((&*reply(0), &*reply(1)), ("550 5.1.1 No such user", "450 4.2.1 Busy"));
    assert!(smarthost.taken().iter().any(|taken| taken.to == ["here@example.net"]));
    relay.wait_for_status(&id, &["bounced", "relayed", "relayed"]);
    // Beside the notice to the sender.
    let mail = smarthost.taken().into_iter().filter(|taken| !taken.mail.starts_with("<>"));
    let to: Vec<_> = mail.map(|taken| taken.to).collect();
    assert_eq!(to, [["here@example.net"], ["busy@example.net"]]);
    let failed = relay.queue_with_failed();
    let failed = failed["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1);
    let list = relay.run(&["queue", "list"]).stdout;
    assert!(list.contains("gone@example.net") && !list.contains("here@example.net"), "{list}");
}

#[test]
fn nobody_is_taken() {
    let smarthost = Smarthost::scripted(|at| match at {
        At::Rcpt("gone@example.net") => Do::Say("550 5.1.1 No such user"),
        At::Rcpt(_) => Do::Say("450 4.2.1 Busy"),
        _ => Do::Go,
    });
    let relay = Setup::new(smarthost.address).with("queue.retry", "[\"1h\"]").start();
    let recipients = ["gone@example.net", "busy@example.net"];
    let id = Client::greeted(relay.smtp()).send("a@example.com", &recipients, &plain("example.com", "two"));
    relay.wait_for_status(&id, &["bounced", "deferred"]);
    assert!(smarthost.messages().is_empty());
}
