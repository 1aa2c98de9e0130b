//! Fuzz entries: arbitrary bytes against the invariants of the session and the decoder. The property tests run them too.

use super::{Auth, BareNewline, Decoder, Event, Peer, Session, SessionConfig};
use crate::mail::{Enhanced, Reply};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Runs a whole session. The first octet chooses the configuration, the others are what the client sends.
///
/// Octet by octet and line by line must give the same: a line is the largest piece in which nothing can stand behind
/// a command, which is the one thing that may matter. In one piece, it must end and stay within its bounds.
#[doc(hidden)]
pub fn fuzz_session(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let by_octet = run(*mode, data.chunks(1));
    let by_line = run(*mode, data.split_inclusive(|b| *b == b'\n'));
    assert_eq!(by_octet, by_line, "the result depends on how the input was cut");
    let at_once = run(*mode, std::iter::once(data));
    assert!(at_once.messages.len() <= by_octet.messages.len(), "one segment brought in more messages than octets did");
}

/// Decodes message data. The first octet is the size limit, the second bit of it the treatment of bare line ends.
#[doc(hidden)]
pub fn fuzz_data(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let decode = |size: usize| {
        let bare = if mode & 2 == 0 { BareNewline::Reject } else { BareNewline::Normalize };
        let mut decoder = Decoder::new(u64::from(*mode), None, bare);
        let mut used = 0;
        for piece in data.chunks(size) {
            let (n, end) = decoder.feed(piece);
            used += n;
            if end.is_some() {
                return (used, end);
            }
            assert_eq!(n, piece.len(), "octets left over before the end");
        }
        (used, None)
    };
    let whole = decode(data.len().max(1));
    for size in 1..=4 {
        assert_eq!(decode(size), whole, "pieces of {size}");
    }
    let dot = memchr::memmem::find(data, b"\r\n.\r\n").map(|at| at + 5);
    let dot = if data.starts_with(b".\r\n") { Some(3) } else { dot };
    assert_eq!(whole.1.is_some().then_some(whole.0), dot, "CRLF.CRLF, and nothing else, ends the data");
    if let Some(Ok(message)) = whole.1 {
        assert!(message.len() <= usize::from(*mode), "the limit holds");
        assert!(message.is_empty() || message.ends_with(b"\r\n"), "a message ends with a line end");
        assert!(!message.contains(&0), "no NUL");
        let is_bare = |at: usize| match message[at] {
            b'\r' => message.get(at + 1) != Some(&b'\n'),
            b'\n' => at == 0 || message[at - 1] != b'\r',
            _ => false,
        };
        assert!(!(0..message.len()).any(is_bare), "no bare CR or LF");
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Transcript {
    output: Vec<u8>,
    messages: Vec<Vec<u8>>,
    closed: bool,
}

fn run<'a>(mode: u8, pieces: impl Iterator<Item = &'a [u8]>) -> Transcript {
    let config = SessionConfig {
        hostname: "relay.example.net".into(),
        max_message_size: 200,
        max_recipients: 2,
        starttls: mode & 1 != 0,
        auth: [Auth::None, Auth::Optional, Auth::Required][usize::from(mode >> 1 & 3) % 3],
        bare_newline: if mode & 8 == 0 { BareNewline::Reject } else { BareNewline::Normalize },
    };
    let peer = Peer { address: IpAddr::V4(Ipv4Addr::LOCALHOST), trusted: mode & 16 == 0, tls: mode & 32 != 0 };
    let mut session = Session::new(Arc::new(config), peer);
    let mut transcript = Transcript::default();
    session.greet();
    for mut piece in pieces {
        while !piece.is_empty() && !session.is_closed() {
            let (used, event) = session.input(piece);
            assert!(used > 0 || event.is_some(), "no progress");
            assert!(used == piece.len() || event.is_some(), "octets left over without an event");
            piece = &piece[used..];
            match event {
                Some(Event::StartTls) => session.tls_started(),
                Some(Event::Authenticate { password, .. }) if password.len() > 3 => session.auth_ok(),
                Some(Event::Authenticate { .. }) => session.auth_failed(),
                Some(Event::Data { .. }) => session.data_go_ahead(),
                Some(Event::Message { envelope, bytes }) => {
                    assert!((1..=2).contains(&envelope.recipients.len()));
                    assert!(bytes.len() <= 200);
                    transcript.messages.push(bytes);
                    session.message_answered(Reply::new(250, Enhanced(2, 0, 0), "Ok"));
                }
                Some(Event::Close) | None => {}
            }
        }
    }
    transcript.closed = session.is_closed();
    transcript.output = std::mem::take(session.output());
    assert!(transcript.output.ends_with(b"\r\n"), "replies are whole lines");
    transcript
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec![
            "EHLO x",
            "MAIL FROM:<a@example.com>",
            "MAIL FROM:<> SIZE=150",
            "RCPT TO:<b@example.net>",
            "DATA",
            "DATA",
            ".",
            "..",
            "hello",
            "RSET",
            "STARTTLS",
            "AUTH PLAIN",
            "AUTH LOGIN",
            "AHVzZXIAcGFzcw==",
            "cGFzcw==",
            "*",
            "BDAT 5 LAST",
            "QUIT",
            "",
        ]);
        let ends = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\0\r\n", "\r\r\n"]);
        proptest::collection::vec((words, ends), 0..25)
            .prop_map(|lines| lines.into_iter().flat_map(|(word, end)| [word, end].concat().into_bytes()).collect())
    }

    proptest! {
        #[test]
        fn any_octets(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_session(&data);
        }

        #[test]
        fn near_dialogues(mode in any::<u8>(), lines in lines()) {
            fuzz_session(&[&[mode], &lines[..]].concat());
        }

        #[test]
        fn transactions(mode in 0u8..16, data in lines()) {
            let head = b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n";
            fuzz_session(&[&[mode], &head[..], &data[..]].concat());
        }
    }
}
