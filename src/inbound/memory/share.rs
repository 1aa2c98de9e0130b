//! One session's side of the memory: what it holds, wants and gives back. While there is room for small messages,
//! nothing here takes a lock.

use super::policy::{Answer, Need};
use super::{
    GAVE_WAY, IDLE, KEPT, NoRoom, OPEN, PAGE, PATIENCE, PAUSES, PROGRESS, READ_AHEAD, SMALL_MESSAGE, Share, Waiter,
};
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

impl Share<'_> {
    /// Which key the client has shown.
    pub fn of_key(&self, key: Option<Uuid>) {
        // Two keys that fall together share a share.
        let name = key.map_or(0, |key| key.as_u64_pair().0 ^ key.as_u64_pair().1);
        self.holder.key.store(name, Ordering::Relaxed);
    }

    /// A message begins. It takes nothing before its first byte.
    pub fn begin(&self, declared: Option<u64>) {
        let expected = declared.filter(|size| *size > SMALL_MESSAGE).unwrap_or(0).min(self.memory.max_message);
        self.holder.expected.store(expected, Ordering::Relaxed);
    }

    /// Bytes that this session has received in all, for its pace.
    pub fn received(&self, bytes: u64) {
        if bytes.saturating_sub(self.holder.progress.load(Ordering::Relaxed)) >= PROGRESS {
            self.mark(bytes);
        }
    }

    pub(super) fn mark(&self, bytes: u64) {
        self.holder.progress.store(bytes, Ordering::Relaxed);
        self.holder.progress_at.store(self.memory.now(), Ordering::Relaxed);
    }

    /// True while the session may keep `bytes`, and takes what is missing of them, if there is room at once.
    /// `received` as in [`Self::received`].
    pub fn cover(&self, bytes: u64, received: u64) -> bool {
        let held = self.holder.held.load(Ordering::Relaxed);
        if bytes <= held {
            return true;
        }
        let fresh = held == 0;
        if fresh {
            self.mark(received);
        }
        let large = self.holder.large.load(Ordering::Relaxed);
        // Whether a large message may begin is not for this session alone to say.
        if self.is_large(bytes) != large || self.holder.gave_way() {
            return false;
        }
        let pool = self.memory.pool(large);
        let bytes = bytes.next_multiple_of(PAGE).min(pool.limits.room);
        let limit = if fresh { pool.limits.fresh_room } else { pool.limits.room };
        if fresh && pool.waiting.load(Ordering::SeqCst) > 0 || !pool.take(bytes.saturating_sub(held), limit) {
            return false;
        }
        self.holder.held.fetch_add(bytes.saturating_sub(held), Ordering::SeqCst);
        self.holder.open();
        true
    }

    /// Waits until [`Self::cover`] is true.
    pub async fn wait_for(&self, bytes: u64) -> Result<(), NoRoom> {
        let large = self.is_large(bytes);
        let bytes = bytes.next_multiple_of(PAGE).min(self.memory.pool(large).limits.room);
        if large && self.holder.expected.load(Ordering::Relaxed) == 0 {
            self.holder.expected.store(self.memory.max_message, Ordering::Relaxed);
        }
        let since = self.memory.now();
        self.holder.granted.store(false, Ordering::SeqCst);
        {
            let mut sessions = self.memory.sessions();
            sessions.waiting.push(Waiter { session: self.id, bytes, large, since });
            self.memory.count_waiting(&sessions);
        }
        let waiting = Waiting(self);
        let waited = tokio::time::timeout(PATIENCE, async {
            let mut pause = PAUSES.0;
            loop {
                self.memory.look(large);
                let _ = tokio::time::timeout(pause, poll_fn(|cx| self.poll_answer(cx))).await;
                if self.holder.gave_way() {
                    return Err(NoRoom);
                }
                if self.holder.granted.load(Ordering::SeqCst) {
                    return Ok(());
                }
                pause = (pause * 2).min(PAUSES.1);
            }
        });
        let answer = waited.await.unwrap_or(Err(NoRoom));
        drop(waiting);
        answer
    }

    fn poll_answer(&self, cx: &Context<'_>) -> Poll<()> {
        self.holder.waker.register(cx.waker());
        let answered = self.holder.granted.load(Ordering::SeqCst) || self.holder.gave_way();
        if answered { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Holds `bytes`, no more and no less. Where that is more than before and there is no room, others give way, or it
    /// is false.
    pub fn hold(&self, bytes: u64, received: u64) -> bool {
        let bytes = bytes.next_multiple_of(PAGE);
        let held = self.holder.held.load(Ordering::Relaxed);
        if bytes > held {
            return self.cover(bytes, received) || self.insist(bytes);
        }
        let large = self.holder.large.load(Ordering::Relaxed);
        let lowered = self.holder.held.compare_exchange(held, bytes, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if lowered && bytes < held {
            self.memory.pool(large).held.fetch_sub(held - bytes, Ordering::SeqCst);
            if bytes == 0 {
                let _ = self.holder.state.compare_exchange(OPEN, IDLE, Ordering::SeqCst, Ordering::SeqCst);
                self.holder.large.store(false, Ordering::SeqCst);
            }
            self.memory.gave_back(large);
        }
        !self.holder.gave_way()
    }

    /// Takes at once, if others can give way for it.
    fn insist(&self, bytes: u64) -> bool {
        let memory = self.memory;
        let large = self.holder.large.load(Ordering::Relaxed);
        let mut sessions = memory.sessions();
        if self.holder.gave_way() || sessions.looked_in_vain(large) {
            return false;
        }
        let (mut round, ids) = memory.round(&sessions, large, Some(self.id));
        let Some(session) = ids.iter().position(|id| *id == self.id) else { return false };
        match round.answer(&Need { session, bytes, waited: Duration::ZERO }) {
            Answer::Room(gone) => {
                gone.iter().for_each(|gone| memory.send_away(&mut sessions, ids[*gone]));
                memory.count_waiting(&sessions);
                memory.raise(&self.holder, bytes, large)
            }
            Answer::GivesWay | Answer::Waits => {
                sessions.in_vain[usize::from(large)] = Some(Instant::now());
                false
            }
        }
    }

    /// The message has come whole, and what is held for it stays until [`Self::release`]. False if it gave way.
    pub fn keep(&self) -> bool {
        self.holder.open();
        let state = &self.holder.state;
        state.compare_exchange(OPEN, KEPT, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Holds nothing any more, whatever was.
    pub fn release(&self) {
        if self.holder.state.swap(IDLE, Ordering::SeqCst) == GAVE_WAY {
            // Who took it may not have done so to the end.
            drop(self.memory.sessions());
        }
        let held = self.holder.held.swap(0, Ordering::SeqCst);
        let large = self.holder.large.swap(false, Ordering::SeqCst);
        self.holder.expected.store(0, Ordering::Relaxed);
        if held > 0 {
            self.memory.pool(large).held.fetch_sub(held, Ordering::SeqCst);
            self.memory.gave_back(large);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.holder.held.load(Ordering::Relaxed) == 0
    }

    /// What it held was taken back: it has to let go of everything, and [`Self::release`].
    pub fn gave_way(&self) -> bool {
        self.holder.gave_way()
    }

    /// Wakes the task when it has to give way.
    pub fn poll_gave_way(&self, cx: &Context<'_>) -> Poll<()> {
        self.holder.waker.register(cx.waker());
        if self.gave_way() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_large(&self, bytes: u64) -> bool {
        let holder = &self.holder;
        bytes > SMALL_MESSAGE + READ_AHEAD
            || holder.large.load(Ordering::Relaxed)
            || holder.expected.load(Ordering::Relaxed) > 0
    }
}

/// Takes a session out of those that wait, also when its future is dropped.
struct Waiting<'a>(&'a Share<'a>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Share { memory, id, holder } = self.0;
        let mut sessions = memory.sessions();
        if let Some(place) = sessions.waiting.iter().position(|w| w.session == *id) {
            let waiter = sessions.waiting.remove(place);
            holder.pardon(memory.now().saturating_sub(waiter.since));
            memory.count_waiting(&sessions);
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.release();
        self.memory.sessions().all.remove(&self.id);
    }
}
