//! `domain.created`, `domain.updated` and `domain.deleted`: told when a domain looks different from outside.
//!
//! Checks change a domain's settings again and again without anybody seeing a difference. So what counts is what was
//! told last. That is noted in the log, behind the deliveries that tell of the change: a crash in between tells of it
//! twice, and a store that is lost tells nothing anew.

use crate::clock;
use crate::event::payload;
use crate::ops::{Ops, domain_list, domain_told};
use crate::settings::{About, TOLD_DOMAIN};
use crate::store::{NewDelivery, Order, Store, StoreError, Write, delivery_writes, forget_told_domain, told_domains};
use bytes::Bytes;
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

/// The key of the note that says since when there are notes.
const SINCE: &str = "since";
/// Notes that one record holds.
const TOGETHER: usize = 100;

/// Compares all domains with what was told of them.
async fn tell(ops: &Ops, store: &Store, number: &mut u32) -> Result<(), StoreError> {
    let (now, made_at, place) = (clock::unix_ms(), store.made_at()?, store.cursor()?);
    let key = |id: &dyn std::fmt::Display| format!("{TOLD_DOMAIN}{id}").into_boxed_str();
    let noted: BTreeMap<_, _> = ops.settings.notes(TOLD_DOMAIN).into_iter().collect();
    let begun = noted.contains_key(&key(&SINCE));
    let id_of = |key: &str| key.strip_prefix(TOLD_DOMAIN)?.parse::<Uuid>().ok();
    let mut told: BTreeMap<Uuid, Bytes> =
        noted.iter().filter_map(|(key, data)| Some((id_of(key)?, data.clone()))).collect();
    // Earlier versions kept it in the store.
    let stored = if begun { Vec::new() } else { told_domains(store)? };
    told.extend(stored.iter().map(|(id, told)| (*id, Bytes::from(told.data.clone()))));
    let settings = ops.settings.snapshot();
    let (mut writes, mut notes) = (Vec::new(), Vec::new());
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
        let bytes = Bytes::from(data.to_string());
        let kind = match told.remove(&id) {
            Some(earlier) if earlier == bytes && begun => continue,
            Some(earlier) => (earlier != bytes).then_some("domain.updated"),
            // One that was there before there was anything to compare with is no news; a clock that was ahead then says
            // nothing of it.
            None => (begun || view.created_at >= made_at || made_at > now).then_some("domain.created"),
        };
        note(id, kind, &data, &mut writes);
        notes.push((key(&id), Some(bytes)));
    }
    for (id, earlier) in told {
        let data = serde_json::from_slice(&earlier).unwrap_or_default();
        note(id, Some("domain.deleted"), &data, &mut writes);
        notes.push((key(&id), None));
    }
    if !writes.is_empty() {
        store.commit(writes).await?;
        ops.webhooks.notify_one();
    }
    if !begun {
        // Last of all, so that who is cut short begins again.
        notes.push((key(&SINCE), Some(now.to_string().into())));
    }
    for some in notes.chunks(TOGETHER) {
        ops.settings.note(some.to_vec()).await.map_err(|e| StoreError::Failed(e.to_string()))?;
    }
    let mut moved = Vec::new();
    stored.iter().for_each(|(id, told)| forget_told_domain(*id, told, &mut moved));
    if !moved.is_empty() {
        store.commit(moved).await?;
    }
    Ok(())
}
