//! The same hit within a few seconds is one record with a count, and one link makes so many records at most: beyond
//! [`MAX_OF_TOKEN`], whoever hits it is counted together. Pure: the clock is an argument.

use crate::event::{Hit, HitKind};
use crate::mail::QueueId;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

/// Tells first hits from repeats. Times are milliseconds on a clock that does not go back.
///
/// Memory is bounded: past [`MAX_SEEN`] hits the oldest is forgotten, so that its next repeat counts as a first.
#[derive(Default)]
pub(super) struct Repeats {
    /// Hits seen within the window, each with its repeats that are not yet handed out, as one hit.
    seen: HashMap<Key, Option<Hit>>,
    /// When to forget which key, the soonest first.
    until: VecDeque<(u64, Key)>,
    /// How many of `seen` are one token's.
    of_token: HashMap<Token, u16>,
    /// Keys that may have repeats to hand out.
    waiting: Vec<Key>,
    /// Repeats of hits forgotten since.
    orphans: Vec<Hit>,
    due: Option<u64>,
    agents: RandomState,
}

/// What a token names: a link of a copy, or its pixel.
type Token = (QueueId, u16, Option<u16>);

/// Hits that are one for the reader of an event: the message, recipient and link say what the token says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    id: QueueId,
    recipient: u16,
    link: Option<u16>,
    head: bool,
    address: IpAddr,
    /// Hash of the agent. Two agents of one client and token that collide would be counted together.
    agent: u64,
}

/// From a first hit on, others like it are its repeats for so long.
pub(super) const WINDOW_MS: u64 = 5_000;
/// Repeats are handed out after so long at the latest.
pub(super) const HOLD_MS: u64 = 500;
const MAX_SEEN: usize = 32_768;
/// First hits on one token within the window, by different addresses and agents.
const MAX_OF_TOKEN: u16 = 64;
/// Repeats held at once; more are handed out early, since each holds a URL and an agent.
const MAX_WAITING: usize = 4_096;

impl Repeats {
    /// Gives a first hit back to be written now, and keeps a repeat to be counted.
    pub fn admit(&mut self, hit: Hit, now: u64) -> Option<Hit> {
        while self.until.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest(now);
        }
        let mut key = self.key(&hit);
        let is_many = self.of_token.get(&key.token()).is_some_and(|count| *count >= MAX_OF_TOKEN);
        if is_many && !self.seen.contains_key(&key) {
            key = key.of_anybody();
            if !self.seen.contains_key(&key) {
                self.remember(key, now);
            }
        }
        match self.seen.get_mut(&key) {
            Some(Some(held)) => {
                held.count = held.count.saturating_add(hit.count);
                None
            }
            Some(none) => {
                *none = Some(Hit { repeat: true, ..hit });
                self.waiting.push(key);
                self.due = if self.waiting.len() >= MAX_WAITING { Some(now) } else { self.due.or(Some(now + HOLD_MS)) };
                None
            }
            None => {
                self.remember(key, now);
                Some(hit)
            }
        }
    }

    /// When [`Self::take_due`] next has something to give, if nothing is admitted until then.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// Appends the repeats that are due at `now`.
    pub fn take_due(&mut self, now: u64, out: &mut Vec<Hit>) {
        if self.due.is_some_and(|due| due <= now) {
            self.take_all(out);
        }
    }

    /// Appends all repeats.
    pub fn take_all(&mut self, out: &mut Vec<Hit>) {
        out.append(&mut self.orphans);
        let seen = &mut self.seen;
        out.extend(self.waiting.drain(..).filter_map(|key| seen.get_mut(&key)?.take()));
        self.due = None;
    }

    fn remember(&mut self, key: Key, now: u64) {
        if self.seen.len() >= MAX_SEEN {
            self.forget_oldest(now);
        }
        self.seen.insert(key, None);
        self.until.push_back((now + WINDOW_MS, key));
        let count = self.of_token.entry(key.token()).or_default();
        *count = count.saturating_add(1);
    }

    fn forget_oldest(&mut self, now: u64) {
        let Some((_, key)) = self.until.pop_front() else { return };
        if let Some(count) = self.of_token.get_mut(&key.token()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_token.remove(&key.token());
            }
        }
        if let Some(Some(repeats)) = self.seen.remove(&key) {
            self.orphans.push(repeats);
            self.due = Some(now);
        }
    }

    fn key(&self, hit: &Hit) -> Key {
        let link = match hit.kind {
            HitKind::Click { link, .. } => Some(link),
            HitKind::Open => None,
        };
        let agent = self.agents.hash_one(&hit.agent);
        Key { id: hit.id, recipient: hit.recipient, link, head: hit.head, address: hit.address, agent }
    }
}

impl Key {
    fn token(&self) -> Token {
        (self.id, self.recipient, self.link)
    }

    /// The key of all who hit a token that too many hit.
    fn of_anybody(self) -> Self {
        Self { head: false, address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), agent: 0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hit(recipient: u16, at: u64) -> Hit {
        Hit {
            id: QueueId::from_bytes([1; 16]),
            recipient,
            kind: HitKind::Open,
            at,
            count: 1,
            address: [192, 0, 2, 1].into(),
            agent: "agent".into(),
            head: false,
            repeat: false,
        }
    }

    fn due(repeats: &mut Repeats, now: u64) -> Vec<Hit> {
        let mut out = Vec::new();
        repeats.take_due(now, &mut out);
        out
    }

    #[test]
    fn repeats_are_counted_and_come_out_in_time() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.admit(hit(0, 1), 1_000), Some(hit(0, 1)));
        assert_eq!(repeats.due(), None);
        assert_eq!(repeats.admit(hit(0, 2), 1_100), None);
        assert_eq!(repeats.admit(hit(0, 3), 1_200), None);
        assert_eq!(repeats.due(), Some(1_600));
        assert_eq!(due(&mut repeats, 1_599), []);
        assert_eq!(due(&mut repeats, 1_600), [Hit { repeat: true, count: 2, ..hit(0, 2) }]);
        assert_eq!(repeats.due(), None);
        assert_eq!(repeats.admit(hit(0, 4), 5_999), None);
        // Five seconds after the first it is a first again, and the repeat still waiting is not lost.
        assert_eq!(repeats.admit(hit(0, 5), 6_000), Some(hit(0, 5)));
        assert_eq!(due(&mut repeats, 6_000), [Hit { repeat: true, ..hit(0, 4) }]);
    }

    #[test]
    fn what_makes_another_hit() {
        let click = |link| HitKind::Click { link, url: "https://example.com/".into() };
        let mut repeats = Repeats::default();
        for other in [
            hit(0, 0),
            hit(1, 0),
            Hit { id: QueueId::from_bytes([2; 16]), ..hit(0, 0) },
            Hit { kind: click(0), ..hit(0, 0) },
            Hit { kind: click(1), ..hit(0, 0) },
            Hit { address: [192, 0, 2, 2].into(), ..hit(0, 0) },
            Hit { agent: "other".into(), ..hit(0, 0) },
            Hit { head: true, ..hit(0, 0) },
        ] {
            assert_eq!(repeats.admit(other.clone(), 0), Some(other.clone()));
            assert_eq!(repeats.admit(other, 0), None);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut repeats = Repeats::default();
        let mut out = Vec::new();
        for index in 0..MAX_SEEN as u64 + 10 {
            let one = Hit { id: QueueId::new(index, [0; 10]), ..hit(0, 0) };
            assert!(repeats.admit(one.clone(), 0).is_some());
            assert_eq!(repeats.admit(one, 0), None);
            assert!(repeats.waiting.len() <= MAX_WAITING && repeats.orphans.len() <= MAX_WAITING);
            repeats.take_due(0, &mut out);
        }
        assert_eq!((repeats.seen.len(), repeats.until.len()), (MAX_SEEN, MAX_SEEN));
        assert_eq!(repeats.of_token.len(), MAX_SEEN);
        repeats.take_all(&mut out);
        assert_eq!(out.len(), MAX_SEEN + 10);
    }

    #[test]
    fn one_link_makes_few_records() {
        let mut repeats = Repeats::default();
        let mut out = Vec::new();
        // 100,000 hits in 10 s, each by another agent or from another address.
        for n in 0..100_000u32 {
            let now = u64::from(n / 10);
            let agent = if n % 2 == 0 { format!("agent {n}").into() } else { "agent".into() };
            let address = if n % 2 == 0 { [192, 0, 2, 1].into() } else { IpAddr::from(n.to_be_bytes()) };
            out.extend(repeats.admit(Hit { agent, address, ..hit(0, now) }, now));
            repeats.take_due(now, &mut out);
        }
        repeats.take_all(&mut out);
        assert_eq!(out.iter().map(|hit| hit.count).sum::<u32>(), 100_000);
        assert!(out.len() < 250, "{} records", out.len());
        // Another link is another matter.
        assert!(repeats.admit(hit(1, 10_000), 10_000).is_some());
        while !repeats.until.is_empty() {
            repeats.forget_oldest(20_000);
        }
        assert!(repeats.of_token.is_empty() && repeats.seen.is_empty());
    }

    proptest! {
        #[test]
        fn every_hit_is_counted_once(steps in prop::collection::vec((0u16..4, 0u64..2_000, any::<bool>()), 1..200)) {
            let mut repeats = Repeats::default();
            let (mut now, mut out) = (0, Vec::new());
            for (recipient, pause, look) in &steps {
                now += pause;
                out.extend(repeats.admit(hit(*recipient, now), now));
                if *look {
                    repeats.take_due(now, &mut out);
                    prop_assert!(repeats.due().is_none_or(|due| due > now && due <= now + HOLD_MS));
                }
            }
            repeats.take_all(&mut out);
            for recipient in 0..4 {
                let counted: u32 = out.iter().filter(|h| h.recipient == recipient).map(|h| h.count).sum();
                prop_assert_eq!(counted as usize, steps.iter().filter(|step| step.0 == recipient).count());
            }
        }
    }
}
