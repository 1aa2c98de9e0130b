//! How far webhooks were told of what the log holds.

use super::Settings;
use crate::spool::{AppendError, Cursor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// The key of the note.
pub const PROGRESS: &str = "webhook-progress";

/// How far webhooks were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The last record of the log whose events were told, or are named here.
    pub mark: Cursor,
    /// By the endpoint: the ids of earlier events that were still waiting.
    pub open: BTreeMap<Uuid, Vec<String>>,
    /// Endpoints for which more waits than is named: how far they were before that.
    pub behind: BTreeMap<Uuid, (Cursor, Vec<String>)>,
}

impl Progress {
    /// How far one endpoint is, and what waits for it beside that.
    pub fn of(&self, endpoint: Uuid) -> (Cursor, &[String]) {
        match self.behind.get(&endpoint) {
            Some((mark, open)) => (*mark, open),
            None => (self.mark, self.open.get(&endpoint).map_or(&[], Vec::as_slice)),
        }
    }

    /// Whether an endpoint is still to be told of an event that the record at `place` brought.
    pub fn owes(&self, endpoint: Uuid, place: Cursor, id: &str) -> bool {
        let (mark, open) = self.of(endpoint);
        place > mark || open.iter().any(|open| open == id)
    }
}

impl Settings {
    /// What was noted last; `None` before the first note.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        self.held.beside.progress.load_full()
    }

    /// Where the log begins, everything that comes is owed, also what comes before the view is made.
    pub fn note_beginning(&self, records: u64) {
        if records == 0
            && let Err(e) = self.note_progress(Progress::default())
        {
            tracing::warn!("that webhooks have been told nothing yet cannot be noted: {e}");
        }
    }

    /// Notes how far webhooks were told. Nobody waits for it.
    pub fn note_progress(&self, progress: Progress) -> Result<(), AppendError> {
        let value = serde_json::to_vec(&progress).expect("numbers and strings always serialise");
        self.note_soon(PROGRESS, value.into())?;
        self.held.beside.progress.store(Some(Arc::new(progress)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_is_still_to_be_told() {
        let place = |offset| Cursor { segment: 2, offset };
        let [ahead, waits, behind] = [1, 2, 3].map(Uuid::from_u128);
        let progress = Progress {
            mark: place(100),
            open: [(waits, vec!["msg_a".to_owned()])].into(),
            behind: [(behind, (place(50), vec!["msg_b".to_owned()]))].into(),
        };
        for (endpoint, at, id, owes) in [
            (ahead, 100, "msg_a", false),
            (ahead, 101, "msg_c", true),
            (waits, 40, "msg_a", true),
            (waits, 40, "msg_b", false),
            (behind, 40, "msg_b", true),
            (behind, 60, "msg_c", true),
            (behind, 50, "msg_c", false),
        ] {
            assert_eq!(progress.owes(endpoint, place(at), id), owes, "{endpoint} {at} {id}");
        }
        let text = serde_json::to_vec(&progress).unwrap();
        assert_eq!(serde_json::from_slice::<Progress>(&text).unwrap(), progress);
    }
}
