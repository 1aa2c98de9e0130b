//! An SMTP client on a bare socket, or inside TLS.

use super::{DEADLINE, Trust};
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Client(BufReader<Wire>);

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Client {
    /// Connects and says nothing.
    pub fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).expect("the relay takes connections"))
    }

    /// From an address of its own, one of 127.0.0.0/8, past the banner and EHLO.
    pub fn greeted_from(address: [u8; 4], to: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind((address, 0).into())?;
            socket.connect(to).await?.into_std()
        });
        let stream = stream.expect("the relay takes connections");
        stream.set_nonblocking(false).unwrap();
        Self::over(stream).greet()
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(Wire::Plain(stream)))
    }

    /// Connects and shakes hands.
    pub fn connect_tls(to: SocketAddr, trust: &Trust) -> Self {
        Self::connect(to).shake_hands(trust).expect("the handshake succeeds")
    }

    /// STARTTLS and the handshake; what was offered before has to be asked for again.
    #[track_caller]
    pub fn start_tls(mut self, trust: &Trust) -> Self {
        self.expect("STARTTLS", "220 ");
        self.shake_hands(trust).expect("the handshake succeeds")
    }

    pub fn shake_hands(self, trust: &Trust) -> io::Result<Self> {
        let Wire::Plain(mut stream) = self.0.into_inner() else { panic!("it is inside TLS already") };
        let name = "relay.example.net".try_into().unwrap();
        let mut tls = ClientConnection::new(trust.0.clone(), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self(BufReader::new(Wire::Tls(Box::new(StreamOwned::new(tls, stream))))))
    }

    /// Connects, and is past the banner and EHLO.
    pub fn greeted(to: SocketAddr) -> Self {
        Self::connect(to).greet()
    }

    fn greet(mut self) -> Self {
        let banner = self.reply();
        assert!(banner.starts_with("220 "), "banner: {banner}");
        let offer = self.ask("EHLO app.example.com");
        assert!(offer.contains("PIPELINING"), "EHLO: {offer}");
        self
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let wire = self.0.get_mut();
        wire.write_all(bytes.as_ref()).and_then(|()| wire.flush()).expect("the relay reads");
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

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
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
