//! Which deliveries are next, and what follows when one was attempted. For the one task that sends to an endpoint.

use super::{
    Attempt, Delivery, DeliveryStatus, Lane, Order, State, attempt_key, chunk_key, delivery, lane, lane_key,
    order_at_end, place_key, queue_key, state, state_write,
};
use crate::mail::QueueId;
use crate::store::{Row, Store, StoreError, Write, prefix_end};
use std::collections::HashMap;
use uuid::Uuid;

/// What is to be done for an endpoint.
#[derive(Clone, Debug, Default)]
pub struct Due {
    /// To be sent now; no two of one lane.
    pub start: Vec<Delivery>,
    /// Writes that tidy the queue. To be on disk before the next look.
    pub tidy: Vec<Write>,
    /// When to look again, if nothing else happens.
    pub next: Option<u64>,
    /// There may be more that is due: look again once the tidying is done.
    pub more: bool,
}

/// Rows that are read in one look.
const PAGE: usize = 500;
/// Of a lane, where the first will mostly do.
const NEXT: usize = 8;
/// Lanes that are mended in one batch.
const MENDED: usize = 1_000;

/// Looks for up to `slots` deliveries that may be sent at `now`. `busy`: what is being sent, by the message. Those that
/// were never tried come first, or those that failed before: whoever takes turns lets neither starve the other.
pub fn due_deliveries(
    store: &Store,
    webhook: Uuid,
    now: u64,
    busy: &Busy,
    slots: usize,
    failed_first: bool,
) -> Result<Due, StoreError> {
    let mut due = Due::default();
    take_replays(store, webhook, busy, &mut due)?;
    if !due.tidy.is_empty() {
        due.more = true;
        return Ok(due);
    }
    let mut look = Look { lanes: busy.iter().map(|(order, email)| (lane(*email), *order)).collect(), due };
    let queue = place_key(b"wq", webhook, None);
    let failed = [&queue[..], &1_u64.to_be_bytes()].concat();
    let mut ranges = [(queue.clone(), failed.clone()), (failed, prefix_end(&queue))];
    if failed_first {
        ranges.reverse();
    }
    for (from, to) in ranges {
        for (key, _) in look.page(store, &from, &to)? {
            let (at, order) = queued(&key).ok_or(StoreError::Malformed)?;
            if at > now {
                look.due.next = Some(at);
                break;
            }
            if busy.contains_key(&order) || look.lanes.values().any(|started| *started == order) {
                continue;
            }
            if look.due.start.len() >= slots {
                // Who finishes something looks again.
                break;
            }
            look.take(store, webhook, key, at, order)?;
        }
    }
    // Something has to happen first, or is about to: a write, or the end of what is being sent.
    look.due.more &= !look.due.tidy.is_empty();
    Ok(look.due)
}

/// What is being sent, with its message.
pub type Busy = HashMap<Order, Option<QueueId>>;

struct Look {
    /// Which delivery each lane is busy with.
    lanes: HashMap<Lane, Order>,
    due: Due,
}

impl Look {
    fn page(&mut self, store: &Store, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        let rows = store.scan(from, to, PAGE, false)?;
        self.due.more |= rows.len() == PAGE;
        Ok(rows)
    }

    /// Starts what stands at `key`, or takes it out of the queue.
    fn take(&mut self, store: &Store, webhook: Uuid, key: Vec<u8>, at: u64, order: Order) -> Result<(), StoreError> {
        let tidy = &mut self.due.tidy;
        let Some(found) = delivery(store, webhook, order)? else {
            tidy.push(Write::Delete(key));
            return Ok(());
        };
        let lane = lane(found.email);
        if !found.state.is_open() {
            tidy.extend([Write::Delete(key), Write::Delete(lane_key(webhook, lane, order))]);
        } else if found.state.due != at {
            // The log was folded again; its true place is elsewhere.
            tidy.push(Write::Delete(key));
        } else if self.lanes.contains_key(&lane) || blocked(store, webhook, lane, order, tidy)? {
            tidy.push(Write::Delete(key));
        } else {
            self.lanes.insert(lane, order);
            self.due.start.push(found);
        }
        Ok(())
    }
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub attempt: Attempt,
    pub status: DeliveryStatus,
    /// With [`DeliveryStatus::Attempting`]: when the next may be made.
    pub due: u64,
}

/// The writes after an attempt. A lane whose first delivery is done goes on with the next.
pub fn settled_writes(
    store: &Store,
    webhook: Uuid,
    sent: &Delivery,
    settled: &Settled,
    out: &mut Vec<Write>,
) -> Result<(), StoreError> {
    let (order, before) = (sent.order, sent.state);
    let lane = lane(sent.email);
    out.push(Write::Delete(queue_key(webhook, before.due, order)));
    if !is_there(store, webhook, order)? {
        // Erased meanwhile; nothing of it is to come back.
        out.push(Write::Delete(lane_key(webhook, lane, order)));
        out.extend(first_of_lane(store, webhook, lane, order, false)?.map(|(_, write)| write));
        return Ok(());
    }
    let failed = settled.status != DeliveryStatus::Success;
    let after = State {
        status: settled.status,
        attempts: before.attempts.saturating_add(1),
        failures: if failed { before.failures.saturating_add(1) } else { before.failures },
        due: settled.due,
    };
    let attempt = postcard::to_stdvec(&settled.attempt).expect("rows hold no type that postcard refuses");
    out.push(Write::Put(attempt_key(webhook, order, before.attempts), attempt));
    out.push(state_write(webhook, order, &after));
    if after.is_open() {
        out.push(Write::Put(queue_key(webhook, after.due, order), Vec::new()));
    } else {
        out.push(Write::Delete(lane_key(webhook, lane, order)));
    }
    // One before it may be open as well: somebody asked for it again while the lane was busy.
    let first = first_of_lane(store, webhook, lane, order, false)?;
    out.extend(first.filter(|(first, _)| !after.is_open() || *first < order).map(|(_, write)| write));
    Ok(())
}

/// Puts deliveries back into the queue that stand first in their lane and have no place in it: those before them were
/// erased while others were looked at. Done when there is nothing to go on `from`.
pub fn repair_deliveries(
    store: &Store,
    webhook: Uuid,
    from: Option<Vec<u8>>,
) -> Result<(Vec<Write>, Option<Vec<u8>>), StoreError> {
    let lanes = place_key(b"wl", webhook, None);
    let (mut from, end) = (from.unwrap_or_else(|| lanes.clone()), prefix_end(&lanes));
    let mut out = Vec::new();
    for _ in 0..MENDED {
        let Some((key, _)) = store.scan(&from, &end, 1, false)?.into_iter().next() else { return Ok((out, None)) };
        let order = order_at_end(&key).ok_or(StoreError::Malformed)?;
        let state = state(store, webhook, order)?;
        let place = queue_key(webhook, state.due, order);
        if !state.is_open() || !is_there(store, webhook, order)? {
            out.push(Write::Delete(key.clone()));
            from = [&key[..], &[0]].concat();
            continue;
        }
        if store.get(&place)?.is_none() {
            out.push(Write::Put(place, Vec::new()));
        }
        from = prefix_end(&key[..lanes.len() + 16]);
    }
    Ok((out, Some(from)))
}

/// The first open delivery of a lane but for `except`, or the first behind that, and the write that lets the lane go on
/// with it.
pub(super) fn first_of_lane(
    store: &Store,
    webhook: Uuid,
    lane: Lane,
    except: Order,
    behind: bool,
) -> Result<Option<(Order, Write)>, StoreError> {
    let here = lane_key(webhook, lane, except);
    let whole = &here[..here.len() - 20];
    let (mut from, end) = (if behind { here.clone() } else { whole.to_vec() }, prefix_end(whole));
    loop {
        let rows = store.scan(&from, &end, NEXT, false)?;
        let Some((last, _)) = rows.last() else { return Ok(None) };
        from = [&last[..], &[0]].concat();
        for (key, _) in rows {
            let order = order_at_end(&key).ok_or(StoreError::Malformed)?;
            let state = state(store, webhook, order)?;
            if order != except && state.is_open() && is_there(store, webhook, order)? {
                return Ok(Some((order, Write::Put(queue_key(webhook, state.due, order), Vec::new()))));
            }
        }
    }
}

/// Whether an open delivery stands before `order` in its lane. Those that are done are taken out.
fn blocked(store: &Store, webhook: Uuid, lane: Lane, order: Order, tidy: &mut Vec<Write>) -> Result<bool, StoreError> {
    let end = lane_key(webhook, lane, order);
    let mut from = end[..end.len() - 20].to_vec();
    loop {
        let rows = store.scan(&from, &end, NEXT, false)?;
        let Some((last, _)) = rows.last() else { return Ok(false) };
        from = [&last[..], &[0]].concat();
        for (key, _) in rows {
            let earlier = order_at_end(&key).ok_or(StoreError::Malformed)?;
            if state(store, webhook, earlier)?.is_open() && is_there(store, webhook, earlier)? {
                return Ok(true);
            }
            tidy.push(Write::Delete(key));
        }
    }
}

fn is_there(store: &Store, webhook: Uuid, order: Order) -> Result<bool, StoreError> {
    Ok(store.get(&chunk_key(webhook, order, 0))?.is_some())
}

/// What somebody wants sent again begins anew; what is being sent is left until that has ended.
fn take_replays(store: &Store, webhook: Uuid, busy: &Busy, due: &mut Due) -> Result<(), StoreError> {
    let from = place_key(b"wy", webhook, None);
    for (key, _) in store.scan(&from, &prefix_end(&from), PAGE, false)? {
        let order = order_at_end(&key).ok_or(StoreError::Malformed)?;
        if busy.contains_key(&order) {
            continue;
        }
        due.tidy.push(Write::Delete(key));
        let Some(found) = delivery(store, webhook, order)? else { continue };
        let state = State { status: DeliveryStatus::Pending, attempts: found.state.attempts, failures: 0, due: 0 };
        due.tidy.push(Write::Delete(queue_key(webhook, found.state.due, order)));
        due.tidy.push(state_write(webhook, order, &state));
        due.tidy.push(Write::Put(lane_key(webhook, lane(found.email), order), Vec::new()));
        due.tidy.push(Write::Put(queue_key(webhook, 0, order), Vec::new()));
    }
    Ok(())
}

fn queued(key: &[u8]) -> Option<(u64, Order)> {
    let (rest, order) = key.split_last_chunk::<20>()?;
    let at = rest.last_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), Order(*order)))
}
