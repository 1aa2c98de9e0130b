//! Whom the history has to forget: what was accepted before an erasure is nobody's.
//!
//! Somebody may be erased several times, here and, as lists and backups tell of it, elsewhere. Of two erasures the later
//! one counts, and nothing that either covers comes back.

use crate::mail::Address;
use crate::privacy::{Erased, PrivacyKey};
use crate::spool::Cursor;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// An erasure: what was accepted before it is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Milliseconds since 1970.
    pub at: u64,
    /// Where the log ended. `None` where it was another log: then times are compared.
    #[serde(default)]
    pub before: Option<Cursor>,
    /// With a place: the last one was made elsewhere, so times are compared as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    by_time: bool,
}

/// Where a message stands that may be of before an erasure.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    pub place: Cursor,
    pub at: u64,
    /// Compaction has written it again, behind where it was accepted.
    pub moved: bool,
}

/// Whom the history has to forget.
#[derive(Default)]
pub struct Erasures {
    key: OnceLock<Arc<PrivacyKey>>,
    all: RwLock<All>,
}

#[derive(Default)]
struct All {
    erased: HashMap<Erased, Erasure>,
    /// The same, the oldest first.
    by_age: BTreeSet<(u64, Erased)>,
    /// The last of them, by the place and by the time.
    last: (Cursor, u64),
    /// Some go by the time alone.
    by_time: bool,
}

/// Erasures that are held. The oldest give way: the log has long freed what they were about.
pub(super) const MAX_ERASURES: usize = if cfg!(test) { 100 } else { 250_000 };
/// An erasure's key in the log, before its hash.
pub(super) const ERASED: &str = "erased/";
/// The key and value of an erasure in another log than the one it was made in.
pub fn erasure_elsewhere(erased: Erased, at: u64) -> (String, String) {
    record(erased, &Erasure::new(at, None))
}

/// What an erasure that was made elsewhere adds to a log that holds `settings`: nothing where that knows of it, or of one
/// that was made since.
pub fn erasure_added(settings: &BTreeMap<Box<str>, Bytes>, erased: Erased, at: u64) -> Option<(String, String)> {
    let (key, value) = erasure_elsewhere(erased, at);
    let held = settings.get(&*key).and_then(|held| erasure_of(&key, held));
    match held {
        Some((_, held)) => (held.at < at).then(|| record(erased, &held.and(Erasure::new(at, None)))),
        None => Some((key, value)),
    }
}

/// The erasure that a key and its value stand for, whatever log they are of.
pub fn erasure_of(key: &str, value: &[u8]) -> Option<(Erased, Erasure)> {
    Some((Erased::parse(key.strip_prefix(ERASED)?)?, serde_json::from_slice(value).ok()?))
}

pub(super) fn record(erased: Erased, erasure: &Erasure) -> (String, String) {
    (format!("{ERASED}{erased}"), serde_json::to_string(erasure).expect("numbers always serialise"))
}

impl Erasures {
    /// By which key addresses are hashed. Said once, at the start.
    pub fn hash_with(&self, key: Arc<PrivacyKey>) {
        let _ = self.key.set(key);
    }

    /// Whether a message may be of before one of them at all. Cheap: asked for every message that is folded.
    pub fn reach(&self, accepted: Accepted) -> bool {
        let all = self.read();
        let (place, at) = all.last;
        !all.erased.is_empty() && (accepted.place < place || (accepted.moved || all.by_time) && accepted.at <= at)
    }

    /// Whether `address` is to be forgotten as the recipient of a message. One HMAC.
    pub fn cover(&self, address: &Address, accepted: Accepted) -> bool {
        let Some(key) = self.key.get() else { return false };
        self.read().erased.get(&key.erased(address)).is_some_and(|erasure| erasure.covers(accepted))
    }

    pub fn len(&self) -> usize {
        self.read().erased.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them with their times, the first first.
    pub fn list(&self) -> Vec<(Erased, u64)> {
        self.read().by_age.iter().map(|(at, erased)| (*erased, *at)).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, All> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// An erasure together with the one that is held.
    pub(super) fn with(&self, erased: Erased, erasure: Erasure) -> Erasure {
        self.read().erased.get(&erased).map_or(erasure, |held| held.and(erasure))
    }

    pub(super) fn insert(&self, erased: Erased, erasure: Erasure) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let erasure = all.erased.get(&erased).map_or(erasure, |held| held.and(erasure));
        all.last.0 = all.last.0.max(erasure.before.unwrap_or_default());
        all.last.1 = all.last.1.max(erasure.at);
        all.by_time |= erasure.goes_by_time();
        if let Some(earlier) = all.erased.insert(erased, erasure) {
            all.by_age.remove(&(earlier.at, erased));
        }
        all.by_age.insert((erasure.at, erased));
    }

    /// Takes out as many as are too many, the oldest first, and of one time by their hashes.
    pub(super) fn cut(&self) -> Vec<Erased> {
        let mut gone = Vec::new();
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        while all.erased.len() > MAX_ERASURES
            && let Some((_, oldest)) = all.by_age.pop_first()
        {
            all.erased.remove(&oldest);
            gone.push(oldest);
        }
        gone
    }
}

impl Erasure {
    pub const fn new(at: u64, before: Option<Cursor>) -> Self {
        Self { at, before, by_time: false }
    }

    /// Two of one person, in any order. One that was made here covers by its place all that was in the log by then, so
    /// that times are compared beside places only where the later one was made elsewhere.
    pub fn and(self, other: Self) -> Self {
        let later = if (other.at, other.before) > (self.at, self.before) { other } else { self };
        let before = self.before.max(other.before);
        Self { at: later.at, before, by_time: before.is_some() && later.goes_by_time() }
    }

    fn goes_by_time(&self) -> bool {
        self.by_time || self.before.is_none()
    }

    /// Places are compared where both are known: the clock may have been set. One that compaction has moved lies behind
    /// its first place, so its time is asked as well.
    fn covers(&self, accepted: Accepted) -> bool {
        match self.before {
            Some(before) if accepted.place < before => true,
            Some(_) if !accepted.moved && !self.by_time => false,
            _ => accepted.at <= self.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u64) -> Cursor {
        Cursor { segment: 3, offset }
    }

    #[test]
    fn what_an_erasure_covers() {
        let here = Erasure::new(1_000, Some(place(500)));
        let elsewhere = Erasure::new(1_000, None);
        let elsewhere_since = here.and(Erasure::new(2_000, None));
        let here_since = elsewhere.and(Erasure::new(2_000, Some(place(500))));
        let accepted = |offset, at, moved| Accepted { place: place(offset), at, moved };
        for (of, at_which, covers, name) in [
            (here, accepted(499, 9_000, false), true, "the clock was ahead and was set back since"),
            (here, accepted(500, 10, false), false, "accepted since, with a clock that was set back"),
            (here, accepted(700, 900, true), true, "moved since"),
            (here, accepted(700, 1_001, true), false, "accepted since, and moved"),
            (here, accepted(300, 1_001, true), true, "moved before"),
            (elsewhere, accepted(1, 1_001, false), false, "by its time"),
            (elsewhere, accepted(900, 1_000, false), true, "by its time"),
            (elsewhere_since, accepted(499, 9_000, false), true, "of before the earlier one, by its place"),
            (elsewhere_since, accepted(700, 2_000, false), true, "of before the later one, by its time"),
            (elsewhere_since, accepted(700, 2_001, false), false, "accepted since both"),
            (here_since, accepted(499, 9_000, false), true, "by the place of the later one"),
            (here_since, accepted(500, 900, false), false, "accepted since, with a clock that was set back"),
        ] {
            assert_eq!(of.covers(at_which), covers, "{name}");
            let key = Arc::new(PrivacyKey::new(&[7; 32]));
            let ada = Address::parse("ada@example.net").unwrap();
            let erasures = Erasures::default();
            assert!(!erasures.reach(at_which));
            erasures.insert(key.erased(&ada), of);
            erasures.hash_with(key);
            assert!(erasures.reach(at_which) || !covers, "{name}");
            assert_eq!(erasures.cover(&Address::parse("ADA@example.net").unwrap(), at_which), covers, "{name}");
            assert!(!erasures.cover(&Address::parse("b@example.net").unwrap(), at_which), "{name}");
        }
    }
    #[test]
    fn two_erasures_are_the_same_in_any_order_and_none_takes_from_the_other() {
        let all = [
            Erasure::new(10, None),
            Erasure::new(20, None),
            Erasure::new(10, Some(place(100))),
            Erasure::new(20, Some(place(200))),
            Erasure::new(15, Some(place(300))),
            Erasure::new(10, Some(place(100))).and(Erasure::new(15, None)),
        ];
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))) {
            let both = a.and(b);
            assert_eq!(both, b.and(a), "{a:?} {b:?}");
            assert_eq!((both.at, both.before), (a.at.max(b.at), a.before.max(b.before)));
            let read = serde_json::from_str::<Erasure>(&serde_json::to_string(&both).unwrap()).unwrap();
            assert_eq!(read, both);
            let erasures = Erasures::default();
            let erased = Erased::parse(&"ab".repeat(32)).unwrap();
            [a, b].into_iter().for_each(|erasure| erasures.insert(erased, erasure));
            assert_eq!((erasures.list(), erasures.len()), (vec![(erased, both.at)], 1));
        }
    }
}
