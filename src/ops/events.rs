//! Looking at events: the newest of all, one message's timeline, everything for an export.

use super::{OpError, Ops};
use crate::event::{Event, HitFacts};
use crate::mail::{Outcome, QueueId, Status};
use crate::store::{self, Counter, Found, HitEntry, MessageRow, Scope, Store};
use std::collections::HashMap;
use uuid::Uuid;

/// Whether a message was opened or clicked at all, by whomever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub opened: bool,
    pub clicked: bool,
}

/// The newest `limit` events, the oldest of them first. Reads the disk.
pub fn events_tail(ops: &Ops, limit: usize) -> Result<Vec<Event>, OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    let mut rows = HashMap::new();
    let mut events = Vec::new();
    for id in store::latest_messages(&store, limit)? {
        let Some((row, _)) = store::message(&store, &id)? else { continue };
        of_message(&id, &row, &mut events);
        rows.insert(id, row);
    }
    for Found { id, recipient, entry } in store::latest_hits(&store, limit)? {
        if let std::collections::hash_map::Entry::Vacant(place) = rows.entry(id)
            && let Some((row, _)) = store::message(&store, &id)?
        {
            place.insert(row);
        }
        events.push(of_entry(&id, recipient, &entry, rows.get(&id)));
    }
    events.sort_by_key(|event| event.at);
    events.drain(..events.len().saturating_sub(limit));
    Ok(events)
}

/// All that happened to one message, in order of time. Reads the disk.
pub fn events_of(ops: &Ops, id: &QueueId) -> Result<Vec<Event>, OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    match store::message(&store, id)? {
        Some((row, _)) => timeline(&store, id, &row),
        // It may have been accepted a moment ago, and have no row yet.
        None => match ops.queue.show(id).or_else(|| ops.queue.settled(id)) {
            Some(message) => Ok(vec![Event::sent(*id, message.head.accepted_at)]),
            None => Err(OpError::UnknownMessage(*id)),
        },
    }
}

/// Up to `limit` of the events of one message, the newest first, after or before the one with this id, and whether
/// there are more. Reads the disk.
pub fn events_of_page(
    ops: &Ops,
    id: &QueueId,
    after: Option<Uuid>,
    before: Option<Uuid>,
    limit: usize,
) -> Result<(Vec<Event>, bool), OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    let Some((row, _)) = store::message(&store, id)? else {
        let events = events_of(ops, id)?;
        return Ok((events, false));
    };
    // Only what is asked for is made into events: a message to a thousand people may have a hundred thousand.
    let mut own = Vec::new();
    of_message(id, &row, &mut own);
    let seen = store::seen_by_all(&store, id)?;
    let mut order: Vec<(u64, Step<'_>)> = own.iter().map(|event| (event.at, Step::Own(event))).collect();
    for (recipient, seen, _) in &seen {
        order.extend(seen.entries.iter().map(|entry| (entry.at, Step::Hit(*recipient, entry))));
    }
    order.sort_by_key(|(at, _)| *at);
    order.reverse();
    let event = |step: &Step<'_>| match step {
        Step::Own(event) => (*event).clone(),
        Step::Hit(recipient, entry) => of_entry(id, *recipient, entry, Some(&row)),
    };
    let place = |wanted: Uuid| order.iter().position(|(_, step)| event(step).uuid() == wanted);
    let (from, to) = match (after, before) {
        (Some(after), _) => (place(after).map_or(order.len(), |place| place + 1), order.len()),
        (None, Some(before)) => {
            let end = place(before).unwrap_or(0);
            (end.saturating_sub(limit), end)
        }
        (None, None) => (0, order.len()),
    };
    let more = if before.is_some() { from > 0 } else { to - from > limit };
    Ok((order[from..to].iter().take(limit).map(|(_, step)| event(step)).collect(), more))
}

/// What happened to one recipient's copy.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyEvents {
    /// Index into the envelope's recipients.
    pub recipient: u16,
    /// In order of time, from the acceptance on; those that were asked for.
    pub events: Vec<Event>,
    /// How many there are.
    pub all: usize,
    /// Opens and clicks beyond these, of which nothing is kept but that they were.
    pub counted: u64,
}

/// Up to `limit` events of each of these copies of a message, past the first `skip` of them. Reads the disk.
pub fn events_of_copies(
    ops: &Ops,
    id: &QueueId,
    recipients: &[u16],
    skip: usize,
    limit: usize,
) -> Result<Vec<CopyEvents>, OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    let row = store::message(&store, id)?.map(|(row, _)| row);
    let waiting = if row.is_none() { ops.queue.show(id).or_else(|| ops.queue.settled(id)) } else { None };
    let accepted = row.as_ref().map(|row| &row.head).or(waiting.as_ref().map(|waiting| &waiting.head));
    let accepted_at = accepted.ok_or(OpError::UnknownMessage(*id))?.accepted_at;
    let mut copies = Vec::with_capacity(recipients.len());
    for recipient in recipients.iter().copied() {
        let mut events = vec![Event::sent(*id, accepted_at)];
        let mut counted = 0;
        match (&row, &waiting) {
            (Some(row), _) => {
                of_recipient(id, row, recipient, &mut events);
                let seen = store::seen(&store, id, recipient)?.map(|(seen, _)| seen).unwrap_or_default();
                events.extend(seen.entries.iter().map(|entry| of_entry(id, recipient, entry, Some(row))));
                let detailed = seen.entries.iter().map(|entry| u64::from(entry.count)).sum();
                counted = seen.tally.hits.iter().map(|hits| u64::from(*hits)).sum::<u64>().saturating_sub(detailed);
            }
            // The history has it in a moment.
            (None, Some(waiting)) => {
                let address = waiting.head.envelope.recipients.get(usize::from(recipient)).map(|r| &r.address);
                let state = waiting.recipients.get(usize::from(recipient));
                events.extend(state.and_then(|state| {
                    let (status, reply, at) = (state.status, state.reply.clone(), state.at);
                    Event::of_outcome(*id, address, &Outcome { recipient, status, reply: (*reply).into(), at })
                }));
            }
            (None, None) => {}
        }
        events.sort_by_key(|event| event.at);
        let all = events.len();
        let events = events.into_iter().skip(skip).take(limit).collect();
        copies.push(CopyEvents { recipient, events, all, counted });
    }
    Ok(copies)
}

/// What an event is made of.
enum Step<'a> {
    Own(&'a Event),
    Hit(u16, &'a HitEntry),
}

/// The events of up to `messages` messages accepted after `last`, message by message, and the last of them; `None`
/// when there are no more. Reads the disk.
pub fn events_page(
    ops: &Ops,
    last: Option<QueueId>,
    messages: usize,
) -> Result<(Vec<Event>, Option<QueueId>), OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    let ids = store::message_ids(&store, None, None, last, messages, false)?;
    let mut events = Vec::new();
    for id in &ids {
        if let Some((row, _)) = store::message(&store, id)? {
            events.extend(timeline(&store, id, &row)?);
        }
    }
    Ok((events, ids.last().copied()))
}

/// Whether this message was opened or clicked.
pub(super) fn interest(ops: &Ops, id: &str) -> Result<Interest, OpError> {
    let (Some(store), Ok(id)) = (ops.store.load_full(), id.parse()) else { return Ok(Interest::default()) };
    let counts = store::counts(&store, Scope::Message(id))?;
    let is_any = |counters: [Counter; 3]| counters.iter().any(|counter| counts.get(*counter) > 0);
    Ok(Interest {
        opened: is_any([Counter::OpensHuman, Counter::OpensMachine, Counter::OpensUnknown]),
        clicked: is_any([Counter::ClicksHuman, Counter::ClicksMachine, Counter::ClicksUnknown]),
    })
}

/// How many recipients followed a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkClicks {
    pub any: u64,
    /// Those whose click was taken for no machine's.
    pub human: u64,
}

/// How many followed each of these rewritten links of a message. Reads the disk.
pub fn link_clicks(ops: &Ops, id: &QueueId, links: &[u16]) -> Result<HashMap<u16, LinkClicks>, OpError> {
    let store = ops.store.load_full().ok_or(OpError::NoHistory)?;
    let clicks = |link: &u16| {
        let counts = store::counts(&store, Scope::MessageLink(*id, *link))?;
        Ok((*link, LinkClicks { any: counts.get(Counter::ClickedAny), human: counts.get(Counter::ClickedHuman) }))
    };
    links.iter().map(clicks).collect()
}

fn timeline(store: &Store, id: &QueueId, row: &MessageRow) -> Result<Vec<Event>, OpError> {
    let mut events = Vec::new();
    of_message(id, row, &mut events);
    for (recipient, seen, _) in store::seen_by_all(store, id)? {
        events.extend(seen.entries.iter().map(|entry| of_entry(id, recipient, entry, Some(row))));
    }
    // A message comes before what became of it, also where all of it fell on one moment.
    events.sort_by_key(|event| event.at);
    Ok(events)
}

fn of_message(id: &QueueId, row: &MessageRow, out: &mut Vec<Event>) {
    out.push(Event::sent(*id, row.head.accepted_at));
    for (place, _) in (0u16..).zip(&row.recipients) {
        of_recipient(id, row, place, out);
    }
}

fn of_recipient(id: &QueueId, row: &MessageRow, place: u16, out: &mut Vec<Event>) {
    let Some(recipient) = row.recipients.get(usize::from(place)) else { return };
    let Some(to) = row.head.envelope.recipients.get(usize::from(place)) else { return };
    let outcome = |status, reply: &str, at| {
        Event::of_outcome(*id, Some(&to.address), &Outcome { recipient: place, status, reply: reply.into(), at })
    };
    if let Some(delay) = &recipient.delay {
        let deferred = Status::Deferred { attempts: 1, next: 0, age: 0, told: false };
        out.extend(outcome(deferred, &delay.reply, delay.at));
    }
    if recipient.status.is_settled() {
        out.extend(outcome(recipient.status, &recipient.reply, recipient.at));
    }
}

fn of_entry(id: &QueueId, recipient: u16, entry: &HitEntry, row: Option<&MessageRow>) -> Event {
    let to = row.and_then(|row| row.head.envelope.recipients.get(usize::from(recipient))).map(|r| &r.address);
    let facts = HitFacts {
        id: *id,
        recipient,
        number: entry.number,
        kind: &entry.kind,
        at: entry.at,
        count: entry.count,
        class: &entry.class,
        address: entry.address,
        agent: &entry.agent,
    };
    Event::of_hit(facts, to)
}
