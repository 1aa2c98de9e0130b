//! The server side of SMTP (RFC 5321) without IO: bytes go in, replies and [`Event`]s come out.
//!
//! It owns the protocol: what is a line, which command may come when, what ends a message, which limits hold, and what
//! is answered to all that. It opens no socket, knows no clock and no disk, checks no password and keeps no mail: those
//! are the shell's, which gives the answers to the events.
//!
//! A shell does this: [`Session::greet`], then in turn write and clear [`Session::output`], read, and pass the bytes to
//! [`Session::input`]. When that returns an event, write the output, do what the event asks, call the method that
//! answers it, and pass in the bytes that were not used. How long to wait for the client follows from
//! [`Session::phase`] and [`Timeouts`].
//!
//! Two rules are about segments, so bytes go in as they were read: nothing may come behind DATA or STARTTLS before they
//! are answered (RFC 2920 §3.1, RFC 3207 §4), and nothing before the banner.

mod auth;
mod command;
mod data;
mod fuzz;
pub mod limits;
mod line;
mod parameters;
mod replies;
mod session;

#[doc(hidden)]
pub use data::stuff;
pub use data::{Decoder, Fault, Refused};
#[doc(hidden)]
pub use fuzz::{fuzz_data, fuzz_session};
pub use limits::Timeouts;
pub use session::Session;

use crate::mail::Envelope;
use std::fmt;
use std::net::IpAddr;

/// What the sessions of one listener have in common.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Our name in the banner and in replies.
    pub hostname: String,
    /// Octets of a message, as RFC 1870 counts them.
    pub max_message_size: u64,
    pub max_recipients: usize,
    /// STARTTLS is offered while TLS is not active.
    pub starttls: bool,
    pub auth: Auth,
    pub bare_newline: BareNewline,
}

/// Whether AUTH is offered. Clients that are neither authenticated nor trusted never get to send: with `None` they are
/// told 550 5.7.1, otherwise 530 5.7.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    None,
    Optional,
    Required,
}

/// What becomes of a CR or LF that stands alone in message data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// The message is refused.
    Reject,
    /// LF becomes CRLF, and CR a space.
    Normalize,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// In `trusted_networks`: may send without AUTH.
    pub trusted: bool,
    /// TLS was active before the banner.
    pub tls: bool,
}

/// What the session is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A command, or a line of an AUTH exchange.
    Command,
    /// Message data.
    Data,
    /// The shell's answer to an event.
    Answering,
}

/// What the shell is asked to do.
#[derive(PartialEq, Eq)]
pub enum Event {
    /// Write the output, shake hands, call [`Session::tls_started`]; when the handshake fails, close.
    StartTls,
    /// Answer with [`Session::auth_ok`], [`Session::auth_failed`] or [`Session::auth_unavailable`].
    Authenticate { username: String, password: String },
    /// A message is about to come, of the size that was declared, if one was. Answer with [`Session::data_go_ahead`] or
    /// [`Session::data_refused`].
    Data { declared: Option<u64> },
    /// A message came whole: CRLF line ends, dots unstuffed. Keep it, then [`Session::message_answered`].
    Message { envelope: Envelope, bytes: Vec<u8> },
    /// Write the output and close.
    Close,
}

/// Without passwords and message text: events end up in logs.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartTls => f.write_str("StartTls"),
            Self::Authenticate { .. } => f.write_str("Authenticate"),
            Self::Data { declared } => f.debug_struct("Data").field("declared", declared).finish(),
            Self::Message { envelope, bytes } => {
                f.debug_struct("Message").field("envelope", envelope).field("octets", &bytes.len()).finish()
            }
            Self::Close => f.write_str("Close"),
        }
    }
}
