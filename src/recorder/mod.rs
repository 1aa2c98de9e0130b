//! Folds the log into the store: one row a message when it settles, or after two seconds if it has not, and again on
//! later changes; rows of hits; and a stream of events for those who watch.
//!
//! The cursor that goes with each batch lies before the first record whose row is not written yet. After a crash the
//! records behind it are folded again, and since every row's key comes from the record, that changes nothing. The
//! log frees segments only behind the cursor.
//!
//! A store that does not open takes history away, and nothing else: this module then goes on folding for those who
//! watch, and tries again to open it.

mod erased;
#[cfg(test)]
mod faults;
mod fold;
mod known;
mod messages;
#[cfg(test)]
mod model;
mod news;
mod people;
mod records;
mod share;
mod shrink;
mod sums;
mod sweep;
#[cfg(test)]
mod tests;
mod today;
mod waiting;

use crate::clock;
use crate::event::{Event, MachineList};
use crate::mail::Address;
use crate::ops::Forget;
use crate::spool::Log;
use crate::store::MaybeStore;
use crate::supervise;
use arc_swap::ArcSwap;
use fold::Fold;
pub use messages::Limits;
pub use news::Webhooks;
use shrink::Shrink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use sweep::Sweep;
use tokio::sync::{broadcast, mpsc, watch};

const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// Records of the log that are read at once.
const READ_RECORDS: usize = 2_000;
/// Without anything to do.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Pauses before a store that failed is opened again: twice as long each time, until one commit succeeds.
const REOPEN_FIRST: Duration = Duration::from_secs(1);
const REOPEN_LAST: Duration = Duration::from_secs(60);
/// What the recorder needs; made once.
pub struct Recorder {
    pub data_dir: PathBuf,
    pub log: Log,
    /// Set while the view is open, for those who read it.
    pub store: MaybeStore,
    pub events: broadcast::Sender<Arc<Event>>,
    /// May be swapped.
    pub machines: Arc<ArcSwap<MachineList>>,
    /// Who gets untracked copies of a domain's mail, and whose hits are not recorded: excluded and opted out.
    pub left_alone: LeftAlone,
    pub webhooks: Webhooks,
    /// May be swapped.
    pub keeping: Arc<ArcSwap<Keeping>>,
    pub limits: Limits,
    /// What others want forgotten.
    pub asked: mpsc::Receiver<Forget>,
}

/// Whether a recipient is left alone in the mail of a sender domain.
pub type LeftAlone = Box<dyn Fn(&str, &Address) -> bool + Send + Sync>;

/// How long what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Messages, events and counts.
    pub all: Duration,
    /// Addresses and user agents of hits; zero: not at all.
    pub traces: Duration,
    /// Bytes that the view may take on disk before its oldest part goes.
    pub size: u64,
}

/// Folds until `stop` says so, then writes what it has.
pub async fn run(mut recorder: Recorder, mut stop: watch::Receiver<bool>) {
    let (_, nothing) = mpsc::channel(1);
    let mut asked = std::mem::replace(&mut recorder.asked, nothing);
    let mut turns = supervise::Turns::new("recorder");
    while let Err(panic) = supervise::caught(follow(&recorder, &mut asked, &mut stop)).await {
        // The next turn opens it once nobody reads it any more, and goes on behind what was committed.
        recorder.store.store(None);
        if turns.pause(&panic, &mut stop).await {
            return;
        }
    }
}

async fn follow(recorder: &Recorder, asked: &mut mpsc::Receiver<Forget>, stop: &mut watch::Receiver<bool>) {
    let mut sweep = Sweep::default();
    let mut shrink = Shrink::default();
    let mut fold = Fold::new(recorder);
    let mut opened = fold.open().await;
    loop {
        supervise::failpoint("recorder", recorder.data_dir.to_str().unwrap_or_default());
        let end = recorder.log.end();
        let batch = match recorder.log.read(fold.cursor, READ_RECORDS) {
            Ok(batch) => batch,
            Err(e) => {
                tracing::error!("the log cannot be read for the record: {e}");
                if paused(stop, LOOK_EVERY).await {
                    break;
                }
                continue;
            }
        };
        if batch.lost {
            tracing::error!("history was given up: the log had to free what was not recorded yet");
            metrics::counter!("trackpost_history_lost_total").increment(1);
        }
        let idle = batch.next == fold.cursor;
        let now = clock::steady_ms();
        if fold.take_all(batch, now).await && fold.cursor >= end {
            fold.give_up_waiting(now).await;
        }
        if fold.commit_is_due(now) {
            fold.commit(now, false).await;
        }
        if fold.store().is_none() && opened.elapsed() > fold.reopen_after {
            fold.reopen_after = (fold.reopen_after * 2).min(REOPEN_LAST);
            opened = fold.open().await;
        }
        if shrink.look(&mut fold).await {
            opened = fold.open().await;
        }
        while let Ok(forget) = asked.try_recv() {
            fold.forget_recipient(forget).await;
        }
        let more_to_sweep = idle && !*stop.borrow() && sweep.turn(&mut fold, clock::unix_ms()).await;
        if *stop.borrow() && idle {
            break;
        }
        if idle && !more_to_sweep {
            // Wakes for something new, or to write what waits.
            let pause = match (fold.store(), fold.is_clean()) {
                (None, _) => fold.reopen_after.saturating_sub(opened.elapsed()).max(COMMIT_EVERY).min(LOOK_EVERY),
                (Some(_), true) => LOOK_EVERY,
                (Some(_), false) => COMMIT_EVERY,
            };
            // What somebody wants forgotten is only received here: this future may be dropped at any moment.
            let mut wanted = None;
            let _ = tokio::time::timeout(pause, async {
                tokio::select! {
                    () = recorder.log.wait_for(fold.cursor) => {}
                    _ = stop.changed() => {}
                    Some(forget) = asked.recv() => wanted = Some(forget),
                }
            })
            .await;
            if let Some(forget) = wanted {
                fold.forget_recipient(forget).await;
            }
            // A little more may come with it; folding many records at once costs less.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    fold.commit(clock::steady_ms(), true).await;
}

async fn paused(stop: &mut watch::Receiver<bool>, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok()
}
