//! Scripted smarthosts: every way in which a session can go, as dialogues.
//!
//! `S:` lines are said by the smarthost, consecutive ones in one write; `C:` lines must come from us, octet by octet,
//! before it goes on, so that a group of commands which is not pipelined would wait for ever. `R:` is said without a
//! line end. `X: hang` keeps the connection open in silence; else the end of a script closes it. Characters of `S:`
//! up to U+00FF go out as Latin-1.

mod opening;
mod sending;

use super::*;
use crate::mail::{Address, Recipient, Reply};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

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
    let lines: Vec<(&str, &str)> =
        script.lines().filter(|line| !line.is_empty()).map(|line| line.split_at(3)).collect();
    for group in lines.chunk_by(|one, next| one.0 == next.0) {
        let who = group[0].0;
        let octets: Vec<u8> = match who {
            "S: " => group.iter().flat_map(|(_, text)| latin_1(text).chain(*b"\r\n")).collect(),
            "R: " => group.iter().flat_map(|(_, text)| latin_1(text)).collect(),
            _ => group.iter().flat_map(|(_, text)| text.bytes().chain(*b"\r\n")).collect(),
        };
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

fn latin_1(text: &str) -> impl Iterator<Item = u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("a character of Latin-1"))
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
