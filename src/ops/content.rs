//! What a message says, for a preview: its bytes as they were accepted, for as long as the log still has them. They are
//! kept for delivery alone and no longer than the log needs them; nobody is promised to find them.

use super::{Email, OpError, Ops};
use crate::spool::BodyError;
use crate::store;

/// The bytes of a message, or why there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Message(Vec<u8>),
    /// The log no longer has them.
    NotKept,
    /// All its recipients were forgotten, and what was sent to them alone with them.
    Forgotten,
    TooLarge,
}

/// Larger messages are not read for a look at them.
const MOST: u64 = 16 << 20;
/// Headers of the log's records that are walked in search of a message that has left the queue.
const HEADERS: usize = 60_000;

/// The bytes of a message that the caller may see. Reads the disk.
pub fn email_content(ops: &Ops, email: &Email) -> Result<Content, OpError> {
    let message = &email.message;
    let id = message.id.parse().map_err(|_| OpError::BadQueueId(message.id.clone()))?;
    if message.recipients.iter().all(|recipient| recipient.address == store::ERASED) {
        return Ok(Content::Forgotten);
    }
    if message.size > MOST {
        return Ok(Content::TooLarge);
    }
    let settled_at = message.recipients.iter().map(|recipient| recipient.at).max().unwrap_or_default();
    match ops.log.find_body(&id, message.accepted_at..settled_at.max(message.accepted_at), HEADERS) {
        Ok(bytes) => Ok(Content::Message(bytes)),
        Err(BodyError::NotFound) => Ok(Content::NotKept),
        Err(e @ (BodyError::Damaged | BodyError::Io(_))) => {
            Err(OpError::Fault(format!("the message cannot be read from the log: {e}")))
        }
    }
}
