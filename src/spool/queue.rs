//! Between those who append and the writer's thread: a list under a lock, and the future of one entry.

use super::record::Encoded;
use super::stuck::Stuck;
use super::{AppendError, locked};
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What becomes of one appended entry: resolves after the fdatasync that covers it, or when that failed.
///
/// Dropping it changes nothing: the entry is written all the same.
#[derive(Debug)]
#[must_use = "an entry is durable only once this has resolved"]
pub struct Durable(Result<oneshot::Receiver<Result<(), AppendError>>, AppendError>);

impl Durable {
    pub(super) fn refused(error: AppendError) -> Self {
        Self(Err(error))
    }

    pub(super) fn waiting(answer: oneshot::Receiver<Result<(), AppendError>>) -> Self {
        Self(Ok(answer))
    }

    /// Blocks the thread until the entry is durable.
    ///
    /// # Panics
    /// On a thread that runs asynchronous tasks; await it there.
    pub fn wait(self) -> Result<(), AppendError> {
        self.0?.blocking_recv().unwrap_or(Err(AppendError::Closed))
    }
}

impl Future for Durable {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.0 {
            Ok(answer) => ready!(Pin::new(answer).poll(context)).unwrap_or(Err(AppendError::Closed)),
            Err(error) => Err(error.clone()),
        })
    }
}

/// Who waits for a record.
#[derive(Debug)]
pub(super) enum Want {
    /// Somebody waits: sync at once, and say how it went.
    Now(oneshot::Sender<Result<(), AppendError>>),
    /// Nobody waits; on failure it is kept and written later.
    Soon,
    /// A copy made by compaction; on failure it is dropped, since the original is still there.
    Copy,
}

#[derive(Debug)]
pub(super) struct Item {
    pub record: Encoded,
    pub want: Want,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    /// Told of the oldest entry for which nobody waits, under the lock.
    pub stuck: Stuck,
}

#[derive(Debug, Default)]
struct State {
    items: Vec<Item>,
    /// Somebody waits for one of the items.
    urgent: bool,
    /// When the first item came for which nobody waits.
    since: Option<Instant>,
    /// The writer has taken entries for which nobody waits, and not written all of them yet; when the first came.
    in_hand: Option<Instant>,
    closing: bool,
    /// The writer is to look again at when it must go on.
    woken: bool,
    /// The writer waits; without it there is nobody to wake.
    sleeping: bool,
}

impl Queue {
    pub fn push(&self, item: Item) -> Result<(), AppendError> {
        let mut state = locked(&self.state);
        if state.closing {
            return Err(AppendError::Closed);
        }
        let wake = match item.want {
            Want::Now(_) => !mem::replace(&mut state.urgent, true),
            Want::Soon | Want::Copy => state.since.is_none(),
        };
        if state.since.is_none() && !matches!(item.want, Want::Now(_)) {
            state.since = Some(Instant::now());
            self.stuck.waits(state.in_hand.or(state.since));
        }
        state.items.push(item);
        if wake && state.sleeping {
            drop(state);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits for something to do, and swaps what there is into `into`, which must be empty: at once when somebody
    /// waits for an item or the queue is closing, `linger` after the first item for which nobody does, and with or
    /// without items at `until`. True when the queue is closing, after which nothing more comes.
    pub fn take(&self, into: &mut Vec<Item>, until: impl Fn() -> Instant, linger: Duration) -> bool {
        let mut latest = until();
        let mut state = locked(&self.state);
        loop {
            if mem::take(&mut state.woken) {
                drop(state);
                latest = until();
                state = locked(&self.state);
            }
            let until = state.since.map_or(latest, |since| latest.min(since + linger));
            let left = until.saturating_duration_since(Instant::now());
            if state.urgent || state.closing || left.is_zero() {
                break;
            }
            state.sleeping = true;
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.sleeping = false;
        }
        mem::swap(&mut state.items, into);
        state.urgent = false;
        state.in_hand = state.since.take();
        state.closing
    }

    /// True when an entry for which nobody waits would overtake none by being written at once, and entries are taken
    /// at all. Asked while the tail is held, where the writer writes what it has in hand.
    pub fn nothing_to_overtake(&self) -> bool {
        let state = locked(&self.state);
        state.since.is_none() && state.in_hand.is_none() && !state.closing
    }

    /// The writer says that it has entries in hand, or, while it still holds the tail, that all of them are written.
    pub fn set_in_hand(&self, in_hand: bool) {
        let mut state = locked(&self.state);
        state.in_hand = in_hand.then(|| state.in_hand.unwrap_or_else(Instant::now));
        self.stuck.waits(state.in_hand.or(state.since));
    }

    /// True while the writer has entries in hand for which nobody waits.
    pub fn is_in_hand(&self) -> bool {
        locked(&self.state).in_hand.is_some()
    }

    /// Lets the writer look again at when it must go on.
    pub fn wake(&self) {
        let mut state = locked(&self.state);
        state.woken = true;
        if state.sleeping {
            drop(state);
            self.wake.notify_one();
        }
    }

    pub fn close(&self) {
        locked(&self.state).closing = true;
        self.wake.notify_one();
    }

    pub fn is_closing(&self) -> bool {
        locked(&self.state).closing
    }

    /// Closes and answers all that waits with `Closed`; for a writer that ends, in whatever way.
    pub fn abandon(&self) {
        let left = {
            let mut state = locked(&self.state);
            state.closing = true;
            mem::take(&mut state.items)
        };
        drop(left);
    }
}
