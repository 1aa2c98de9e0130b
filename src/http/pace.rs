//! Time-outs of a connection: [`Paced`] stands between the socket and hyper and fails reads and writes that take too
//! long.
//!
//! hyper's own header time-out makes and drops a timer for each request and covers neither idle connections apart
//! nor stalled writes. One timer a connection is enough: it is looked at only when the socket has nothing for us, and
//! set anew only when it fires or is set too late.

use super::Limits;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How many turns the connection has taken: odd while a request is being answered. The service side of the
/// connection counts, [`Paced`] reads; both run in one task.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<AtomicU32>);

/// While it lives, a request is being answered.
pub(super) struct Turn(Turns);

impl Turns {
    /// A request has come whole, and others may be on their way beside it: what was waited for is there.
    pub fn pass(&self) {
        self.0.fetch_add(2, Relaxed);
    }

    pub fn answering(&self) -> Turn {
        self.0.fetch_add(1, Relaxed);
        Turn(self.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Relaxed);
    }
}

pub(super) struct Paced<S> {
    inner: S,
    limits: Limits,
    turns: Turns,
    /// The turn for which `head_since` holds.
    seen: u32,
    /// When the first bytes of the request came that is not yet complete.
    head_since: Option<Instant>,
    /// When the connection was opened or something was last written to it.
    quiet_since: Instant,
    /// When a write first found the socket full.
    stalled: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<S> Paced<S> {
    pub fn new(inner: S, limits: Limits, turns: Turns) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + limits.idle_time));
        Self { inner, limits, turns, seen: 0, head_since: None, quiet_since: now, stalled: None, timer }
    }

    /// Ready once `deadline` has passed; until then the task will be woken at that time at the latest.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<io::Error> {
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    fn poll_written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            self.quiet_since = Instant::now();
            return result;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        self.poll_deadline(cx, since + self.limits.write_time).map(Err)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let turn = this.turns.0.load(Relaxed);
        if turn != this.seen {
            this.seen = turn;
            this.head_since = None;
        }
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.head_since.get_or_insert_with(Instant::now);
            return Poll::Ready(result);
        }
        let deadline = if turn % 2 == 1 {
            // The handler's time is its own, and bodies have theirs in `read_body`. But hyper, once told that there
            // is nothing to read, does not ask again when the answer is out: the timer must be set all the same, to
            // have the deadline looked at when the connection may be idle.
            Instant::now() + this.limits.idle_time
        } else {
            match this.head_since {
                Some(since) => since + this.limits.head_time,
                None => this.quiet_since + this.limits.idle_time,
            }
        };
        this.poll_deadline(cx, deadline).map(Err)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
