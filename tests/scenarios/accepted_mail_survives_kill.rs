//! `kill -9` at any moment: what was answered with 250 is delivered after the next start, once.

use crate::common::{At, Client, Do, Gate, Setup, Smarthost, plain, until};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;

#[test]
fn right_after_the_250() {
    let mut smarthost = Smarthost::down();
    let mut relay = Setup::new(smarthost.address).start();
    let mut ids = Vec::new();
    for round in 0..3 {
        let mut client = Client::greeted(relay.smtp());
        for n in 0..5 {
            let recipients = ["b@example.net", "c@example.net"];
            ids.push(client.send("a@example.com", &recipients, &plain("example.com", &format!("m{round}-{n}"))));
        }
        relay.kill();
        relay.start();
    }
    assert_eq!(relay.json(&["queue", "list"])["queued"], ids.len());
    smarthost.listen();
    smarthost.wait_for(ids.len());
    relay.wait_until_empty();
    relay.stop();
    relay.start();
    let last = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "last"));
    smarthost.wait_for_text(&last);
    let taken = smarthost.messages();
    for id in &ids {
        let copies: Vec<_> = taken.iter().filter(|taken| taken.text().contains(&**id)).collect();
        assert!(copies.len() == 1 && copies[0].to.len() == 2, "{id}: {copies:?}");
    }
    assert_eq!(taken.len(), ids.len() + 1);
}

/// Clients send as fast as they can, and the server is killed under them.
#[test]
fn in_full_flight() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    let mut accepted = Vec::new();
    for round in 0..3 {
        let address = relay.smtp();
        let senders: Vec<_> = (0..4).map(|n| thread::spawn(move || send_until_cut(address, round * 4 + n))).collect();
        let so_far = smarthost.taken().len();
        until("mail to flow", || (smarthost.taken().len() >= so_far + 20).then_some(()));
        relay.kill();
        accepted.extend(senders.into_iter().flat_map(|sender| sender.join().unwrap()));
        relay.start();
    }
    relay.wait_until_empty();
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for taken in smarthost.taken() {
        let text = taken.text();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
        *copies.entry(subject.to_owned()).or_default() += 1;
    }
    assert!(accepted.len() >= 60);
    let lost: Vec<_> = accepted.iter().filter(|subject| !copies.contains_key(*subject)).collect();
    assert!(lost.is_empty(), "of {} lost: {lost:?}", accepted.len());
    // Only what was under way when the server died may come twice: a few connections' worth a round.
    let twice = copies.values().filter(|copies| **copies > 1).count();
    assert!(twice * 4 <= copies.len(), "{twice} of {} twice", copies.len());
}

/// Sends until the connection ends; the subjects that were answered with 250.
fn send_until_cut(address: std::net::SocketAddr, sender: u32) -> Vec<String> {
    let mut accepted = Vec::new();
    let Ok(mut stream) = TcpStream::connect(address) else { return accepted };
    let Ok(reading) = stream.try_clone() else { return accepted };
    let mut replies = BufReader::new(reading).lines();
    let mut wanted = |code: &str| {
        replies.by_ref().map_while(Result::ok).find(|l| l.get(3..4) == Some(" ")).is_some_and(|l| l.starts_with(code))
    };
    if !wanted("220") || stream.write_all(b"HELO app.example.com\r\n").is_err() || !wanted("250") {
        return accepted;
    }
    for n in 0.. {
        let subject = format!("s{sender}-{n}");
        let begun = stream.write_all(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n").is_ok();
        if !begun || !wanted("250") || !wanted("250") || !wanted("354") {
            break;
        }
        let message = [&plain("example.com", &subject)[..], b".\r\n"].concat();
        if stream.write_all(&message).is_err() || !wanted("250") {
            break;
        }
        accepted.push(subject);
    }
    accepted
}

#[test]
fn with_mail_deferred() {
    let smarthost = Smarthost::scripted(|at| match at {
        At::Rcpt("busy@example.net") => Do::Say("450 4.2.1 Busy"),
        At::Rcpt("gone@example.net") => Do::Say("550 5.1.1 Gone"),
        _ => Do::Go,
    });
    let mut relay = Setup::new(smarthost.address).with("queue.retry", "[\"4s\"]").start();
    let recipients = ["here@example.net", "busy@example.net", "gone@example.net"];
    let id = Client::greeted(relay.smtp()).send("a@example.com", &recipients, &plain("example.com", "kept"));
    let before = relay.wait_for_status(&id, &["relayed", "deferred", "bounced"]);
    // An outcome is on disk within 200 ms; a record that waits for its own sync is behind it.
    Client::greeted(relay.smtp()).send("a@example.com", &["x@example.net"], &plain("example.com", "sync"));
    smarthost.wait_for_text("sync@");
    relay.kill();
    relay.start();
    let after = relay.wait_for_status(&id, &["relayed", "deferred", "bounced"]);
    let of = |shown: &serde_json::Value, key: &str| shown["recipients"][1][key].clone();
    for key in ["reply", "attempts", "next", "at"] {
        assert_eq!(of(&before, key), of(&after, key), "{key}");
    }
    smarthost.change(|_| Do::Go);
    relay.wait_for_status(&id, &["relayed", "relayed", "bounced"]);
    let kept = smarthost.taken().into_iter().filter(|t| !t.mail.starts_with("<>") && t.text().contains("kept"));
    let to: Vec<_> = kept.map(|t| t.to).collect();
    assert_eq!(to, [["here@example.net"], ["busy@example.net"]]);
}

/// The one window in which mail can come twice: the smarthost has said 250 and the server has not written it down.
#[test]
fn while_the_smarthost_answers() {
    let gate = Gate::default();
    let shut = gate.clone();
    let smarthost = Smarthost::scripted(move |at| match at {
        At::Dot(_) => Do::Wait(shut.clone()),
        _ => Do::Go,
    });
    let mut relay = Setup::new(smarthost.address).start();
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "window"));
    relay.wait_for_status(&id, &["sending"]);
    relay.kill();
    gate.open();
    relay.start();
    relay.wait_for_status(&id, &["relayed"]);
    let bodies: Vec<_> = smarthost.messages().into_iter().map(|message| message.body).collect();
    assert!((1..=2).contains(&bodies.len()) && bodies.iter().all(|body| *body == bodies[0]));
}
