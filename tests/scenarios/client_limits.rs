//! Bounds on what one client may ask for, each with its reply.

use crate::common::{Client, Setup, Smarthost, plain, until};

#[test]
fn a_message_over_the_size_is_refused_when_declared_and_when_sent() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).with("smtp.max_message_size", "\"100KiB\"").start();
    let mut client = Client::connect(relay.smtp());
    client.reply();
    let offer = client.ask("EHLO app.example.com");
    assert!(offer.contains("SIZE 102400"), "{offer}");
    client.expect("MAIL FROM:<a@example.com> SIZE=102401", "552 5.3.4 ");
    client.expect("MAIL FROM:<a@example.com> SIZE=102400", "250 ");
    client.expect("RCPT TO:<b@example.net>", "250 ");
    client.expect("DATA", "354 ");
    let line = format!("{}\r\n", "x".repeat(998));
    let reply = client.data(line.repeat(200).as_bytes());
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
    let after = client.send("a@example.com", &["b@example.net"], &plain("example.com", "small"));
    smarthost.wait_for_text(&after);
    assert_eq!(smarthost.messages().len(), 1);
}

#[test]
fn recipient_1001_is_for_the_next_message() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    client.expect("MAIL FROM:<a@example.com>", "250 ");
    let rcpts: String = (0..1_001).map(|n| format!("RCPT TO:<r{n}@example.net>\r\n")).collect();
    client.write(rcpts);
    for n in 0..1_000 {
        assert!(client.reply().starts_with("250 "), "{n}");
    }
    let reply = client.reply();
    assert!(reply.starts_with("452 4.5.3 "), "{reply}");
    client.expect("DATA", "354 ");
    let reply = client.data(&plain("example.com", "thousand"));
    assert!(reply.starts_with("250 "), "{reply}");
    smarthost.wait_for(10);
    relay.wait_until_empty();
    let taken = smarthost.taken();
    assert_eq!(taken.iter().map(|taken| taken.to.len()).sum::<usize>(), 1_000);
    assert!(taken.iter().all(|taken| taken.to.iter().all(|to| to != "r1000@example.net")));
}

#[test]
fn the_101st_connection_of_a_client_is_refused() {
    let smarthost = Smarthost::start();
    // Those in trusted_networks have no limit of their own.
    let setup =
        Setup::new(smarthost.address).with("listener.trusted_networks", "[]").with("listener.auth", "\"optional\"");
    let relay = setup.start();
    let key = relay.ok(&["key", "create", "--name", "app"]).trim().to_owned();
    let mut open: Vec<_> = (0..100).map(|_| Client::greeted(relay.smtp())).collect();
    let mut refused = Client::connect(relay.smtp());
    let reply = refused.reply();
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    assert!(refused.is_closed());
    open.pop();
    until("room for another", || Client::connect(relay.smtp()).reply().starts_with("220 ").then_some(()));
    open[0].expect(&format!("AUTH PLAIN {}", super::submission::plain_response(&key)), "235 ");
    open[0].send("a@example.com", &["b@example.net"], &plain("example.com", "one-of-many"));
    smarthost.wait_for_text("one-of-many");
}
