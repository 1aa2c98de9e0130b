//! One attempt at one message: the plan, a copy per recipient, the transactions, the outcomes.

use super::fit::{UNREADABLE, refusal_of};
use super::held::Held;
use super::letter::Letter;
use super::outcomes::cut;
use super::route::Route;
use super::sign::{Signer, refusal};
use super::{Broken, Connection, OpenErrorKind, Outbound, Phase, Transaction, head};
use crate::clock;
use crate::mail::{Outcome, QueueId, Recipient, Reply, Status};
use crate::mime::header_needs_utf8;
use crate::queue::{Attempt, Due, HOT_MESSAGE, Hot};
use crate::rewrite::{OffReason, Plan, Tracking, plan};
use crate::spool::{BodyError, MessageHead};
use crate::supervise;
use crate::token::HostSigner;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// How an attempt ended, apart from the outcomes that it wrote.
pub enum Ended {
    Done,
    /// No connection could be had; the text says why.
    Unreachable(String),
}

/// Why a message is tried again whose attempt panicked. What the panic said is in the server's log.
pub const INTERNAL_ERROR: &str = "internal error: the attempt ended before it was done, and is made again";
/// Recipients of one transaction where their copies are the same.
const SHARED_RECIPIENTS: usize = 100;
/// Connections that may break one after the other before the rest of the recipients waits.
const MOST_BREAKS: u32 = 3;

/// Tries every recipient that is due. A connection that is no longer fit is dropped and, where needed, made anew.
pub async fn attempt(outbound: &Outbound, job: Attempt, connection: &mut Option<Connection>) -> Ended {
    if let Some(old) = connection.take_if(|c| !outbound.may_use(c)) {
        old.quit().await;
    }
    if connection.is_none() {
        *connection = match outbound.connect().await {
            Ok(opened) => Some(opened),
            // The log has the message, and nothing was said about it.
            Err(e) if e.kind == OpenErrorKind::Stopping => return Ended::Done,
            Err(e) => return unreachable(outbound, job, e.to_string()).await,
        };
    }
    let Attempt { id, due, hot } = job;
    let (head, body) = match hot {
        Some(Hot { head, body }) => (head, Some(body)),
        None => match head::stored(outbound, id, true).await {
            Ok(found) => found,
            Err(e) => return head::give_up(outbound, &id, &due, &e),
        },
    };
    // As it came, its copy, and that with a signature before it.
    let signs = outbound.routes.of(&head).dkim.is_some();
    let _room = outbound.room_for(head.size, if signs { 3 } else { 2 }).await;
    let mut run = Run::new(outbound, id, head);
    let body = match body {
        Some(body) => Ok(body),
        None => run.stored_body().await,
    };
    match body {
        Ok(body) => {
            run.deliver(body.clone(), due, connection).await;
            run.close(Some(&body)).await;
        }
        Err(e) => {
            run.body_failed(&e, &due);
            run.close(Some(&Bytes::new())).await;
        }
    }
    outbound.queue.finish(&run.id, Some(&run.head), clock::steady_ms());
    match run.no_connection {
        Some(why) if run.stranded => Ended::Unreachable(why),
        _ => Ended::Done,
    }
}

/// Defers what was to be tried, so that its age and the reason are on record; it is due again as soon as the
/// smarthost answers.
async fn unreachable(outbound: &Outbound, job: Attempt, why: String) -> Ended {
    let Attempt { id, due, hot } = job;
    let head = match hot {
        Some(hot) => hot.head,
        None => match head::stored(outbound, id, false).await {
            Ok((head, _)) => head,
            Err(e) => return head::give_up(outbound, &id, &due, &e),
        },
    };
    let mut run = Run::new(outbound, id, head);
    run.stranded = true;
    run.no_connection = Some(why.clone());
    run.put_off_all(&due);
    run.close(None).await;
    outbound.queue.finish(&id, Some(&run.head), clock::steady_ms());
    Ended::Unreachable(why)
}

/// Notes a failed probe for every message that is due: the smarthost was tried for all of them. Of a long queue as many
/// as there is time for until the next probe, or until the relay stops; the others come after that.
pub async fn put_off_due(outbound: &Outbound, why: &str, until: Instant, stop: &watch::Receiver<bool>) {
    let mut count = 0u32;
    loop {
        let now = clock::steady_ms();
        let next = outbound.queue.wake_due(now);
        while let Some(job) = outbound.queue.take_stranded(clock::steady_ms()) {
            let held = Held::new(outbound, job.id);
            match supervise::caught(unreachable(outbound, job, why.to_owned())).await {
                Ok(_) => held.given_back(),
                Err(panic) => held.release(&panic).await,
            }
            if *stop.borrow() || Instant::now() >= until {
                return;
            }
            count += 1;
            if count.is_multiple_of(256) {
                tokio::task::yield_now().await;
            }
        }
        if next.is_none_or(|next| next > now) {
            return;
        }
    }
}

/// What an attempt knows and has decided so far; what follows from it is in [`super::outcomes`].
pub(super) struct Run<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) id: QueueId,
    pub(super) head: Arc<MessageHead>,
    /// Signs what leaves.
    pub(super) dkim: Option<Arc<Signer>>,
    /// Rides along with the first outcome.
    pub(super) report: Option<Bytes>,
    /// Recipients wait only because there was no connection.
    pub(super) stranded: bool,
    /// The server stops, or the log cannot be written: nothing is decided about who is left.
    pub(super) stopping: bool,
    /// Connections that broke one after the other.
    pub(super) breaks: u32,
    /// Why the attempt ends before everybody had their turn: no connection could be had, or each one breaks.
    pub(super) no_connection: Option<String>,
    /// Who answered, for notices.
    pub(super) smarthost: String,
    /// Outcomes that are recorded behind the notice that tells of them.
    pub(super) bounced: Vec<(Outcome, Due)>,
    pub(super) relayed: Vec<(Outcome, Due)>,
    pub(super) delayed: Vec<(Outcome, Due)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(outbound: &'a Outbound, id: QueueId, head: Arc<MessageHead>) -> Self {
        Self {
            outbound,
            id,
            head,
            dkim: None,
            report: None,
            stranded: false,
            stopping: false,
            breaks: 0,
            no_connection: None,
            smarthost: String::new(),
            bounced: Vec::new(),
            relayed: Vec::new(),
            delayed: Vec::new(),
        }
    }

    async fn stored_body(&self) -> Result<Bytes, BodyError> {
        let (log, id) = (self.outbound.log.clone(), self.id);
        let read = tokio::task::spawn_blocking(move || log.body(&id)).await;
        read.map_err(|e| BodyError::Io(e.to_string()))?.map(Bytes::from)
    }

    /// A message that cannot be read from the disk: tried again while that may help, else given up with the reason.
    fn body_failed(&mut self, error: &BodyError, due: &[Due]) {
        tracing::error!(queue_id = %self.id, "the message cannot be read from the log: {error}");
        let now = clock::unix_ms();
        let mut outcomes = Vec::with_capacity(due.len());
        for due in due {
            let outcome = match error {
                BodyError::Io(_) => self.put_off(due, &error.to_string()),
                _ => self.bounce(due, format!("{UNREADABLE}{error}").into(), now),
            };
            outcomes.push((outcome, *due));
        }
        self.settle(outcomes);
    }

    async fn deliver(&mut self, body: Bytes, due: Vec<Due>, connection: &mut Option<Connection>) {
        supervise::failpoint("attempt", &self.head.subject);
        let mut route = self.outbound.routes.of(&self.head);
        if route.dkim.is_some()
            && let Some(why) = refusal(&body)
        {
            self.tell_unsigned(&why);
            route = Arc::new(route.without_dkim());
        }
        self.dkim.clone_from(&route.dkim);
        let left_alone = route.left_alone(&self.head.envelope.recipients);
        let (plan, body) = self.plan(body, &route, &left_alone).await;
        let report = plan.report();
        match report.skipped {
            None => tracing::info!(queue_id = %self.id, links = report.links_rewritten, "rewritten"),
            Some(reason) => tracing::info!(queue_id = %self.id, %reason, "skipped"),
        }
        if due.iter().all(|due| due.attempts == 0) {
            match report.untracked() {
                None => metrics::counter!("trackpost_messages_tracked_total").increment(1),
                Some(reason) => {
                    metrics::counter!("trackpost_messages_untracked_total", "reason" => reason.to_string())
                        .increment(1);
                }
            }
        }
        self.report = report.to_kept().map(Bytes::from);
        let mut due = due;
        let untracked = take_untracked(&plan, &left_alone, &mut due);
        self.deliver_copies(&body, &plan, route.signer.as_ref(), due, connection).await;
        if self.no_connection.is_none() {
            self.deliver_copies(&body, &plan, None, untracked, connection).await;
        } else if !self.stopping {
            self.put_off_all(&untracked);
        }
    }

    /// Sends everybody their copy; without a signer, the same untracked one.
    async fn deliver_copies(
        &mut self,
        body: &Bytes,
        plan: &Plan,
        signer: Option<&HostSigner>,
        due: Vec<Due>,
        connection: &mut Option<Connection>,
    ) {
        let group = if plan.copies_differ() && signer.is_some() { 1 } else { SHARED_RECIPIENTS };
        let mut copy = Vec::new();
        let mut waiting = &due[..];
        let mut again = Vec::new();
        while !waiting.is_empty() {
            let (now, rest) = waiting.split_at(waiting.len().min(group));
            waiting = rest;
            let bytes = if plan.is_untouched() {
                &body[..]
            } else {
                copy.clear();
                copy.reserve(plan.len_hint());
                plan.copy_for(body, &self.id, now[0].recipient, signer, &mut copy);
                &copy[..]
            };
            let rewritten = plan.copies_differ() && signer.is_some();
            let letter = Letter { bytes, rewritten, message: body, plan };
            let too_many = self.transact(letter, now, connection).await;
            self.settle_relayed(body).await;
            again.extend(too_many);
            if self.no_connection.is_some() {
                // One probe looks after a smarthost that is gone, not each recipient; and where one connection after
                // the other breaks, the rest of a thousand recipients waits with the others.
                if !self.stopping {
                    again.extend_from_slice(waiting);
                    self.put_off_all(&again);
                }
                return;
            }
            if waiting.is_empty() && !again.is_empty() {
                // Put off by 452 for their number alone: the next transaction, at once.
                let more = std::mem::take(&mut again);
                Box::pin(self.deliver_rest(body, plan, signer, more, connection)).await;
            }
        }
    }

    async fn deliver_rest(
        &mut self,
        body: &Bytes,
        plan: &Plan,
        signer: Option<&HostSigner>,
        mut due: Vec<Due>,
        connection: &mut Option<Connection>,
    ) {
        let mut copy = Vec::new();
        plan.copy_for(body, &self.id, due[0].recipient, signer, &mut copy);
        let rewritten = plan.copies_differ() && signer.is_some();
        let letter = Letter { bytes: &copy, rewritten, message: body, plan };
        while !due.is_empty() {
            let rest = due.split_off(due.len().min(SHARED_RECIPIENTS));
            due = self.transact(letter, &due, connection).await;
            self.settle_relayed(body).await;
            due.extend(rest);
            if self.no_connection.is_some() {
                if !self.stopping {
                    self.put_off_all(&due);
                }
                return;
            }
        }
    }

    /// Small messages are planned here, larger ones where they keep no other task waiting.
    async fn plan(&self, body: Bytes, route: &Arc<Route>, left_alone: &[Option<OffReason>]) -> (Plan, Bytes) {
        let recipients = self.head.envelope.recipients.len();
        let started = Instant::now();
        // Where all copies are left alone, the reason that the first has stands for them.
        let all_alone = left_alone.first().copied().flatten().filter(|_| left_alone.iter().all(Option::is_some));
        let planned = if let Some(reason) = all_alone {
            (plan(&body, &Tracking::Off(reason), recipients), body)
        } else if body.len() <= HOT_MESSAGE {
            (plan(&body, &route.tracking, recipients), body)
        } else {
            let (kept, route) = (body.clone(), Arc::clone(route));
            let planned = tokio::task::spawn_blocking(move || plan(&kept, &route.tracking, recipients)).await;
            (planned.unwrap_or_else(|_| plan(&body, &Tracking::Off(OffReason::SwitchedOff), recipients)), body)
        };
        metrics::histogram!("trackpost_rewrite_seconds").record(started.elapsed().as_secs_f64());
        planned
    }

    /// One transaction for `due`. Returns those that are to go in another one at once.
    async fn transact(&mut self, letter: Letter<'_>, due: &[Due], connection: &mut Option<Connection>) -> Vec<Due> {
        let message = letter.bytes;
        let head = Arc::clone(&self.head);
        let recipients: Vec<&Recipient> =
            due.iter().filter_map(|due| head.envelope.recipients.get(usize::from(due.recipient))).collect();
        let transaction = Transaction {
            sender: head.envelope.sender.as_ref(),
            recipients: &recipients,
            eight_bit: !message.is_ascii(),
            smtputf8: head.envelope.smtputf8 && header_needs_utf8(message),
            ret: head.envelope.ret,
            envid: head.envelope.envid.as_deref(),
            message,
        };
        let mut fresh = false;
        if self.outbound.log.stuck_for().is_some() {
            self.no_connection = Some("outcomes cannot be written into the log".to_owned());
            self.stopping = true;
            return Vec::new();
        }
        loop {
            let open = match connection.as_mut().filter(|c| c.is_fit()) {
                Some(open) => open,
                None => match self.outbound.connect().await {
                    Ok(opened) => {
                        fresh = true;
                        connection.insert(opened)
                    }
                    Err(e) => {
                        self.no_connection = Some(e.to_string());
                        self.stopping = e.kind == OpenErrorKind::Stopping;
                        if !self.stopping {
                            self.stranded = true;
                            self.put_off_all(due);
                        }
                        return Vec::new();
                    }
                },
            };
            let started = Instant::now();
            let took_over_dsn = open.capabilities().dsn;
            self.smarthost = open.peer().to_owned();
            let sealed = match self.seal(&letter, open.capabilities().eight_bit_mime).await {
                Ok(sealed) => sealed,
                Err(stuck) => {
                    let replies = vec![refusal_of(stuck); due.len()];
                    return self.answered(&replies, due, took_over_dsn, started);
                }
            };
            let transaction = Transaction { message: &sealed, ..transaction };
            let _cut = CutShort { id: self.id, waits_for_dot: Arc::clone(&open.waits_for_dot), recipients: due.len() };
            match open.send(&transaction).await {
                Ok(replies) => return self.answered(&replies, due, took_over_dsn, started),
                // A connection kept from before may have been closed by the other side meanwhile: nothing was said
                // yet, so a new one may say it.
                Err(broken) if broken.phase == Phase::Mail && !broken.after_dot && !fresh => *connection = None,
                Err(broken) => {
                    *connection = None;
                    self.broke(&broken, due);
                    return Vec::new();
                }
            }
        }
    }

    fn answered(&mut self, replies: &[Reply], due: &[Due], took_over_dsn: bool, started: Instant) -> Vec<Due> {
        let now = clock::unix_ms();
        let any_taken = replies.iter().any(|reply| reply.code / 100 == 2);
        let mut again = Vec::new();
        let mut outcomes = Vec::with_capacity(due.len());
        let together = due.len();
        for (due, reply) in due.iter().zip(replies) {
            let outcome = match reply.code {
                200..=299 => {
                    let status = if took_over_dsn { Status::Delivered } else { Status::Relayed };
                    Outcome { recipient: due.recipient, status, reply: cut(reply), at: now }
                }
                500..=599 => self.bounce(due, cut(reply), now),
                452 if any_taken && together > 1 => {
                    again.push(*due);
                    continue;
                }
                _ => self.put_off(due, &reply.to_string()),
            };
            self.tell(&outcome, started);
            outcomes.push((outcome, *due));
        }
        self.settle(outcomes);
        self.breaks = 0;
        again
    }

    fn broke(&mut self, broken: &Broken, due: &[Due]) {
        if broken.after_dot {
            tracing::warn!(
                queue_id = %self.id,
                "the connection broke after the final dot: the message may arrive twice: {}", broken.text
            );
            let undecided = broken.replies.iter().filter(|reply| reply.is_none()).count();
            metrics::counter!("trackpost_possible_duplicates_total").increment(undecided as u64);
        }
        let now = clock::unix_ms();
        let mut outcomes = Vec::with_capacity(due.len());
        for (n, due) in due.iter().enumerate() {
            let refused = broken.replies.get(n).and_then(Option::as_ref);
            let outcome = match refused {
                Some(reply) if reply.is_permanent() => self.bounce(due, cut(reply), now),
                Some(reply) => self.put_off(due, &reply.to_string()),
                None => self.put_off(due, &broken.text),
            };
            self.tell(&outcome, Instant::now());
            outcomes.push((outcome, *due));
        }
        self.settle(outcomes);
        self.breaks += 1;
        if self.breaks >= MOST_BREAKS {
            self.no_connection = Some(broken.text.clone());
            self.stranded = false;
        }
    }
}

/// Takes those out of `due` who get an untracked copy of a message that is tracked: who is excluded or has opted out.
fn take_untracked(plan: &Plan, left_alone: &[Option<OffReason>], due: &mut Vec<Due>) -> Vec<Due> {
    if left_alone.is_empty() || !plan.copies_differ() {
        return Vec::new();
    }
    let is_alone = |due: &mut Due| left_alone.get(usize::from(due.recipient)).is_some_and(Option::is_some);
    due.extract_if(.., is_alone).collect()
}

/// Says so when a delivery is dropped, at the end of the server's patience, between the final dot and its reply.
struct CutShort {
    id: QueueId,
    waits_for_dot: Arc<AtomicBool>,
    recipients: usize,
}

impl Drop for CutShort {
    fn drop(&mut self) {
        if self.waits_for_dot.load(Ordering::Relaxed) {
            tracing::warn!(
                queue_id = %self.id, recipients = self.recipients,
                "the delivery was cut after the final dot: the message may arrive twice"
            );
        }
    }
}
