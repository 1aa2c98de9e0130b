//! Messages at the edge of what SMTP carries arrive as they were sent.

use crate::common::{Client, Relay, Setup, Smarthost, crlf, queue_id, without_received};

fn sent_and_arrived(relay: &Relay, smarthost: &Smarthost, from: &str, message: &[u8]) -> (String, Vec<u8>) {
    let id = Client::greeted(relay.smtp()).send(from, &["ada@example.net"], message);
    let arrived = smarthost.wait_for_text(&id);
    (arrived.mail, without_received(&arrived.body).to_vec())
}

#[test]
fn their_octets_are_kept() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let long = [b"From: news@example.com\r\n\r\n", &b"x".repeat(5_000)[..], b"\r\n"].concat();
    let table: [(&str, Vec<u8>); 8] = [
        ("nothing at all", Vec::new()),
        ("an empty line", b"\r\n".to_vec()),
        ("no header", crlf("\nJust text.\n")),
        ("a dot on the first line", crlf(".From: news@example.com\n\nA text.\n")),
        ("lines of dots", crlf("From: news@example.com\n\n.\n..\n...\n.hidden\na.\n\n.\n")),
        ("8-bit text", crlf("From: Zoë <news@example.com>\nSubject: Grüße\n\nÄpfel, 梨.\n")),
        (
            "octets that are no text",
            [&b"From: news@example.com\r\n\r\n"[..], &[0x80, 0xfe, 0xff, b'\r', b'\n']].concat(),
        ),
        ("a line of 5,000", long),
    ];
    for (what, message) in table {
        let (_, arrived) = sent_and_arrived(&relay, &smarthost, "news@example.com", &message);
        assert_eq!(arrived, message, "{what}");
    }
}

#[test]
fn a_message_without_its_last_line_end_gets_one() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let (_, arrived) = sent_and_arrived(&relay, &smarthost, "news@example.com", b"Subject: x\r\n\r\nno end");
    assert_eq!(arrived, b"Subject: x\r\n\r\nno end\r\n");
}

#[test]
fn the_null_sender_stays_null() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let (mail, _) = sent_and_arrived(&relay, &smarthost, "", &crlf("Subject: bounce\n\nSorry.\n"));
    assert!(mail.starts_with("<> ") || mail == "<>", "{mail}");
}

#[test]
fn eight_bits_are_announced_where_that_is_understood() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let eight = crlf("Subject: x\n\nÄpfel\n");
    let (mail, _) = sent_and_arrived(&relay, &smarthost, "news@example.com", &eight);
    assert!(mail.contains(" BODY=8BITMIME"), "{mail}");
    let (mail, _) = sent_and_arrived(&relay, &smarthost, "news@example.com", &crlf("Subject: x\n\nApples\n"));
    assert!(!mail.contains("BODY"), "{mail}");
}

const UTF8_MAIL: &str = "MAIL FROM:<jürgen@example.com> SMTPUTF8";

#[test]
fn utf8_addresses_pass_where_the_smarthost_takes_them() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    client.expect("MAIL FROM:<jürgen@example.com>", "553 5.6.7 ");
    client.expect(UTF8_MAIL, "250 ");
    client.expect("RCPT TO:<δοκιμή@example.net>", "250 ");
    client.expect("DATA", "354 ");
    let reply = client.data(&crlf("Subject: Grüße\n\nHallo\n"));
    let arrived = smarthost.wait_for_text(&queue_id(&reply));
    assert!(arrived.mail.starts_with("<jürgen@example.com> "), "{}", arrived.mail);
    assert!(arrived.mail.contains(" SMTPUTF8"), "{}", arrived.mail);
    assert_eq!(arrived.to, ["δοκιμή@example.net"]);
    assert!(arrived.text().contains(" with UTF8SMTP id "), "{}", arrived.text());
}

#[test]
fn utf8_addresses_bounce_where_it_does_not() {
    let smarthost = Smarthost::offering(&["PIPELINING", "8BITMIME"]);
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    client.expect(UTF8_MAIL, "250 ");
    client.expect("RCPT TO:<ada@example.net>", "250 ");
    client.expect("DATA", "354 ");
    let reply = client.data(&crlf("Subject: x\n\nHallo\n"));
    let shown = relay.wait_for_status(&queue_id(&reply), &["bounced"]);
    assert!(shown["recipients"][0]["reply"].as_str().unwrap().starts_with("550 5.6.7 "), "{shown}");
    assert!(smarthost.messages().is_empty());
}
