//! What an SMTP client says about a message outside the message itself (RFC 5321 §3.3, RFC 3461).

use super::Address;
use serde::{Deserialize, Serialize};

/// The envelope of one accepted message. At least one recipient once the message is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse-path; `None` is the null reverse-path `<>`.
    pub sender: Option<Address>,
    pub recipients: Vec<Recipient>,
    pub body: Body,
    /// True when the client said SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// RET of MAIL (RFC 3461 §4.3).
    pub ret: Option<Return>,
    /// ENVID of MAIL, decoded from xtext (RFC 3461 §4.4).
    pub envid: Option<Box<str>>,
}

/// BODY of MAIL (RFC 6152). What was not said counts as 7bit; the bytes themselves decide on relaying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    #[default]
    SevenBit,
    EightBitMime,
}

/// How much of the message a DSN returns (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Return {
    Full,
    Headers,
}

/// One forward-path with its DSN wishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    pub address: Address,
    pub notify: Notify,
    /// ORCPT decoded from xtext, type included: `rfc822;user@example.com` (RFC 3461 §4.2).
    pub orcpt: Option<Box<str>>,
}

impl From<Address> for Recipient {
    fn from(address: Address) -> Self {
        Self { address, notify: Notify::default(), orcpt: None }
    }
}

/// NOTIFY of RCPT (RFC 3461 §4.1). `given` is false when the client said nothing; then FAILURE holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    pub given: bool,
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}
