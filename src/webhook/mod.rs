//! Telling endpoints of events: what waits in the store is posted, signed, until it is taken or given up. Which events
//! an endpoint hears of is decided where these are recorded; here is only sent, what [`crate::store::due_deliveries`]
//! says is next.
//!
//! At least once, with the same id each time: an answer that is not on disk when the process ends is asked for again.
//! One task serves one endpoint, so none waits for another. Events of one message go one after the other, up to
//! `IN_FLIGHT` messages at once. While the store is shut, nothing is sent.
//!
//! Customers say where this goes, so every connection is made to an address that was looked at (`post`).

mod domains;
mod endpoint;
mod notice;
mod post;
mod progress;
#[cfg(test)]
mod tests;

pub use domains::run as tell_of_domains;
pub use post::Poster;
use progress::Noting;

use crate::intake::Intake;
use crate::mail::Address;
use crate::ops::Ops;
use crate::store::{self, Store, StoreError};
use crate::supervise;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use uuid::Uuid;

/// Requests to one endpoint at once.
const IN_FLIGHT: usize = 8;
/// Deliveries of an endpoint that is gone which are forgotten at once.
const FORGOTTEN: usize = 200;
/// Before something that failed is tried again: the store, or a task that panicked.
const PAUSE: Duration = Duration::from_secs(1);
/// How long what is being sent may take once we are told to stop. What is cut is sent again.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What sending takes; made once.
pub struct Webhooks {
    pub ops: Arc<Ops>,
    /// For the mail that says an endpoint was disabled.
    pub intake: Arc<Intake>,
    pub poster: Poster,
    /// May be swapped.
    pub rules: ArcSwap<Rules>,
}

/// `[webhooks]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Pauses after the first, second, … failed attempt; after one more failure an event is given up.
    pub retry: Vec<Duration>,
    /// An endpoint at which every attempt failed for so long is disabled.
    pub disable_after: Duration,
    /// Who is told of that.
    pub notify: Option<Address>,
}

/// Serves every endpoint that is enabled, until `stop`.
pub async fn run(webhooks: Arc<Webhooks>, mut stop: watch::Receiver<bool>) {
    let mut changes = webhooks.ops.settings.changes();
    let (kick, kicked) = watch::channel(());
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut served: BTreeMap<Uuid, Id> = BTreeMap::new();
    let (mut cleaned, mut noting) = (None, Noting::default());
    while !*stop.borrow() {
        changes.borrow_and_update();
        let settings = webhooks.ops.settings.snapshot();
        for webhook in settings.webhooks.values().filter(|webhook| webhook.enabled) {
            served.entry(webhook.id).or_insert_with(|| {
                let task = endpoint::serve(Arc::clone(&webhooks), webhook.id, kicked.clone(), stop.clone());
                tasks.spawn(task).id()
            });
        }
        // Once for each set of endpoints, so that nothing is left of one whose end was not seen through.
        let there: Vec<Uuid> = settings.webhooks.keys().copied().collect();
        if cleaned.as_ref() != Some(&there)
            && let Some(store) = webhooks.ops.store.load_full()
        {
            match forget(&webhooks, store).await {
                Ok(()) => cleaned = Some(there),
                Err(e) => tracing::warn!("what endpoints that are gone were told cannot be forgotten: {e}"),
            }
        }
        noting.turn(&webhooks, false).await;
        let pause = if cleaned.is_some() { progress::EVERY } else { PAUSE };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = webhooks.ops.webhooks.notified() => {
                noting.news = true;
                kick.send_modify(|()| ());
            }
            Some(ended) = tasks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(e) => {
                        let id = e.id();
                        supervise::joined::<()>("webhooks", Err(e));
                        tokio::time::sleep(PAUSE).await;
                        id
                    }
                };
                served.retain(|_, task| *task != id);
            }
            () = tokio::time::sleep(pause) => {}
            _ = async { drop(stop.wait_for(|stop| *stop).await) } => {}
        }
    }
    let _ = tokio::time::timeout(LAST_WORDS, async { while tasks.join_next().await.is_some() {} }).await;
    noting.turn(&webhooks, true).await;
}

/// Forgets what endpoints were told that are no longer there. Asked anew for each: one may have just been made.
async fn forget(webhooks: &Webhooks, store: Arc<Store>) -> Result<(), StoreError> {
    let settings = Arc::clone(&webhooks.ops.settings);
    let looked = Arc::clone(&store);
    let gone = move || store::foreign_deliveries(&looked, |id| settings.snapshot().webhooks.contains_key(&id));
    for webhook in aside(gone).await? {
        loop {
            let looked = Arc::clone(&store);
            let writes = aside(move || store::forget_deliveries(&looked, webhook, FORGOTTEN)).await?;
            if writes.is_empty() {
                break;
            }
            store.commit(writes).await?;
        }
    }
    Ok(())
}

/// Reads the disk where that keeps nobody waiting.
async fn aside<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|e| Err(StoreError::Failed(e.to_string())))
}
