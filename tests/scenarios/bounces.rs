//! What could not be delivered comes back to its sender as a notice that a person can read.

use crate::common::{At, Client, Do, Gate, Setup, Smarthost, plain, until};

/// Knows nobody whose address begins with `no`.
fn choosy() -> Smarthost {
    Smarthost::scripted(|at| match at {
        At::Rcpt(address) if address.starts_with("no") => Do::Say("550 5.1.1 No such user here"),
        _ => Do::Go,
    })
}

/// A message to `to`, each with what stands behind `RCPT TO:<…>`.
fn send(client: &mut Client, mail: &str, to: &[(&str, &str)], subject: &str) -> String {
    client.expect(&format!("MAIL FROM:{mail}"), "250 ");
    for (address, parameters) in to {
        client.expect(&format!("RCPT TO:<{address}>{parameters}"), "250 ");
    }
    client.expect("DATA", "354 ");
    crate::common::queue_id(&client.data(&plain("example.com", subject)))
}

#[test]
fn one_notice_for_all_that_were_refused() {
    let smarthost = choosy();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    let to = [("no1@example.net", ""), ("yes@example.net", ""), ("no2@example.net", "")];
    let id = send(&mut client, "<news@example.com> ENVID=order+2B7", &to, "three");
    let notice = until("the notice", || smarthost.taken().into_iter().find(|m| m.to == ["news@example.com"]));
    assert!(notice.mail.starts_with("<>"), "{}", notice.mail);
    let text = notice.text();
    for wanted in [
        "multipart/report; report-type=\"delivery-status\"",
        "Auto-Submitted: auto-replied",
        "To: <news@example.com>",
        "no1@example.net",
        "no2@example.net",
        "550 5.1.1 No such user here",
        "Original-Envelope-Id: order+7",
        "Reporting-MTA: dns; relay.example.net",
        "Status: 5.1.1",
        "Subject: three",
        &id,
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    assert!(!text.contains("yes@example.net") && !text.contains("Hello."), "{text}");
    relay.wait_for_status(&id, &["bounced", "relayed", "bounced"]);
    relay.wait_until_empty();
    assert_eq!(smarthost.taken().len(), 2, "one message and one notice");
}

#[test]
fn who_wants_none_gets_none_and_nothing_is_said_about_notices() {
    let smarthost = choosy();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    let never = send(&mut client, "<news@example.com>", &[("no@example.net", " NOTIFY=NEVER")], "never");
    let null = send(&mut client, "<>", &[("no@example.net", "")], "null");
    // Its notice is refused in turn, and that is the end of it.
    let unreachable = send(&mut client, "<nobody@example.com>", &[("no@example.net", "")], "unreachable");
    for id in [&never, &null, &unreachable] {
        relay.wait_for_status(id, &["bounced"]);
    }
    relay.wait_until_empty();
    let failed = relay.queue_with_failed()["failed"].as_array().unwrap().len();
    assert_eq!((failed, smarthost.taken().len()), (4, 0));
}

#[test]
fn success_is_told_where_the_smarthost_cannot() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    send(
        &mut client,
        "<news@example.com> RET=HDRS",
        &[("b@example.net", " NOTIFY=SUCCESS ORCPT=rfc822;x@example.org")],
        "told",
    );
    let notice = smarthost.wait_for_text("Action: relayed").text();
    assert!(
        notice.contains("Original-Recipient: rfc822; x@example.org") || notice.contains("rfc822;x@example.org"),
        "{notice}"
    );
    // With DSN the wish goes on to the smarthost, whose it then is.
    let other = Smarthost::offering(&["PIPELINING", "8BITMIME", "DSN"]);
    let relay = Setup::new(other.address).start();
    let mut client = Client::greeted(relay.smtp());
    let id =
        send(&mut client, "<news@example.com> ENVID=e1", &[("b@example.net", " NOTIFY=SUCCESS,DELAY")], "passed-on");
    relay.wait_for_status(&id, &["delivered"]);
    relay.wait_until_empty();
    let taken = other.taken();
    assert!(taken.len() == 1 && taken[0].mail.contains("ENVID=e1"), "{taken:?}");
}

/// Once it is on record that a copy was taken, nobody tries it again; so the notice is on record with it.
#[test]
fn success_is_told_though_the_process_is_killed_during_the_attempt() {
    let gate = Gate::default();
    let shut = gate.clone();
    let smarthost = Smarthost::scripted(move |at| match at {
        At::Rcpt("second@example.net") => Do::Wait(shut.clone()),
        _ => Do::Go,
    });
    let mut relay = Setup::new(smarthost.address).start();
    let names: Vec<_> =
        (0..100).map(|n| format!("r{n}@example.net")).chain(["second@example.net".to_owned()]).collect();
    let wish = |name: &str| if name == "r0@example.net" { " NOTIFY=SUCCESS" } else { "" };
    let to: Vec<_> = names.iter().map(|name| (&**name, wish(name))).collect();
    let id = send(&mut Client::greeted(relay.smtp()), "<news@example.com>", &to, "killed");
    until("the first transaction", || smarthost.taken().iter().any(|taken| taken.to.len() == 100).then_some(()));
    let shown = || relay.json(&["queue", "show", &id]);
    until("the outcome", || (shown()["recipients"][0]["status"] == "relayed").then_some(()));
    relay.kill();
    gate.open();
    relay.start();
    let notice = smarthost.wait_for_text("Action: relayed").text();
    assert!(notice.contains("r0@example.net") && notice.contains("Subject: killed"), "{notice}");
    relay.wait_until_empty();
    let copies = smarthost.taken().iter().filter(|taken| taken.to.contains(&"r0@example.net".to_owned())).count();
    assert_eq!(copies, 1, "and the copy did not go out again");
}

#[test]
fn what_waits_too_long_comes_back_also_while_the_smarthost_is_down() {
    let mut smarthost = Smarthost::down();
    let relay = Setup::new(smarthost.address).with("queue.max_age", "\"2s\"").start();
    let mut client = Client::greeted(relay.smtp());
    let id = send(&mut client, "<news@example.com>", &[("b@example.net", "")], "too-late");
    let fine = send(&mut client, "<news@example.com>", &[("c@example.net", " NOTIFY=NEVER")], "too-late-as-well");
    for id in [&id, &fine] {
        let shown = relay.wait_for_status(id, &["bounced"]);
        assert!(shown["recipients"][0]["reply"].as_str().unwrap().contains("refused"), "{shown}");
    }
    // The notice waits for the smarthost like any mail, and it has not aged yet.
    smarthost.listen();
    let notice = smarthost.wait_for_text("multipart/report").text();
    assert!(notice.contains("Subject: too-late") && notice.contains("Connection refused"), "{notice}");
    relay.wait_until_empty();
    assert_eq!(smarthost.taken().len(), 1);
}
