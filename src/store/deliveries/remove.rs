//! Deliveries that are no longer to be kept: past their time, of an endpoint that is gone, or naming somebody who
//! wants to be forgotten. Each function gives the writes for a bounded number of them; whoever asks commits these and
//! asks again.

use super::{
    Delivery, Order, chunk_key, delivery, first_of_lane, id_key, lane, lane_key, order_and_chunk, order_at_end,
    place_key, queue_key, recipient_key, recipient_prefix,
};
use crate::store::{MAX_VALUE, Store, StoreError, Write, prefix_end};
use uuid::Uuid;

/// Writes that remove up to `limit` deliveries of events that happened before `before`, and how many that are. Fewer
/// than `limit`: there are no more.
pub fn expired_deliveries(store: &Store, before: u64, limit: usize) -> Result<(Vec<Write>, usize), StoreError> {
    let (mut out, mut count) = (Vec::new(), 0);
    for webhook in endpoints(store)? {
        let from = place_key(b"wd", webhook, None);
        // The oldest stand first: what is kept ends the look.
        for order in first_orders(store, &from, limit - count)? {
            let Some(found) = delivery(store, webhook, order)? else { continue };
            if found.created_at >= before {
                break;
            }
            removal_writes(store, webhook, &found, &mut out)?;
            count += 1;
        }
        if count == limit {
            break;
        }
    }
    Ok((out, count))
}

/// Endpoints with deliveries, but for those that `is_known` says are there.
pub fn foreign_deliveries(store: &Store, is_known: impl Fn(Uuid) -> bool) -> Result<Vec<Uuid>, StoreError> {
    Ok(endpoints(store)?.into_iter().filter(|webhook| !is_known(*webhook)).collect())
}

/// Writes that remove up to `limit` deliveries of an endpoint. None: nothing is left of it.
pub fn forget_deliveries(store: &Store, webhook: Uuid, limit: usize) -> Result<Vec<Write>, StoreError> {
    let mut out = Vec::new();
    for order in first_orders(store, &place_key(b"wd", webhook, None), limit)? {
        if let Some(found) = delivery(store, webhook, order)? {
            removal_writes(store, webhook, &found, &mut out)?;
        }
    }
    if out.is_empty() {
        for kind in [b"wd", b"ws", b"wa", b"wq", b"wl", b"wi", b"wy"] {
            let from = place_key(kind, webhook, None);
            let rows = store.scan(&from, &prefix_end(&from), limit, false)?;
            out.extend(rows.into_iter().map(|(key, _)| Write::Delete(key)));
        }
    }
    Ok(out)
}

/// Writes that remove up to `limit` deliveries whose payload names `recipient`, in any case of letters, and how many
/// that are. Fewer than `limit`: there are no more.
pub fn erase_deliveries_of(store: &Store, recipient: &str, limit: usize) -> Result<(Vec<Write>, usize), StoreError> {
    let prefix = recipient_prefix(recipient);
    let (mut from, end) = (prefix.clone(), prefix_end(&prefix));
    let (mut out, mut count) = (Vec::new(), 0);
    while count < limit {
        let rows = store.scan(&from, &end, limit, false)?;
        let Some((last, _)) = rows.last() else { break };
        from = [&last[..], &[0]].concat();
        for (key, _) in rows {
            let webhook = key.get(prefix.len()..prefix.len() + 16).and_then(|id| Uuid::from_slice(id).ok());
            let (Some(webhook), Some(order)) = (webhook, order_at_end(&key)) else { return Err(StoreError::Malformed) };
            match delivery(store, webhook, order)? {
                None => out.push(Write::Delete(key)),
                Some(found)
                    if found.recipient.as_ref().is_some_and(|to| to.to_lowercase() == recipient.to_lowercase()) =>
                {
                    removal_writes(store, webhook, &found, &mut out)?;
                    count += 1;
                }
                // Another address of the same hash.
                Some(_) => {}
            }
            if count == limit {
                break;
            }
        }
    }
    Ok((out, count))
}

/// The writes that leave nothing of a delivery, and let its lane go on.
fn removal_writes(store: &Store, webhook: Uuid, gone: &Delivery, out: &mut Vec<Write>) -> Result<(), StoreError> {
    let (order, lane) = (gone.order, lane(gone.email));
    // What stands before the payload is shorter than a chunk.
    let chunks = gone.payload.len() / MAX_VALUE + 2;
    out.extend((0..chunks).map(|chunk| Write::Delete(chunk_key(webhook, order, chunk.try_into().unwrap_or(u16::MAX)))));
    let attempts = place_key(b"wa", webhook, Some(order));
    let attempts = store.scan(&attempts, &prefix_end(&attempts), usize::MAX, false)?;
    out.extend(attempts.into_iter().map(|(key, _)| Write::Delete(key)));
    out.extend([
        Write::Delete(place_key(b"ws", webhook, Some(order))),
        Write::Delete(place_key(b"wy", webhook, Some(order))),
        Write::Delete(queue_key(webhook, gone.state.due, order)),
        Write::Delete(lane_key(webhook, lane, order)),
        Write::Delete(id_key(webhook, &gone.id)),
    ]);
    out.extend(gone.recipient.iter().map(|to| Write::Delete(recipient_key(to, webhook, order))));
    if gone.state.is_open() {
        // Not one before it, which may be on its way out with the same writes.
        out.extend(first_of_lane(store, webhook, lane, order, true)?.map(|(_, write)| write));
    }
    Ok(())
}

/// Every endpoint that has deliveries.
fn endpoints(store: &Store) -> Result<Vec<Uuid>, StoreError> {
    let (mut from, end) = (b"wd".to_vec(), prefix_end(b"wd"));
    let mut found = Vec::new();
    while let Some((key, _)) = store.scan(&from, &end, 1, false)?.into_iter().next() {
        let webhook = key.get(2..18).and_then(|id| Uuid::from_slice(id).ok()).ok_or(StoreError::Malformed)?;
        found.push(webhook);
        from = prefix_end(&key[..18]);
    }
    Ok(found)
}

/// The places of the oldest deliveries under `from`.
fn first_orders(store: &Store, from: &[u8], limit: usize) -> Result<Vec<Order>, StoreError> {
    let (mut from, end) = (from.to_vec(), prefix_end(from));
    let mut found = Vec::new();
    while found.len() < limit {
        let rows = store.scan(&from, &end, limit, false)?;
        let Some((last, _)) = rows.last() else { break };
        from = [&last[..], &[0]].concat();
        for (key, _) in rows {
            let (order, chunk) = order_and_chunk(&key).ok_or(StoreError::Malformed)?;
            if chunk == 0 {
                found.push(order);
            }
        }
    }
    found.truncate(limit);
    Ok(found)
}
