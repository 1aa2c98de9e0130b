//! Mail from clients that authenticate, over STARTTLS and implicit TLS.

use crate::common::{Certificate, Client, Relay, Setup, Smarthost, Trust, plain, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A relay where everybody authenticates, with one key.
fn relay(smarthost: &Smarthost, tls: &str) -> (Relay, Trust, String, Certificate) {
    let (certificate, trust) = Certificate::new();
    let setup =
        Setup::new(smarthost.address).with("listener.tls", &format!("\"{tls}\"")).with("listener.auth", "\"required\"");
    let relay = certificate.used_by(setup).start();
    let key = relay.ok(&["key", "create", "--name", "app", "--permission", "sending_access"]).trim().to_owned();
    (relay, trust, key, certificate)
}

pub fn plain_response(password: &str) -> String {
    STANDARD.encode(format!("\0resend\0{password}"))
}

fn over_starttls(relay: &Relay, trust: &Trust) -> Client {
    let mut client = Client::greeted(relay.smtp()).start_tls(trust);
    let offer = client.ask("EHLO app.example.com");
    assert!(offer.contains("AUTH PLAIN LOGIN") && !offer.contains("STARTTLS"), "{offer}");
    client
}

#[test]
fn by_starttls_with_plain_and_with_login() {
    let smarthost = Smarthost::start();
    let (relay, trust, key, _certificate) = relay(&smarthost, "starttls");
    let mut client = over_starttls(&relay, &trust);
    client.expect("MAIL FROM:<a@example.com>", "530 5.7.0 ");
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "503 5.5.1 ");
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "by-plain"));
    let mut client = over_starttls(&relay, &trust);
    client.expect("AUTH LOGIN", "334 VXNlcm5hbWU6");
    client.expect(&STANDARD.encode("anybody"), "334 UGFzc3dvcmQ6");
    client.expect(&STANDARD.encode(&key), "235 2.7.0 ");
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "by-login"));
    smarthost.wait_for_text("by-plain");
    let arrived = smarthost.wait_for_text("by-login").text();
    assert!(arrived.starts_with("Received: from app.example.com ([127.0.0.1])"), "{arrived}");
    assert!(arrived.contains("with ESMTPSA id "), "{arrived}");
}

#[test]
fn by_implicit_tls() {
    let smarthost = Smarthost::start();
    let (relay, trust, key, _certificate) = relay(&smarthost, "implicit");
    let mut client = Client::connect_tls(relay.smtp(), &trust);
    assert!(client.reply().starts_with("220 "));
    client.expect("EHLO app.example.com", "250-");
    client.expect("STARTTLS", "503 5.5.1 ");
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "implicit"));
    smarthost.wait_for_text("implicit");
}

#[test]
fn what_was_said_in_the_clear_is_forgotten() {
    let smarthost = Smarthost::start();
    let (relay, trust, key, _certificate) = relay(&smarthost, "starttls");
    // On loopback AUTH is offered without TLS too; what it gave ends with the handshake.
    let mut client = Client::greeted(relay.smtp());
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    client.expect("MAIL FROM:<a@example.com>", "250 ");
    let mut client = client.start_tls(&trust);
    client.expect("RCPT TO:<b@example.net>", "503 5.5.1 ");
    client.expect("MAIL FROM:<a@example.com>", "503 5.5.1 ");
    client.expect("EHLO app.example.com", "250-");
    client.expect("MAIL FROM:<a@example.com>", "530 5.7.0 ");
    client.expect("STARTTLS", "503 5.5.1 ");
}

#[test]
fn commands_behind_starttls_are_never_carried_into_it() {
    let smarthost = Smarthost::start();
    let (relay, _, _, _certificate) = relay(&smarthost, "starttls");
    let mut client = Client::greeted(relay.smtp());
    client.write("STARTTLS\r\nMAIL FROM:<evil@example.com>\r\n");
    assert!(client.reply().starts_with("554 5.5.0 "));
    assert!(client.is_closed());
    // What comes in a segment of its own is taken for a bad handshake, and never for a command.
    let mut client = Client::greeted(relay.smtp());
    client.expect("STARTTLS", "220 ");
    client.write("MAIL FROM:<evil@example.com>\r\n");
    until("the connection to be closed", || client.is_closed().then_some(()));
}

#[test]
fn a_key_tied_to_a_domain_sends_for_it_alone_and_a_revoked_one_not_at_all() {
    let smarthost = Smarthost::start();
    let (relay, trust, _, _certificate) = relay(&smarthost, "starttls");
    relay.ok(&["domain", "add", "example.com"]);
    let key = relay.ok(&["key", "create", "--name", "shop", "--domain", "example.com"]).trim().to_owned();
    let mut client = over_starttls(&relay, &trust);
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    for other in ["example.org", "sub.example.com", "com"] {
        client.begin("a@example.com", &["b@example.net"]);
        let reply = client.data(&plain(other, "stolen"));
        assert!(reply.starts_with("550 5.7.1 ") && reply.contains("example.com"), "{other}: {reply}");
    }
    for from in
        ["a@example.com, ceo@example.org", "g: a@example.com, ceo@example.org;", "ceo@example.org <a@example.com>"]
    {
        client.begin("a@example.com", &["b@example.net"]);
        let message = format!("From: {from}\r\nSubject: stolen\r\n\r\nx\r\n");
        assert!(client.data(message.as_bytes()).starts_with("550 5.7.1 "), "{from}");
    }
    // Two From fields name no domain.
    client.begin("a@example.com", &["b@example.net"]);
    let two = [b"From: <a@example.org>\r\n", &plain("example.com", "stolen")[..]].concat();
    assert!(client.data(&two).starts_with("550 5.7.1 "));
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "its-own"));
    smarthost.wait_for_text("its-own");
    let keys = relay.json(&["key", "list"]);
    let id = keys.as_array().unwrap().iter().find(|key| key["name"] == "shop").unwrap()["id"].clone();
    relay.ok(&["key", "revoke", id.as_str().unwrap()]);
    client.begin("a@example.com", &["b@example.net"]);
    assert!(client.data(&plain("example.com", "revoked")).starts_with("550 5.7.1 "));
    let mut client = over_starttls(&relay, &trust);
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "535 5.7.8 ");
    assert_eq!(smarthost.messages().len(), 1);
}

#[test]
fn date_and_message_id_are_added_for_submission_alone() {
    let smarthost = Smarthost::start();
    let (certificate, trust) = Certificate::new();
    let setup =
        Setup::new(smarthost.address).with("listener.tls", "\"starttls\"").with("listener.auth", "\"optional\"");
    let relay = certificate.used_by(setup).start();
    let key = relay.ok(&["key", "create", "--name", "app"]).trim().to_owned();
    let bare = |text: &str| format!("From: a@example.com\r\nSubject: {text}\r\n\r\nx\r\n").into_bytes();
    let mut client = Client::greeted(relay.smtp());
    client.send("a@example.com", &["b@example.net"], &bare("relayed"));
    let mut client = over_starttls(&relay, &trust);
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    let id = client.send("a@example.com", &["b@example.net"], &bare("submitted"));
    let relayed = smarthost.wait_for_text("relayed").text();
    assert!(!relayed.contains("\r\nDate:") && !relayed.contains("\r\nMessage-ID:"), "{relayed}");
    let submitted = smarthost.wait_for_text("submitted").text();
    assert!(submitted.contains(&format!("\r\nMessage-ID: <{id}@relay.example.net>\r\n")), "{submitted}");
    assert_eq!(submitted.matches("\r\nDate: ").count(), 1, "{submitted}");
    let whole = b"From: a@example.com\r\nDate: x\r\nMessage-ID: <own@example.com>\r\nSubject: whole\r\n\r\nx\r\n";
    client.send("a@example.com", &["b@example.net"], whole);
    let whole = smarthost.wait_for_text("whole").text();
    assert_eq!(whole.matches("Message-ID:").count() + whole.matches("Date:").count(), 2, "{whole}");
}

#[test]
fn a_certificate_is_replaced_while_sessions_go_on() {
    let smarthost = Smarthost::start();
    let (relay, old, key, certificate) = relay(&smarthost, "starttls");
    let mut before = over_starttls(&relay, &old);
    before.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    let new = certificate.replace();
    until("the new certificate to be in use", || {
        let mut client = Client::greeted(relay.smtp());
        client.expect("STARTTLS", "220 ");
        client.shake_hands(&new).ok().map(drop)
    });
    before.send("a@example.com", &["b@example.net"], &plain("example.com", "goes-on"));
    smarthost.wait_for_text("goes-on");
    // SIGHUP takes it at once, and a pair that does not fit leaves the one before in use.
    std::fs::write(certificate.path("cert.pem"), "nothing").unwrap();
    relay.signal(libc::SIGHUP);
    relay.wait_for_log("holds no certificate");
    over_starttls(&relay, &new);
}

/// Clients with a key tied to example.com, on a listener with one more key.
fn tied(smarthost: &Smarthost, key: &str, value: &str) -> (Relay, Client) {
    let setup = Setup::new(smarthost.address).with("listener.auth", "\"required\"").with(key, value);
    let relay = setup.start();
    relay.ok(&["domain", "add", "example.com"]);
    let key = relay.ok(&["key", "create", "--name", "shop", "--domain", "example.com"]).trim().to_owned();
    let mut client = Client::greeted(relay.smtp());
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    (relay, client)
}

#[test]
fn a_tied_key_sends_nothing_that_a_reader_takes_for_mail_of_another_domain() {
    let smarthost = Smarthost::start();
    let (relay, mut client) = tied(&smarthost, "listener.tls", "\"none\"");
    for header in [
        "From: ceo@victim.test\"a@example.com\"(x)",
        "From: \"a@example.com\" (x), ceo@victim.test",
        "From: g: \"a@example.com\" (x), ceo@victim.test;",
        "From: g: a@example.com;",
        "From: =?utf-8?q?x?= \"a@example.com\" (x), ceo@victim.test",
        "From: =?utf-8?q?(?= <a@example.com>, =?utf-8?q?)?= <ceo@victim.test>",
        "From: ceo@example.com(x).victim.test",
        "From: =?utf-8?q?ceo=40victim.test=2C?= <a@example.com>",
        "From: A <a@example.com> (=?utf-8?q?ceo=40victim.test?=)",
        "not a field\r\nFrom: a@example.com",
        "From ceo@victim.test\r\nFrom: a@example.com",
        "From\x0b: ceo@victim.test\r\nFrom: a@example.com",
        "From : ceo@victim.test\r\nFrom: a@example.com",
        "From: a@example.com\r\n \r\nFrom: ceo@victim.test",
        "From: a@example.com\r\nX: y\r\n\t \r\nZ: y",
        "From: a@example.com\r\nSender: ceo@victim.test",
        "From: a@example.com\r\nResent-From: ceo@victim.test",
        "From: a@example.com\r\nResent-Sender: ceo@victim.test",
    ] {
        client.begin("a@example.com", &["b@example.net"]);
        let reply = client.data(format!("{header}\r\nSubject: stolen\r\n\r\nx\r\n").as_bytes());
        assert!(reply.starts_with("550 5.7.1 "), "{header:?}: {reply}");
    }
    for sender in ["ceo@victim.test", "ceo@badexample.com", "ceo@com", "postmaster"] {
        client.begin(sender, &["b@example.net"]);
        let reply = client.data(&plain("example.com", "stolen"));
        assert!(reply.starts_with("550 5.7.1 ") && reply.contains("MAIL FROM"), "{sender}: {reply}");
    }
    for sender in ["", "bounces+1@mail.example.com", "A@EXAMPLE.com"] {
        client.send(sender, &["b@example.net"], &plain("example.com", "its-own"));
    }
    let header = "From: \"ceo@victim.test via Shop\" <a@example.com>,\r\n =?utf-8?q?J=C3=B6?= <b@example.com>\r\n\
                  Sender: News <news@mail.example.com>";
    client.send("a@example.com", &["b@example.net"], format!("{header}\r\nSubject: two\r\n\r\nx\r\n").as_bytes());
    smarthost.wait_for_text("Subject: two");
    // Who is not tied writes what they like.
    let key = relay.ok(&["key", "create", "--name", "all"]).trim().to_owned();
    let mut client = Client::greeted(relay.smtp());
    client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 2.7.0 ");
    let odd = b"From: g: a@example.com, b@example.org;\r\nno field\r\nSubject: odd\r\n\r\nx\r\n";
    client.send("x@example.org", &["b@example.net"], odd);
    smarthost.wait_for_text("Subject: odd");
    assert!(smarthost.messages().iter().all(|message| !message.text().contains("stolen")));
}

#[test]
fn a_forwarder_may_write_return_paths_of_its_own_where_the_listener_says_so() {
    let smarthost = Smarthost::start();
    let (_relay, mut client) = tied(&smarthost, "listener.tied_mail_from", "\"any\"");
    client.send("srs0=x=victim.test=ceo@forwarder.test", &["b@example.net"], &plain("example.com", "forwarded"));
    smarthost.wait_for_text("forwarded");
    client.begin("srs0=x@forwarder.test", &["b@example.net"]);
    assert!(client.data(&plain("victim.test", "stolen")).starts_with("550 5.7.1 "));
}
