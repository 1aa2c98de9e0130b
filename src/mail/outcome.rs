//! What became of one recipient of one message.

use serde::{Deserialize, Serialize};

/// The state of a recipient after an attempt or a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Not tried yet.
    Queued,
    /// Taken by the smarthost, which took the DSN wishes over as well.
    Delivered,
    /// Taken by a smarthost without DSN (RFC 3461 §5.2).
    Relayed,
    /// Refused for good; a DSN is owed or was sent.
    Bounced,
    /// Taken out of the queue by the operator.
    Removed,
    /// Kept back by the operator.
    Held,
    /// To be tried again.
    Deferred {
        /// Made so far.
        attempts: u32,
        /// When it is due, in milliseconds since 1970.
        next: u64,
        /// In milliseconds, as [`crate::retry`] counts it.
        age: u64,
        /// The sender was sent a notice of the delay.
        told: bool,
    },
    /// Not tried, since the address is suppressed. Reserved: nothing writes it yet.
    Suppressed,
    /// Deferred only because no smarthost could be reached: due as soon as one can be, also after a restart.
    Stranded {
        /// As in [`Self::Deferred`], as is all that follows.
        attempts: u32,
        next: u64,
        age: u64,
        told: bool,
    },
}

impl Status {
    /// True when nothing more will be done for the recipient.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Queued | Self::Held | Self::Deferred { .. } | Self::Stranded { .. })
    }
}

/// The newest state of one recipient, by its place in the envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Index into [`super::Envelope::recipients`].
    pub recipient: u16,
    pub status: Status,
    /// The smarthost's reply, or what went wrong before there was one. At most 500 characters.
    pub reply: Box<str>,
    /// When, in milliseconds since 1970.
    pub at: u64,
}
