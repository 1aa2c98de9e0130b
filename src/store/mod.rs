//! The view of the log that people search: sled behind one concrete type with three verbs, `get`, `scan`, `commit`.
//!
//! Nothing here is the truth. The folder may be deleted at any time; what the log still holds is folded into a new
//! one. One thread commits: `apply_batch`, then `flush`, then `syncfs` on the folder, and only then the answer,
//! because sled's own flush is not durable on Linux. Values stay below [`MAX_VALUE`], since larger ones would end up
//! in files that are never synced. Nothing on the way of a message waits for this module.
//!
//! It is one file, since the order of a commit, its keys and the way a folder is opened and put aside are one promise.

mod chunks;
mod counts;
mod deliveries;
mod hits;
mod messages;
mod told;
mod waiting;
mod within;

pub use counts::{
    Counter, Counts, Scope, counted_url, counts, counts_before, counts_by_hour, counts_by_link, counts_by_skip,
    counts_by_tag, counts_of_message, hour_of, link_hash, link_url,
};
pub use deliveries::{
    Attempt, Busy, Delivery, DeliveryStatus, Due, MAX_RESPONSE, NewDelivery, Order, Settled, State, deliveries,
    delivery, delivery_attempts, delivery_order, delivery_writes, due_deliveries, erase_deliveries_of,
    expired_deliveries, foreign_deliveries, forget_deliveries, open_deliveries, repair_deliveries, replay_write,
    settled_writes,
};
pub use hits::{
    Found, HitEntry, HitRef, MAX_ENTRIES, Seen, Tally, cut, cut_write, forget_seen, hits_between, latest_hits, seen,
    seen_by_all, seen_writes, stripped, stripped_write, time_writes, times_before, today, today_write,
};
pub use messages::{
    Delay, ERASED, MessageRow, RecipientRow, failed_messages, head_erased, is_known, latest_messages, message,
    message_deletes, message_ids, message_writes, messages_with, recipient_erased,
};
pub use told::{ToldDomain, forget_told_domain, told_domains};
pub use waiting::{StoredWaiting, Waiting, WaitingPlace, waiting, waiting_deletes, waiting_writes};
pub use within::{links_within, skips_within};

use crate::spool::Cursor;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Longest value of a row, in bytes.
pub const MAX_VALUE: usize = 2_000;
const FORMAT: u8 = 2;
const FORMAT_KEY: &[u8] = b"\0format";
const CURSOR_KEY: &[u8] = b"\0cursor";
const COUNTED_KEY: &[u8] = b"\0counted";
const MADE_KEY: &[u8] = b"\0made";
const BEGUN_KEY: &[u8] = b"\0begun";
const CACHE_BYTES: u64 = 12 * 1024 * 1024;
/// Deleted when sled will not open on a full disk, which it does not without some room.
const BALLAST_BYTES: i64 = 16 * 1024 * 1024;

/// One change of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Adds to the counts of a row, which start from nothing. What is there is not read before.
    Add(Vec<u8>, Box<Counts>),
}

/// Where news begins: what the log had when the view was made is history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// What stands here or later in the log is news.
    pub place: Cursor,
    /// So is what happened at this time or later (milliseconds since 1970): of views that did not know the place.
    pub since: u64,
}

impl Begun {
    /// Whether what a record told of was there before the view.
    pub fn is_history(&self, place: Cursor, at: u64) -> bool {
        place < self.place && at < self.since
    }
}

/// Key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Why the view cannot be read or written. The operator's or the disk's fault; mail goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// sled refused or panicked; the text is its own.
    Failed(String),
    /// What it wrote cannot be read back.
    Damaged(String),
    /// Written by a newer version.
    Newer(u8),
    /// A row that another version or a fault wrote.
    Malformed,
    TooLarge(usize),
    /// The committer has ended.
    Closed,
}

/// The open view. Cloning it is cheap.
#[derive(Clone)]
pub struct Store {
    db: sled::Db,
    commits: mpsc::Sender<Commit>,
    #[cfg(test)]
    pub(crate) faults: Arc<Faults>,
}

/// Faults to test with: how many more reads go well, and how many more batches are written.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Faults {
    pub reads: std::sync::atomic::AtomicUsize,
    pub batches: std::sync::atomic::AtomicUsize,
}

#[cfg(test)]
impl Faults {
    pub fn mend(&self) {
        self.reads.store(usize::MAX, std::sync::atomic::Ordering::Relaxed);
        self.batches.store(usize::MAX, std::sync::atomic::Ordering::Relaxed);
    }

    fn check(left: &std::sync::atomic::AtomicUsize) -> Result<(), StoreError> {
        let ordering = std::sync::atomic::Ordering::Relaxed;
        let count = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
        left.fetch_update(ordering, ordering, count)
            .map_or_else(|_| Err(StoreError::Failed("injected".into())), |_| Ok(()))
    }
}

struct Commit {
    batches: Vec<Vec<Write>>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Store {
    /// Opens the view in `data_dir/store`, makes it where there is none.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let dir = data_dir.join("store");
        let ballast = data_dir.join("store.ballast");
        remove_unfinished(&dir);
        // What a crash has left of a view that was removed.
        let gone = data_dir.join("store.gone");
        if gone.exists() {
            fs::remove_dir_all(&gone).map_err(|e| StoreError::Failed(format!("{}: {e}", gone.display())))?;
        }
        let db = match open_sled(&dir) {
            Ok(db) => db,
            Err(StoreError::Damaged(why)) => {
                put_aside(&dir, &why)?;
                open_sled(&dir)?
            }
            Err(_) if fs::remove_file(&ballast).is_ok() => open_sled(&dir)?,
            Err(e) => return Err(e),
        };
        keep_ballast(&ballast);
        let stored = guarded(|| db.get(FORMAT_KEY))?;
        let db = match stored.as_deref() {
            None => made_anew(db)?,
            Some([FORMAT]) => db,
            Some([newer, ..]) if *newer > FORMAT => return Err(StoreError::Newer(*newer)),
            Some([]) => return Err(StoreError::Malformed),
            Some([earlier, ..]) => {
                drop(db);
                put_aside(&dir, &format!("it is in format {earlier}, and this version writes format {FORMAT}"))?;
                made_anew(open_sled(&dir)?)?
            }
        };
        let folder = fs::File::open(&dir).map_err(|e| StoreError::Failed(format!("{}: {e}", dir.display())))?;
        let (commits, queue) = mpsc::channel();
        #[cfg(test)]
        let faults = Arc::new(Faults { reads: usize::MAX.into(), batches: usize::MAX.into() });
        let committer = Committer {
            db: db.clone(),
            folder,
            #[cfg(test)]
            faults: Arc::clone(&faults),
        };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || committer.run(&queue))
            .map_err(|e| StoreError::Failed(format!("cannot start the committer: {e}")))?;
        Ok(Self {
            db,
            commits,
            #[cfg(test)]
            faults,
        })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        #[cfg(test)]
        Faults::check(&self.faults.reads)?;
        Ok(guarded(|| self.db.get(key))?.map(|value| value.to_vec()))
    }

    /// Up to `limit` rows from `from` (included) to `to` (excluded), in order of their keys or against it.
    pub fn scan(&self, from: &[u8], to: &[u8], limit: usize, backwards: bool) -> Result<Vec<Row>, StoreError> {
        #[cfg(test)]
        Faults::check(&self.faults.reads)?;
        let rows = self.db.range(from..to);
        let own = |row: sled::Result<(sled::IVec, sled::IVec)>| row.map(|(key, value)| (key.to_vec(), value.to_vec()));
        guarded(|| match backwards {
            false => rows.take(limit).map(own).collect(),
            true => rows.rev().take(limit).map(own).collect(),
        })
    }

    /// Writes all or nothing; resolves when it is on disk.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.commit_in_order(vec![writes]).await
    }

    /// Writes several batches, one after the other and each of them whole or not at all, with one sync for all of
    /// them. sled holds on to much memory for as long as a batch lasts: four times as many rows in one of them took
    /// four times the memory, and kept it.
    pub async fn commit_in_order(&self, batches: Vec<Vec<Write>>) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.commits.send(Commit { batches, done }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// When this view was made, in milliseconds since 1970: nothing that happened before is news.
    pub fn made_at(&self) -> Result<u64, StoreError> {
        let made = self.get(MADE_KEY)?;
        Ok(made.and_then(|at| Some(u64::from_be_bytes(at.try_into().ok()?))).unwrap_or(0))
    }

    /// Where news begins, once that was written.
    pub fn begun(&self) -> Result<Option<Begun>, StoreError> {
        let begun = self.get(BEGUN_KEY)?;
        begun.map(|bytes| postcard::from_bytes(&bytes).map_err(|_| StoreError::Malformed)).transpose()
    }

    /// The last record of the log whose hits and outcomes are in the counts; `None` if none is.
    pub fn counted(&self) -> Result<Option<Cursor>, StoreError> {
        let counted = self.get(COUNTED_KEY)?;
        counted.map(|bytes| postcard::from_bytes(&bytes).map_err(|_| StoreError::Malformed)).transpose()
    }

    /// Bytes that it takes on disk, space to be used again included.
    pub fn size(&self) -> Result<u64, StoreError> {
        guarded(|| self.db.size_on_disk())
    }

    /// How far the log has been folded into this view.
    pub fn cursor(&self) -> Result<Cursor, StoreError> {
        match self.get(CURSOR_KEY)?.as_deref() {
            None => Ok(Cursor::default()),
            Some(bytes) => postcard::from_bytes(bytes).map_err(|_| StoreError::Malformed),
        }
    }
}

/// The write that moves the cursor, for the batch that holds what was derived up to there.
pub fn cursor_write(cursor: Cursor) -> Write {
    let value = postcard::to_stdvec(&cursor).expect("two integers always serialise");
    Write::Put(CURSOR_KEY.to_vec(), value)
}

/// The write that goes with what the record at `place` was counted for, in one batch.
pub fn counted_write(place: Cursor) -> Write {
    let value = postcard::to_stdvec(&place).expect("two integers always serialise");
    Write::Put(COUNTED_KEY.to_vec(), value)
}

/// The write that says where news begins.
pub fn begun_write(begun: Begun) -> Write {
    Write::Put(BEGUN_KEY.to_vec(), postcard::to_stdvec(&begun).expect("integers always serialise"))
}

fn made_anew(db: sled::Db) -> Result<sled::Db, StoreError> {
    let now = crate::clock::unix_ms().to_be_bytes();
    guarded(|| db.insert(MADE_KEY, &now[..]))?;
    guarded(|| db.insert(FORMAT_KEY, &[FORMAT][..]))?;
    Ok(db)
}

fn open_sled(dir: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    guarded(|| config.open())
}

/// Runs a call into sled, whose faults are panics as often as errors.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e @ sled::Error::Corruption { .. })) => Err(StoreError::Damaged(e.to_string())),
        Ok(Err(e)) => Err(StoreError::Failed(e.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(StoreError::Failed(format!("sled panicked: {}", text.unwrap_or("no reason given"))))
        }
    }
}

/// A crash can leave a snapshot that was being written. sled takes an empty one for the newest and opens no more.
fn remove_unfinished(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "generating")) {
        if let Err(e) = fs::remove_file(&path) {
            tracing::warn!("{}: {e}", path.display());
        }
    }
}

/// Removes the view, which nobody has open, and gives its space back.
pub fn remove(data_dir: &Path) -> std::io::Result<()> {
    let (dir, gone) = (data_dir.join("store"), data_dir.join("store.gone"));
    if gone.exists() {
        fs::remove_dir_all(&gone)?;
    }
    fs::rename(&dir, &gone)?;
    fs::remove_dir_all(&gone)
}

/// Bytes of a view on disk that need not open; `None` where there is none.
pub fn size_unopened(data_dir: &Path) -> Option<u64> {
    folder_size(&data_dir.join("store"))
}

/// Bytes of a view that was put aside, where there is one.
pub fn size_aside(data_dir: &Path) -> Option<u64> {
    folder_size(&data_dir.join("store.bad"))
}

/// Removes a view that was put aside.
pub fn remove_aside(data_dir: &Path) -> std::io::Result<()> {
    fs::remove_dir_all(data_dir.join("store.bad"))
}

fn folder_size(dir: &Path) -> Option<u64> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let sizes = entries.filter_map(|entry| match entry.file_type().ok()?.is_dir() {
        true => folder_size(&entry.path()),
        false => Some(entry.metadata().ok()?.blocks() * 512),
    });
    Some(sizes.sum())
}

/// Moves a folder that cannot be read out of the way. What the log still holds is read into the new one.
fn put_aside(dir: &Path, why: &str) -> Result<(), StoreError> {
    let aside = dir.with_extension("bad");
    let failed = |e: std::io::Error| StoreError::Failed(format!("{}: {e}", aside.display()));
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(failed)?;
    }
    fs::rename(dir, &aside).map_err(failed)?;
    tracing::error!(
        "the store is damaged and was put aside as {}; history older than the log is only there: {why}",
        aside.display()
    );
    Ok(())
}

fn keep_ballast(path: &PathBuf) {
    let Ok(file) = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path) else { return };
    // SAFETY: the descriptor is open for as long as `file` lives; the call touches no memory of ours.
    let kept = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, BALLAST_BYTES) };
    if kept != 0 {
        // No room for it now; the next opening tries again.
        let _ = fs::remove_file(path);
    }
}

/// The thread that writes.
struct Committer {
    db: sled::Db,
    folder: fs::File,
    #[cfg(test)]
    faults: Arc<Faults>,
}

impl Committer {
    fn run(self, queue: &mpsc::Receiver<Commit>) {
        while let Ok(commit) = queue.recv() {
            let applied = commit.batches.into_iter().try_for_each(|batch| self.write(batch));
            let result = applied.and_then(|()| sync(&self.db, &self.folder));
            let _ = commit.done.send(result);
        }
    }

    fn write(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        #[cfg(test)]
        Faults::check(&self.faults.batches)?;
        apply(&self.db, batch)
    }
}

fn apply(db: &sled::Db, writes: Vec<Write>) -> Result<(), StoreError> {
    let mut batch = sled::Batch::default();
    let mut sums = std::collections::BTreeMap::<Vec<u8>, Counts>::new();
    for write in writes {
        match write {
            Write::Put(_, value) if value.len() > MAX_VALUE => return Err(StoreError::TooLarge(value.len())),
            Write::Put(key, value) => batch.insert(key, value),
            Write::Delete(key) => batch.remove(key),
            Write::Add(key, more) => {
                if let Some(day) = counts::row_of_day(&key) {
                    sums.entry(day).or_default().add(&more);
                }
                sums.entry(key).or_default().add(&more);
            }
        }
    }
    for (key, more) in sums {
        // Only this thread writes, so reading first is safe.
        let old = guarded(|| db.get(&key))?;
        batch.insert(key, counts::added(old.as_deref(), &more)?);
    }
    guarded(|| db.apply_batch(batch))
}

fn sync(db: &sled::Db, folder: &fs::File) -> Result<(), StoreError> {
    guarded(|| db.flush())?;
    // SAFETY: the descriptor is open for as long as `folder` lives.
    match unsafe { libc::syncfs(folder.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(StoreError::Failed(format!("syncfs: {}", std::io::Error::last_os_error()))),
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(text) => write!(f, "what sled wrote cannot be read: {text}"),
            Self::Failed(text) => f.write_str(text),
            Self::Newer(found) => {
                write!(f, "written in format {found}; this version reads up to {FORMAT}")
            }
            Self::Malformed => f.write_str("a row cannot be read"),
            Self::TooLarge(bytes) => write!(f, "a value of {bytes} bytes is over the limit of {MAX_VALUE}"),
            Self::Closed => f.write_str("the committer has ended"),
        }
    }
}

impl std::error::Error for StoreError {}

/// The first key after all that start with `prefix`.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// A store to test with, which waits for its commits.
#[cfg(test)]
pub(crate) fn commit_now(store: &Store, writes: Vec<Write>) -> Result<(), StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.commit(writes))
}

/// A shared handle to a view that may be shut.
pub type MaybeStore = Arc<arc_swap::ArcSwapOption<Store>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_verbs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let put = |key: &str, value: &str| Write::Put(key.into(), value.into());
        let batch = vec![put("a1", "x"), put("a2", "y"), put("b", "z")];
        commit_now(&store, batch).unwrap();
        commit_now(&store, vec![Write::Delete(b"b".into())]).unwrap();
        assert_eq!(store.get(b"a1").unwrap().as_deref(), Some(&b"x"[..]));
        assert_eq!(store.get(b"b").unwrap(), None);
        let keys =
            |rows: Vec<Row>| rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>();
        assert_eq!(keys(store.scan(b"a", &prefix_end(b"a"), 9, false).unwrap()), ["a1", "a2"]);
        assert_eq!(keys(store.scan(b"a", &prefix_end(b"a"), 1, true).unwrap()), ["a2"]);
        let large = vec![put("c", "x"), Write::Put(b"d".into(), vec![0; MAX_VALUE + 1])];
        assert_eq!(commit_now(&store, large), Err(StoreError::TooLarge(MAX_VALUE + 1)));
        assert_eq!(store.get(b"c").unwrap(), None, "all or nothing");
    }

    #[test]
    fn the_cursor_outlives_the_process_and_a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cursor = Cursor { segment: 7, offset: 4_711 };
        {
            let store = Store::open(dir.path()).unwrap();
            assert_eq!(store.cursor().unwrap(), Cursor::default());
            commit_now(&store, vec![cursor_write(cursor)]).unwrap();
        }
        {
            let store = reopen(dir.path());
            assert_eq!(store.cursor().unwrap(), cursor);
            commit_now(&store, vec![Write::Put(FORMAT_KEY.into(), vec![FORMAT + 1])]).unwrap();
        }
        let refused = loop {
            match Store::open(dir.path()).map(drop) {
                // The lock of the one before is let go by its thread, in its own time.
                Err(StoreError::Failed(text)) if text.contains("lock") => std::thread::yield_now(),
                other => break other,
            }
        };
        assert_eq!(refused, Err(StoreError::Newer(FORMAT + 1)));
    }

    fn reopen(dir: &Path) -> Store {
        loop {
            match Store::open(dir) {
                Err(StoreError::Failed(text)) if text.contains("lock") => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    }

    #[test]
    fn what_a_crash_left_half_written_does_not_keep_it_shut() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        commit_now(&store, vec![Write::Put(b"a".to_vec(), b"1".to_vec())]).unwrap();
        drop(store);
        drop(eventually_open(dir.path()));
        let mut snapshots = fs::read_dir(dir.path().join("store")).unwrap().map(|entry| entry.unwrap().path());
        let snapshot = snapshots.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."));
        let unfinished = snapshot.unwrap().with_extension("ffffffffffffffff.generating");
        fs::write(&unfinished, "").unwrap();
        let store = eventually_open(dir.path());
        assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_damaged_store_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        drop(eventually_open(dir.path()));
        for entry in fs::read_dir(dir.path().join("store")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                fs::write(path, "").unwrap();
            }
        }
        let store = eventually_open(dir.path());
        assert_eq!(store.get(b"a").unwrap(), None);
        assert!(dir.path().join("store.bad").is_dir());
    }

    /// sled gives its lock back a moment after the last handle is gone.
    fn eventually_open(dir: &Path) -> Store {
        let began = std::time::Instant::now();
        loop {
            match Store::open(dir) {
                Ok(store) => return store,
                Err(e) => assert!(began.elapsed().as_secs() < 10, "{e}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    #[test]
    fn a_damaged_folder_is_an_error_not_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("store"), "a file where a folder should be").unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Failed(_))));
    }
}
