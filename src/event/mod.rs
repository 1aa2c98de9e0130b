//! Hits on the tracking host: what a recipient's mail program, or a machine before it, did with a sent message, and
//! the judgement whether it was a machine.
//!
//! Every hit is kept and none is blocked; the judgement is a label that counts can be split by. Neither a clock nor a
//! file is read here: the list of known machines is compiled in, or handed over as text.

mod burst;
mod class;
mod flood;
mod life;
mod machines;
mod networks;
pub mod payload;
mod reason;
mod signature;

pub use burst::{Bursts, HitRef, Verdict};
pub use class::{Class, FAST_CLICK_MS, UnknownReason, classify};
pub use flood::Floods;
pub use life::{Event, EventKind, HitFacts};
pub use machines::{BUILTIN_MACHINES, MachineList, MachineListError};
pub use reason::{AgentName, MachineReason, NotAReason};
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

impl Hit {
    /// Keeps the /24 of an IPv4 address and the /48 of an IPv6 address alone.
    pub fn anonymize(&mut self) {
        self.address = match self.address {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                IpAddr::from([a, b, c, 0])
            }
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(mapped) => {
                    let [a, b, c, _] = mapped.octets();
                    IpAddr::from([a, b, c, 0])
                }
                None => {
                    let [a, b, c, ..] = address.segments();
                    IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
                }
            },
        };
    }
}
