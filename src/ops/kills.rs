//! The kill list.

use super::{OpError, Ops};
use crate::clock;
use crate::kill::{Kill, KillKind, Killed};
use crate::settings::Change;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use uuid::Uuid;

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillView {
    /// Sorts by time.
    pub id: Uuid,
    pub kind: KillKind,
    /// The id of a message, a destination, a domain in A-labels.
    pub value: String,
    /// Milliseconds since 1970.
    pub created_at: u64,
}

/// Switches links off, from now on. What is off already keeps its entry.
pub async fn kill_add(ops: &Ops, kind: KillKind, value: &str) -> Result<KillView, OpError> {
    let kill = Kill::parse(kind, value)?;
    let (id, now) = (Uuid::from_bytes(*clock::queue_id().as_bytes()), clock::unix_ms());
    let added = ops.settings.change(|settings| {
        if let Some(killed) = settings.kills.get(&kill) {
            return Ok((vec![], view(&kill, killed)));
        }
        settings.kills.takes(&kill)?;
        let killed = Killed { id, added_at: now };
        let seen = view(&kill, killed);
        Ok::<_, OpError>((vec![Change::Kill(kill, killed)], seen))
    });
    added.await
}

/// Lets links redirect again.
pub async fn kill_remove(ops: &Ops, kind: KillKind, value: &str) -> Result<KillView, OpError> {
    let kill = Kill::parse(kind, value)?;
    let removed = ops.settings.change(|settings| {
        let killed = settings.kills.get(&kill).ok_or(OpError::NotKilled)?;
        let seen = view(&kill, killed);
        Ok((vec![Change::DropKill(kill)], seen))
    });
    removed.await
}

/// The same, by the id of the entry.
pub async fn kill_delete(ops: &Ops, id: Uuid) -> Result<(), OpError> {
    let removed = ops.settings.change(|settings| {
        let found = settings.kills.iter().find(|(_, killed)| killed.id == id);
        let (kill, _) = found.ok_or(OpError::NotKilled)?;
        Ok((vec![Change::DropKill(kill)], ()))
    });
    removed.await
}

/// All entries, the newest first.
pub fn kill_list(ops: &Ops) -> Vec<KillView> {
    let settings = ops.settings.snapshot();
    let mut all: Vec<_> = settings.kills.iter().map(|(kill, killed)| view(&kill, killed)).collect();
    all.sort_unstable_by_key(|kill| Reverse(kill.id));
    all
}

fn view(kill: &Kill, killed: Killed) -> KillView {
    KillView { id: killed.id, kind: kill.kind(), value: kill.value(), created_at: killed.added_at }
}
