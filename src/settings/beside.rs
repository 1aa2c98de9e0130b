//! What the log keeps under keys of its own and is no setting: whom the history has to forget, and how far webhooks were
//! told. It is held beside the snapshot, which is copied at every change and must stay small.
//!
//! A lost store is made anew from the log, and goes by this while it is.

use super::Settings;
use super::progress::{PROGRESS, Progress};
use crate::mail::Address;
use crate::privacy::{Erased, PrivacyKey};
use crate::spool::{AppendError, Cursor, Entry, Log};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// An erasure: what was accepted before it is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Milliseconds since 1970.
    pub at: u64,
    /// Where the log ended. `None` where it was another log: then times are compared.
    #[serde(default)]
    pub before: Option<Cursor>,
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
const MAX_ERASURES: usize = if cfg!(test) { 100 } else { 250_000 };
/// Erasures that leave the log in one record.
const TOGETHER: usize = 1_000;

/// An erasure's key in the log, before its hash.
const ERASED: &str = "erased/";
/// Keys of notes begin so.
const NOTES: [&str; 2] = [TOLD_DOMAIN, PROGRESS];
/// The key of what was told last of a sender domain, before its id.
pub const TOLD_DOMAIN: &str = "told-domain/";

/// A note: its key, and its value where it is not to go.
pub type Note = (Box<str>, Option<Bytes>);

/// All that is kept beside the snapshot.
#[derive(Default)]
pub(super) struct Beside {
    pub erasures: Arc<Erasures>,
    /// One erasure at a time, so that none leaves the log that was asked for again meanwhile.
    erasing: Arc<tokio::sync::Mutex<()>>,
    pub progress: ArcSwapOption<Progress>,
    notes: Mutex<BTreeMap<Box<str>, Bytes>>,
}

/// Whether a key of the log says something about this log and its history alone, so that it is of no use elsewhere.
pub fn is_of_this_log(key: &str) -> bool {
    NOTES.iter().any(|note| key.starts_with(note))
}

/// The key and value of an erasure in another log than the one it was made in.
pub fn erasure_elsewhere(erased: Erased, at: u64) -> (String, String) {
    (format!("{ERASED}{erased}"), json(&Erasure { at, before: None }))
}

/// The erasure that a key and its value stand for, whatever log they are of.
pub fn erasure_of(key: &str, value: &[u8]) -> Option<(Erased, Erasure)> {
    Some((Erased::parse(key.strip_prefix(ERASED)?)?, serde_json::from_slice(value).ok()?))
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("numbers always serialise")
}

impl Beside {
    /// Takes what recovery found under `key`, where it is something of this kind; `None` where it is not, and false where
    /// it cannot be read.
    pub fn take(&self, key: &str, value: &Bytes) -> Option<bool> {
        if key.starts_with(ERASED) {
            let read = erasure_of(key, value);
            if let Some((erased, erasure)) = read {
                self.erasures.insert(erased, erasure);
            }
            return Some(read.is_some());
        }
        if !is_of_this_log(key) {
            return None;
        }
        if key == PROGRESS {
            let progress = serde_json::from_slice(value).ok();
            self.progress.store(progress.map(Arc::new));
        }
        self.notes().insert(key.into(), value.clone());
        Some(true)
    }

    /// Lets go of the oldest erasures that are too many, here and in the log. What cannot be written now is so later, or
    /// after the next start.
    pub fn drop_surplus(&self, log: &Log) {
        for some in self.erasures.cut().chunks(TOGETHER) {
            let gone = some.iter().map(|erased| (format!("{ERASED}{erased}").into(), None)).collect();
            if let Err(e) = log.append_soon(Entry::Settings(gone)) {
                tracing::warn!("erasures that are too many stay in the log: {e}");
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Bytes>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    /// Whom the history has to forget.
    pub fn erasures(&self) -> &Erasures {
        &self.held.beside.erasures
    }

    /// Has the history forget somebody, also one that is made anew. In force when the log has it on disk.
    pub async fn erase(&self, erased: Erased, erasure: Erasure) -> Result<(), AppendError> {
        let (key, value) = (format!("{ERASED}{erased}"), json(&erasure));
        let turn = Arc::clone(&self.held.beside.erasing).lock_owned().await;
        let durable = self.log.append(Entry::Setting { key: key.into(), value: Some(value.into()) });
        let (held, log) = (Arc::clone(&self.held), self.log.clone());
        // Who asks may go away: what is on disk is in force.
        let written = tokio::spawn(async move {
            let _turn = turn;
            durable.await?;
            held.beside.erasures.insert(erased, erasure);
            held.beside.drop_surplus(&log);
            Ok(())
        });
        written.await.unwrap_or(Err(AppendError::Closed))
    }

    /// The notes whose keys begin with `prefix`.
    pub fn notes(&self, prefix: &str) -> Vec<(Box<str>, Bytes)> {
        let notes = self.held.beside.notes();
        let from = notes.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        let own = from.take_while(|(key, _)| key.starts_with(prefix));
        own.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Writes notes, together or not at all; resolves when they are on disk.
    pub async fn note(&self, notes: Vec<Note>) -> Result<(), AppendError> {
        self.log.append(Entry::Settings(notes.clone())).await?;
        self.hold(notes);
        Ok(())
    }

    /// Writes a note for which nobody waits.
    pub fn note_soon(&self, key: &str, value: Bytes) -> Result<(), AppendError> {
        self.log.append_soon(Entry::Setting { key: key.into(), value: Some(value.clone()) })?;
        self.hold(vec![(key.into(), Some(value))]);
        Ok(())
    }

    fn hold(&self, notes: Vec<Note>) {
        let mut held = self.held.beside.notes();
        for (key, value) in notes {
            match value {
                Some(value) => drop(held.insert(key, value)),
                None => drop(held.remove(&key)),
            }
        }
    }
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

    fn insert(&self, erased: Erased, erasure: Erasure) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.last.0 = all.last.0.max(erasure.before.unwrap_or_default());
        all.last.1 = all.last.1.max(erasure.at);
        all.by_time |= erasure.before.is_none();
        if let Some(earlier) = all.erased.insert(erased, erasure) {
            all.by_age.remove(&(earlier.at, erased));
        }
        all.by_age.insert((erasure.at, erased));
    }

    /// Takes out as many as are too many, the oldest first, and of one time by their hashes.
    fn cut(&self) -> Vec<Erased> {
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
    /// Places are compared where both are known: the clock may have been set. One that compaction has moved lies behind
    /// its first place, so its time is asked as well.
    fn covers(&self, accepted: Accepted) -> bool {
        match self.before {
            Some(before) if accepted.place < before => true,
            Some(_) if !accepted.moved => false,
            _ => accepted.at <= self.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Options;

    fn place(offset: u64) -> Cursor {
        Cursor { segment: 3, offset }
    }

    #[test]
    fn what_an_erasure_covers() {
        let here = Erasure { at: 1_000, before: Some(place(500)) };
        let elsewhere = Erasure { at: 1_000, before: None };
        let accepted = |offset, at, moved| Accepted { place: place(offset), at, moved };
        for (of, at_which, covers, name) in [
            (here, accepted(499, 9_000, false), true, "the clock was ahead and was set back since"),
            (here, accepted(500, 10, false), false, "accepted since, with a clock that was set back"),
            (here, accepted(700, 900, true), true, "moved since"),
            (here, accepted(700, 1_001, true), false, "accepted since, and moved"),
            (here, accepted(300, 1_001, true), true, "moved before"),
            (elsewhere, accepted(1, 1_001, false), false, "by its time"),
            (elsewhere, accepted(900, 1_000, false), true, "by its time"),
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

    #[tokio::test]
    async fn the_oldest_erasures_give_way_and_leave_the_log() {
        let hash = |n: usize| Erased::parse(&format!("{n:064x}")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let open = || Log::open(Options { min_free: 0, ..Options::new(dir.path()) }).unwrap();
        let in_log = |settings: &BTreeMap<Box<str>, Bytes>| {
            let mut found: Vec<_> = settings.iter().filter_map(|(key, value)| erasure_of(key, value)).collect();
            found.sort_unstable_by_key(|(erased, _)| *erased);
            found.into_iter().map(|(erased, _)| erased).collect::<Vec<_>>()
        };
        let from = |first: usize| (first..MAX_ERASURES + first).map(hash).collect::<Vec<_>>();
        // All of one time, as an import has them. Three are too many at the start, and go as it ends.
        let (log, _) = open();
        let all = (0..MAX_ERASURES + 3).map(|n| erasure_elsewhere(hash(n), 5));
        log.append(Entry::Settings(all.map(|(key, value)| (key.into(), Some(value.into()))).collect())).await.unwrap();
        log.close();
        let (log, recovered) = open();
        let (settings, _) = Settings::new(log.clone(), &recovered.settings);
        assert_eq!(settings.erasures().list().into_iter().map(|(erased, _)| erased).collect::<Vec<_>>(), from(3));
        log.close();
        let (log, recovered) = open();
        assert_eq!(in_log(&recovered.settings), from(3));
        // One more, and one that was there already.
        let (settings, _) = Settings::new(log.clone(), &recovered.settings);
        let before = Some(place(9));
        settings.erase(hash(MAX_ERASURES + 3), Erasure { at: 5, before }).await.unwrap();
        settings.erase(hash(4), Erasure { at: 6, before }).await.unwrap();
        assert_eq!(settings.erasures().list().last(), Some(&(hash(4), 6)));
        settings.erase(hash(MAX_ERASURES + 4), Erasure { at: 7, before }).await.unwrap();
        log.close();
        let (_, recovered) = open();
        let want: Vec<_> = [hash(4)].into_iter().chain((6..MAX_ERASURES + 5).map(hash)).collect();
        assert_eq!(in_log(&recovered.settings), want);
    }

    #[tokio::test]
    async fn erasures_and_notes_come_back_and_are_no_settings() {
        let dir = tempfile::tempdir().unwrap();
        let (log, recovered) = Log::open(Options::new(dir.path())).unwrap();
        let (settings, _) = Settings::new(log.clone(), &recovered.settings);
        let erased = PrivacyKey::new(&[7; 32]).erased(&Address::parse("ada@example.net").unwrap());
        let (version, erasure) = (settings.snapshot().version, Erasure { at: 5, before: Some(place(9)) });
        settings.erase(erased, erasure).await.unwrap();
        let note = |key: &str, value: &'static str| (key.into(), Some(Bytes::from_static(value.as_bytes())));
        settings.note(vec![note("told-domain/a", "1"), note("told-domain/b", "2")]).await.unwrap();
        settings.note_soon("webhook-progress", Bytes::from_static(b"{}")).unwrap();
        settings.note(vec![("told-domain/a".into(), None)]).await.unwrap();
        assert_eq!(settings.snapshot().version, version, "nobody looks at the settings again");
        log.close();
        let (log, recovered) = Log::open(Options::new(dir.path())).unwrap();
        let (settings, unreadable) = Settings::new(log, &recovered.settings);
        assert!(unreadable.is_empty() && settings.snapshot().records().is_empty(), "{unreadable:?}");
        assert_eq!(settings.erasures().list(), [(erased, 5)]);
        assert_eq!(settings.notes("told-domain/"), [("told-domain/b".into(), Bytes::from_static(b"2"))]);
        assert_eq!(settings.notes("webhook-progress").len(), 1);
        let (key, value) = erasure_elsewhere(erased, 5);
        assert_eq!(erasure_of(&key, value.as_bytes()), Some((erased, Erasure { at: 5, before: None })));
    }
}
