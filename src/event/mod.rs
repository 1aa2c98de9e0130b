//! Hits on the tracking host: what a recipient's mail program, or a machine before it, did with a sent message, and
//! the judgement whether it was a machine.
//!
//! Every hit is kept and none is blocked; the judgement is a label that counts can be split by. Neither a clock nor a
//! file is read here: the list of known agents is compiled in.

mod class;
mod life;
pub mod payload;
mod signature;

pub use class::{
    AgentList, AgentListError, AgentName, Class, FAST_CLICK_MS, MachineReason, NotAReason, UnknownReason, classify,
};

pub use life::{Event, EventKind};
pub use signature::SigningSecret;

use crate::mail::QueueId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One kind of request to the tracking host whose token was valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HitKind {
    Open,
    /// `link` counts the rewritten links of the message from 0; `url` is the destination.
    Click {
        link: u16,
        url: Box<str>,
    },
}

/// A hit as the log keeps it. Equal hits within a few seconds are one record with a count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    pub id: QueueId,
    /// Index into the envelope's recipients.
    pub recipient: u16,
    pub kind: HitKind,
    /// First time, milliseconds since 1970.
    pub at: u64,
    pub count: u32,
    pub address: IpAddr,
    /// User-Agent as sent, cut to 512 bytes at a character's end.
    pub agent: Box<str>,
    /// The request was a HEAD.
    pub head: bool,
    /// True for a repeat of a hit that is already in the log: `count` more of the same.
    pub repeat: bool,
}
