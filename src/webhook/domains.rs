//! `domain.created`, `domain.updated` and `domain.deleted`: told when a domain looks different from outside.
//!
//! Checks change a domain's settings again and again without anybody seeing a difference. So what counts is what was
//! told last, which lies in the store and is written together with the deliveries that tell of the change.

use crate::clock;
use crate::event::payload;
use crate::ops::{Ops, domain_list, domain_told};
use crate::settings::About;
use crate::store::{
    NewDelivery, Order, Store, StoreError, ToldDomain, Write, delivery_writes, told_domain_writes, told_domains,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// Changes come in swarms: a look at DNS brings several.
const GATHER: Duration = Duration::from_millis(200);
/// While the store is shut or cannot be written.
const PAUSE: Duration = Duration::from_secs(2);

/// Tells of changes until `stop`.
pub async fn run(ops: Arc<Ops>, mut stop: watch::Receiver<bool>) {
    let mut changes = ops.settings.changes();
    // Deliveries sort by it where the log stands still, so it never goes back.
    let mut number = 0;
    loop {
        number = (clock::unix_ms() as u32).max(number);
        let done = match ops.store.load_full() {
            Some(store) => tell(&ops, &store, &mut number).await,
            None => Err(StoreError::Closed),
        };
        let is_done = done.is_ok();
        let pause = match done {
            Ok(()) => GATHER,
            Err(StoreError::Closed) => PAUSE,
            Err(e) => {
                tracing::error!("webhooks cannot be told of domains yet: {e}");
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if is_done {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

/// Compares all domains with what was told of them.
async fn tell(ops: &Ops, store: &Store, number: &mut u32) -> Result<(), StoreError> {
    let mut told: BTreeMap<Uuid, ToldDomain> = told_domains(store)?.into_iter().collect();
    let (now, made_at, place) = (clock::unix_ms(), store.made_at()?, store.cursor()?);
    let settings = ops.settings.snapshot();
    let mut writes = Vec::new();
    let mut note = |id: Uuid, kind: Option<&'static str>, data: &Value, out: &mut Vec<Write>| {
        let Some(kind) = kind else { return };
        let (event, body) = (payload::domain_event_id(id, kind, now), payload::domain_payload(kind, data, now));
        for webhook in settings.webhooks_for(kind, About::Domain(id), now, now) {
            *number = number.wrapping_add(1);
            let new = NewDelivery {
                webhook,
                id: &event,
                kind,
                created_at: now,
                order: Order::new(place, *number),
                email: None,
                recipient: None,
                payload: &body,
            };
            delivery_writes(&new, out);
        }
    };
    for view in domain_list(ops) {
        let Ok(id) = view.id.parse::<Uuid>() else { continue };
        let data = domain_told(&view);
        let bytes = data.to_string().into_bytes();
        let earlier = told.remove(&id);
        let kind = match &earlier {
            Some(earlier) if earlier.data == bytes => continue,
            Some(_) => Some("domain.updated"),
            // One that was there before this history was begun is no news; a clock that was ahead then says nothing of it.
            None => (view.created_at >= made_at || made_at > now).then_some("domain.created"),
        };
        note(id, kind, &data, &mut writes);
        told_domain_writes(id, earlier.as_ref(), Some(&bytes), &mut writes);
    }
    for (id, earlier) in told {
        let data = serde_json::from_slice(&earlier.data).unwrap_or_default();
        note(id, Some("domain.deleted"), &data, &mut writes);
        told_domain_writes(id, Some(&earlier), None, &mut writes);
    }
    if !writes.is_empty() {
        store.commit(writes).await?;
        ops.webhooks.notify_one();
    }
    Ok(())
}
