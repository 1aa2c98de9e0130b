//! Scripted smarthosts: every way in which a session can go, as dialogues.
//!
//! `S:` lines are said by the smarthost, consecutive ones in one write; `C:` lines must come from us, octet by octet,
//! before it goes on, so that a group of commands which is not pipelined would wait for ever. `R:` is said without a
//! line end. `X: hang` keeps the connection open in silence; else the end of a script closes it. Characters of `S:`
//! up to U+00FF go out as Latin-1.

use super::*;
use crate::mail::{Address, Enhanced, Recipient, Reply};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(80);
const MESSAGE: &[u8] = b"Subject: x\r\n\r\n.dot\r\n";

/// A session up to MAIL, without and with PIPELINING.
const PLAIN: &str = "S: 220 mx.test\nC: EHLO relay.test\nS: 250 mx.test\n";
const PIPED: &str = "S: 220 mx.test\nC: EHLO relay.test\nS: 250-mx.test\nS: 250 PIPELINING\n";
const BODY: &str = "C: Subject: x\nC: \nC: ..dot\nC: .\n";
const GROUP_OF_ONE: &str = "C: MAIL FROM:<a@example.com>\nC: RCPT TO:<r0@example.net>\nC: DATA\n";
const GROUP_OF_TWO: &str =
    "C: MAIL FROM:<a@example.com>\nC: RCPT TO:<r0@example.net>\nC: RCPT TO:<r1@example.net>\nC: DATA\n";

trait Octets: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Octets for T {}

/// Plays `script` to one client.
async fn play(stream: &mut dyn Octets, script: &str) {
    let mut lines = script.lines().map(str::trim_start).filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let (who, text) = line.split_at(3);
        let mut octets: Vec<u8> = Vec::new();
        let mut push = |text: &str| match who {
            "S: " => octets.extend(text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).chain(*b"\r\n")),
            "R: " => octets.extend_from_slice(text.as_bytes()),
            _ => octets.extend(text.bytes().chain(*b"\r\n")),
        };
        push(text);
        while let Some(next) = lines.next_if(|next| next.starts_with(who)) {
            push(&next[3..]);
        }
        match who {
            "C: " => {
                let mut got = vec![0; octets.len()];
                let read = timeout(PATIENCE, stream.read_exact(&mut got)).await.expect("commands in time");
                let (got, want) = (String::from_utf8_lossy(&got), String::from_utf8_lossy(&octets));
                assert!(read.is_ok(), "connection closed instead of {want:?}");
                assert_eq!(got, want);
            }
            "S: " | "R: " => stream.write_all(&octets).await.unwrap(),
            "X: " => drop(timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await),
            other => panic!("no such mark: {other:?}"),
        }
        stream.flush().await.unwrap();
    }
}

async fn listen() -> (TcpListener, Smarthost) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Smarthost {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        tls: TlsMode::None,
        credentials: None,
        tls_config: Arc::new(client_tls(None, false).unwrap()),
        helo: "relay.test".to_owned(),
        timeouts: Timeouts::default(),
    };
    (listener, to)
}

/// A smarthost that plays one script a connection.
async fn smarthost(scripts: &[String]) -> (Smarthost, JoinHandle<()>) {
    let (listener, to) = listen().await;
    let scripts = scripts.to_vec();
    let task = tokio::spawn(async move {
        for script in scripts {
            play(&mut listener.accept().await.unwrap().0, &script).await;
        }
    });
    (to, task)
}

fn recipients(count: usize) -> Vec<Recipient> {
    (0..count).map(|n| Address::parse(&format!("r{n}@example.net")).unwrap().into()).collect()
}

async fn send(connection: &mut Connection, count: usize, message: &[u8]) -> Result<Vec<Reply>, Broken> {
    let sender = Address::parse("a@example.com").unwrap();
    let recipients = recipients(count);
    let recipients: Vec<&Recipient> = recipients.iter().collect();
    let transaction = Transaction {
        sender: Some(&sender),
        recipients: &recipients,
        eight_bit: false,
        smtputf8: false,
        ret: None,
        envid: None,
        message,
    };
    connection.send(&transaction).await
}

/// Opens a connection to a smarthost with `script`, sends [`MESSAGE`] to `count` recipients, and gives the result with
/// the fitness of the connection.
async fn deliver(script: &str, count: usize, timeouts: Timeouts) -> (Result<Vec<Reply>, Broken>, bool) {
    let (to, task) = smarthost(&[script.to_owned()]).await;
    let mut connection = Connection::open(&Smarthost { timeouts, ..to }).await.unwrap();
    let result = timeout(PATIENCE, send(&mut connection, count, MESSAGE)).await.expect("an answer in time");
    let fit = connection.is_fit();
    drop(connection);
    task.await.unwrap();
    (result, fit)
}

fn codes(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.code).collect()
}

#[tokio::test]
async fn two_messages_over_one_connection() {
    let rcpts = ["C: RCPT TO:<r0@example.net>\nS: 250 Ok\n", "C: RCPT TO:<r1@example.net>\nS: 250 Ok\n"].concat();
    let stepwise =
        format!("C: MAIL FROM:<a@example.com>\nS: 250 Ok\n{rcpts}C: DATA\nS: 354 go\n{BODY}S: 250 2.0.0 Ok: Q\n");
    let piped = format!("{GROUP_OF_TWO}S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 2.0.0 Ok: Q\n");
    for (hello, one) in [(PLAIN, stepwise), (PIPED, piped)] {
        let (to, task) = smarthost(&[format!("{hello}{one}{one}C: QUIT\nS: 221 bye\n")]).await;
        let mut connection = Connection::open(&to).await.unwrap();
        for _ in 0..2 {
            let want = Reply::new(250, Enhanced(2, 0, 0), "Ok: Q");
            assert_eq!(send(&mut connection, 2, MESSAGE).await.unwrap(), [want.clone(), want]);
            assert!(connection.is_fit());
        }
        connection.quit().await;
        task.await.unwrap();
    }
}

#[tokio::test]
async fn refusals() {
    let rset_then_good =
        format!("C: RSET\n{GROUP_OF_TWO}S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\n");
    let good = format!("{GROUP_OF_TWO}S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\n");
    // Replies to MAIL, RCPT, RCPT, DATA and what follows; the codes that the recipients get; what the next message
    // begins with.
    let table: &[(&str, String, [u16; 2], &str)] = &[
        ("one refused", format!("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\n"), [550, 250], &good),
        (
            "too many",
            format!("S: 250 Ok\nS: 250 Ok\nS: 452 4.5.3 full\nS: 354 go\n{BODY}S: 250 Ok\n"),
            [250, 452],
            &good,
        ),
        (
            "the message refused",
            format!("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\n{BODY}S: 554 spam\n"),
            [550, 554],
            &good,
        ),
        ("all refused", "S: 250 Ok\nS: 550 no\nS: 451 no\nS: 554 none\n".to_owned(), [550, 451], &rset_then_good),
        (
            "all refused and 354",
            "S: 250 Ok\nS: 550 no\nS: 451 no\nS: 354 go\nC: .\nS: 554 none\n".to_owned(),
            [550, 451],
            &good,
        ),
        ("MAIL refused", "S: 552 big\nS: 503 no\nS: 503 no\nS: 503 no\n".to_owned(), [552, 552], &good),
        (
            "MAIL refused and 354",
            "S: 451 no\nS: 503 no\nS: 503 no\nS: 354 go\nC: .\nS: 554 none\n".to_owned(),
            [451, 451],
            &good,
        ),
        ("DATA refused", "S: 250 Ok\nS: 251 Ok\nS: 550 no\nS: 451 no\n".to_owned(), [451, 550], &rset_then_good),
        ("forwarded", format!("S: 250 Ok\nS: 251 Ok\nS: 252 Ok\nS: 354 go\n{BODY}S: 250 Ok\n"), [250, 250], &good),
    ];
    for (name, replies, want, next) in table {
        let (to, task) = smarthost(&[format!("{PIPED}{GROUP_OF_TWO}{replies}{next}")]).await;
        let mut connection = Connection::open(&to).await.unwrap();
        let got = send(&mut connection, 2, MESSAGE).await.unwrap();
        assert_eq!(codes(&got), want, "{name}");
        assert!(connection.is_fit(), "{name}");
        assert_eq!(codes(&send(&mut connection, 2, MESSAGE).await.unwrap()), [250, 250], "{name}");
        task.await.unwrap();
    }
}

#[tokio::test]
async fn refusals_step_by_step() {
    let good = format!(
        "C: MAIL FROM:<a@example.com>\nS: 250 Ok\nC: RCPT TO:<r0@example.net>\nS: 250 Ok\nC: DATA\nS: 354 go\n{BODY}S: 250 Ok\n"
    );
    let table = [
        ("C: MAIL FROM:<a@example.com>\nS: 550 no\n", 550, ""),
        (
            "C: MAIL FROM:<a@example.com>\nS: 250 Ok\nC: RCPT TO:<r0@example.net>\nS: 551 no\n",
            551,
            "C: RSET\nS: 250 Ok\n",
        ),
        (
            "C: MAIL FROM:<a@example.com>\nS: 250 Ok\nC: RCPT TO:<r0@example.net>\nS: 250 Ok\nC: DATA\nS: 451 no\n",
            451,
            "C: RSET\nS: 250 Ok\n",
        ),
    ];
    for (dialogue, code, before_next) in table {
        let (to, task) = smarthost(&[format!("{PLAIN}{dialogue}{before_next}{good}")]).await;
        let mut connection = Connection::open(&to).await.unwrap();
        assert_eq!(codes(&send(&mut connection, 1, MESSAGE).await.unwrap()), [code]);
        assert_eq!(codes(&send(&mut connection, 1, MESSAGE).await.unwrap()), [250]);
        task.await.unwrap();
    }
}

#[tokio::test]
async fn closing_replies_reach_the_undecided() {
    let table = [
        ("S: 421 bye\n".to_owned(), [421, 421]),
        ("S: 250 Ok\nS: 550 no\nS: 421 bye\n".to_owned(), [550, 421]),
        ("S: 250 Ok\nS: 250 Ok\nS: 421 bye\n".to_owned(), [421, 421]),
        ("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 421 bye\n".to_owned(), [550, 421]),
        (format!("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\n{BODY}S: 421 bye\n"), [550, 421]),
        // Everyone is refused when it breaks.
        ("S: 554 no\nS: 503 no\n".to_owned(), [554, 554]),
        ("S: 250 Ok\nS: 550 no\nS: 450 no\n".to_owned(), [550, 450]),
    ];
    for (replies, want) in table {
        let (result, fit) = deliver(&format!("{PIPED}{GROUP_OF_TWO}{replies}"), 2, Timeouts::default()).await;
        assert_eq!(codes(&result.unwrap()), want, "{replies}");
        assert!(!fit, "{replies}");
    }
}

#[tokio::test]
async fn breaks() {
    let endless = format!("R: {}\n", "250 x".repeat(20_000));
    let many_lines = "S: 250-x\n".repeat(200);
    let sent = format!("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\n{BODY}");
    // What the smarthost says after the commands; the phase; whether the message may have been taken; whether the
    // first recipient was refused for good.
    let table: &[(&str, String, Phase, bool, bool)] = &[
        ("closes at MAIL", String::new(), Phase::Mail, false, false),
        ("closes at RCPT", "S: 250 Ok\n".to_owned(), Phase::Rcpt, false, false),
        ("closes after a refusal", "S: 250 Ok\nS: 550 no\n".to_owned(), Phase::Rcpt, false, true),
        ("closes after a 4xx", "S: 250 Ok\nS: 450 no\n".to_owned(), Phase::Rcpt, false, false),
        ("closes at DATA", "S: 250 Ok\nS: 550 no\nS: 250 Ok\n".to_owned(), Phase::Data, false, true),
        ("closes after the dot", sent.clone(), Phase::Dot, true, true),
        ("half a reply", format!("{sent}R: 250 O\n"), Phase::Dot, true, true),
        ("354 after the dot", format!("{sent}S: 354 go\n"), Phase::Dot, true, true),
        ("garbage after the dot", format!("{sent}S: hello\n"), Phase::Dot, true, true),
        ("garbage", "S: HTTP/1.1 400 Bad Request\n".to_owned(), Phase::Mail, false, false),
        ("354 at MAIL", "S: 354 go\n".to_owned(), Phase::Mail, false, false),
        ("354 at RCPT", "S: 250 Ok\nS: 354 go\n".to_owned(), Phase::Rcpt, false, false),
        ("250 at DATA", "S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 250 Ok\n".to_owned(), Phase::Data, false, false),
        ("differing codes", "S: 250-Ok\nS: 550 no\n".to_owned(), Phase::Mail, false, false),
        (
            "a reply too many",
            "S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\nS: 250 Ok\n".to_owned(),
            Phase::Message,
            false,
            true,
        ),
        ("endless line", endless, Phase::Mail, false, false),
        ("endless reply", many_lines, Phase::Mail, false, false),
    ];
    for (name, replies, phase, after_dot, refused) in table {
        let (result, fit) = deliver(&format!("{PIPED}{GROUP_OF_TWO}{replies}X: hang"), 2, quick_dot(name)).await;
        let broken = result.expect_err(name);
        assert_eq!((broken.phase, broken.after_dot), (*phase, *after_dot), "{name}: {broken}");
        assert_eq!(broken.replies[0].as_ref().map(|reply| reply.code), refused.then_some(550), "{name}");
        assert_eq!(broken.replies[1], None, "{name}");
        assert!(!fit, "{name}");
        assert!(!broken.text.is_empty(), "{name}");
    }
}

fn quick_dot(_: &str) -> Timeouts {
    Timeouts::default()
}
