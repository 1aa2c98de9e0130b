//! What an attempt decides for each recipient: deferred or given up, recorded, logged, and told to the sender.
//!
//! An outcome goes to the log before the next step; a bounce only behind the notice that tells of it.

use super::attempt::Run;
use super::fit::words_of;
use super::notices::{self, Told};
use crate::clock;
use crate::dsn::Kind;
use crate::intake::Refusal;
use crate::mail::{Outcome, Reply, Status};
use crate::queue::Due;
use crate::retry::{Failure, Next, after_failure};
use crate::spool::Entry;
use bytes::Bytes;
use std::time::Instant;

/// Age at which a sender who asked for it hears of a delay, in milliseconds.
const DELAY_NOTICE: u64 = 4 * 60 * 60 * 1000;

impl Run<'_> {
    /// Everybody who is left, when the attempt ends before their turn.
    pub(super) fn put_off_all(&mut self, due: &[Due]) {
        let Some(why) = self.no_connection.clone() else { return };
        let mut outcomes = Vec::with_capacity(due.len());
        for due in due {
            let outcome = self.put_off(due, &why);
            // The first step is told, and the last; a smarthost that stays down is told of by itself.
            if due.attempts == 0 || outcome.status == Status::Bounced {
                self.tell(&outcome, Instant::now());
            }
            outcomes.push((outcome, *due));
        }
        self.settle(outcomes);
    }

    pub(super) fn bounce(&self, due: &Due, reply: Box<str>, now: u64) -> Outcome {
        Outcome { recipient: due.recipient, status: Status::Bounced, reply, at: now }
    }

    /// Deferred to its next time, or given up for its age.
    pub(super) fn put_off(&mut self, due: &Due, why: &str) -> Outcome {
        let now = clock::unix_ms();
        let attempts = due.attempts.saturating_add(1);
        let dice = u32::from_ne_bytes(clock::random());
        let failure = Failure { attempts, age: due.age, since: now.saturating_sub(due.at), dice };
        let schedule = &self.outbound.delivery.load().schedule;
        let mut outcome = Outcome { recipient: due.recipient, status: Status::Bounced, reply: shortened(why), at: now };
        if let Next::RetryAfter { pause, age } = after_failure(schedule, &failure) {
            let max_age = u64::try_from(schedule.max_age.as_millis()).unwrap_or(u64::MAX);
            let kind = Kind::Delayed { until: now.saturating_add(max_age.saturating_sub(age)) };
            let tell = !due.told && age >= DELAY_NOTICE && notices::is_owed(kind, &self.head, due.recipient);
            if tell {
                self.delayed.push(told(&outcome, attempts));
            }
            let next = clock::steady_ms().saturating_add(pause);
            outcome.status = Status::Deferred { attempts, next, age, told: due.told || tell };
        }
        outcome
    }

    /// Records what is decided, each with what was before. What bounced waits for its notice, where one is owed.
    pub(super) fn settle(&mut self, outcomes: Vec<(Outcome, Due)>) {
        let is_owed = |(outcome, _): &(Outcome, Due)| {
            outcome.status == Status::Bounced && notices::is_owed(Kind::Failed, &self.head, outcome.recipient)
        };
        let (wait, now): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(is_owed);
        self.bounced.extend(wait);
        if !now.is_empty() {
            let report = self.report.take();
            self.record(now.into_iter().map(|(outcome, _)| outcome).collect(), report);
        }
    }

    /// Sends the notices that are owed. A bounce is recorded behind its notice, so that a crash in between tells of it
    /// once more rather than never; where the notice cannot be written, the recipient is tried again later.
    pub(super) async fn close(&mut self, body: Option<&Bytes>) {
        if !self.bounced.is_empty() {
            let bounced = std::mem::take(&mut self.bounced);
            let told: Vec<Told> = bounced.iter().map(|(outcome, due)| told(outcome, due.attempts + 1)).collect();
            let (mut outcomes, before): (Vec<Outcome>, Vec<Due>) = bounced.into_iter().unzip();
            if let Err(e) = self.notify(Kind::Failed, &told, body).await {
                tracing::error!(queue_id = %self.id, "the sender could not be told of a bounce, which is tried again: {e:?}");
                let schedule = &self.outbound.delivery.load().schedule;
                for (outcome, due) in outcomes.iter_mut().zip(before) {
                    let (attempts, age, told) = (due.attempts.saturating_add(1), due.age, due.told);
                    let next = clock::steady_ms().saturating_add(schedule.pause(attempts));
                    outcome.status = Status::Deferred { attempts, next, age, told };
                }
            }
            let report = self.report.take();
            self.record(outcomes, report);
        }
        let (relayed, delayed) = (std::mem::take(&mut self.relayed), std::mem::take(&mut self.delayed));
        let max_age = self.outbound.delivery.load().schedule.max_age.as_millis();
        let left = u64::try_from(max_age).unwrap_or(u64::MAX).saturating_sub(DELAY_NOTICE);
        let until = clock::unix_ms().saturating_add(left);
        for (kind, told) in [(Kind::Relayed, relayed), (Kind::Delayed { until }, delayed)] {
            if let Err(e) = self.notify(kind, &told, body).await {
                tracing::warn!(queue_id = %self.id, "the sender could not be told: {e:?}");
            }
        }
    }

    async fn notify(&self, kind: Kind, told: &[Told], body: Option<&Bytes>) -> Result<(), Refusal> {
        if told.is_empty() {
            return Ok(());
        }
        notices::send(self.outbound, kind, self.id, &self.head, told, &self.smarthost, body).await
    }

    pub(super) fn tell(&self, outcome: &Outcome, started: Instant) {
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

    /// To the queue, which is asked next, and to the log.
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

pub(super) fn told(outcome: &Outcome, attempts: u32) -> Told {
    Told { recipient: outcome.recipient, attempts, reply: words_of(&outcome.reply), at: outcome.at }
}

pub(super) fn cut(reply: &Reply) -> Box<str> {
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
