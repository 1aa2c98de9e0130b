//! A connection to the smarthost between messages: what it was told, what the smarthost offers, and when it may be
//! used again.
//!
//! It is made in [`super::open`], and messages go over it in [`super::transaction`]. Which smarthost, and how many
//! connections, is not decided here.

use super::Delivery;
use super::stream::Stream;
use super::tls::TlsMode;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Where mail goes, and how.
#[derive(Clone, Debug)]
pub struct Smarthost {
    /// A host name, which its certificate must bear where it is verified, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    pub tls: TlsMode,
    /// Sent only over TLS, or to loopback. With [`TlsMode::Opportunistic`] an attacker in the middle can read them.
    pub credentials: Option<Credentials>,
    /// From [`super::client_tls`]; not looked at with [`TlsMode::None`].
    pub tls_config: Arc<rustls::ClientConfig>,
    /// What we call ourselves in EHLO: a host name or an address literal.
    pub helo: String,
    pub timeouts: Timeouts,
}

/// User name and password for AUTH.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

/// How long each step may take. The defaults are at least those of RFC 5321 §4.5.3.2, but for `connect` and `quit`,
/// of which it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The TCP connection to one address, and the TLS handshake.
    pub connect: Duration,
    pub greeting: Duration,
    /// EHLO, HELO and STARTTLS, each; AUTH.
    pub ehlo: Duration,
    /// MAIL and RSET.
    pub mail: Duration,
    /// Each reply to RCPT.
    pub rcpt: Duration,
    pub data: Duration,
    /// Writing 256 KiB of the message.
    pub block: Duration,
    /// The reply to the whole message.
    pub dot: Duration,
    pub quit: Duration,
}

/// A step of the session, as it stands in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Greeting,
    Ehlo,
    /// STARTTLS or the handshake.
    Tls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// Between 354 and the final dot.
    Message,
    /// The final dot is written; the reply to the message is awaited.
    Dot,
}

/// What the smarthost said in its last EHLO. All false after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub pipelining: bool,
    /// `None` where SIZE is not offered; 0 where it names no limit (RFC 1870 §4). In octets.
    pub size: Option<u64>,
    pub eight_bit_mime: bool,
    pub smtputf8: bool,
    pub dsn: bool,
}

/// An open session, between messages.
pub struct Connection {
    /// Commands and replies.
    pub(super) smtp: AsyncSmtpConnection,
    /// The stream below lettre, for the message.
    pub(super) stream: Stream,
    pub(super) capabilities: Capabilities,
    pub(super) timeouts: Timeouts,
    /// Set before the first octet of a transaction is written, cleared after its last reply. Whoever drops a future
    /// between the two leaves it set: the next reply would belong to the wrong command.
    pub(super) busy: bool,
    /// A transaction was begun and given up, so RSET precedes the next MAIL.
    pub(super) needs_reset: bool,
    /// A whole message was written and its reply has not come. Shared, for whoever finds a delivery cut short.
    pub(super) waits_for_dot: Arc<AtomicBool>,
    /// Whom it is with, for people to read.
    pub(super) peer: String,
    /// What was configured when it was opened; with anything else in force it is given up.
    pub(super) terms: Option<Arc<Delivery>>,
    /// Until when it is used, however fit it is: one to a fallback ends, so that the first smarthost is tried again.
    pub(super) until: Option<Instant>,
    /// Up to 256 KiB of a message on their way out, stuffed; kept for the memory.
    pub(super) scratch: Vec<u8>,
}

impl Connection {
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// True when another transaction may begin: the last one ended as it should, and since then the smarthost has
    /// neither said anything nor, as far as is known yet, hung up.
    pub fn is_fit(&self) -> bool {
        !self.busy && self.stream.is_quiet() && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// The smarthost's name and port.
    /// What is said goes through TLS.
    pub fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted()
    }

    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Says QUIT, if the connection is fit for that, waits for the reply, and closes.
    pub async fn quit(mut self) {
        if !self.busy && self.stream.is_quiet() {
            let farewell = async {
                // Nothing follows from the reply, nor from its absence.
                let _ = self.smtp.command("QUIT\r\n").await;
                let _ = self.stream.shutdown().await;
            };
            let _ = timeout(self.timeouts.quit, farewell).await;
        }
    }
}

impl Timeouts {
    /// How long the reply that ends `phase` may take.
    pub(super) fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Connect => self.connect,
            Phase::Greeting => self.greeting,
            Phase::Ehlo | Phase::Tls | Phase::Auth => self.ehlo,
            Phase::Mail => self.mail,
            Phase::Rcpt => self.rcpt,
            Phase::Data => self.data,
            Phase::Message => self.block,
            Phase::Dot => self.dot,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(30),
            greeting: seconds(300),
            ehlo: seconds(300),
            mail: seconds(300),
            rcpt: seconds(300),
            data: seconds(120),
            block: seconds(180),
            dot: seconds(600),
            quit: seconds(5),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Connection");
        out.field("stream", &self.stream).field("capabilities", &self.capabilities).field("busy", &self.busy);
        out.finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::Tls => "TLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Message => "message",
            Self::Dot => "end of message",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let credentials = Credentials { username: "ann".to_owned(), password: "secret".to_owned() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
