//! One attempt at one message: the plan, a copy per recipient, the transactions, the outcomes.

use super::route::Route;
use super::{Broken, Connection, Outbound, Phase, Transaction};
use crate::clock;
use crate::mail::{Outcome, QueueId, Recipient, Reply, Status};
use crate::queue::{Attempt, HOT_MESSAGE};
use crate::retry::{Next, after_failure};
use crate::rewrite::{OffReason, Plan, Tracking, plan};
use crate::spool::{BodyError, Entry, MessageHead};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// How an attempt ended, apart from the outcomes that it wrote.
pub enum Ended {
    Done,
    /// No connection could be had; the text says why.
    Unreachable(String),
}

/// Recipients of one transaction where their copies are the same.
const SHARED_RECIPIENTS: usize = 100;

/// Tries every recipient that is due. A connection that is no longer fit is dropped and, where needed, made anew.
pub async fn attempt(outbound: &Outbound, job: Attempt, connection: &mut Option<Connection>) -> Ended {
    if connection.as_ref().is_none_or(|c| !c.is_fit()) {
        *connection = match outbound.connect().await {
            Ok(opened) => Some(opened),
            Err(e) => return unreachable(outbound, job, e.to_string()),
        };
    }
    let Attempt { id, head, due, hot } = job;
    let _room = outbound.room_for(head.size).await;
    let mut run = Run { outbound, id, head, report: None, stranded: false };
    let body = match &hot {
        Some(hot) => Ok(hot.body.clone()),
        None => run.stored_body().await,
    };
    match body {
        Ok(body) => run.deliver(body, due, connection).await,
        Err(e) => run.body_failed(&e, &due),
    }
    drop(hot);
    outbound.queue.finish(&run.id, run.stranded);
    Ended::Done
}

/// Defers what was to be tried, so that its age and the reason are on record; it is due again as soon as the
/// smarthost answers.
fn unreachable(outbound: &Outbound, job: Attempt, why: String) -> Ended {
    let Attempt { id, head, due, hot } = job;
    drop(hot);
    let run = Run { outbound, id, head, report: None, stranded: true };
    let outcomes = due.iter().map(|(place, attempts)| run.put_off(*place, *attempts, &why)).collect();
    run.record(outcomes, None);
    outbound.queue.finish(&id, true);
    Ended::Unreachable(why)
}

struct Run<'a> {
    outbound: &'a Outbound,
    id: QueueId,
    head: Arc<MessageHead>,
    /// Rides along with the first outcome.
    report: Option<Bytes>,
    /// Recipients wait only because there was no connection.
    stranded: bool,
}

impl Run<'_> {
    async fn stored_body(&self) -> Result<Bytes, BodyError> {
        let (log, id) = (self.outbound.log.clone(), self.id);
        let read = tokio::task::spawn_blocking(move || log.body(&id)).await;
        read.map_err(|e| BodyError::Io(e.to_string()))?.map(Bytes::from)
    }

    /// A message that cannot be read from the disk: tried again while that may help, else given up with the reason.
    fn body_failed(&self, error: &BodyError, due: &[(u16, u32)]) {
        tracing::error!(queue_id = %self.id, "the message cannot be read from the log: {error}");
        let now = clock::unix_ms();
        let outcomes = due.iter().map(|(place, attempts)| match error {
            BodyError::Io(_) => self.put_off(*place, *attempts, &error.to_string()),
            _ => Outcome {
                recipient: *place,
                status: Status::Bounced,
                reply: format!("554 5.3.0 {error}").into(),
                at: now,
            },
        });
        self.record(outcomes.collect(), None);
    }

    async fn deliver(&mut self, body: Bytes, due: Vec<(u16, u32)>, connection: &mut Option<Connection>) {
        let route = self.outbound.routes.of(self.head.from_domain.as_deref());
        let (plan, body) = self.plan(body, &route).await;
        let report = plan.report();
        match report.skipped {
            None => tracing::info!(queue_id = %self.id, links = report.links_rewritten, "rewritten"),
            Some(reason) => tracing::info!(queue_id = %self.id, %reason, "skipped"),
        }
        self.report = report.to_kept().map(Bytes::from);
        let group = if plan.copies_differ() { 1 } else { SHARED_RECIPIENTS };
        let mut copy = Vec::new();
        let mut waiting = &due[..];
        let mut again = Vec::new();
        while !waiting.is_empty() {
            let (now, rest) = waiting.split_at(waiting.len().min(group));
            waiting = rest;
            let message = if plan.is_untouched() {
                &body[..]
            } else {
                copy.clear();
                copy.reserve(plan.len_hint());
                plan.copy_for(&body, &self.id, now[0].0, route.signer.as_ref(), &mut copy);
                &copy[..]
            };
            let too_many = self.transact(message, now, connection).await;
            again.extend(too_many);
            if waiting.is_empty() && !again.is_empty() {
                // Put off by 452 for their number alone: the next transaction, at once.
                let more = std::mem::take(&mut again);
                Box::pin(self.deliver_rest(&body, &plan, &route, more, connection)).await;
            }
        }
    }

    async fn deliver_rest(
        &mut self,
        body: &Bytes,
        plan: &Plan,
        route: &Route,
        mut due: Vec<(u16, u32)>,
        connection: &mut Option<Connection>,
    ) {
        let mut copy = Vec::new();
        plan.copy_for(body, &self.id, due[0].0, route.signer.as_ref(), &mut copy);
        while !due.is_empty() {
            due = self.transact(&copy, &due, connection).await;
        }
    }

    /// Small messages are planned here, larger ones where they keep no other task waiting.
    async fn plan(&self, body: Bytes, route: &Arc<Route>) -> (Plan, Bytes) {
        let recipients = self.head.envelope.recipients.len();
        let started = Instant::now();
        let planned = if body.len() <= HOT_MESSAGE {
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
    async fn transact(
        &mut self,
        message: &[u8],
        due: &[(u16, u32)],
        connection: &mut Option<Connection>,
    ) -> Vec<(u16, u32)> {
        let head = Arc::clone(&self.head);
        let recipients: Vec<&Recipient> =
            due.iter().filter_map(|(place, _)| head.envelope.recipients.get(usize::from(*place))).collect();
        let transaction = Transaction {
            sender: head.envelope.sender.as_ref(),
            recipients: &recipients,
            eight_bit: !message.is_ascii(),
            smtputf8: head.envelope.smtputf8,
            ret: head.envelope.ret,
            envid: head.envelope.envid.as_deref(),
            message,
        };
        let mut fresh = false;
        loop {
            let open = match connection.as_mut().filter(|c| c.is_fit()) {
                Some(open) => open,
                None => match self.outbound.connect().await {
                    Ok(opened) => {
                        fresh = true;
                        connection.insert(opened)
                    }
                    Err(e) => {
                        self.stranded = true;
                        let why = e.to_string();
                        let outcomes = due.iter().map(|(place, n)| self.put_off(*place, *n, &why)).collect();
                        let report = self.report.take();
                        self.record(outcomes, report);
                        return Vec::new();
                    }
                },
            };
            let started = Instant::now();
            let took_over_dsn = open.capabilities().dsn;
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

    fn answered(
        &mut self,
        replies: &[Reply],
        due: &[(u16, u32)],
        took_over_dsn: bool,
        started: Instant,
    ) -> Vec<(u16, u32)> {
        let now = clock::unix_ms();
        let any_taken = replies.iter().any(|reply| reply.code / 100 == 2);
        let mut again = Vec::new();
        let mut outcomes = Vec::with_capacity(due.len());
        for ((place, attempts), reply) in due.iter().zip(replies) {
            let outcome = match reply.code {
                200..=299 => {
                    let status = if took_over_dsn { Status::Delivered } else { Status::Relayed };
                    Outcome { recipient: *place, status, reply: cut(reply), at: now }
                }
                500..=599 => Outcome { recipient: *place, status: Status::Bounced, reply: cut(reply), at: now },
                452 if any_taken && due.len() > 1 => {
                    again.push((*place, *attempts));
                    continue;
                }
                _ => self.put_off(*place, *attempts, &reply.to_string()),
            };
            self.tell(&outcome, started);
            outcomes.push(outcome);
        }
        let report = self.report.take();
        self.record(outcomes, report);
        again
    }

    fn broke(&mut self, broken: &Broken, due: &[(u16, u32)]) {
        if broken.after_dot {
            tracing::warn!(
                queue_id = %self.id,
                "the connection broke after the final dot: the message may arrive twice: {}", broken.text
            );
            metrics::counter!("trackpost_possible_duplicates_total").increment(due.len() as u64);
        }
        let now = clock::unix_ms();
        let mut outcomes = Vec::with_capacity(due.len());
        for (n, (place, attempts)) in due.iter().enumerate() {
            let refused = broken.replies.get(n).and_then(Option::as_ref).filter(|reply| reply.is_permanent());
            let outcome = match refused {
                Some(reply) => Outcome { recipient: *place, status: Status::Bounced, reply: cut(reply), at: now },
                None => self.put_off(*place, *attempts, &broken.text),
            };
            self.tell(&outcome, Instant::now());
            outcomes.push(outcome);
        }
        let report = self.report.take();
        self.record(outcomes, report);
    }

    /// Deferred to its next time, or given up for its age.
    fn put_off(&self, recipient: u16, attempts: u32, why: &str) -> Outcome {
        let (now, attempts) = (clock::unix_ms(), attempts.saturating_add(1));
        let dice = u32::from_ne_bytes(clock::random());
        let status =
            match after_failure(&self.outbound.delivery.load().schedule, self.head.accepted_at, now, attempts, dice) {
                Next::RetryAt(next) => Status::Deferred { attempts, next },
                Next::GiveUp => Status::Bounced,
            };
        Outcome { recipient, status, reply: shortened(why), at: now }
    }

    fn tell(&self, outcome: &Outcome, started: Instant) {
        let step = match outcome.status {
            Status::Delivered | Status::Relayed => "sent",
            Status::Bounced => "bounced",
            _ => "deferred",
        };
        metrics::counter!("trackpost_deliveries_total", "outcome" => step).increment(1);
        let to = self.head.envelope.recipients.get(usize::from(outcome.recipient)).map(|r| r.address.as_str());
        tracing::info!(
            queue_id = %self.id, to = to.unwrap_or(""), delay_ms = started.elapsed().as_millis() as u64,
            reply = &*outcome.reply, "{step}"
        );
    }

    /// To the log first, then to the queue.
    fn record(&self, outcomes: Vec<Outcome>, report: Option<Bytes>) {
        if outcomes.is_empty() {
            return;
        }
        self.outbound.queue.note(&self.id, &outcomes);
        if let Err(e) = self.outbound.log.append_soon(Entry::Outcomes { id: self.id, outcomes, report }) {
            tracing::error!(queue_id = %self.id, "the outcome could not be logged, it may be delivered twice: {e}");
        }
    }
}

fn cut(reply: &Reply) -> Box<str> {
    shortened(&reply.to_string())
}

/// Replies are kept up to 500 bytes.
fn shortened(text: &str) -> Box<str> {
    let mut end = text.len().min(500);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}
