//! Whether the relay works: whether mail makes progress, found by looking, and whether log and store work, found by
//! trying: a record written to the log and synced, a row read from the store.
//!
//! Asked by systemd's watchdog and by whoever looks at `/healthz` and `/readyz`. A full disk is no reason for a restart,
//! and neither is a store that does not open: mail goes on, and waits, without both. What hangs is one, and so is mail
//! that is due and that nobody takes.

use crate::clock;
use crate::queue::Queue;
use crate::spool::{AppendError, Cursor, Entry, Log};
use crate::store::MaybeStore;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was found by trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub log: Part,
    pub store: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Works,
    /// It answers, and cannot do its work.
    Fails(String),
    /// No answer in time.
    Hangs,
}

impl Health {
    /// Everything works.
    pub fn is_ready(&self) -> bool {
        self.log == Part::Works && self.store == Part::Works
    }

    /// Nothing hangs.
    pub fn is_alive(&self) -> bool {
        self.log != Part::Hangs && self.store != Part::Hangs
    }
}

/// What was found by looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub log: Motion,
    pub delivery: Motion,
    pub recorder: Motion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Motion {
    Moves,
    /// For a reason that is not ours: the operator, the smarthost.
    Waits(String),
    /// The log cannot be written.
    Unwritten(Duration),
    /// Nothing happens although there is something to do, for so long.
    Stands(Duration),
}

impl Progress {
    /// Nothing stands still that is to move.
    pub fn is_well(&self) -> bool {
        let is_well = |motion: &Motion| matches!(motion, Motion::Moves | Motion::Waits(_));
        is_well(&self.log) && is_well(&self.delivery) && is_well(&self.recorder)
    }

    pub fn in_one_line(&self) -> String {
        self.to_string().replace('\n', ", ")
    }

    /// Mail stands still for no reason that would outlive the process.
    pub fn asks_for_a_restart(&self) -> bool {
        matches!(self.delivery, Motion::Stands(_))
    }
}

/// A line for each part.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.log {
            Motion::Unwritten(span) => write!(f, "log: outcomes cannot be written for {} s", span.as_secs())?,
            _ => write!(f, "log: works")?,
        }
        match &self.delivery {
            Motion::Moves => write!(f, "\ndelivery: works")?,
            Motion::Waits(why) => write!(f, "\ndelivery: waits: {why}")?,
            Motion::Unwritten(span) => {
                write!(f, "\ndelivery: stands still for {} s: the log cannot be written", span.as_secs())?;
            }
            Motion::Stands(span) => {
                write!(f, "\ndelivery: stands still for {} s: mail is due and nobody takes it", span.as_secs())?;
            }
        }
        match &self.recorder {
            Motion::Stands(span) => {
                write!(f, "\nrecorder: stands still for {} s: the log has what it does not read", span.as_secs())
            }
            _ => write!(f, "\nrecorder: works"),
        }
    }
}

/// Looks and tries, for all who ask.
pub struct Watch {
    log: Log,
    store: MaybeStore,
    queue: Arc<Queue>,
    marks: Mutex<Marks>,
    /// What was found last by trying. Held while it is found out: those who ask meanwhile get the same.
    tried: tokio::sync::Mutex<Option<Tried>>,
}

struct Tried {
    at: Instant,
    /// What could be seen without trying; once that is another, the rest is too old.
    seen: Seen,
    found: Health,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    store_is_open: bool,
    log_is_full: bool,
    log_is_stuck: bool,
}

/// What was there when something moved last.
struct Marks {
    delivery: (u64, Instant),
    /// When something was taken last, or nothing could be.
    taking: (u64, Instant),
    recorder: (Cursor, Instant),
}

/// While connections are free, mail that is due is taken within a second, however long the smarthost takes with other
/// mail.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);
/// Where all connections are in use, or all that a domain may have, each may wait for a smarthost, whose time-outs are ten
/// minutes each.
const BUSY_PATIENCE: Duration = Duration::from_secs(30 * 60);
/// A commit of the store waits for the whole file system.
const RECORDER_PATIENCE: Duration = Duration::from_secs(120);
/// What was tried is not tried again for so long: each time is a record in the log, and a sync.
const FRESH: Duration = Duration::from_secs(1);

impl Watch {
    pub fn new(log: Log, store: MaybeStore, queue: Arc<Queue>) -> Self {
        let now = Instant::now();
        let marks = Marks { delivery: (0, now), taking: (0, now), recorder: (Cursor::default(), now) };
        Self { log, store, queue, marks: Mutex::new(marks), tried: tokio::sync::Mutex::default() }
    }

    /// Whether mail makes progress. Touches no disk. To be asked every few seconds, since what moved in between two
    /// looks is all that is seen.
    pub fn progress(&self) -> Progress {
        self.progress_at(Instant::now())
    }

    fn progress_at(&self, now: Instant) -> Progress {
        let (pulse, reader) = (self.queue.pulse(clock::steady_ms()), self.log.reader());
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, unreachable, stuck) = (self.queue.is_held(), self.queue.unreachable(), self.log.stuck_for());
        let is_free = !held && unreachable.is_none() && stuck.is_none();
        if marks.delivery.0 != pulse.moves || pulse.ready == 0 || !is_free {
            marks.delivery = (pulse.moves, now);
        }
        if marks.taking.0 != pulse.taken || !pulse.is_open || !is_free {
            marks.taking = (pulse.taken, now);
        }
        if marks.recorder.0 != reader.reads_from || reader.reads_from == reader.end {
            marks.recorder = (reader.reads_from, now);
        }
        let [delivery, taking, recorder] = [marks.delivery.1, marks.taking.1, marks.recorder.1].map(|at| now - at);
        drop(marks);
        Progress {
            log: stuck.map_or(Motion::Moves, Motion::Unwritten),
            delivery: match (stuck, unreachable) {
                (Some(stuck), _) => Motion::Unwritten(stuck),
                _ if held => Motion::Waits("the queue is held".to_owned()),
                (None, Some(down)) => Motion::Waits(format!("the smarthost cannot be reached: {}", down.why)),
                _ if taking > OPEN_PATIENCE => Motion::Stands(taking),
                _ if delivery > BUSY_PATIENCE => Motion::Stands(delivery),
                _ => Motion::Moves,
            },
            recorder: if recorder > RECORDER_PATIENCE { Motion::Stands(recorder) } else { Motion::Moves },
        }
    }

    /// Tries log and store, each for as long as `patience`. What was tried within the last second stands, unless a look
    /// shows that it cannot.
    pub async fn check(&self, patience: Duration) -> Health {
        let Ok(mut tried) = tokio::time::timeout(patience, self.tried.lock()).await else {
            // Whoever tries is more patient, and has found nothing yet.
            return Health { log: Part::Hangs, store: Part::Hangs };
        };
        let seen = self.seen();
        if let Some(tried) = tried.as_ref().filter(|tried| tried.seen == seen && tried.at.elapsed() < FRESH) {
            return tried.found.clone();
        }
        let found = attempt(&self.log, &self.store, patience).await;
        *tried = Some(Tried { at: Instant::now(), seen, found: found.clone() });
        found
    }

    fn seen(&self) -> Seen {
        Seen {
            store_is_open: self.store.load().is_some(),
            log_is_full: self.log.is_full(),
            log_is_stuck: self.log.stuck_for().is_some(),
        }
    }
}

async fn attempt(log: &Log, store: &MaybeStore, patience: Duration) -> Health {
    let written = async {
        if log.is_full() {
            return Part::Fails(AppendError::Full.to_string());
        }
        match log.append(Entry::Hits(Vec::new())).await {
            Ok(()) => Part::Works,
            Err(e) => Part::Fails(e.to_string()),
        }
    };
    let read = async {
        let Some(store) = store.load_full() else { return Part::Fails("it is not open".to_owned()) };
        let read = tokio::task::spawn_blocking(move || store.cursor()).await;
        match read {
            Ok(Ok(_)) => Part::Works,
            Ok(Err(e)) => Part::Fails(e.to_string()),
            Err(e) => Part::Fails(e.to_string()),
        }
    };
    let (log, store) = tokio::join!(tokio::time::timeout(patience, written), tokio::time::timeout(patience, read));
    Health { log: log.unwrap_or(Part::Hangs), store: store.unwrap_or(Part::Hangs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Address, Body, Envelope, QueueId, Recipient, Role};
    use crate::retry::Schedule;
    use crate::spool::{MessageHead, Options};
    use crate::store::Store;

    fn watch(dir: &std::path::Path) -> Watch {
        let (log, _) = Log::open(Options { min_free: 0, ..Options::new(dir) }).unwrap();
        let schedule = Schedule { pauses: vec![Duration::from_secs(1)], max_age: Duration::from_secs(60) };
        Watch::new(log, MaybeStore::default(), Arc::new(Queue::new(Vec::new(), |_| None, 0, &schedule)))
    }

    fn put_one(queue: &Queue, n: u64) -> QueueId {
        put_to(queue, n, "a@example.net")
    }

    fn put_to(queue: &Queue, n: u64, recipient: &str) -> QueueId {
        let id = QueueId::new(n, [7; 10]);
        let head = MessageHead {
            envelope: Envelope {
                sender: None,
                recipients: vec![Recipient::from(Address::parse(recipient).unwrap())],
                body: Body::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
            },
            accepted_at: n,
            from_domain: None,
            from: "".into(),
            subject: "".into(),
            message_id: "".into(),
            size: 0,
            tags: Vec::new(),
            role: Role::Submission,
        };
        queue.insert(id, Arc::new(head), None);
        id
    }

    #[tokio::test]
    async fn mail_that_is_due_and_that_nobody_takes_is_seen() {
        let dir = tempfile::TempDir::new().unwrap();
        let watch = watch(dir.path());
        let start = Instant::now();
        let after = |secs: u64| watch.progress_at(start + Duration::from_secs(secs));
        assert!(after(1).is_well());
        // An empty queue stands still as long as it likes.
        assert!(after(3_600).is_well());
        put_one(&watch.queue, 1);
        assert!(after(3_601).is_well());
        assert!(after(3_650).is_well());
        let stands = after(3_670);
        assert_eq!(stands.delivery, Motion::Stands(Duration::from_secs(70)));
        assert!(!stands.is_well() && stands.asks_for_a_restart());
        assert!(stands.to_string().contains("delivery: stands still for 70 s: mail is due and nobody takes it"));
        // The operator's wish, and then it is waited for anew.
        watch.queue.hold(true);
        assert_eq!(after(3_700).delivery, Motion::Waits("the queue is held".to_owned()));
        watch.queue.hold(false);
        assert!(after(3_710).is_well());
        // One is taken, and takes long: that may be the smarthost's doing, for a while.
        put_one(&watch.queue, 2);
        watch.queue.take(0).unwrap();
        assert!(after(3_720).is_well());
        assert!(after(4_000).is_well());
        assert!(!after(3_720 + 31 * 60).is_well());
        watch.queue.smarthost_is_down("refused", 0);
        assert!(after(3_720 + 32 * 60).is_well());
    }

    #[tokio::test]
    async fn mail_that_nobody_takes_is_seen_while_other_mail_is_under_way() {
        let dir = tempfile::TempDir::new().unwrap();
        let watch = watch(dir.path());
        let start = Instant::now();
        let after = |secs: u64| watch.progress_at(start + Duration::from_secs(secs));
        watch.queue.set_width(8);
        let busy = put_one(&watch.queue, 1);
        watch.queue.take(clock::steady_ms()).unwrap();
        put_to(&watch.queue, 2, "b@elsewhere.test");
        assert!(after(1).is_well());
        assert!(after(50).is_well());
        // What is under way makes progress, which helps nobody else.
        watch.queue.note(&busy, &[]);
        assert_eq!(after(71).delivery, Motion::Stands(Duration::from_secs(70)));
        watch.queue.take(clock::steady_ms()).unwrap();
        assert!(after(72).is_well());
        // It is waited for anew, and nothing is to be taken but what comes then.
        assert!(after(1_000).is_well());
        put_to(&watch.queue, 3, "b@third.test");
        assert!(after(1_001).is_well());
        assert!(after(1_050).is_well());
        assert!(!after(1_070).is_well());
    }

    #[tokio::test]
    async fn a_slow_smarthost_is_no_stall_while_all_connections_are_in_use() {
        let start = Instant::now();
        // All that there are; and all that a slow domain may have.
        for (width, slow, others) in [(2, 1, 1), (8, 2, 0)] {
            let dir = tempfile::TempDir::new().unwrap();
            let watch = watch(dir.path());
            let after = |secs: u64| watch.progress_at(start + Duration::from_secs(secs));
            watch.queue.set_width(width);
            (1..=4).for_each(|n| _ = put_one(&watch.queue, n));
            (0..others).for_each(|n| _ = put_to(&watch.queue, 10 + n, "b@elsewhere.test"));
            // For a long time, so that its domain is slow.
            (0..slow + others).for_each(|_| _ = watch.queue.take(1).unwrap());
            assert!(watch.queue.pulse(clock::steady_ms()).ready > 0);
            for minute in 0..=29 {
                assert!(after(minute * 60).is_well(), "{width}: {minute}");
            }
            assert!(!after(32 * 60).is_well());
        }
    }

    #[tokio::test]
    async fn a_recorder_that_reads_nothing_is_seen() {
        let dir = tempfile::TempDir::new().unwrap();
        let watch = watch(dir.path());
        let start = Instant::now();
        let after = |secs: u64| watch.progress_at(start + Duration::from_secs(secs)).recorder;
        let record = || watch.log.append(Entry::Hits(Vec::new()));
        record().await.unwrap();
        let read = watch.log.read(Cursor::default(), 10).unwrap();
        assert_eq!(watch.log.read(read.next, 10).unwrap().next, read.next);
        assert_eq!(after(1), Motion::Moves);
        assert_eq!(after(1_000), Motion::Moves);
        record().await.unwrap();
        assert_eq!(after(1_001), Motion::Moves);
        assert_eq!(after(1_130), Motion::Stands(Duration::from_secs(130)));
        let read = watch.log.read(read.next, 10).unwrap();
        watch.log.read(read.next, 10).unwrap();
        assert_eq!(after(1_131), Motion::Moves);
    }

    /// Each check is a record in the log and a sync of it.
    #[tokio::test]
    async fn many_who_ask_at_once_are_answered_by_one_check() {
        let dir = tempfile::TempDir::new().unwrap();
        let watch = Arc::new(watch(dir.path()));
        let before = watch.log.stats().syncs;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let watch = Arc::clone(&watch);
            asking.spawn(async move { watch.check(Duration::from_secs(5)).await });
        }
        let found = asking.join_all().await;
        assert!(found.iter().all(|health| health.log == Part::Works));
        assert!(watch.log.stats().syncs - before <= 3, "{} syncs", watch.log.stats().syncs - before);
        // A store that opens or shuts meanwhile is seen at once.
        let closed = Part::Fails("it is not open".to_owned());
        assert_eq!(watch.check(Duration::from_secs(5)).await.store, closed);
        watch.store.store(Some(Arc::new(Store::open(dir.path()).unwrap())));
        assert_eq!(watch.check(Duration::from_secs(5)).await.store, Part::Works);
        watch.store.store(None);
        assert_eq!(watch.check(Duration::from_secs(5)).await.store, closed);
        // Later all is looked at anew.
        if let Some(tried) = watch.tried.lock().await.as_mut() {
            tried.at -= FRESH;
        }
        watch.log.close();
        assert_eq!(watch.check(Duration::from_secs(5)).await.log, Part::Fails(AppendError::Closed.to_string()));
    }
}
