//! Delivery to the smarthost.
//!
//! [`Connection`] is one SMTP session with it: [`Connection::open`] connects, ends TLS, says EHLO and authenticates,
//! [`Connection::send`] hands over one message and brings back one reply per recipient. Queue, retries, the choice of
//! a smarthost and the number of connections are not decided here.

mod body;
mod command;
mod connection;
mod open;
mod reply;
mod stream;
mod tls;
mod transaction;

#[cfg(test)]
mod dialogues;

pub use connection::{Capabilities, Connection, Credentials, Phase, Smarthost, Timeouts};
pub use open::{OpenError, OpenErrorKind};
pub use tls::{TlsError, TlsMode, client_tls};
pub use transaction::{Broken, Transaction};
