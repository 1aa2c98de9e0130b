//! What is known of one person: shown to them, and forgotten.

use super::{MessageView, OpError, Ops, mail};
use crate::clock;
use crate::event::Event;
use crate::mail::{Address, QueueId};
use crate::settings::Erasure;
use crate::store;
use serde::Serialize;
use tokio::sync::oneshot;

/// A recipient that the history is to forget in these messages.
#[derive(Debug)]
pub struct Forget {
    pub address: Box<str>,
    pub messages: Vec<QueueId>,
    /// In how many of them it was found, once that is on disk.
    pub answer: oneshot::Sender<usize>,
}

/// One message to a person, with what they did with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KnownMessage {
    /// Other recipients of it are left out.
    pub message: MessageView,
    pub events: Vec<Event>,
}

/// Messages that one step reads or forgets.
const STEP: usize = 200;
/// Messages to one person that are looked for.
const MOST: usize = 1_000_000;

/// All that the history holds of one recipient, handed to `tell` message by message, the newest first, until it says
/// false. Reads the disk.
pub fn recipient_export(ops: &Ops, address: &str, mut tell: impl FnMut(KnownMessage) -> bool) -> Result<(), OpError> {
    let address = parsed(address)?;
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    for id in store::messages_with(&store, address.as_str(), None, MOST)? {
        let Some((row, _)) = store::message(&store, &id)? else { continue };
        let is_they = |place: usize| {
            let recipient = row.head.envelope.recipients.get(place);
            recipient.is_some_and(|r| r.address.as_str().to_lowercase() == address.as_str().to_lowercase())
        };
        let mut message = mail::stored(&id, &row);
        let mut place = 0;
        message.recipients.retain(|_| {
            place += 1;
            is_they(place - 1)
        });
        let mut events = super::events_of(ops, &id)?;
        events.retain(|event| event.recipient.is_none_or(|place| is_they(usize::from(place))));
        if !tell(KnownMessage { message, events }) {
            break;
        }
    }
    Ok(())
}

/// Has the history forget a recipient: address, opens and clicks. Counts stay. In how many messages it was found.
///
/// That is on record first, so that a history that is made anew from the log forgets them too, also where there is none
/// now. The log is asked to free what lies before; mail to them that is in the queue stays until it is settled.
pub async fn recipient_erase(ops: &Ops, address: &str) -> Result<usize, OpError> {
    let address = parsed(address)?;
    let before = ops.log.end();
    let erasure = Erasure::new(clock::unix_ms(), Some(before));
    ops.settings.erase(ops.privacy.erased(&address), erasure).await?;
    ops.log.compact_before(before);
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    let mut erased = 0;
    loop {
        // The rows that were found by are gone afterwards, so this ends: with a turn for what webhooks were told, which
        // may name somebody of whom nothing else is left.
        let messages = store::messages_with(&store, address.as_str(), None, STEP)?;
        let (answer, done) = oneshot::channel();
        let forget = Forget { address: address.as_str().into(), messages, answer };
        ops.forget.send(forget).await.map_err(|_| OpError::NoHistory)?;
        match done.await {
            Ok(0) => return Ok(erased),
            Ok(more) => erased += more,
            Err(_) => return Err(OpError::NoHistory),
        }
    }
}

/// Whom the history has to forget, each as its hash and when that was asked for, the first first.
pub fn recipients_erased(ops: &Ops) -> Vec<(String, u64)> {
    ops.settings.erasures().list().into_iter().map(|(erased, at)| (erased.to_string(), at)).collect()
}

fn parsed(text: &str) -> Result<Address, OpError> {
    Address::parse(text.trim()).map_err(|e| OpError::BadAddress(text.to_owned(), e))
}
