//! The last that history can do for mail: where the disk stays full although the log has nothing more to give, the view
//! is made anew, whether it opens or not. sled uses its space again and gives none back, so forgetting rows would not
//! help. What the log still holds is folded into the new one. A view that was put aside as damaged goes before.

use super::fold::Fold;
use crate::store;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the disk must have been full, in which the log gives up what it can.
const PATIENCE: Duration = Duration::from_secs(15);
/// A smaller view is not what fills the disk.
const WORTH: u64 = 16 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Shrink {
    full_since: Option<Instant>,
}

impl Shrink {
    /// True when the view was removed, and is to be opened again.
    pub async fn look(&mut self, fold: &mut Fold<'_>) -> bool {
        if !fold.recorder.log.is_full() {
            self.full_since = None;
            return false;
        }
        if self.full_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            return false;
        }
        let dir = &fold.recorder.data_dir;
        if let Some(size) = store::size_aside(dir).filter(|size| *size >= WORTH) {
            self.full_since = None;
            tracing::error!(size, "the disk is full and no mail is taken: the damaged store that was put aside goes");
            let dir = dir.clone();
            let removed = tokio::task::spawn_blocking(move || store::remove_aside(&dir)).await;
            if let Ok(Err(e)) = removed {
                tracing::error!("the store that was put aside cannot be removed: {e}");
            }
            return false;
        }
        // Where others fill the disk, giving up history would not let mail in.
        let worth = WORTH.max(fold.recorder.log.stats().missing_bytes);
        let size = match fold.store() {
            Some(store) => store.size().ok(),
            None => store::size_unopened(dir),
        };
        let Some(size) = size.filter(|size| *size >= worth) else { return false };
        self.full_since = None;
        tracing::error!(
            size,
            "the disk is full and no mail is taken: the history is given up, but for what the log holds"
        );
        metrics::counter!("trackpost_history_lost_total").increment(1);
        if let Some(old) = fold.recorder.store.swap(None) {
            let old = Arc::downgrade(&old);
            // Who reads it now may finish.
            for _ in 0..100 {
                if old.strong_count() == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let dir = fold.recorder.data_dir.clone();
        let removed = tokio::task::spawn_blocking(move || store::remove(&dir)).await;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!("the history cannot be removed: {e}"),
            Err(e) => tracing::error!("removing the history was cut short: {e}"),
        }
        true
    }
}
