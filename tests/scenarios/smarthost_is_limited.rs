//! A smarthost that lacks extensions gets what it can take, and the sender hears of what it cannot.

use crate::common::{Client, Setup, Smarthost, plain};

const EIGHT_BIT: &[u8] = "From: a@example.com\r\nSubject: eight\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße aus Köln\r\n"
    .as_bytes();

#[test]
fn without_8bitmime_text_is_encoded() {
    let smarthost = Smarthost::offering(&["PIPELINING"]);
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    client.expect("MAIL FROM:<a@example.com> BODY=8BITMIME", "250 ");
    client.expect("RCPT TO:<b@example.net>", "250 ");
    client.expect("DATA", "354 ");
    client.data(EIGHT_BIT);
    let arrived = smarthost.wait_for_text("eight");
    let text = arrived.text();
    assert!(arrived.body.is_ascii() && !arrived.mail.contains("BODY"), "{} {text}", arrived.mail);
    assert!(
        text.contains("Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe aus K=C3=B6ln\r\n"),
        "{text}"
    );
}

#[test]
fn under_a_signature_it_cannot_be() {
    let smarthost = Smarthost::offering(&["PIPELINING"]);
    let relay = Setup::new(smarthost.address).start();
    let head = "From: a@example.com\r\nSubject: signed\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; \
                boundary=b; protocol=\"application/pgp-signature\"; micalg=pgp-sha256\r\n\r\n--b\r\nContent-Type: \
                text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n--b\r\nContent-Type: \
                application/pgp-signature\r\n\r\nx\r\n--b--\r\n";
    let id = Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], head.as_bytes());
    let shown = relay.wait_for_status(&id, &["bounced"]);
    assert!(shown["recipients"][0]["reply"].as_str().unwrap().starts_with("554 5.6.3 "), "{shown}");
    // With 8BITMIME it goes as it came.
    let able = Smarthost::start();
    let relay = Setup::new(able.address).start();
    Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], head.as_bytes());
    let arrived = able.wait_for_text("signed");
    assert!(arrived.text().ends_with(&head[head.find("MIME").unwrap()..]));
}

#[test]
fn without_smtputf8_such_an_address_is_refused_for_good() {
    let smarthost = Smarthost::offering(&["PIPELINING", "8BITMIME"]);
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    client.expect("MAIL FROM:<a@example.com> SMTPUTF8", "250 ");
    client.expect("RCPT TO:<jürgen@example.net>", "250 ");
    client.expect("DATA", "354 ");
    let id = crate::common::queue_id(&client.data(&plain("example.com", "utf8")));
    let shown = relay.wait_for_status(&id, &["bounced"]);
    assert!(shown["recipients"][0]["reply"].as_str().unwrap().contains("5.6.7"), "{shown}");
    // It is for the address or the header to need it, not for the client to say so.
    client.expect("MAIL FROM:<a@example.com> SMTPUTF8", "250 ");
    client.expect("RCPT TO:<b@example.net>", "250 ");
    client.expect("DATA", "354 ");
    client.data(&plain("example.com", "said-in-vain"));
    smarthost.wait_for_text("said-in-vain");
    // The notice itself passes this smarthost.
    let notice = smarthost.wait_for_text("multipart/report");
    assert_eq!(notice.to, ["a@example.com"]);
    let text = notice.text();
    assert!(
        text.contains("Status: 5.6.7") && !text.contains("Remote-MTA"),
        "it was not the smarthost that said so: {text}"
    );
}
