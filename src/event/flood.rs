//! Machine or human: what one address does with one link.
//!
//! Nobody clicks one link of one copy, or loads its pixel, thirty times in a minute. Up to [`MANY_HITS`] hits of one
//! address within [`WITHIN_MS`] stay what they are; what is more is a machine's, and so is all that comes after, until
//! [`WITHIN_MS`] pass without any.
//!
//! Pure: times come from the hits. Memory is bounded; what is forgotten begins again.

use super::{Hit, HitKind};
use crate::mail::QueueId;
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Hits of one address on one link or pixel that may be a person's.
pub const MANY_HITS: u32 = 30;
/// Milliseconds within which they are counted.
pub const WITHIN_MS: u64 = 60_000;

/// Counts the hits of each address on each link.
#[derive(Default)]
pub struct Floods(HashMap<Place, Counted>);

/// The link of one copy, or its pixel, and the address, of which an IPv6 client has a /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    id: QueueId,
    recipient: u16,
    link: Option<u16>,
    address: IpAddr,
}

#[derive(Clone, Copy)]
struct Counted {
    since: u64,
    last: u64,
    hits: u32,
}

/// Places that are remembered, each some 100 bytes.
const MAX_PLACES: usize = 65_536;

/// A hit, or as much of it, and whether that is a flood's.
pub type Part<'a> = (Cow<'a, Hit>, bool);

impl Floods {
    /// Takes `hit` in, and parts what of its count is still within the bound from what is not.
    pub fn part<'a>(&mut self, hit: &'a Hit) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let within = self.count(hit).min(hit.count);
        let part = |count: u32, repeat: bool| match count {
            0 => None,
            count if count == hit.count => Some(Cow::Borrowed(hit)),
            count => Some(Cow::Owned(Hit { count, repeat, ..hit.clone() })),
        };
        let (own, more) = (part(within, hit.repeat), part(hit.count - within, true));
        own.map(|hit| (hit, false)).into_iter().chain(more.map(|hit| (hit, true)))
    }

    /// How many more of this hit's kind there may be, before it.
    fn count(&mut self, hit: &Hit) -> u32 {
        if self.0.len() >= MAX_PLACES {
            self.0.retain(|_, counted| !counted.is_over(hit.at));
            // Little was over: looking through all of them again soon would cost more than counting anew.
            if self.0.len() >= MAX_PLACES / 4 * 3 {
                self.0.clear();
            }
        }
        let fresh = Counted { since: hit.at, last: hit.at, hits: 0 };
        let counted = self.0.entry(Place::of(hit)).or_insert(fresh);
        if counted.is_over(hit.at) {
            *counted = fresh;
        }
        let room = MANY_HITS.saturating_sub(counted.hits);
        counted.hits = counted.hits.saturating_add(hit.count);
        counted.last = counted.last.max(hit.at);
        room
    }
}

impl Counted {
    /// A new count begins: the time is over, and a flood has been quiet for as long.
    fn is_over(&self, now: u64) -> bool {
        let since = if self.hits > MANY_HITS { self.last } else { self.since };
        now >= since.saturating_add(WITHIN_MS)
    }
}

impl Place {
    fn of(hit: &Hit) -> Self {
        let link = match hit.kind {
            HitKind::Click { link, .. } => Some(link),
            HitKind::Open => None,
        };
        let address = match hit.address {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 64).into(),
            IpAddr::V4(_) => hit.address,
        };
        Self { id: hit.id, recipient: hit.recipient, link, address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hit(at: u64, count: u32) -> Hit {
        Hit {
            id: QueueId::from_bytes([1; 16]),
            recipient: 0,
            kind: HitKind::Click { link: 0, url: "https://example.com/".into() },
            at,
            count,
            address: [192, 0, 2, 1].into(),
            agent: "agent".into(),
            head: false,
            repeat: false,
        }
    }

    /// How many of a hit may be a person's, and how many are a flood's.
    fn parts(floods: &mut Floods, hit: &Hit) -> (u32, u32) {
        let (mut own, mut more) = (0, 0);
        for (part, is_flood) in floods.part(hit) {
            *(if is_flood { &mut more } else { &mut own }) += part.count;
        }
        (own, more)
    }

    #[test]
    fn what_is_too_much_is_parted_from_what_is_not() {
        let mut floods = Floods::default();
        assert_eq!(parts(&mut floods, &hit(0, 1)), (1, 0));
        assert_eq!(parts(&mut floods, &hit(500, 28)), (28, 0));
        assert_eq!(parts(&mut floods, &hit(1_000, 100)), (1, 99));
        assert_eq!(parts(&mut floods, &hit(2_000, 1)), (0, 1));
        // It goes on until a minute is quiet.
        assert_eq!(parts(&mut floods, &hit(61_999, 1)), (0, 1));
        assert_eq!(parts(&mut floods, &hit(121_998, 1)), (0, 1));
        assert_eq!(parts(&mut floods, &hit(181_998, 1)), (1, 0));
        let repeated = Hit { count: 40, ..hit(181_999, 0) };
        let repeats: Vec<_> = floods.part(&repeated).map(|(part, flood)| (part.count, part.repeat, flood)).collect();
        assert_eq!(repeats, [(29, false, false), (11, true, true)]);
    }

    #[test]
    fn links_copies_and_addresses_are_counted_by_themselves() {
        let mut floods = Floods::default();
        let v6 = |text: &str| Hit { address: text.parse().unwrap(), ..hit(0, MANY_HITS) };
        for other in [
            hit(0, MANY_HITS),
            Hit { recipient: 1, ..hit(0, MANY_HITS) },
            Hit { id: QueueId::from_bytes([2; 16]), ..hit(0, MANY_HITS) },
            Hit { kind: HitKind::Open, ..hit(0, MANY_HITS) },
            Hit { kind: HitKind::Click { link: 1, url: "x".into() }, ..hit(0, MANY_HITS) },
            Hit { address: [192, 0, 2, 2].into(), ..hit(0, MANY_HITS) },
            v6("2001:db8::1"),
        ] {
            assert_eq!(parts(&mut floods, &other), (MANY_HITS, 0), "{other:?}");
            assert_eq!(parts(&mut floods, &Hit { agent: "another".into(), ..other }), (0, MANY_HITS));
        }
        assert_eq!(parts(&mut floods, &v6("2001:db8::2")), (0, MANY_HITS), "a client has a /64");
    }

    #[test]
    fn memory_is_bounded() {
        let mut floods = Floods::default();
        for n in 0..2 * MAX_PLACES as u64 + 10 {
            parts(&mut floods, &Hit { id: QueueId::new(n, [0; 10]), ..hit(n, 1) });
            assert!(floods.0.len() <= MAX_PLACES);
        }
    }

    proptest! {
        /// Whatever comes, no minute has more than so many hits that may be a person's, and none is lost.
        #[test]
        fn a_minute_has_few(steps in prop::collection::vec((0u64..20_000, 1u32..50), 1..200)) {
            let mut floods = Floods::default();
            let mut now = 0;
            let mut kept: Vec<(u64, u32)> = Vec::new();
            for (pause, count) in steps {
                now += pause;
                let (own, more) = parts(&mut floods, &hit(now, count));
                prop_assert_eq!(own + more, count);
                kept.push((now, own));
                let minute: u32 = kept.iter().filter(|(at, _)| at + WITHIN_MS > now).map(|(_, own)| own).sum();
                // A window may begin in the middle of a minute.
                prop_assert!(minute <= 2 * MANY_HITS, "{}", minute);
            }
        }
    }
}
