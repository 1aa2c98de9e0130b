//! Walking through the messages of the history in order of their age: all, or those of some sender domains, whose
//! indexes are merged. Mail of others costs nothing.

use super::search::{Among, first_of};
use crate::mail::QueueId;
use crate::store::{self, Store, StoreError};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

/// Messages that lie before `after` and behind `before`, from the newest on (`backwards`) or from the oldest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub after: Option<QueueId>,
    pub before: Option<QueueId>,
    pub backwards: bool,
}

impl Span {
    pub fn holds(&self, id: &QueueId) -> bool {
        self.after.is_none_or(|after| *id < after) && self.before.is_none_or(|before| *id > before)
    }

    /// From the oldest to the newest.
    pub fn bounds(&self) -> (Bound<QueueId>, Bound<QueueId>) {
        let end = |id: Option<QueueId>| id.map_or(Bound::Unbounded, Bound::Excluded);
        (end(self.before), end(self.after))
    }

    /// The span behind this message.
    pub fn behind(self, id: QueueId) -> Self {
        match self.backwards {
            true => Self { after: Some(id), ..self },
            false => Self { before: Some(id), ..self },
        }
    }
}

/// A walk through a span.
pub(super) struct Walk<'a> {
    store: &'a Store,
    lanes: Vec<Lane<'a>>,
    /// The next message of each lane that has one.
    heads: BTreeSet<(QueueId, usize)>,
    backwards: bool,
}

/// The messages of one domain, or of all.
struct Lane<'a> {
    domain: Option<&'a str>,
    /// What has not been read yet.
    rest: Span,
    read: VecDeque<QueueId>,
    /// How many are read next.
    stride: usize,
}

/// Of a lane that are read at first; each time twice as many, since most lanes of many are not walked far.
const FIRST_STRIDE: usize = 8;
const MAX_STRIDE: usize = 256;

impl<'a> Walk<'a> {
    /// A walk through the mail of these domains; `None`: through all.
    pub fn new(store: &'a Store, domains: Option<&'a [Among]>, span: Span) -> Result<Self, StoreError> {
        let lane = |domain, rest| Lane { domain, rest, read: VecDeque::new(), stride: FIRST_STRIDE };
        let lanes = match domains {
            None => vec![lane(None, span)],
            Some(domains) => {
                let of = |among: &'a Among| {
                    lane(Some(&*among.domain), Span { before: span.before.max(Some(first_of(among.since))), ..span })
                };
                domains.iter().map(of).collect()
            }
        };
        let mut walk = Self { store, lanes, heads: BTreeSet::new(), backwards: span.backwards };
        for place in 0..walk.lanes.len() {
            walk.put_head(place)?;
        }
        Ok(walk)
    }

    /// The next message.
    pub fn step(&mut self) -> Result<Option<QueueId>, StoreError> {
        let next = if self.backwards { self.heads.pop_last() } else { self.heads.pop_first() };
        let Some((id, place)) = next else { return Ok(None) };
        self.put_head(place)?;
        Ok(Some(id))
    }

    fn put_head(&mut self, place: usize) -> Result<(), StoreError> {
        let Some(lane) = self.lanes.get_mut(place) else { return Ok(()) };
        if lane.read.is_empty() && lane.stride > 0 {
            let Span { after, before, backwards } = lane.rest;
            let ids = store::message_ids(self.store, lane.domain, after, before, lane.stride, backwards)?;
            // Fewer than asked for are the last.
            lane.stride = if ids.len() < lane.stride { 0 } else { (lane.stride * 2).min(MAX_STRIDE) };
            if let Some(last) = ids.last() {
                lane.rest = lane.rest.behind(*last);
            }
            lane.read.extend(ids);
        }
        if let Some(id) = lane.read.pop_front() {
            self.heads.insert((id, place));
        }
        Ok(())
    }
}
