//! Rows of webhook deliveries: one event that one endpoint is to be told, what became of it, and every attempt.
//!
//! | key | value |
//! | --- | --- |
//! | `wd` webhook, order, chunk (2 bytes) | the delivery as it was made: postcard of [`Head`], then the payload |
//! | `ws` webhook, order | what became of it: postcard of [`State`]; none while nothing did |
//! | `wa` webhook, order, number (4) | one attempt |
//! | `wq` webhook, due (8), order | nothing; an open delivery that may be sent from then on |
//! | `wl` webhook, lane (16), order | nothing; an open delivery of the lane |
//! | `wi` webhook, event id | the order |
//! | `wr` hash of the recipient (8), webhook, order | nothing |
//! | `wy` webhook, order | nothing; somebody wants it sent again |
//!
//! The order (20 bytes) says where the event stands in the log, so that rows sort as events happened, and writing a
//! delivery again (the log is folded again after a crash) puts down what is there. What became of it is a row of its
//! own for the same reason; a place in the queue that comes back is taken out again when it is met.
//!
//! A lane holds what must be sent one after the other: the events of one message, or all of domains. A delivery with an
//! open one before it in its lane is taken out of `wq`; who settles that one puts the next back in. So the queue is
//! read from its beginning, however much waits for a failing endpoint.

mod due;
mod remove;
#[cfg(test)]
mod tests;

pub use due::{Busy, Due, Settled, due_deliveries, repair_deliveries, settled_writes};
pub use remove::{erase_deliveries_of, expired_deliveries, foreign_deliveries, forget_deliveries};

use super::{MAX_VALUE, Row, Store, StoreError, Write, prefix_end};
use crate::mail::QueueId;
use due::first_of_lane;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Where an event stands in the log: segment, offset, and its number within the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(pub [u8; 20]);

/// A delivery to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewDelivery<'a> {
    pub webhook: Uuid,
    /// The event's id, the same for every endpoint.
    pub id: &'a str,
    /// The event's name.
    pub kind: &'a str,
    /// When the event happened, in milliseconds since 1970, as all times here.
    pub created_at: u64,
    pub order: Order,
    /// Its message, whose events are sent one after the other.
    pub email: Option<QueueId>,
    /// Whom the payload names, for who wants that forgotten.
    pub recipient: Option<&'a str>,
    pub payload: &'a [u8],
}

/// A delivery as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub order: Order,
    pub id: String,
    pub kind: String,
    pub created_at: u64,
    pub email: Option<QueueId>,
    pub recipient: Option<String>,
    pub state: State,
    pub payload: Vec<u8>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub status: DeliveryStatus,
    /// Attempts ever made.
    pub attempts: u32,
    /// Those that failed since it was new, or was last asked for again.
    pub failures: u32,
    /// When the next attempt may be made; 0: at once.
    pub due: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryStatus {
    /// Not tried yet, or not since it was asked for again.
    #[default]
    Pending,
    /// An attempt failed, and there will be another.
    Attempting,
    Success,
    /// Given up.
    Failed,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The status that was answered; 0: none was.
    pub status: u16,
    /// The beginning of the answer's body, or why there was none.
    pub response: String,
    pub sent_at: u64,
}

/// Longest response that is kept, in bytes.
pub const MAX_RESPONSE: usize = 1_000;

/// What is kept before the payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    id: String,
    kind: String,
    created_at: u64,
    email: Option<QueueId>,
    recipient: Option<String>,
    payload: u32,
}

type Lane = [u8; 16];

impl Order {
    /// Of event number `number` that the log's record at this place brought.
    pub fn new(place: crate::spool::Cursor, number: u32) -> Self {
        let mut order = [0; 20];
        order[..8].copy_from_slice(&place.segment.to_be_bytes());
        order[8..16].copy_from_slice(&place.offset.to_be_bytes());
        order[16..].copy_from_slice(&number.to_be_bytes());
        Self(order)
    }
}

impl State {
    /// True while something is still to be done.
    pub fn is_open(&self) -> bool {
        matches!(self.status, DeliveryStatus::Pending | DeliveryStatus::Attempting)
    }
}

/// The writes that make a delivery. Made again, they change nothing that was seen of it.
pub fn delivery_writes(new: &NewDelivery<'_>, out: &mut Vec<Write>) {
    let head = Head {
        id: new.id.to_owned(),
        kind: new.kind.to_owned(),
        created_at: new.created_at,
        email: new.email,
        recipient: new.recipient.map(str::to_owned),
        payload: u32::try_from(new.payload.len()).unwrap_or(u32::MAX),
    };
    let mut bytes = postcard::to_stdvec(&head).expect("rows hold no type that postcard refuses");
    bytes.extend_from_slice(new.payload);
    for (place, piece) in bytes.chunks(MAX_VALUE).enumerate() {
        let place = u16::try_from(place).unwrap_or(u16::MAX);
        out.push(Write::Put(chunk_key(new.webhook, new.order, place), piece.to_vec()));
    }
    out.push(Write::Put(queue_key(new.webhook, 0, new.order), Vec::new()));
    out.push(Write::Put(lane_key(new.webhook, lane(new.email), new.order), Vec::new()));
    out.push(Write::Put(id_key(new.webhook, new.id), new.order.0.to_vec()));
    if let Some(recipient) = new.recipient {
        out.push(Write::Put(recipient_key(recipient, new.webhook, new.order), Vec::new()));
    }
}

/// Up to `limit` deliveries of an endpoint that are older than `after`, the newest first.
pub fn deliveries(
    store: &Store,
    webhook: Uuid,
    after: Option<Order>,
    limit: usize,
) -> Result<Vec<Delivery>, StoreError> {
    let from = place_key(b"wd", webhook, None);
    let mut to = after.map_or_else(|| prefix_end(&from), |order| place_key(b"wd", webhook, Some(order)));
    let mut found = Vec::new();
    let mut pieces: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    while found.len() < limit {
        let rows = store.scan(&from, &to, limit.saturating_add(1), true)?;
        let Some((last, _)) = rows.last() else { break };
        to.clone_from(last);
        for (key, value) in rows {
            let (order, chunk) = order_and_chunk(&key).ok_or(StoreError::Malformed)?;
            // Against the order of keys, the first chunk comes last.
            pieces.insert(chunk, value);
            if chunk == 0 && found.len() < limit {
                let bytes = std::mem::take(&mut pieces).into_values().flatten().collect::<Vec<_>>();
                found.push(read(store, webhook, order, &bytes)?);
            }
        }
    }
    Ok(found)
}

/// One delivery, by its place.
pub fn delivery(store: &Store, webhook: Uuid, order: Order) -> Result<Option<Delivery>, StoreError> {
    let from = place_key(b"wd", webhook, Some(order));
    let rows = store.scan(&from, &prefix_end(&from), usize::from(u16::MAX), false)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let bytes = rows.into_iter().flat_map(|(_, value)| value).collect::<Vec<_>>();
    read(store, webhook, order, &bytes).map(Some)
}

/// The place of the delivery of an event.
pub fn delivery_order(store: &Store, webhook: Uuid, id: &str) -> Result<Option<Order>, StoreError> {
    let order = store.get(&id_key(webhook, id))?;
    order.map(|order| order.try_into().map(Order).map_err(|_| StoreError::Malformed)).transpose()
}

/// Attempts with their numbers, the newest first: up to `limit` that are older than number `after`.
pub fn delivery_attempts(
    store: &Store,
    webhook: Uuid,
    order: Order,
    after: Option<u32>,
    limit: usize,
) -> Result<Vec<(u32, Attempt)>, StoreError> {
    let from = place_key(b"wa", webhook, Some(order));
    let to = after.map_or_else(|| prefix_end(&from), |number| attempt_key(webhook, order, number));
    let numbered = |(key, value): Row| {
        let number = key.last_chunk::<4>().copied().map(u32::from_be_bytes);
        Some((number?, postcard::from_bytes(&value).ok()?))
    };
    let rows = store.scan(&from, &to, limit, true)?;
    rows.into_iter().map(|row| numbered(row).ok_or(StoreError::Malformed)).collect()
}

/// Ids of events that an endpoint is still to be told of: up to `limit`, in no order.
pub fn open_deliveries(store: &Store, webhook: Uuid, limit: usize) -> Result<Vec<String>, StoreError> {
    let lanes = place_key(b"wl", webhook, None);
    let rows = store.scan(&lanes, &prefix_end(&lanes), limit, false)?;
    let mut ids = Vec::with_capacity(rows.len());
    for order in rows.iter().filter_map(|(key, _)| order_at_end(key)) {
        let Some(first) = store.get(&chunk_key(webhook, order, 0))? else { continue };
        if state(store, webhook, order)?.is_open() {
            ids.push(postcard::take_from_bytes::<Head>(&first).map_err(|_| StoreError::Malformed)?.0.id);
        }
    }
    Ok(ids)
}

/// The write by which a delivery is to be sent again, whatever became of it.
pub fn replay_write(webhook: Uuid, order: Order) -> Write {
    Write::Put(place_key(b"wy", webhook, Some(order)), Vec::new())
}

fn read(store: &Store, webhook: Uuid, order: Order, bytes: &[u8]) -> Result<Delivery, StoreError> {
    let (head, payload) = postcard::take_from_bytes::<Head>(bytes).map_err(|_| StoreError::Malformed)?;
    if payload.len() != head.payload as usize {
        return Err(StoreError::Malformed);
    }
    let state = state(store, webhook, order)?;
    let Head { id, kind, created_at, email, recipient, .. } = head;
    Ok(Delivery { order, id, kind, created_at, email, recipient, state, payload: payload.to_vec() })
}

fn state(store: &Store, webhook: Uuid, order: Order) -> Result<State, StoreError> {
    match store.get(&place_key(b"ws", webhook, Some(order)))? {
        None => Ok(State::default()),
        Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| StoreError::Malformed),
    }
}

fn state_write(webhook: Uuid, order: Order, state: &State) -> Write {
    let value = postcard::to_stdvec(state).expect("rows hold no type that postcard refuses");
    Write::Put(place_key(b"ws", webhook, Some(order)), value)
}

fn lane(email: Option<QueueId>) -> Lane {
    email.map_or([0; 16], |id| *id.as_bytes())
}

/// `kind`, the endpoint and, where it is given, the place.
fn place_key(kind: &[u8; 2], webhook: Uuid, order: Option<Order>) -> Vec<u8> {
    let mut key = Vec::with_capacity(40);
    key.extend_from_slice(kind);
    key.extend_from_slice(webhook.as_bytes());
    key.extend(order.iter().flat_map(|order| order.0));
    key
}

fn chunk_key(webhook: Uuid, order: Order, chunk: u16) -> Vec<u8> {
    [&place_key(b"wd", webhook, Some(order))[..], &chunk.to_be_bytes()].concat()
}

fn attempt_key(webhook: Uuid, order: Order, number: u32) -> Vec<u8> {
    [&place_key(b"wa", webhook, Some(order))[..], &number.to_be_bytes()].concat()
}

fn queue_key(webhook: Uuid, due: u64, order: Order) -> Vec<u8> {
    [&place_key(b"wq", webhook, None)[..], &due.to_be_bytes(), &order.0].concat()
}

fn lane_key(webhook: Uuid, lane: Lane, order: Order) -> Vec<u8> {
    [&place_key(b"wl", webhook, None)[..], &lane, &order.0].concat()
}

fn id_key(webhook: Uuid, id: &str) -> Vec<u8> {
    [&place_key(b"wi", webhook, None)[..], id.as_bytes()].concat()
}

fn recipient_key(recipient: &str, webhook: Uuid, order: Order) -> Vec<u8> {
    [&recipient_prefix(recipient)[..], webhook.as_bytes(), &order.0].concat()
}

fn recipient_prefix(recipient: &str) -> Vec<u8> {
    let digest = Sha256::digest(recipient.to_lowercase().as_bytes());
    [b"wr", &digest[..8]].concat()
}

/// The place at the end of a key.
fn order_at_end(key: &[u8]) -> Option<Order> {
    key.last_chunk::<20>().copied().map(Order)
}

fn order_and_chunk(key: &[u8]) -> Option<(Order, u16)> {
    let (rest, chunk) = key.split_last_chunk::<2>()?;
    Some((order_at_end(rest)?, u16::from_be_bytes(*chunk)))
}
