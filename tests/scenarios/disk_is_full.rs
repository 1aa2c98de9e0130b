//! A disk that fills up: no mail is taken that could not be kept, what waits still goes, and it ends by itself.

use crate::common::{Client, Do, Setup, SmallDisk, Smarthost, plain, until};

const MIB: u64 = 1024 * 1024;

#[test]
fn mail_is_put_off_at_mail_and_taken_again_when_there_is_space() {
    let smarthost = Smarthost::scripted(|_| Do::Say("421 4.3.2 Not now"));
    let disk = SmallDisk::mount(128);
    let mut relay = Setup::inside(disk.path(), smarthost.address).with("queue.min_free", "\"4MiB\"").start();
    relay.track_example_com();
    let mut client = Client::greeted(relay.smtp());
    let waiting = client.send("a@example.com", &["b@example.net"], &plain("example.com", "waiting"));
    disk.fill(MIB);
    let reply = until("452 at MAIL", || {
        let reply = client.ask("MAIL FROM:<a@example.com>");
        client.expect("RSET", "250 ");
        reply.starts_with("452").then_some(reply)
    });
    assert_eq!(reply, "452 4.3.1 Insufficient system storage, try again later");
    relay.wait_for_log("disk nearly full");
    // What was accepted goes all the same, and its outcome outlives a kill.
    smarthost.change(|_| Do::Go);
    smarthost.wait_for_text(&waiting);
    relay.wait_until_empty();
    relay.stop();
    relay.start();
    assert_eq!(relay.json(&["queue", "list"])["queued"], 0);
    let mut client = Client::greeted(relay.smtp());
    until("452 after the start", || client.ask("MAIL FROM:<a@example.com>").starts_with("452").then_some(()));

    disk.free();
    until("mail to be taken again", || client.ask("MAIL FROM:<a@example.com>").starts_with("250").then_some(()));
    client.expect("RCPT TO:<b@example.net>", "250 ");
    client.expect("DATA", "354 ");
    let reply = client.data(&plain("example.com", "after"));
    assert!(reply.starts_with("250 "), "{reply}");
    smarthost.wait_for_text("after@");
    assert_eq!(smarthost.messages().len(), 2);
}

/// The disk is full to the last byte before anybody has looked: the message that meets it is refused, not lost.
#[test]
fn a_message_that_no_longer_fits_is_refused_at_its_end() {
    let smarthost = Smarthost::start();
    let disk = SmallDisk::mount(128);
    let relay = Setup::inside(disk.path(), smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    client.begin("a@example.com", &["b@example.net"]);
    disk.fill(0);
    let line = format!("{}\r\n", "x".repeat(998));
    let reply = client.data(&[plain("example.com", "too-big"), line.repeat(3_000).into_bytes()].concat());
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    disk.free();
    until("mail to be taken again", || {
        client.expect("RSET", "250 ");
        client.ask("MAIL FROM:<a@example.com>").starts_with("250").then_some(())
    });
    client.expect("RSET", "250 ");
    let id = client.send("a@example.com", &["b@example.net"], &plain("example.com", "fits"));
    smarthost.wait_for_text(&id);
    assert_eq!(smarthost.messages().len(), 1);
}
