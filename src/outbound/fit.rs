//! A message and a smarthost that lacks extensions: what is made of the message, and what is said where nothing can be.

use super::transaction::is_ours;
use crate::mail::{Enhanced, Reply};
use crate::mime::downgrade::{Stuck, to_seven_bit};
use std::borrow::Cow;

/// The message as a smarthost can take it that offers 8BITMIME, or does not.
pub(super) fn fit(message: &[u8], eight_bit_mime: bool) -> Result<Cow<'_, [u8]>, Stuck> {
    match eight_bit_mime {
        true => Ok(Cow::Borrowed(message)),
        false => to_seven_bit(message),
    }
}

pub(super) fn refusal_of(stuck: Stuck) -> Reply {
    Reply::new(
        554,
        Enhanced(5, 6, 3),
        match stuck {
            Stuck::Signed => SIGNED_8_BIT,
            Stuck::Broken => BROKEN_8_BIT,
        },
    )
}

const SIGNED_8_BIT: &str = "8-bit text under a signature, and the smarthost takes 7-bit mail alone (no 8BITMIME)";
const BROKEN_8_BIT: &str = "8-bit text that cannot be encoded, and the smarthost takes 7-bit mail alone (no 8BITMIME)";
/// What the reply of a message begins with that cannot be read back from the log.
pub(super) const UNREADABLE: &str = "554 5.3.0 ";

/// The reply for a notice. One of our own stands there without its code, so that it is not taken for the smarthost's.
pub(super) fn words_of(reply: &str) -> Box<str> {
    let ours = is_ours(reply)
        || reply.starts_with(UNREADABLE)
        || reply.starts_with("554 5.6.3 ") && (reply.ends_with(SIGNED_8_BIT) || reply.ends_with(BROKEN_8_BIT));
    if ours { reply.get(4..).unwrap_or(reply).into() } else { reply.into() }
}
