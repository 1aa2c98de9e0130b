//! The 255 ends of data that some server somewhere takes for one, through the real program and inside TLS, where what
//! the client wrote in one piece arrives in one piece.

use super::submission::plain_response;
use crate::common::{Certificate, Client, Setup, Smarthost, plain};
use std::collections::BTreeSet;

const PRE: [&str; 9] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\0", "\0\r\n", "\n\n", "\r\r"];
const DOT: [&str; 5] = [".", ".\0", "\0.", ". ", " ."];
const POST: [&str; 6] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\0\r\n"];

#[test]
fn no_second_message_hides_in_the_first() {
    let smarthost = Smarthost::start();
    let (certificate, trust) = Certificate::new();
    let setup =
        Setup::new(smarthost.address).with("listener.tls", "\"implicit\"").with("listener.auth", "\"required\"");
    let relay = certificate.used_by(setup.with("smtp.max_connections_per_client", "1000")).start();
    let key = relay.ok(&["key", "create", "--name", "app"]).trim().to_owned();
    let dots = PRE.iter().flat_map(|pre| DOT.iter().map(move |dot| [*pre, *dot].concat()));
    let ends: BTreeSet<String> = dots.flat_map(|start| POST.map(|post| [&start[..], post].concat())).collect();
    assert_eq!(ends.len(), 255);
    for (n, end) in ends.iter().enumerate() {
        let mut client = Client::connect_tls(relay.smtp(), &trust);
        assert!(client.reply().starts_with("220 "));
        client.expect("EHLO app.example.com", "250-");
        client.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 ");
        client.begin("a@example.com", &["b@example.net"]);
        let smuggled = format!(
            "MAIL FROM:<admin@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: smuggled-{n}\r\n\r\nx\r\n.\r\n"
        );
        client.write(format!("Subject: first-{n}\r\n\r\ntext{end}{smuggled}QUIT\r\n"));
        let replies: Vec<String> =
            std::iter::from_fn(|| Some(client.reply()).filter(|reply| !reply.is_empty())).collect();
        let accepted = replies.iter().filter(|reply| reply.contains("queued as")).count();
        // CRLF.CRLF is the end for everybody; what follows in the same piece is then refused as out of turn.
        assert!(accepted <= 1, "{end:?}: {replies:?}");
    }
    let mut last = Client::connect_tls(relay.smtp(), &trust);
    last.reply();
    last.expect("EHLO app.example.com", "250-");
    last.expect(&format!("AUTH PLAIN {}", plain_response(&key)), "235 ");
    last.send("a@example.com", &["b@example.net"], &plain("example.com", "the-last-one"));
    smarthost.wait_for_text("the-last-one");
    relay.wait_until_empty();
    for taken in smarthost.taken() {
        assert_eq!(taken.to, ["b@example.net"], "{}", taken.text());
    }
}
