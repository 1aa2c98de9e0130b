//! One connection: bytes to the session, its replies back, its events answered.

use super::auth::Verdict;
use super::memory::{READ_AHEAD, Share};
use super::stream::Stream;
use super::{Encryption, Inbound, Rules, Terms, counted_as};
use crate::intake::{Login, Origin};
use crate::mail::{Enhanced, Reply};
use crate::smtp::{Event, Phase, Session};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

/// Bytes read at once. Shared by all connections of a thread, so that an idle one holds none.
const READ: usize = 64 * 1024;
/// Bytes that a session may keep without asking: names, a short line, an envelope as most are.
const OWN: usize = 2 * 1024;
/// The buffer for replies is given back when it has grown larger than this.
const REPLIES: usize = 1024;

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
        share: inbound.memory.share(counted_as(client)),
        received: 0,
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
    /// Memory held for what the client has sent.
    share: Share<'a>,
    /// Bytes received since the connection began.
    received: u64,
    data_began: Option<Instant>,
    /// The line that has begun, and since when.
    line_began: Option<(u64, Instant)>,
}

enum Read {
    /// The stream's end.
    End,
    /// All bytes were taken, or an event came up with so many of them left over.
    Some(Option<Event>, Vec<u8>),
    /// What the session holds is needed elsewhere, or it finds no room for more.
    GiveWay,
    /// There are bytes, and there is no room for them yet.
    NoRoom(u64),
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
                read = tokio::time::timeout(limit, self.read()) => read,
                _ = stop.changed(), if !stopping => continue,
            };
            match read {
                Err(_) => self.session.timed_out(),
                Ok(Ok(Read::End)) => return Ok(()),
                Ok(Ok(Read::Some(event, rest))) => self.handle(event, rest).await?,
                Ok(Ok(Read::GiveWay | Read::NoRoom(_))) => self.give_way(),
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
            let message = if let Some(Event::Message { bytes, .. }) = &event { bytes.len() } else { 0 };
            let has_room = self.count(message + rest.len());
            match event {
                Some(Event::Message { .. }) if !self.share.keep() => {
                    self.note_given_way();
                    self.data_began = None;
                    self.session.message_answered(no_room());
                }
                Some(Event::Data { .. }) if !has_room => {
                    self.note_given_way();
                    self.session.data_refused(no_room());
                }
                _ if !has_room => self.give_way(),
                None => {}
                Some(Event::Data { declared }) => {
                    self.session.data_go_ahead();
                    self.share.begin(declared);
                    self.data_began = Some(Instant::now());
                }
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
                    self.share.release();
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
                    self.share.of_key(None);
                }
                Some(Event::Authenticate { password, .. }) => {
                    match self.inbound.authenticator.check(counted_as(self.client), password).await {
                        Verdict::Right(login) => {
                            self.share.of_key(Some(login.key));
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
            if self.session.phase() == Phase::Command {
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

    /// Counts what the session holds, and `more` that came out of it. False where there is no room for it.
    fn count(&self, more: usize) -> bool {
        let bytes = (self.session.memory() + more).saturating_sub(OWN) as u64;
        self.share.received(self.received);
        bytes == 0 && self.share.is_empty() || self.share.hold(bytes, self.received)
    }

    /// Lets go of what the client has sent: the message, or the recipients, or the connection, in this order.
    fn give_way(&mut self) {
        self.note_given_way();
        if self.session.phase() == Phase::Data {
            // The rest is read and dropped; the answer comes at its end.
            self.session.give_up_data(no_room());
        } else if self.session.phase() == Phase::Answering || !self.session.give_up_mail(no_room()) {
            self.session.refuse(Reply::new(421, Enhanced(4, 3, 2), "Not enough memory now, try again later"));
        }
    }

    fn note_given_way(&self) {
        self.share.release();
        tracing::info!(client = %self.client, "memory is short, and this session gives way");
    }

    async fn send(&mut self) -> io::Result<()> {
        if self.session.output().is_empty() {
            return Ok(());
        }
        let (stream, share) = (&mut self.stream, &self.share);
        let output = self.session.output();
        let written = tokio::time::timeout(self.rules.timeouts.write, async {
            if share.is_empty() && !share.gave_way() {
                return stream.write_all(output).await;
            }
            tokio::select! {
                written = stream.write_all(output) => written,
                // A client that does not read what it is told cannot be told this.
                () = poll_fn(|cx| share.poll_gave_way(cx)) => Err(io::Error::other("memory is short")),
            }
        });
        written.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        output.clear();
        if output.capacity() > REPLIES {
            *output = Vec::new();
        }
        if !self.share.is_empty() {
            self.count(0);
        }
        Ok(())
    }

    /// Reads once, straight into the session. A message is read as far as there is room for it.
    async fn read(&mut self) -> io::Result<Read> {
        loop {
            let read = poll_fn(|cx| self.poll_read(cx)).await?;
            let Read::NoRoom(bytes) = read else { return Ok(read) };
            let began = Instant::now();
            let found = self.share.wait_for(bytes).await;
            // The client's pace is not measured while we let it wait.
            self.data_began = self.data_began.map(|data_began| data_began + began.elapsed());
            if found.is_err() {
                return Ok(Read::GiveWay);
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
        if self.share.gave_way() || !self.share.is_empty() && self.share.poll_gave_way(cx).is_ready() {
            return Poll::Ready(Ok(Read::GiveWay));
        }
        if self.session.keeps_data() {
            ready!(self.stream.poll_readable(cx))?;
            let bytes = self.room_needed();
            if !self.share.cover(bytes, self.received) {
                return Poll::Ready(Ok(Read::NoRoom(bytes)));
            }
        }
        let read = BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(Read::End));
            }
            self.received += bytes.len() as u64;
            self.session.set_mail_refusal(self.inbound.intake.refusal().map(|refusal| refusal.reply()));
            let (used, event) = self.session.input(bytes);
            Poll::Ready(Ok(Read::Some(event, bytes[used..].to_vec())))
        });
        if read.is_pending() && self.session.phase() == Phase::Data {
            // Nothing had come, or inside TLS less than a record.
            self.count(0);
        }
        read
    }

    /// For what the session holds and what one read may bring.
    fn room_needed(&self) -> u64 {
        let held = self.session.memory().saturating_sub(OWN) as u64;
        let ahead = match self.session.declared() {
            // Its end, and the first command behind it, are read with it.
            Some(size) => size.saturating_sub(self.session.data_len()).saturating_add(OWN as u64).min(READ_AHEAD),
            None => READ_AHEAD,
        };
        held + ahead
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
