//! One connection: bytes to the session, its replies back, its events answered.

use super::memory::Share;
use super::{Inbound, Memory, Rules};
use crate::intake::Origin;
use crate::mail::{Enhanced, Reply};
use crate::smtp::{Event, Phase, Session};
use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

/// Bytes read at once. Shared by all connections of a thread, so that an idle one holds none.
const READ: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Talks until either side ends it.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    inbound: &Inbound,
    session: Session,
    stream: S,
    client: IpAddr,
    stop: watch::Receiver<bool>,
) {
    let rules = inbound.rules.load_full();
    let mut connection =
        Connection { inbound, rules, session, stream, client, share: None, declared: None, data_began: None };
    if let Err(e) = connection.talk(stop).await {
        tracing::debug!(%client, "connection lost: {e}");
    }
}

struct Connection<'a, S> {
    inbound: &'a Inbound,
    /// As they were when the connection began.
    rules: Arc<Rules>,
    session: Session,
    stream: S,
    client: IpAddr,
    /// Memory held for the message in DATA.
    share: Option<Share>,
    declared: Option<u64>,
    data_began: Option<Instant>,
}

enum Read {
    /// The stream's end.
    End,
    /// All bytes were taken, or an event came up with so many of them left over.
    Some(Option<Event>, Vec<u8>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn talk(&mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let mut stopping = false;
        loop {
            self.send().await?;
            if self.session.is_closed() {
                return self.stream.shutdown().await;
            }
            if stopping || *stop.borrow() {
                // Says 421 where nothing is under way; what is under way goes on.
                stopping = true;
                self.session.shutting_down();
                if self.session.is_closed() {
                    continue;
                }
            }
            let limit = self.time_limit();
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout(limit, read(&mut self.stream, &mut self.session)) => read,
                _ = stop.changed(), if !stopping => continue,
            };
            match read {
                Err(_) => self.session.timed_out(),
                Ok(Ok(Read::End)) => return Ok(()),
                Ok(Ok(Read::Some(event, rest))) => self.handle(event, rest).await?,
                Ok(Err(e)) => return Err(e),
            }
            if self.is_too_slow() {
                self.session.timed_out();
            }
        }
    }

    /// Answers events until the bytes that were read are used up.
    async fn handle(&mut self, event: Option<Event>, mut rest: Vec<u8>) -> io::Result<()> {
        let mut event = event;
        loop {
            match event {
                None => {}
                Some(Event::Data { declared }) => self.begin_data(declared).await?,
                Some(Event::Message { envelope, bytes }) => {
                    let origin =
                        Origin { helo: self.session.helo(), client: self.client, protocol: self.session.protocol() };
                    let reply = match self.inbound.intake.accept(envelope, bytes, origin).await {
                        Ok(id) => Reply::with_text(250, Enhanced(2, 0, 0), format!("Ok: queued as {id}")),
                        Err(refusal) => {
                            tracing::warn!(client = %self.client, "message refused: {refusal:?}");
                            refusal.reply()
                        }
                    };
                    self.share = None;
                    self.data_began = None;
                    self.session.message_answered(reply);
                }
                // Neither is offered yet, so the session brings neither up.
                Some(Event::StartTls | Event::Authenticate { .. } | Event::Close) => {
                    self.send().await?;
                    return self.stream.shutdown().await;
                }
            }
            if self.session.phase() == Phase::Data {
                self.make_room().await;
            } else if self.session.phase() == Phase::Command {
                // A message that was refused at its end gives its memory back here.
                self.share = None;
                self.session.set_mail_refusal(self.inbound.intake.refusal().map(|refusal| refusal.reply()));
            }
            if rest.is_empty() || self.session.is_closed() {
                return Ok(());
            }
            let (used, next) = self.session.input(&rest);
            rest.drain(..used);
            event = next;
        }
    }

    async fn begin_data(&mut self, declared: Option<u64>) -> io::Result<()> {
        // What was answered to the commands before must not wait for room.
        self.send().await?;
        match self.inbound.memory.reserve(declared).await {
            Ok(share) => {
                self.session.data_go_ahead();
                self.share = Some(share);
                self.declared = declared;
                self.data_began = Some(Instant::now());
            }
            Err(_) => self.session.data_refused(no_room()),
        }
        Ok(())
    }

    /// Holds memory for what may be read next.
    async fn make_room(&mut self) {
        let Some(share) = &mut self.share else { return };
        let next = self.session.data_len() + READ as u64;
        let enough =
            share.bytes() >= next.min(self.declared.unwrap_or(u64::MAX)) && self.session.data_len() <= share.bytes();
        if enough {
            return;
        }
        let memory: &Memory = &self.inbound.memory;
        if memory.cover(share, next, self.declared).await.is_err() {
            // The rest is read and dropped; the answer comes at its end.
            self.session.give_up_data(no_room());
            self.share = None;
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        if self.session.output().is_empty() {
            return Ok(());
        }
        let written =
            tokio::time::timeout(self.rules.timeouts.write, self.stream.write_all(self.session.output())).await;
        written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.session.output().clear();
        Ok(())
    }

    fn time_limit(&self) -> Duration {
        match self.session.phase() {
            Phase::Data => self.rules.timeouts.data_block,
            Phase::Command | Phase::Answering => self.rules.timeouts.command,
        }
    }

    fn is_too_slow(&self) -> bool {
        let Some(began) = self.data_began.filter(|_| self.session.phase() == Phase::Data) else { return false };
        self.rules.timeouts.is_too_slow(self.session.data_len(), began.elapsed())
    }
}

fn no_room() -> Reply {
    Reply::new(452, Enhanced(4, 3, 1), "Not enough memory for the message now, try again later")
}

/// Reads once, straight into the session.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, session: &mut Session) -> io::Result<Read> {
    std::future::poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return std::task::Poll::Ready(Ok(Read::End));
            }
            let (used, event) = session.input(bytes);
            std::task::Poll::Ready(Ok(Read::Some(event, bytes[used..].to_vec())))
        })
    })
    .await
}
