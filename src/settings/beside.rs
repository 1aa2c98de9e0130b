//! What the log keeps under keys of its own and is no setting: whom the history has to forget, and how far webhooks were
//! told. It is held beside the snapshot, which is copied at every change and must stay small.
//!
//! A lost store is made anew from the log, and goes by this while it is.

use super::Settings;
use super::erasures::{ERASED, Erasure, Erasures, erasure_of, record};
use super::progress::{PROGRESS, Progress};
use crate::privacy::Erased;
use crate::spool::{AppendError, Entry, Log};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Erasures that leave the log in one record.
const TOGETHER: usize = 1_000;
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
        let turn = Arc::clone(&self.held.beside.erasing).lock_owned().await;
        // The log's last record of somebody is the one that counts.
        let (key, value) = record(erased, &self.held.beside.erasures.with(erased, erasure));
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

#[cfg(test)]
mod tests {
    use super::super::erasures::{MAX_ERASURES, erasure_added, erasure_elsewhere};
    use super::*;
    use crate::mail::Address;
    use crate::privacy::PrivacyKey;
    use crate::spool::{Cursor, Options};

    fn place(offset: u64) -> Cursor {
        Cursor { segment: 3, offset }
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
        settings.erase(hash(MAX_ERASURES + 3), Erasure::new(5, before)).await.unwrap();
        settings.erase(hash(4), Erasure::new(6, before)).await.unwrap();
        assert_eq!(settings.erasures().list().last(), Some(&(hash(4), 6)));
        settings.erase(hash(MAX_ERASURES + 4), Erasure::new(7, before)).await.unwrap();
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
        let (version, erasure) = (settings.snapshot().version, Erasure::new(5, Some(place(9))));
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
        assert_eq!(erasure_of(&key, value.as_bytes()), Some((erased, Erasure::new(5, None))));
    }

    #[tokio::test]
    async fn of_two_erasures_the_later_one_counts_whichever_is_written_last() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Log::open(Options { min_free: 0, ..Options::new(dir.path()) }).unwrap();
        let erased = Erased::parse(&"ab".repeat(32)).unwrap();
        let in_log = |settings: &BTreeMap<Box<str>, Bytes>| {
            settings.iter().find_map(|(key, value)| erasure_of(key, value)).unwrap().1
        };
        let (log, recovered) = open();
        let (settings, _) = Settings::new(log.clone(), &recovered.settings);
        let erasure = Erasure::new(50, Some(place(9)));
        settings.erase(erased, erasure).await.unwrap();
        // The clock was set back since, and she had mail before it was.
        settings.erase(erased, Erasure::new(40, Some(place(20)))).await.unwrap();
        let both = Erasure::new(50, Some(place(20)));
        assert_eq!(settings.erasures().list(), [(erased, 50)]);
        log.close();
        let (log, recovered) = open();
        assert_eq!(in_log(&recovered.settings), both);
        // A list adds what is later alone, and takes no place from what is there.
        assert_eq!(erasure_added(&recovered.settings, erased, 49), None);
        assert_eq!(erasure_added(&recovered.settings, erased, 50), None);
        let (key, value) = erasure_added(&recovered.settings, erased, 60).unwrap();
        assert_eq!(erasure_of(&key, value.as_bytes()).unwrap().1, both.and(Erasure::new(60, None)));
        log.append(Entry::Setting { key: key.into(), value: Some(value.into()) }).await.unwrap();
        log.close();
        let (log, recovered) = open();
        let (settings, _) = Settings::new(log, &recovered.settings);
        assert_eq!(settings.erasures().list(), [(erased, 60)]);
        let added = erasure_added(&BTreeMap::new(), erased, 3).unwrap();
        assert_eq!(added, erasure_elsewhere(erased, 3));
    }
}
