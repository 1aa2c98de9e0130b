//! Machine or human: what only several hits together show.
//!
//! **A burst.** Scanners follow every link of a copy at once, often from many addresses; people do not. Clicks on all
//! links of a copy, or on [`MANY_LINKS`] different ones where it has more, within [`BURST_MS`] are a burst; of two links
//! it takes both within [`PAIR_MS`], and one link alone shows nothing. Of such clicks only those count without which it
//! would be none, and a click on a link that another address has clicked within [`BURST_MS`] before completes only a
//! burst of its own address, so that a person who clicks shortly before or after a scanner stays one. All that the addresses of a
//! burst do with that copy from [`AROUND_MS`] before its first click until as long after its last is the machine's.
//!
//! **Many recipients.** One address with one agent that opens or clicks copies of [`MANY_COPIES`] recipients within
//! [`MANY_MS`] is a machine, and all its hits of that time are. An office behind one address, with one mail program, is
//! people: a newsletter brings it some opens a minute, and only where hundreds get it at the same moment does it reach
//! the bar.
//!
//! Pure: times come from the hits, which may be out of order by some seconds. Memory is bounded by hits and by time;
//! what is forgotten can no longer show anything, so that it stays what it was.

use super::{Hit, HitKind, MachineReason};
use crate::mail::QueueId;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;

/// So many different links within [`BURST_MS`] are no person's, whatever the number of links.
pub const MANY_LINKS: u16 = 8;
/// Milliseconds, first click to last.
pub const BURST_MS: u64 = 10_000;
/// Milliseconds between the clicks on both links of a copy that has two.
pub const PAIR_MS: u64 = 1_000;
/// Milliseconds before and after a burst.
pub const AROUND_MS: u64 = 10_000;
/// Different copies that one address with one agent hits within [`MANY_MS`].
pub const MANY_COPIES: usize = 25;
/// Milliseconds, first hit to last.
pub const MANY_MS: u64 = 60_000;

/// Which hit is meant: enough to find its row again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HitRef {
    pub id: QueueId,
    pub recipient: u16,
    /// `None`: an open.
    pub link: Option<u16>,
    pub at: u64,
    pub address: IpAddr,
}

/// What a hit showed, about itself and those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: it shows nothing, or not yet.
    pub this: Option<MachineReason>,
    /// Hits noted before that have just turned out to be a machine's; each is named once for each reason.
    pub earlier: Vec<(HitRef, MachineReason)>,
}

/// Judges hits by those around them.
#[derive(Default)]
pub struct Bursts {
    copies: Recent<(QueueId, u16), OnCopy>,
    places: Recent<(IpAddr, u64), AtPlace>,
    /// The links of a copy that has hits in `copies`.
    links: HashMap<(QueueId, u16), u16>,
    agents: RandomState,
}

/// A hit on one copy.
#[derive(Clone, Copy)]
struct OnCopy {
    link: Option<u16>,
    address: IpAddr,
}

/// A hit of one address with one agent.
#[derive(Clone, Copy)]
struct AtPlace {
    id: QueueId,
    recipient: u16,
    link: Option<u16>,
}

/// A hit before a burst can be its own, and one that is late still joins those before it: both need some more time.
const COPY_KEPT_MS: u64 = BURST_MS + AROUND_MS + LATE_MS;
const PLACE_KEPT_MS: u64 = MANY_MS + LATE_MS;
const LATE_MS: u64 = 10_000;
/// Hits held, each some 200 bytes with all that is around it.
const MAX_HITS: usize = 65_536;
/// Hits held of one copy, or of one address and agent: more show nothing that so many do not.
const MAX_TOGETHER: usize = 128;

impl Bursts {
    /// Takes `hit` in. `total_links`: the tracked links of its message, if known. HEAD requests count as others do, and
    /// so do repeats, of which only the time is new.
    pub fn note(&mut self, hit: &Hit, total_links: Option<u16>) -> Verdict {
        let link = match hit.kind {
            HitKind::Click { link, .. } => Some(link),
            HitKind::Open => None,
        };
        let mut verdict = Verdict::default();
        self.note_on_copy(hit, link, total_links, &mut verdict);
        self.note_at_place(hit, link, &mut verdict);
        verdict
    }

    fn note_on_copy(&mut self, hit: &Hit, link: Option<u16>, total_links: Option<u16>, verdict: &mut Verdict) {
        let key = (hit.id, hit.recipient);
        if let Some(total) = total_links {
            self.links.insert(key, total);
        }
        let links = &mut self.links;
        let group = self.copies.put(key, hit.at, OnCopy { link, address: hit.address }, COPY_KEPT_MS, |gone| {
            links.remove(gone);
        });
        let Some((needed, within)) = needed(self.links.get(&key).copied()) else { return };
        let found = told(group, |seen| bursts(seen, hit.at, needed, within));
        verdict.add(&MachineReason::Burst, found, |at, OnCopy { link, address }| HitRef {
            id: hit.id,
            recipient: hit.recipient,
            link,
            at,
            address,
        });
    }

    fn note_at_place(&mut self, hit: &Hit, link: Option<u16>, verdict: &mut Verdict) {
        let key = (hit.address, self.agents.hash_one(&hit.agent));
        let what = AtPlace { id: hit.id, recipient: hit.recipient, link };
        let group = self.places.put(key, hit.at, what, PLACE_KEPT_MS, |_| ());
        let found = newest_of_many(group).unwrap_or_else(|| told(group, many_recipients));
        verdict.add(&MachineReason::ManyRecipients, found, |at, AtPlace { id, recipient, link }| HitRef {
            id,
            recipient,
            link,
            at,
            address: hit.address,
        });
    }
}

impl Verdict {
    /// Adds what [`told`] found.
    fn add<T>(&mut self, reason: &MachineReason, found: (Vec<(u64, T)>, bool), hit: impl Fn(u64, T) -> HitRef) {
        let (earlier, this) = found;
        if this {
            self.this.get_or_insert_with(|| reason.clone());
        }
        self.earlier.extend(earlier.into_iter().map(|(at, what)| (hit(at, what), reason.clone())));
    }
}

/// Different links that a burst takes, and within how many milliseconds; `None` where there is no burst.
fn needed(total_links: Option<u16>) -> Option<(usize, u64)> {
    match total_links {
        Some(0 | 1) => None,
        Some(2) => Some((2, PAIR_MS)),
        total => Some((usize::from(total.unwrap_or(MANY_LINKS).min(MANY_LINKS)), BURST_MS)),
    }
}

/// Marks what belongs to a burst among the hits on one copy, in order of time. Only bursts that the hit of `at` can have
/// made, or that it lies in, are looked at: the others were judged when more was known, and what spoke against them may
/// be forgotten by now.
fn bursts(seen: &mut [&mut Seen<OnCopy>], at: u64, needed: usize, within: u64) {
    let click = |one: &&mut Seen<OnCopy>| Some(Click { at: one.at, link: one.what.link?, by: one.what.address });
    let clicks: Vec<_> = seen.iter().filter_map(click).collect();
    if clicks.len() < needed {
        return;
    }
    let mut marks = |clicks: &[Click]| {
        for run in runs(clicks, needed, within) {
            let (begun, ended) = (run[0].at, run[run.len() - 1].at);
            let (first, last) = (begun.saturating_sub(AROUND_MS), ended.saturating_add(AROUND_MS));
            if first <= at && at <= last {
                let whose = first_by_link(run);
                for one in seen.iter_mut().filter(|one| !one.told && first <= one.at && one.at <= last) {
                    one.told = whose.contains(&one.what.address);
                }
            }
        }
    };
    marks(&clicks);
    let mut whose: Vec<_> = clicks.iter().map(|click| click.by).collect();
    whose.sort_unstable();
    whose.dedup();
    if whose.len() > 1 {
        for by in whose {
            marks(&clicks.iter().filter(|click| click.by == by).copied().collect::<Vec<_>>());
        }
    }
}

/// The shortest runs of clicks on so many links: neither end can be spared, and what completes one is no link that
/// another address has just clicked.
fn runs(clicks: &[Click], needed: usize, within: u64) -> Vec<&[Click]> {
    let mut found = Vec::new();
    let mut links = Links::default();
    let mut start = 0;
    for end in 0..clicks.len() {
        links.enter(clicks[end].link);
        while clicks[start].at.saturating_add(within) < clicks[end].at
            || links.clicks(clicks[start].link) > 1 && start < end
            || links.0.len() > needed
        {
            links.leave(clicks[start].link);
            start += 1;
        }
        if links.0.len() < needed || links.clicks(clicks[end].link) > 1 {
            continue;
        }
        let mut before = clicks[..end].iter().rev().take_while(|one| one.at.saturating_add(BURST_MS) >= clicks[end].at);
        if !before.any(|one| one.link == clicks[end].link && one.by != clicks[end].by) {
            found.push(&clicks[start..=end]);
        }
    }
    found
}

/// Clicks on each link of a run; no more links than it takes for a burst, and one.
#[derive(Default)]
struct Links(Vec<(u16, usize)>);

impl Links {
    fn clicks(&self, link: u16) -> usize {
        self.0.iter().find(|(known, _)| *known == link).map_or(0, |(_, clicks)| *clicks)
    }

    fn enter(&mut self, link: u16) {
        match self.0.iter_mut().find(|(known, _)| *known == link) {
            Some((_, clicks)) => *clicks += 1,
            None => self.0.push((link, 1)),
        }
    }

    fn leave(&mut self, link: u16) {
        self.0.retain_mut(|(known, clicks)| {
            *clicks -= usize::from(*known == link);
            *clicks > 0
        });
    }
}

#[derive(Clone, Copy)]
struct Click {
    at: u64,
    link: u16,
    by: IpAddr,
}

/// The addresses that clicked a link first.
fn first_by_link(run: &[Click]) -> Vec<IpAddr> {
    let mut links = Vec::new();
    let mut whose = Vec::new();
    for click in run {
        if !links.contains(&click.link) {
            links.push(click.link);
            whose.push(click.by);
        }
    }
    whose
}

/// Marks the hits of one address and agent, in order of time, that go to many recipients.
fn many_recipients(seen: &mut [&mut Seen<AtPlace>]) {
    if seen.len() < MANY_COPIES {
        return;
    }
    let mut copies: HashMap<(QueueId, u16), usize> = HashMap::new();
    let (mut start, mut marked) = (0, 0);
    for end in 0..seen.len() {
        *copies.entry(seen[end].what.copy()).or_default() += 1;
        while seen[start].at.saturating_add(MANY_MS) < seen[end].at {
            let gone = seen[start].what.copy();
            let left = copies.entry(gone).and_modify(|hits| *hits -= 1).or_default();
            if *left == 0 {
                copies.remove(&gone);
            }
            start += 1;
        }
        if copies.len() >= MANY_COPIES {
            seen[start.max(marked)..=end].iter_mut().for_each(|one| one.told = true);
            marked = end + 1;
        }
    }
}

/// The same for the newest hit alone, where it is the newest in time as well, and so the only one that can show
/// anything new: most of all hits, and much less work. `None` where it is not.
fn newest_of_many(group: &mut VecDeque<Seen<AtPlace>>) -> Option<(Vec<(u64, AtPlace)>, bool)> {
    let newest = group.back()?.at;
    if group.iter().rev().take(MANY_COPIES).any(|one| one.at > newest) || !group.iter().is_sorted_by_key(|one| one.at) {
        return None;
    }
    let is_in = |one: &Seen<AtPlace>| one.at.saturating_add(MANY_MS) >= newest;
    let mut copies: Vec<(QueueId, u16)> = Vec::with_capacity(MANY_COPIES);
    for one in group.iter().rev().take_while(|one| is_in(one)) {
        if copies.len() < MANY_COPIES && !copies.contains(&one.what.copy()) {
            copies.push(one.what.copy());
        }
    }
    if copies.len() < MANY_COPIES {
        return Some((Vec::new(), false));
    }
    let mut earlier = Vec::new();
    for one in group.iter_mut().rev().take_while(|one| is_in(one)).filter(|one| !one.told) {
        one.told = true;
        earlier.push((one.at, one.what));
    }
    // The first is the newest itself.
    earlier.remove(0);
    earlier.reverse();
    Some((earlier, true))
}

impl AtPlace {
    fn copy(&self) -> (QueueId, u16) {
        (self.id, self.recipient)
    }
}

/// Hits of the last time by what they have in common. Bounded: past [`MAX_HITS`] the oldest is forgotten, and past
/// [`MAX_TOGETHER`] the oldest of its group.
struct Recent<K, T> {
    groups: HashMap<K, Group<T>>,
    /// Every hit, as it came.
    order: VecDeque<(u64, K)>,
}

struct Group<T> {
    /// As they came.
    seen: VecDeque<Seen<T>>,
    /// Hits that are gone from `seen` and not yet from the order.
    gone: usize,
}

struct Seen<T> {
    at: u64,
    what: T,
    /// It was told to be a machine's.
    told: bool,
}

impl<K: Copy + Eq + Hash, T> Recent<K, T> {
    /// Puts a hit behind the others of its group, which is returned. What is older than `kept` milliseconds goes;
    /// `forgotten` is told of groups that are gone with it.
    fn put(&mut self, key: K, at: u64, what: T, kept: u64, mut forgotten: impl FnMut(&K)) -> &mut VecDeque<Seen<T>> {
        let old = |order: &VecDeque<(u64, K)>| order.front().is_some_and(|(first, _)| first.saturating_add(kept) < at);
        while self.order.len() >= MAX_HITS || old(&self.order) {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            let Some(group) = self.groups.get_mut(&oldest) else { continue };
            match group.gone.checked_sub(1) {
                Some(gone) => group.gone = gone,
                None => drop(group.seen.pop_front()),
            }
            if group.seen.is_empty() && oldest != key {
                self.groups.remove(&oldest);
                forgotten(&oldest);
            }
        }
        self.order.push_back((at, key));
        let new = || Group { seen: VecDeque::with_capacity(1), gone: 0 };
        let group = self.groups.entry(key).or_insert_with(new);
        if group.seen.len() >= MAX_TOGETHER {
            group.seen.pop_front();
            group.gone += 1;
        }
        group.seen.push_back(Seen { at, what, told: false });
        &mut group.seen
    }
}

/// Lets `mark` mark the hits of a group, sorted by time. Gives those that are marked for the first time, but for the
/// newest, and whether that one is.
fn told<T: Copy>(group: &mut VecDeque<Seen<T>>, mark: impl FnOnce(&mut [&mut Seen<T>])) -> (Vec<(u64, T)>, bool) {
    let before: Vec<bool> = group.iter().map(|one| one.told).collect();
    let mut sorted: Vec<_> = group.iter_mut().collect();
    sorted.sort_by_key(|one| one.at);
    mark(&mut sorted);
    let new = group.iter().zip(before).filter(|(one, before)| one.told && !before);
    let mut earlier: Vec<_> = new.map(|(one, _)| (one.at, one.what)).collect();
    let this = group.back().is_some_and(|one| one.told);
    if this {
        earlier.pop();
    }
    (earlier, this)
}

impl<K, T> Default for Recent<K, T> {
    fn default() -> Self {
        Self { groups: HashMap::new(), order: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests;
