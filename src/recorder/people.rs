//! What recipients did: hits become entries of theirs, and counts.

use super::known::Known;
use super::messages::Limits;
use super::records::legible;
use super::sums::Sums;
use crate::event::{Class, Hit, HitKind, MachineReason};
use crate::mail::QueueId;
use crate::store::{
    Counter, HitEntry, HitRef, MAX_ENTRIES, Scope, Seen, Store, StoreError, Write, forget_seen, seen, seen_by_all,
    seen_writes,
};
use std::collections::HashMap;

/// Recipients whose hits came in lately.
#[derive(Default)]
pub(super) struct People {
    limits: Limits,
    held: HashMap<Whose, Person>,
    changed: usize,
    /// Hits of those that are held, about.
    hits: usize,
}

/// A message and the place of a recipient in its envelope.
pub(super) type Whose = (QueueId, u16);

#[derive(Default)]
struct Person {
    seen: Seen,
    /// Pieces that lie in the store.
    pieces: usize,
    changed: bool,
}

/// A repeat follows its first hit within the tracker's window and what it holds repeats back.
const REPEAT_MS: u64 = 6_000;

/// A hit, and whose it is.
#[derive(Clone, Copy)]
struct Of<'a> {
    known: &'a Known,
    id: QueueId,
    kind: &'a HitKind,
    at: u64,
}

/// What became of a hit.
pub(super) struct Noted {
    pub class: Class,
    /// The entry that was made of it, unless it repeats one or there is no room.
    pub entry: Option<HitRef>,
}

impl People {
    pub fn changed(&self) -> usize {
        self.changed
    }

    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Takes a hit that was judged to be of `class`, for a message that is known.
    pub fn note(
        &mut self,
        store: &Store,
        known: &Known,
        (hit, keeps_traces): (&Hit, bool),
        class: Class,
        sums: &mut Sums,
    ) -> Result<Noted, StoreError> {
        let person = self.person(store, (hit.id, hit.recipient))?;
        let link = link_of(&hit.kind).map(|link| (link, person.seen.link(link)));
        let tally = &mut person.seen.tally;
        if tally.delivered == 0 {
            let delivered = known.delivered_at(hit.recipient, hit.at);
            tally.delivered = if delivered == 0 { hit.at } else { delivered };
        }
        let mut noted = Noted { class, entry: None };
        let is_flood = matches!(noted.class, Class::Machine(MachineReason::Flood));
        let is_same = |entry: &&mut HitEntry| match is_flood {
            true => is_of_flood(entry, hit),
            false => hit.repeat && is_repeated(entry, hit),
        };
        if let Some(entry) = person.seen.entries.iter_mut().rev().find(is_same) {
            entry.count = entry.count.saturating_add(hit.count);
            noted.class = entry.class.clone();
        } else if person.seen.entries.len() < MAX_ENTRIES {
            let number = tally.next;
            tally.next += 1;
            let mut entry = HitEntry::new(hit, number, noted.class.clone());
            if !keeps_traces {
                (entry.address, entry.agent) = (None, Box::default());
            }
            person.seen.entries.push(entry);
            noted.entry = Some(HitRef { id: hit.id, recipient: hit.recipient, number });
        }
        let of = Of { known, id: hit.id, kind: &hit.kind, at: hit.at };
        person.count(of, &noted.class, i64::from(hit.count), sums);
        if let Some((link, before)) = link {
            person.count_link(of, link, before, sums);
        }
        self.changed += usize::from(!std::mem::replace(&mut person.changed, true));
        self.hits += usize::from(noted.entry.is_some());
        Ok(noted)
    }

    /// Gives an entry another class, now that more is known; `None` if it is not there or has been a machine's all
    /// along.
    pub fn relabel(
        &mut self,
        store: &Store,
        known: &Known,
        hit: (Whose, &dyn Fn(&HitEntry) -> bool),
        class: &Class,
        sums: &mut Sums,
    ) -> Result<Option<HitEntry>, StoreError> {
        let (whose, is_it) = hit;
        let person = self.person(store, whose)?;
        let wanted = |entry: &HitEntry| is_it(entry) && !matches!(entry.class, Class::Machine(_));
        let Some(place) = person.seen.entries.iter().position(wanted) else { return Ok(None) };
        let old = person.seen.entries[place].clone();
        let link = old.link().map(|link| (link, person.seen.link(link)));
        person.seen.entries[place].class = class.clone();
        let count = i64::from(old.count);
        // First the new one, so that whoever was seen at all does not stop to be for a moment.
        let of = Of { known, id: whose.0, kind: &old.kind, at: old.at };
        person.count(of, class, count, sums);
        person.count(of, &old.class, -count, sums);
        if let Some((link, before)) = link {
            person.count_link(of, link, before, sums);
        }
        let entry = person.seen.entries[place].clone();
        self.changed += usize::from(!std::mem::replace(&mut person.changed, true));
        Ok(Some(entry))
    }

    /// Takes address and agent from what a recipient did before `before`.
    pub fn strip(&mut self, store: &Store, whose: Whose, before: u64) -> Result<(), StoreError> {
        let person = self.person(store, whose)?;
        let old = |entry: &&mut HitEntry| entry.at < before && (entry.address.is_some() || !entry.agent.is_empty());
        let mut any = false;
        for entry in person.seen.entries.iter_mut().filter(old) {
            (entry.address, entry.agent) = (None, Box::default());
            any = true;
        }
        self.changed += usize::from(any && !std::mem::replace(&mut person.changed, true));
        Ok(())
    }

    /// Forgets what recipients of a message did, or one of them; the writes that do.
    pub fn forget(
        &mut self,
        store: &Store,
        id: &QueueId,
        only: Option<u16>,
        out: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        for (recipient, _, pieces) in seen_by_all(store, id)? {
            if only.is_none_or(|only| only == recipient) {
                forget_seen(id, recipient, pieces, out);
            }
        }
        let goes = |(of, recipient): &Whose| of == id && only.is_none_or(|only| only == *recipient);
        let changed = self.held.extract_if(|whose, _| goes(whose)).filter(|(_, person)| person.changed).count();
        self.changed -= changed;
        Ok(())
    }

    /// The writes for all that has changed; addresses and agents go with it only where they are `kept`.
    pub fn take(&mut self, kept: bool, out: &mut Vec<Write>) {
        for ((id, recipient), person) in self.held.iter_mut().filter(|(_, person)| person.changed) {
            let bare = (!kept).then(|| person.seen.without_traces());
            let seen = bare.as_ref().unwrap_or(&person.seen);
            person.pieces = seen_writes(id, *recipient, seen, person.pieces, out);
            person.changed = false;
        }
        self.changed = 0;
        if self.held.len() > self.limits.people || self.hits > self.limits.hits {
            (self.held, self.hits) = (HashMap::new(), 0);
        }
    }

    fn person(&mut self, store: &Store, whose: Whose) -> Result<&mut Person, StoreError> {
        use std::collections::hash_map::Entry;
        match self.held.entry(whose) {
            Entry::Occupied(held) => Ok(held.into_mut()),
            Entry::Vacant(place) => {
                let found = legible(&whose.0, seen(store, &whose.0, whose.1))?;
                let person = found.map(|(seen, pieces)| Person { seen, pieces, changed: false }).unwrap_or_default();
                self.hits += person.seen.entries.len();
                Ok(place.insert(person))
            }
        }
    }
}

impl Person {
    /// Counts hits, and first times, which are taken back where `more` takes back the only hit of their kind.
    fn count(&mut self, of: Of<'_>, class: &Class, more: i64, sums: &mut Sums) {
        let Of { known, id, kind, at } = of;
        let (place, counter) = match (kind, class) {
            (HitKind::Open, Class::Human) => (0, Counter::OpensHuman),
            (HitKind::Open, Class::Machine(_)) => (1, Counter::OpensMachine),
            (HitKind::Open, Class::Unknown(_)) => (2, Counter::OpensUnknown),
            (HitKind::Click { .. }, Class::Human) => (3, Counter::ClicksHuman),
            (HitKind::Click { .. }, Class::Machine(_)) => (4, Counter::ClicksMachine),
            (HitKind::Click { .. }, Class::Unknown(_)) => (5, Counter::ClicksUnknown),
        };
        let mut add = |at: u64, counter: Counter, more: i64| {
            sums.add_for(Some(known), at, counter, more);
            sums.add(Scope::Message(id), at, counter, more);
        };
        add(at, counter, more);
        let tally = &mut self.seen.tally;
        let sum = i64::from(tally.hits[place]).saturating_add(more).clamp(0, i64::from(u32::MAX));
        tally.hits[place] = u32::try_from(sum).unwrap_or(u32::MAX);
        let [open_human, open_machine, open_unknown, click_human, click_machine, click_unknown] =
            tally.hits.map(|hits| hits > 0);
        let now = [
            (open_human || open_machine || open_unknown, Counter::OpenedAny, Counter::DeliveredOpenedAny),
            (open_human || open_unknown, Counter::OpenedHuman, Counter::DeliveredOpenedHuman),
            (click_human || click_machine || click_unknown, Counter::ClickedAny, Counter::DeliveredClickedAny),
            (click_human || click_unknown, Counter::ClickedHuman, Counter::DeliveredClickedHuman),
        ];
        for (first, (is_so, counter, of_delivered)) in tally.first.iter_mut().zip(now) {
            match (*first, is_so) {
                (0, true) => {
                    *first = at.max(1);
                    add(at, counter, 1);
                    add(tally.delivered, of_delivered, 1);
                }
                (counted, false) if counted > 0 => {
                    add(counted, counter, -1);
                    add(tally.delivered, of_delivered, -1);
                    *first = 0;
                }
                _ => {}
            }
        }
        if let HitKind::Click { link, url } = kind {
            sums.add_for_link(known, id, (*link, url), at, counter, more);
        }
    }

    /// Counts whoever clicked a link for the first time, or is no longer taken for somebody who did.
    fn count_link(&self, of: Of<'_>, link: u16, before: (bool, bool), sums: &mut Sums) {
        let Of { known, id, kind, at } = of;
        let HitKind::Click { url, .. } = kind else { return };
        let after = self.seen.link(link);
        let steps = [(before.0, after.0, Counter::ClickedAny), (before.1, after.1, Counter::ClickedHuman)];
        for (before, after, counter) in steps {
            if before != after {
                sums.add_for_link(known, id, (link, url), at, counter, if after { 1 } else { -1 });
            }
        }
    }
}

trait Links {
    /// Whether this link was clicked by anybody, and by no machine.
    fn link(&self, link: u16) -> (bool, bool);
}

impl Links for Seen {
    fn link(&self, link: u16) -> (bool, bool) {
        let mut clicks = self.entries.iter().filter(|entry| entry.link() == Some(link)).peekable();
        (clicks.peek().is_some(), clicks.any(|entry| !matches!(entry.class, Class::Machine(_))))
    }
}

fn link_of(kind: &HitKind) -> Option<u16> {
    match kind {
        HitKind::Open => None,
        HitKind::Click { link, .. } => Some(*link),
    }
}

/// A flood is one entry, whatever its agents call themselves.
fn is_of_flood(entry: &HitEntry, hit: &Hit) -> bool {
    matches!(entry.class, Class::Machine(MachineReason::Flood))
        && entry.link() == link_of(&hit.kind)
        && entry.address.is_none_or(|address| address == hit.address)
}

fn is_repeated(entry: &HitEntry, hit: &Hit) -> bool {
    // One whose traces were taken can be told by its link alone.
    let bare = entry.address.is_none() && entry.agent.is_empty();
    entry.link() == link_of(&hit.kind)
        && (bare || entry.address == Some(hit.address) && entry.agent == hit.agent)
        && entry.head == hit.head
        && hit.at.saturating_sub(entry.at) <= REPEAT_MS
}
