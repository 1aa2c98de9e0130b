//! One connection: bytes to the session, its replies back, its events answered.

use super::auth::Verdict;
use super::memory::Share;
use super::stream::Stream;
use super::{Encryption, Inbound, Memory, Rules, Terms, counted_as};
use crate::intake::{Login, Origin};
use crate::mail::{Enhanced, Reply};
use crate::smtp::{Event, Phase, Session};
use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

/// Bytes read at once. Shared by all connections of a thread, so that an idle one holds none.
const READ: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Talks until either side ends it.
pub async fn run(
    inbound: &Inbound,
    terms: &Terms,
    session: Session,
    stream: Stream,
    client: IpAddr,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let rules = inbound.rules.load_full();
    let mut connection = Connection {
        inbound,
        terms,
        rules,
        session,
        stream,
        client,
        login: None,
        share: None,
        declared: None,
        data_began: None,
        line_began: None,
    };
    connection.talk(stop).await
}

struct Connection<'a> {
    inbound: &'a Inbound,
    terms: &'a Terms,
    /// As they were when the connection began.
    rules: Arc<Rules>,
    session: Session,
    stream: Stream,
    client: IpAddr,
    /// Whose key the client has shown.
    login: Option<Login>,
    /// Memory held for the message in DATA.
    share: Option<Share>,
    declared: Option<u64>,
    data_began: Option<Instant>,
    /// The line that has begun, and since when.
    line_began: Option<(u64, Instant)>,
}

enum Read {
    /// The stream's end.
    End,
    /// All bytes were taken, or an event came up with so many of them left over.
    Some(Option<Event>, Vec<u8>),
}

impl Connection<'_> {
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
                read = tokio::time::timeout(limit, read(&mut self.stream, &mut self.session, self.inbound)) => read,
                _ = stop.changed(), if !stopping => continue,
            };
            match read {
                Err(_) => self.session.timed_out(),
                Ok(Ok(Read::End)) => return Ok(()),
                Ok(Ok(Read::Some(event, rest))) => self.handle(event, rest).await?,
                Ok(Err(e)) => return Err(e),
            }
            self.note_line();
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
                    let origin = Origin {
                        helo: self.session.helo(),
                        client: self.client,
                        protocol: self.session.protocol(),
                        login: self.login.as_ref(),
                        role: self.terms.role,
                        mail_from: self.terms.mail_from,
                    };
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
                Some(Event::StartTls) => {
                    self.send().await?;
                    // The session brings this up only where it is offered.
                    let Encryption::StartTls(tls) = &self.terms.encryption else {
                        return Err(io::Error::other("STARTTLS without a certificate"));
                    };
                    self.stream.start_tls(tls.current(), self.rules.timeouts.handshake).await?;
                    self.session.tls_started();
                    self.login = None;
                }
                Some(Event::Authenticate { password, .. }) => {
                    match self.inbound.authenticator.check(counted_as(self.client), password).await {
                        Verdict::Right(login) => {
                            self.login = Some(login);
                            self.session.auth_ok();
                        }
                        Verdict::Wrong => self.session.auth_failed(),
                        Verdict::Unknown => self.session.auth_unavailable(),
                    }
                }
                Some(Event::Close) => {
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
            if used == 0 && next.is_none() {
                // The session waits for an answer that is not coming. It would wait for ever.
                return Err(io::Error::other("the session takes nothing more"));
            }
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
            Phase::Command | Phase::Answering => match self.line_began {
                Some((_, began)) => self.rules.timeouts.line.saturating_sub(began.elapsed()),
                None => self.rules.timeouts.command,
            },
        }
    }

    /// A line that comes byte by byte has one time for all of it.
    fn note_line(&mut self) {
        let begun = self.session.begun_line();
        if self.line_began.map(|(line, _)| line) != begun {
            self.line_began = begun.map(|line| (line, Instant::now()));
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
async fn read(stream: &mut Stream, session: &mut Session, inbound: &Inbound) -> io::Result<Read> {
    std::future::poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return std::task::Poll::Ready(Ok(Read::End));
            }
            session.set_mail_refusal(inbound.intake.refusal().map(|refusal| refusal.reply()));
            let (used, event) = session.input(bytes);
            std::task::Poll::Ready(Ok(Read::Some(event, bytes[used..].to_vec())))
        })
    })
    .await
}
