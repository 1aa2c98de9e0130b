//! What the history knows of messages that the log can no longer give.

use crate::mail::QueueId;
use crate::outbound::{self, History, Known, Outbound};
use crate::spool::BodyError;
use crate::store::{self, MaybeStore};
use std::sync::Arc;
use std::time::Duration;

/// Asks the store, if it is open.
pub fn history(store: &MaybeStore) -> History {
    let store = Arc::clone(store);
    Arc::new(move |id| {
        let Some(store) = store.load_full() else { return Err(BodyError::Io("the history is not open".to_owned())) };
        let row = store::message(&store, id).map_err(|e| BodyError::Io(e.to_string()))?;
        Ok(row.map(|(row, _)| {
            let open = row.recipients.iter().enumerate().filter(|(_, recipient)| !recipient.status.is_settled());
            let open = open.filter_map(|(place, _)| u16::try_from(place).ok()).collect();
            Known { head: Arc::unwrap_or_clone(row.head), open }
        }))
    })
}

/// Tells the senders of these messages, as soon as the history is open.
pub async fn tell_senders(outbound: Arc<Outbound>, store: MaybeStore, lost: Vec<QueueId>) {
    while store.load().is_none() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    outbound::tell_of_lost(&outbound, lost).await;
}
