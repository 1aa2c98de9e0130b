//! An SMTP client on a bare socket.

use super::DEADLINE;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects and says nothing.
    pub fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("the relay takes connections");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Connects, and is past the banner and EHLO.
    pub fn greeted(to: SocketAddr) -> Self {
        let mut client = Self::connect(to);
        let banner = client.reply();
        assert!(banner.starts_with("220 "), "banner: {banner}");
        let offer = client.ask("EHLO app.example.com");
        assert!(offer.contains("PIPELINING"), "EHLO: {offer}");
        client
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("the relay reads");
    }

    /// One reply, its lines joined by LF; empty when the relay has hung up.
    pub fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a reply comes in time");
            let more = line.as_bytes().get(3) == Some(&b'-');
            reply.push_str(line.trim_end_matches("\r\n"));
            if !more {
                return reply;
            }
            reply.push('\n');
        }
    }

    /// A command line, and the reply to it.
    pub fn ask(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n"));
        self.reply()
    }

    /// Asks and wants a reply that begins like this.
    #[track_caller]
    pub fn expect(&mut self, line: &str, wanted: &str) {
        let reply = self.ask(line);
        assert!(reply.starts_with(wanted), "{line}: {reply}");
    }

    /// The commands up to 354.
    #[track_caller]
    pub fn begin(&mut self, from: &str, to: &[&str]) {
        self.expect(&format!("MAIL FROM:<{from}>"), "250 ");
        for recipient in to {
            self.expect(&format!("RCPT TO:<{recipient}>"), "250 ");
        }
        self.expect("DATA", "354 ");
    }

    /// The message, dots stuffed, and the reply to it.
    pub fn data(&mut self, message: &[u8]) -> String {
        self.write(stuffed(message));
        self.reply()
    }

    /// Sends a message; its queue id.
    #[track_caller]
    pub fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> String {
        self.begin(from, to);
        queue_id(&self.data(message))
    }

    /// True when the relay has hung up and said nothing more. Where it left something unread, that is a reset.
    pub fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// The id in `250 2.0.0 Ok: queued as ID`.
#[track_caller]
pub fn queue_id(reply: &str) -> String {
    let id = reply.strip_prefix("250 2.0.0 Ok: queued as ");
    id.unwrap_or_else(|| panic!("the message was not taken: {reply}")).to_owned()
}

/// RFC 5321 §4.5.2, and the final dot.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
