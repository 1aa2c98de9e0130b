//! Freeing what lies before a place at somebody's wish, however small the log is: bodies and addresses of people whom the
//! history has to forget. What of it is live is written again, as always; mail in the queue stays until it is settled.

use super::writer::Writer;
use super::{Cursor, Log, locked};
use std::time::{Duration, Instant};

/// Each wish writes all again that is live, so they are gathered for so long after one was seen to.
const GATHER: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 600 });

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The last segment that is to be freed.
    through: Option<u64>,
    /// A wish that is seen to once others have had time to join it.
    next: Option<u64>,
    /// When a wish was last seen to.
    since: Option<Instant>,
}

impl Log {
    /// Has the next compaction free all that lies before the cursor, as soon as the reader has it and something is written
    /// behind it. Wishes are gathered: that takes ten minutes where there was one just before.
    pub fn compact_before(&self, cursor: Cursor) {
        let mut asked = locked(&self.0.shared.asked);
        asked.next = asked.next.max(Some(cursor.segment));
    }
}

impl Asked {
    pub fn through(&self) -> Option<u64> {
        self.through
    }
}

impl Writer {
    /// Sees to a wish whose time has come: what it is about must not lie in the segment that is written.
    pub fn see_to_wishes(&mut self) {
        let wish = {
            let mut asked = locked(&self.shared.asked);
            let is_time = asked.since.is_none_or(|since| since.elapsed() >= GATHER);
            let Some(wish) = asked.next.filter(|_| is_time) else { return };
            (asked.next, asked.since) = (None, Some(Instant::now()));
            asked.through = asked.through.max(Some(wish));
            wish
        };
        let newest = self.shared.index().segments.last_key_value().map(|(newest, _)| *newest);
        if newest.is_some_and(|newest| newest <= wish) {
            locked(self.shared.tail.get().expect("the tail is there before the writer is")).retire = true;
        }
    }
}
