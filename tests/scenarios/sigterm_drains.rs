//! SIGTERM: nothing new is taken, what is under way is finished, and the server ends with 0.

use crate::common::{At, Client, Do, Gate, Setup, Smarthost, plain, queue_id, until};
use std::net::TcpStream;

#[test]
fn an_open_message_is_finished_and_an_idle_session_told() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    let address = relay.smtp();
    let (mut sending, mut idle, mut between) =
        (Client::greeted(address), Client::greeted(address), Client::greeted(address));
    sending.begin("a@example.com", &["b@example.net"]);
    sending.write("Subject: half\r\n\r\nThe first half\r\n");
    between.expect("MAIL FROM:<a@example.com>", "250 ");
    relay.signal(libc::SIGTERM);
    assert!(idle.reply().starts_with("421 4.3.2 "));
    assert!(idle.is_closed());
    assert!(between.reply().starts_with("421 4.3.2 "), "no message is under way");
    until("connections to be refused", || TcpStream::connect(address).is_err().then_some(()));
    let reply = sending.data(b"and the second half\r\n");
    let id = queue_id(&reply);
    assert!(sending.reply().starts_with("421 4.3.2 "));
    let (status, log) = relay.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("stopped")), "{log:#?}");
    relay.start();
    let taken = smarthost.wait_for_text(&id);
    assert!(taken.text().ends_with("The first half\r\nand the second half\r\n"));
    let last = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "last"));
    smarthost.wait_for_text(&last);
    assert_eq!(smarthost.messages().len(), 2);
}

#[test]
fn a_delivery_under_way_is_finished() {
    let gate = Gate::default();
    let shut = gate.clone();
    let smarthost = Smarthost::scripted(move |at| match at {
        At::Dot(_) => Do::Wait(shut.clone()),
        _ => Do::Go,
    });
    let mut relay = Setup::new(smarthost.address).start();
    let id =
        Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "under-way"));
    relay.wait_for_status(&id, &["sending"]);
    relay.signal(libc::SIGTERM);
    relay.wait_for_log("stopping");
    gate.open();
    let (status, log) = relay.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("sent") && line.contains(&id)), "{log:#?}");
    relay.start();
    relay.wait_for_status(&id, &["relayed"]);
    assert_eq!(smarthost.messages().len(), 1);
}

/// A smarthost that never answers holds nothing up beyond the deadline, and the message is kept.
#[test]
fn the_deadline_holds() {
    let smarthost = Smarthost::scripted(|at| match at {
        At::Dot(_) => Do::Wait(Gate::default()),
        _ => Do::Go,
    });
    let mut relay = Setup::new(smarthost.address).with("smtp.timeouts.shutdown", "\"1s\"").start();
    let mut stuck = Client::greeted(relay.smtp());
    let id = stuck.send("a@example.com", &["b@example.net"], &plain("example.com", "kept"));
    relay.wait_for_status(&id, &["sending"]);
    stuck.begin("a@example.com", &["b@example.net"]);
    stuck.write("Subject: never finished\r\n");
    let log = relay.stop();
    assert!(log.iter().any(|line| line.contains("sessions were cut at the deadline")), "{log:#?}");
    assert!(stuck.is_closed());
    smarthost.change(|_| Do::Go);
    relay.start();
    relay.wait_for_status(&id, &["relayed"]);
}

#[test]
fn sigint_does_the_same() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.signal(libc::SIGINT);
    let (status, log) = relay.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
}
