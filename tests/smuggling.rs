//! No second message hides in the first: every PRE, DOT and POST that some server somewhere takes for the end of data.
//!
//! Each of the 255 different octet strings stands inside a message and is followed by a whole other transaction. At most
//! one message may come out, but for CRLF.CRLF, which is the end for everybody. The session must then still be in step,
//! or closed.

use std::collections::BTreeSet;
use std::sync::Arc;
use trackpost::mail::{Enhanced, Reply};
use trackpost::smtp::{Auth, BareNewline, Event, Peer, Session, SessionConfig};

const PRE: [&str; 9] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\0", "\0\r\n", "\n\n", "\r\r"];
const DOT: [&str; 5] = [".", ".\0", "\0.", ". ", " ."];
const POST: [&str; 6] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\0\r\n"];

#[test]
fn whole() {
    every_one(1_000, &|body| vec![body]);
}

#[test]
fn octet_by_octet() {
    every_one(1_000, &|body| body.chunks(1).collect());
}

#[test]
fn split_at_every_octet() {
    for end in ends() {
        let body = body(&end);
        for at in 1..body.len() {
            for mode in [BareNewline::Reject, BareNewline::Normalize] {
                check(&end, mode, 1_000, &[&body[..at], &body[at..]]);
            }
        }
    }
}

#[test]
fn after_the_size_limit() {
    every_one(10, &|body| vec![body]);
    every_one(10, &|body| body.chunks(1).collect());
    every_one(10, &|body| body.chunks(3).collect());
}

#[test]
fn there_are_255() {
    assert_eq!(ends().len(), 255);
}

fn every_one(max_message_size: u64, cut: &dyn Fn(&[u8]) -> Vec<&[u8]>) {
    for end in ends() {
        for mode in [BareNewline::Reject, BareNewline::Normalize] {
            check(&end, mode, max_message_size, &cut(&body(&end)));
        }
    }
}

fn ends() -> BTreeSet<String> {
    let dots = PRE.iter().flat_map(|pre| DOT.iter().map(move |dot| [*pre, *dot].concat()));
    dots.flat_map(|start| POST.map(|post| [&start[..], post].concat())).collect()
}

fn body(end: &str) -> Vec<u8> {
    let smuggled = "MAIL FROM:<admin@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: smuggled\r\n\r\n";
    format!("Subject: one\r\n\r\ntext{end}{smuggled}text\r\n.\r\n").into_bytes()
}

fn check(end: &str, bare_newline: BareNewline, max_message_size: u64, pieces: &[&[u8]]) {
    let place = format!("{:?} {bare_newline:?} in {} pieces, limit {max_message_size}", end, pieces.len());
    let config = SessionConfig {
        hostname: "relay.example.net".into(),
        max_message_size,
        max_recipients: 5,
        starttls: false,
        auth: Auth::None,
        bare_newline,
    };
    let peer = Peer { address: [127, 0, 0, 1].into(), trusted: true, tls: false };
    let mut session = Session::new(Arc::new(config), peer);
    let mut messages = Vec::new();
    session.greet();
    let lines = ["EHLO x\r\n", "MAIL FROM:<a@example.com>\r\n", "RCPT TO:<b@example.net>\r\n", "DATA\r\n"];
    for piece in lines.iter().map(|line| line.as_bytes()).chain(pieces.iter().copied()).chain([&b"QUIT\r\n"[..]]) {
        feed(&mut session, piece, &mut messages);
    }

    let codes = final_codes(session.output());
    let is_true_end = end == "\r\n.\r\n";
    assert!(messages.len() <= if is_true_end { 2 } else { 1 }, "{place}: {} messages", messages.len());
    assert!(
        is_true_end || messages.iter().all(|message| message.starts_with(b"Subject: one\r\n")),
        "{place}: the other message was taken"
    );
    assert_eq!(codes[..5], [220, 250, 250, 250, 354], "{place}");
    assert!(session.is_closed(), "{place}: {codes:?}");
    let tail = &codes[5..];
    let verdict = [250, 550, 552].contains(&tail[0]);
    let in_step = match tail[1..] {
        // One message; or its end was doubtful, and the session is over.
        [221] => !is_true_end,
        [] => !is_true_end && tail[0] != 250,
        // The true end: the other transaction follows, unless its DATA came with more in one segment.
        [250, 250, 354, 250 | 552, 221] | [250, 250, 554] => is_true_end,
        _ => false,
    };
    assert!(verdict && in_step, "{place}: {codes:?}");
}

fn feed(session: &mut Session, mut piece: &[u8], messages: &mut Vec<Vec<u8>>) {
    while !piece.is_empty() {
        let (used, event) = session.input(piece);
        piece = &piece[used..];
        match event {
            Some(Event::Data { .. }) => session.data_go_ahead(),
            Some(Event::Message { bytes, .. }) => {
                messages.push(bytes);
                session.message_answered(Reply::new(250, Enhanced(2, 0, 0), "Ok"));
            }
            _ => assert!(piece.is_empty()),
        }
    }
}

fn final_codes(output: &[u8]) -> Vec<u16> {
    let text = std::str::from_utf8(output).unwrap();
    let last = text.lines().filter(|line| line.as_bytes()[3] == b' ');
    last.map(|line| line[..3].parse().unwrap()).collect()
}
