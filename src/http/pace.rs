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
    /// The turn for which `waiting` holds.
    seen: u32,
    waiting: Option<Waiting>,
    /// When a write first found the socket full.
    stalled: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// What a read waits for, and since when.
#[derive(Clone, Copy)]
enum Waiting {
    Request(Instant),
    RestOfHead(Instant),
}

impl<S> Paced<S> {
    pub fn new(inner: S, limits: Limits, turns: Turns) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + limits.idle_time));
        Self { inner, limits, turns, seen: 0, waiting: None, stalled: None, timer }
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
            this.waiting = None;
        }
        let answering = turn % 2 == 1;
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            if !matches!(this.waiting, Some(Waiting::RestOfHead(_))) {
                this.waiting = Some(Waiting::RestOfHead(Instant::now()));
            }
            return Poll::Ready(result);
        }
        if answering {
            // The handler's time is its own; bodies are read within a time by `read_body`.
            return Poll::Pending;
        }
        let deadline = match *this.waiting.get_or_insert_with(|| Waiting::Request(Instant::now())) {
            Waiting::Request(since) => since + this.limits.idle_time,
            Waiting::RestOfHead(since) => since + this.limits.head_time,
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
