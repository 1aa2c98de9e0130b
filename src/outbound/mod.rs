//! Delivery: takes what is due from the queue, gives each recipient their copy over connections that are kept open,
//! and writes one outcome per recipient to the log before the next step.
//!
//! A few workers, each with a connection of its own; more of them only while messages wait. A smarthost that cannot
//! be reached stops them all, and one probe at a time looks whether it is back. [`Connection`] is one SMTP session:
//! [`Connection::open`] connects, ends TLS, says EHLO and authenticates, [`Connection::send`] hands over one message
//! and brings back one reply per recipient. What is sent is signed last ([`Signer`]), once it is known what the
//! smarthost takes.

mod attempt;
mod body;
mod command;
mod connection;
mod fit;
mod head;
mod held;
mod letter;
mod notices;
mod open;
mod outcomes;
mod reply;
mod route;
mod sign;
mod stream;
mod tls;
mod transaction;
mod workers;

#[cfg(test)]
mod dialogues;

pub use connection::{Capabilities, Connection, Credentials, Phase, Smarthost, Timeouts};
pub use head::{History, Known, tell_of_lost};
pub use open::{OpenError, OpenErrorKind};
pub use route::{Route, Routes, Style};
pub use sign::{Signer, Unsigned};
pub use tls::{TlsError, TlsMode, client_tls};
pub use transaction::{Broken, Transaction};
pub use workers::{Delivery, Outbound, run};
