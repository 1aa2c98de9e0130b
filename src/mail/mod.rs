//! The words that every other module uses: addresses, the envelope, SMTP replies, outcomes.
//!
//! Values of these types are checked when they are made and never again. Nothing here reads a clock, a file or a
//! socket, and nothing here knows about MIME: that is [`crate::mime`].

mod address;
mod by_id;
mod envelope;
mod id;
mod outcome;
mod received;
mod replies;
mod reply;
mod role;

pub use address::{Address, AddressError, DomainError, DomainName};
pub use by_id::ById;
pub use envelope::{Body, Envelope, Notify, Recipient, Return};
pub use id::QueueId;
pub use outcome::{Outcome, Status};
pub use received::{Protocol, Trace, received_header, rfc5322_date};
pub use replies::Replies;
pub use reply::{Enhanced, Reply};
pub use role::Role;
