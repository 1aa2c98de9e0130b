//! What no dialogue shows: memory, what is kept from logs, and the shell's part.

use super::super::BareNewline;
use super::*;
use crate::mail::{Address, Body, Enhanced, Notify, Return};

fn session() -> Session {
    let config = SessionConfig {
        hostname: "relay.example.net".into(),
        max_message_size: 1_000_000,
        max_recipients: 10,
        starttls: true,
        auth: Auth::Optional,
        bare_newline: BareNewline::Reject,
    };
    let peer = Peer { address: [127, 0, 0, 1].into(), trusted: true, tls: false };
    let mut session = Session::new(Arc::new(config), peer);
    session.greet();
    session
}

/// Passes in lines that raise no event.
fn say(session: &mut Session, lines: &[&str]) {
    for line in lines {
        assert_eq!(session.input(line.as_bytes()), (line.len(), None), "{line}");
    }
}

const TRANSACTION: [&str; 3] =
    ["EHLO client.example.com\r\n", "MAIL FROM:<a@example.com> SIZE=500\r\n", "RCPT TO:<b@example.net>\r\n"];

#[test]
fn the_envelope_carries_what_the_client_said() {
    let mut session = session();
    say(
        &mut session,
        &[
            "EHLO client.example.com\r\n",
            "MAIL FROM:<a@example.com> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=Q+2B\r\n",
            "RCPT TO:<b@example.net> NOTIFY=DELAY ORCPT=rfc822;c@example.net\r\n",
            "RCPT TO:<@x.test:\"d e\"@example.net>\r\n",
        ],
    );
    assert_eq!(session.input(b"DATA\r\n"), (6, Some(Event::Data { declared: None })));
    session.data_go_ahead();
    let address = |text| Address::parse(text).unwrap();
    let envelope = Envelope {
        sender: Some(address("a@example.com")),
        recipients: vec![
            Recipient {
                address: address("b@example.net"),
                notify: Notify { given: true, success: false, failure: false, delay: true },
                orcpt: Some("rfc822;c@example.net".into()),
            },
            Recipient::from(address("\"d e\"@example.net")),
        ],
        body: Body::EightBitMime,
        smtputf8: true,
        ret: Some(Return::Headers),
        envid: Some("Q+".into()),
    };
    let message = Event::Message { envelope, bytes: b"x\r\n".to_vec() };
    assert_eq!(session.input(b"x\r\n.\r\nNOOP\r\n"), (6, Some(message)));
    assert_eq!(session.helo(), "client.example.com");
    assert_eq!(session.protocol(), Protocol { extended: true, tls: false, authenticated: false, utf8: true });
}

#[test]
fn nothing_is_used_while_an_event_is_open() {
    let mut session = session();
    say(&mut session, &TRANSACTION);
    assert_eq!(session.input(b"DATA\r\n"), (6, Some(Event::Data { declared: Some(500) })));
    assert_eq!(session.phase(), Phase::Answering);
    session.output().clear();

    assert_eq!(session.input(b"text"), (0, None));
    session.tls_started();
    session.auth_ok();
    session.auth_failed();
    session.message_answered(Reply::new(250, Enhanced(2, 0, 0), "Ok"));
    session.shutting_down();
    assert_eq!(session.phase(), Phase::Answering);
    assert_eq!(*session.output(), b"");

    session.data_go_ahead();
    assert_eq!(session.phase(), Phase::Data);
    session.data_go_ahead();
    assert!(session.output().starts_with(b"354 "));
    assert_eq!(memchr::memchr_iter(b'\n', session.output()).count(), 1);
}

#[test]
fn data_is_measured_for_the_shell() {
    let mut session = session();
    say(&mut session, &TRANSACTION);
    assert!(session.input(b"DATA\r\n").1.is_some());
    session.data_go_ahead();
    session.output().clear();
    let before = session.memory();
    assert_eq!(session.data_len(), 0);
    say(&mut session, &["..text\r\n"]);
    assert_eq!((session.data_len(), session.memory() - before), (8, 7));
    say(&mut session, &["a\nb"]);
    assert_eq!((session.data_len(), session.memory() - before), (11, 0), "what is refused is not kept");
}

#[test]
fn tls_forgets_everything_but_errors() {
    let mut session = session();
    say(&mut session, &["EHLO client.example.com\r\n", "MAIL FROM:<a@example.com>\r\n", "WHAT\r\n"]);
    assert_eq!(session.input(b"STARTTLS\r\n"), (10, Some(Event::StartTls)));
    session.tls_started();
    assert_eq!(session.helo(), "");
    assert_eq!(session.protocol(), Protocol { extended: false, tls: true, authenticated: false, utf8: false });
    assert_eq!(session.errors, 1);
    session.output().clear();
    say(&mut session, &["RCPT TO:<b@example.net>\r\n"]);
    assert!(session.output().starts_with(b"503 5.5.1 "));
}

#[test]
fn a_421_of_the_shell_closes() {
    let mut session = session();
    say(&mut session, &TRANSACTION);
    assert!(session.input(b"DATA\r\n").1.is_some());
    session.data_refused(Reply::new(421, Enhanced(4, 3, 2), "Going down"));
    assert!(session.is_closed());
    session.output().clear();
    assert_eq!(session.input(b"NOOP\r\n"), (6, Some(Event::Close)));
    session.timed_out();
    session.shutting_down();
    session.greet();
    assert_eq!(*session.output(), b"", "the last word is said once");
}

#[test]
fn events_keep_secrets_out_of_logs() {
    let mut session = session();
    say(&mut session, &["EHLO client.example.com\r\n"]);
    let line = b"AUTH PLAIN AHVzZXIAc2VjcmV0\r\n";
    let (used, event) = session.input(line);
    let want = Event::Authenticate { username: "user".into(), password: "secret".into() };
    assert_eq!((used, event.as_ref()), (line.len(), Some(&want)));
    assert_eq!(format!("{want:?}"), "Authenticate");
    session.auth_ok();
    assert!(session.protocol().authenticated);
}
