//! How far endpoints were told of what the log holds, noted in the log from time to time: a store that is made anew knows
//! by it which events are news, and which of the earlier ones were still waiting.
//!
//! What was told since the last note is told again then: that of the last [`EVERY`], or more where over [`MOST_OPEN`]
//! events of one endpoint wait.

use super::{Webhooks, aside};
use crate::settings::Progress;
use crate::store::{self, Store, StoreError};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Between two notes.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// Events of one endpoint that wait and are named in a note. Of more, the note before stands.
const MOST_OPEN: usize = 100;
/// Those of all endpoints together.
const MOST_IN_ALL: usize = 2_000;

/// Notes progress, at most once in [`EVERY`].
pub(super) struct Noting {
    last: Option<Instant>,
    /// Something was recorded for endpoints since, or may have been. Else there is nothing to note: a note is a record of
    /// the log itself.
    pub news: bool,
}

impl Default for Noting {
    fn default() -> Self {
        Self { last: None, news: true }
    }
}

impl Noting {
    /// Takes a note if it is time for one, or at once.
    pub async fn turn(&mut self, webhooks: &Webhooks, at_once: bool) {
        if !at_once && self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        if webhooks.ops.settings.snapshot().webhooks.is_empty() {
            return;
        }
        let Some(store) = webhooks.ops.store.load_full() else { return };
        let settings = &webhooks.ops.settings;
        let before = settings.progress();
        let endpoints: Vec<Uuid> = settings.snapshot().webhooks.keys().copied().collect();
        let (earlier, news) = (before.clone(), self.news);
        let next = match aside(move || progress(&store, &endpoints, earlier.as_deref())).await {
            Ok(next) => next,
            Err(e) => return tracing::warn!("how far webhooks were told cannot be looked up: {e}"),
        };
        let Some(next) = next else { return };
        let is_new = |before: &Progress| before.open != next.open || before.behind != next.behind;
        if !news && !before.as_deref().is_none_or(is_new) {
            return;
        }
        match settings.note_progress(next) {
            Ok(()) => self.news = false,
            Err(e) => tracing::warn!("how far webhooks were told cannot be noted: {e}"),
        }
    }
}

/// How far it is; `None` while the store is still being made anew: then what was noted before it was lost stands.
fn progress(store: &Store, endpoints: &[Uuid], before: Option<&Progress>) -> Result<Option<Progress>, StoreError> {
    // Asked first: what is recorded meanwhile waits, and is told again at worst.
    let Some(mark) = store.counted()? else { return Ok(None) };
    if before.is_some_and(|before| mark < before.mark) {
        return Ok(None);
    }
    let mut next = Progress { mark, open: BTreeMap::new(), behind: BTreeMap::new() };
    let mut left = MOST_IN_ALL;
    for id in endpoints {
        let most = MOST_OPEN.min(left);
        let mut open = store::open_deliveries(store, *id, most + 1)?;
        if open.len() > most
            && let Some(before) = before
        {
            let (mark, open) = before.of(*id);
            next.behind.insert(*id, (mark, open.to_vec()));
            continue;
        }
        open.truncate(most);
        left -= open.len();
        if !open.is_empty() {
            next.open.insert(*id, open);
        }
    }
    Ok(Some(next))
}
