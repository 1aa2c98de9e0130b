//! Whether the relay works, found by trying: a record written to the log and synced, a row read from the store.
//!
//! Asked by systemd's watchdog and by whoever looks at `/readyz`. A full disk is no reason for a restart, and neither is
//! a store that does not open: mail goes on, and waits, without both. What hangs is one.

use crate::queue::Queue;
use crate::spool::{AppendError, Entry, Log};
use crate::store::MaybeStore;
use std::time::Duration;

/// What was found.
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

/// Whether mail makes progress, found by looking alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub log: Motion,
    pub delivery: Motion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Motion {
    Moves,
    /// For a reason that is not ours: the operator, the smarthost.
    Waits(String),
    Stands(String),
}

impl Progress {
    /// Nothing stands still that is to move.
    pub fn is_well(&self) -> bool {
        let stands = |motion: &Motion| matches!(motion, Motion::Stands(_));
        !stands(&self.log) && !stands(&self.delivery)
    }
}

/// Looks at log and queue, without a disk.
pub fn progress(log: &Log, queue: &Queue) -> Progress {
    if let Some(stuck) = log.stuck_for() {
        let since = format!("outcomes of deliveries cannot be written for {} s", stuck.as_secs());
        let delivery = format!("stands still for {} s: the log cannot be written", stuck.as_secs());
        return Progress { log: Motion::Stands(since), delivery: Motion::Stands(delivery) };
    }
    let delivery = match queue.unreachable() {
        _ if queue.is_held() => Motion::Waits("the queue is held".to_owned()),
        Some(down) => Motion::Waits(format!("the smarthost cannot be reached: {}", down.why)),
        None => Motion::Moves,
    };
    Progress { log: Motion::Moves, delivery }
}

/// Tries both, each for as long as `patience`.
pub async fn check(log: &Log, store: &MaybeStore, patience: Duration) -> Health {
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
