//! The stream to the smarthost: the socket, TLS over it, and replies cut into what lettre can read.
//!
//! Owns every octet that comes in. A read gives one whole reply and never the beginning of the next, so that nothing
//! can hide in a buffer above; a reply is bounded, and its text made harmless: UTF-8, without controls, CRLF at every
//! line end, lines short enough for lettre. What arrives unasked stays here and is seen by [`Wire::is_quiet`].
//! Knows no command, no time-out and no meaning of a code.

use lettre::transport::smtp::client::AsyncTokioStream;
use lettre::transport::smtp::response::Response;
use memchr::memchr;
use rustls::pki_types::ServerName;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A reply longer than this, or of more lines, is an error. RFC 5321 §4.5.3.1.5 allows 512 octets a line.
const REPLY_OCTETS: usize = 64 * 1024;
const REPLY_LINES: usize = 100;

/// Text of a line beyond this is dropped: lettre refuses lines over 1,000 octets, code and CRLF included.
const LINE_OCTETS: usize = 900;

/// What is wrong with a wire that is not [quiet](Wire::is_quiet).
pub(super) const SPOKE_UNASKED: &str = "the smarthost spoke unasked or closed the connection";

/// The connection to the smarthost, with what has been read from it and not been used.
pub(super) struct Wire {
    transport: Transport,
    peer: SocketAddr,
    /// As received; begins with the first reply that has not been handed out.
    inbound: Vec<u8>,
    /// The reply being handed out, normalised, and how much of it is gone.
    reply: String,
    handed_out: usize,
    /// Writes are swallowed, while lettre is told what has already been said.
    muted: bool,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        // Without it a group of commands waits for the acknowledgement of the one before.
        socket.set_nodelay(true)?;
        let peer = socket.peer_addr()?;
        let transport = Transport::Plain(socket);
        Ok(Self { transport, peer, inbound: Vec::new(), reply: String::new(), handed_out: 0, muted: false })
    }

    /// Begins TLS. The caller has made sure that the wire [is drained](Wire::is_drained): octets that came before TLS
    /// would pass for encrypted ones.
    pub(super) async fn start_tls(self, connector: TlsConnector, host: &str) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "the host is not a name that a certificate can bear")
        })?;
        let Transport::Plain(socket) = self.transport else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "TLS is already in use"));
        };
        let stream = connector.connect(name, socket).await?;
        Ok(Self { transport: Transport::Tls(Box::new(stream)), ..self })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// True where nobody but this machine can listen.
    pub(super) fn is_loopback(&self) -> bool {
        self.peer.ip().to_canonical().is_loopback()
    }

    /// True when every octet received has been handed out.
    pub(super) fn is_drained(&self) -> bool {
        self.inbound.is_empty() && self.reply.is_empty()
    }

    /// True when nothing has arrived that was not asked for, nor the end of the connection. Does not wait.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.is_drained() && self.poll_receive(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Writes `line`, CRLF included, and waits for the reply.
    pub(super) async fn command(&mut self, line: &str) -> io::Result<Response> {
        // A reply that was there before its command would be taken for the reply to it.
        if !self.is_quiet() {
            return Err(garbage(SPOKE_UNASKED));
        }
        self.write_all(line.as_bytes()).await?;
        self.flush().await?;
        self.next_reply().await
    }

    /// Waits for a reply.
    pub(super) async fn next_reply(&mut self) -> io::Result<Response> {
        std::future::poll_fn(|cx| self.poll_reply(cx)).await?;
        let response = self.reply.parse().map_err(|_| garbage("reply with differing codes"));
        self.reply.clear();
        response
    }

    /// Fills `reply` unless some of it is still to be handed out.
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.reply.is_empty() {
            if let Some(length) = find_reply(&self.inbound)? {
                normalise(&self.inbound[..length], &mut self.reply);
                self.inbound.drain(..length);
                break;
            }
            if self.inbound.len() >= REPLY_OCTETS {
                return Poll::Ready(Err(garbage("reply of over 64 KiB")));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                let text = if self.inbound.is_empty() { "" } else { " in the middle of a reply" };
                let text = format!("connection closed by the smarthost{text}");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Appends what there is to `inbound`; 0 is the end of the connection.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut space = ReadBuf::uninit(&mut space);
        match &mut self.transport {
            Transport::Plain(socket) => ready!(Pin::new(socket).poll_read(cx, &mut space))?,
            Transport::Tls(stream) => ready!(Pin::new(stream).poll_read(cx, &mut space))?,
        }
        self.inbound.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.muted {
            return Poll::Ready(Ok(octets.len()));
        }
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write(cx, octets),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A handle on the wire. lettre has one, for commands and replies; the connection keeps another, for the message,
/// which lettre would copy octet by octet. Both belong to one task, so the lock is never contended.
#[derive(Clone)]
pub(super) struct Stream(Arc<Mutex<Wire>>);

impl Stream {
    pub(super) fn new(wire: Wire) -> Self {
        Self(Arc::new(Mutex::new(wire)))
    }

    /// Makes the next reads give `replies`, and swallows what is written, until [`Stream::unmute`].
    pub(super) fn mute(&self, replies: &str) {
        let mut wire = self.wire();
        wire.reply.push_str(replies);
        wire.muted = true;
    }

    pub(super) fn unmute(&self) {
        self.wire().muted = false;
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.wire().is_quiet()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.wire().is_encrypted()
    }

    /// Writes all `octets` to the socket.
    pub(super) async fn send(&self, octets: &[u8]) -> io::Result<()> {
        let mut handle = self.clone();
        handle.write_all(octets).await?;
        handle.flush().await
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Stream {
    /// Gives octets of one reply only, however much room there is.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        ready!(wire.poll_reply(cx))?;
        let left = &wire.reply.as_bytes()[wire.handed_out..];
        let count = left.len().min(out.remaining());
        out.put_slice(&left[..count]);
        wire.handed_out += count;
        if wire.handed_out == wire.reply.len() {
            wire.reply.clear();
            wire.handed_out = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.wire()).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire()).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Stream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.wire().peer)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.wire().peer).finish()
    }
}

/// The length of the reply at the front of `inbound`; `None` while its last line has not arrived.
fn find_reply(inbound: &[u8]) -> io::Result<Option<usize>> {
    let mut start = 0;
    for _ in 0..REPLY_LINES {
        let Some(length) = memchr(b'\n', &inbound[start..]) else { return Ok(None) };
        let is_last = match split_line(&inbound[start..start + length]) {
            Some((_, b' ', _)) => true,
            Some((_, _, _)) => false,
            None => return Err(garbage("what the smarthost said is no SMTP reply")),
        };
        start += length + 1;
        if is_last {
            return Ok(Some(start));
        }
    }
    Err(garbage("reply of over 100 lines"))
}

/// Code, separator (space or hyphen) and text of a line that stands without its LF. A code alone is tolerated
/// (RFC 5321 §4.2), and so is a missing CR.
fn split_line(line: &[u8]) -> Option<([u8; 3], u8, &[u8])> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (&[class @ b'2'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9'], rest) = line.split_first_chunk()? else {
        return None;
    };
    let code = [class, tens, ones];
    match rest {
        [] => Some((code, b' ', rest)),
        [separator @ (b' ' | b'-'), text @ ..] => Some((code, *separator, text)),
        _ => None,
    }
}

/// Appends `reply`, which [`find_reply`] delimited, as lettre reads it.
fn normalise(reply: &[u8], out: &mut String) {
    for line in reply.split_inclusive(|b| *b == b'\n') {
        let Some((code, separator, text)) = split_line(&line[..line.len() - 1]) else { continue };
        // RFC 5321 §4.2 defines second digits up to 5, and lettre reads no others; §4.2.1 has an unknown code, such
        // as the 571 of some servers, count by its first digit. The text keeps what was said.
        let known = code[1] <= b'5';
        out.push(char::from(code[0]));
        out.push_str(if known { std::str::from_utf8(&code[1..]).unwrap_or("50") } else { "50" });
        out.push(char::from(separator));
        push_text(text, out);
        if !known {
            out.push_str(" (");
            out.extend(code.map(char::from));
            out.push(')');
        }
        out.push_str("\r\n");
    }
}

/// Appends `text` as UTF-8 without controls, and at most [`LINE_OCTETS`] of it.
fn push_text(text: &[u8], out: &mut String) {
    let limit = out.len() + LINE_OCTETS;
    let text = &text[..text.len().min(LINE_OCTETS)];
    for character in String::from_utf8_lossy(text).chars() {
        let character = if character.is_control() { ' ' } else { character };
        if out.len() + character.len_utf8() > limit {
            break;
        }
        out.push(character);
    }
}

fn garbage(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_are_delimited_and_made_harmless() {
        let long = [b"550 ".as_slice(), &[b'x'; 5000], b"\r\n"].concat();
        let cut = format!("550 {}\r\n", "x".repeat(LINE_OCTETS));
        let wide = [b"550 ".as_slice(), &[0xff; 5000], b"\r\n"].concat();
        let wide_cut = format!("550 {}\r\n", "\u{fffd}".repeat(LINE_OCTETS / 3));
        // What arrived; how much of it is the first reply, 0 for none; what lettre is given.
        let table: &[(&[u8], usize, &str)] = &[
            (b"", 0, ""),
            (b"250 Ok\r", 0, ""),
            (b"250 Ok\r\n", 8, "250 Ok\r\n"),
            (b"250 Ok\n", 7, "250 Ok\r\n"),
            (b"250\r\n", 5, "250 \r\n"),
            (b"250 a\r\n250 b\r\n", 7, "250 a\r\n"),
            (b"250-a\r\n250 b\r\n", 14, "250-a\r\n250 b\r\n"),
            (b"250-a\r\n250", 0, ""),
            (b"550 gesch\xfctzt\x07\r\n", 16, "550 gesch\u{fffd}tzt \r\n"),
            (b"571 5.7.1 blocked\r\n", 19, "550 5.7.1 blocked (571)\r\n"),
            (&long, long.len(), &cut),
            (&wide, wide.len(), &wide_cut),
        ];
        for (wire, length, given) in table {
            let mut text = String::new();
            let found = find_reply(wire).unwrap().unwrap_or(0);
            normalise(&wire[..found], &mut text);
            assert_eq!((found, &*text), (*length, *given), "{:?}", String::from_utf8_lossy(wire));
        }
        let many = "250-x\r\n".repeat(REPLY_LINES);
        for wire in ["\r\n", "hello\r\n", "25\r\n", "2500\r\n", "250_x\r\n", "150 x\r\n", "650 x\r\n", &many] {
            assert!(find_reply(wire.as_bytes()).is_err(), "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_delimited_lettre_can_read(wire in prop::collection::vec(any::<u8>(), 0..40), code in 200u16..600) {
            let wire = [format!("{code} ").as_bytes(), &wire, b"\r\n"].concat();
            if let Ok(Some(length)) = find_reply(&wire) {
                let mut text = String::new();
                normalise(&wire[..length], &mut text);
                for arrived in 0..length {
                    prop_assert!(matches!(find_reply(&wire[..arrived]), Ok(None)), "not before it is whole");
                }
                let response: Response = text.parse().expect("normalised replies are well-formed");
                prop_assert_eq!(u16::from(response.code()) / 100, code / 100);
            }
        }
    }
}
