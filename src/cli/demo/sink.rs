//! A mail sink: our own SMTP session, which keeps what it is given.

use crate::mail::{Enhanced, Reply};
use crate::smtp::{Auth, BareNewline, Event, Peer, Session, SessionConfig};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// One message as the sink got it.
pub struct Received {
    pub recipient: String,
    pub message: Vec<u8>,
}

impl Received {
    /// The HTML part, decoded.
    pub fn html(&self) -> Option<String> {
        let message = mail_parser::MessageParser::default().parse(&self.message)?;
        message.body_html(0).map(|html| html.into_owned())
    }
}

pub struct Sink {
    pub address: SocketAddr,
    received: mpsc::UnboundedReceiver<Received>,
}

impl Sink {
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (keep, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let keep = keep.clone();
                tokio::spawn(async move { talk(stream, peer, &keep).await });
            }
        });
        Ok(Self { address, received })
    }

    pub async fn next(&mut self) -> Option<Received> {
        self.received.recv().await
    }
}

async fn talk(mut stream: TcpStream, peer: SocketAddr, keep: &mpsc::UnboundedSender<Received>) -> io::Result<()> {
    let config = SessionConfig {
        hostname: "smarthost.example.net".to_owned(),
        max_message_size: 50 * 1024 * 1024,
        max_recipients: 100,
        starttls: false,
        auth: Auth::None,
        bare_newline: BareNewline::Reject,
    };
    let mut session = Session::new(Arc::new(config), Peer { address: peer.ip(), trusted: true, tls: false });
    session.greet();
    let mut buffer = vec![0; 64 * 1024];
    while !session.is_closed() {
        stream.write_all(session.output()).await?;
        session.output().clear();
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() && !session.is_closed() {
            let (used, event) = session.input(rest);
            rest = &rest[used..];
            match event {
                Some(Event::Data { .. }) => session.data_go_ahead(),
                Some(Event::Message { envelope, bytes }) => {
                    for recipient in &envelope.recipients {
                        let recipient = recipient.address.to_string();
                        let _ = keep.send(Received { recipient, message: bytes.clone() });
                    }
                    session.message_answered(Reply::new(250, Enhanced(2, 0, 0), "Ok: taken"));
                }
                _ => {}
            }
        }
    }
    stream.write_all(session.output()).await
}
