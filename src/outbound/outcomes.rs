//! What an attempt decides for each recipient: deferred or given up, recorded, logged, and told to the sender.
//!
//! An outcome goes to the log before the next step. One that its sender is told of lies behind the notice there, so that
//! a crash between the two tells them once more rather than never: a bounce and a delay once the notice is on disk, what
//! was relayed in one write with it, since it would be delivered again.

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
            let next = clock::steady_ms().saturating_add(pause);
            let told = due.told || tell;
            outcome.status = match self.stranded {
                true => Status::Stranded { attempts, next, age, told },
                false => Status::Deferred { attempts, next, age, told },
            };
        }
        outcome
    }

    /// Records what is decided, each with what was before. What the sender is told of waits for its notice.
    pub(super) fn settle(&mut self, outcomes: Vec<(Outcome, Due)>) {
        let mut now = Vec::with_capacity(outcomes.len());
        for (outcome, due) in outcomes {
            let is_owed = |kind| notices::is_owed(kind, &self.head, outcome.recipient);
            match outcome.status {
                Status::Bounced if is_owed(Kind::Failed) => self.bounced.push((outcome, due)),
                Status::Relayed if is_owed(Kind::Relayed) => self.relayed.push((outcome, due)),
                Status::Deferred { told: true, .. } | Status::Stranded { told: true, .. } if !due.told => {
                    self.delayed.push((outcome, due));
                }
                _ => now.push(outcome),
            }
        }
        if !now.is_empty() {
            let report = self.report.take();
            self.record(now, report);
        }
    }

    /// Tells the sender what was relayed, and records it. To be called before the next transaction.
    pub(super) async fn settle_relayed(&mut self, body: &Bytes) {
        if self.relayed.is_empty() {
            return;
        }
        let relayed = std::mem::take(&mut self.relayed);
        let told = told_of(&relayed);
        let outcomes: Vec<Outcome> = relayed.into_iter().map(|(outcome, _)| outcome).collect();
        self.outbound.queue.note(&self.id, &outcomes);
        let behind = Entry::Outcomes { id: self.id, outcomes, report: self.report.take() };
        if let Err(e) = self.notify(Kind::Relayed, &told, Some(body), Some(behind)).await {
            tracing::warn!(queue_id = %self.id, "the sender could not be told: {e:?}");
        }
    }

    /// Sends the notices that are owed, and records what they tell of. Where a notice cannot be written, a bounce is tried
    /// again later, and a delay told of then.
    pub(super) async fn close(&mut self, body: Option<&Bytes>) {
        if !self.bounced.is_empty() {
            let bounced = std::mem::take(&mut self.bounced);
            let told = told_of(&bounced);
            let (mut outcomes, before): (Vec<Outcome>, Vec<Due>) = bounced.into_iter().unzip();
            if let Err(e) = self.notify(Kind::Failed, &told, body, None).await {
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
        if !self.delayed.is_empty() {
            let delayed = std::mem::take(&mut self.delayed);
            let max_age = self.outbound.delivery.load().schedule.max_age.as_millis();
            let left = u64::try_from(max_age).unwrap_or(u64::MAX).saturating_sub(DELAY_NOTICE);
            let until = clock::unix_ms().saturating_add(left);
            let notified = self.notify(Kind::Delayed { until }, &told_of(&delayed), body, None).await;
            let mut outcomes: Vec<Outcome> = delayed.into_iter().map(|(outcome, _)| outcome).collect();
            if let Err(e) = notified {
                tracing::warn!(queue_id = %self.id, "the sender could not be told of a delay yet: {e:?}");
                for outcome in &mut outcomes {
                    if let Status::Deferred { told, .. } | Status::Stranded { told, .. } = &mut outcome.status {
                        *told = false;
                    }
                }
            }
            let report = self.report.take();
            self.record(outcomes, report);
        }
    }

    /// Puts a notice into the queue, and `behind` into the log behind it, whatever becomes of the notice.
    async fn notify(
        &self,
        kind: Kind,
        told: &[Told],
        body: Option<&Bytes>,
        behind: Option<Entry>,
    ) -> Result<(), Refusal> {
        notices::send(self.outbound, kind, self.id, &self.head, told, &self.smarthost, (body, behind)).await
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

fn told_of(outcomes: &[(Outcome, Due)]) -> Vec<Told> {
    let told = |(outcome, due): &(Outcome, Due)| Told {
        recipient: outcome.recipient,
        attempts: due.attempts.saturating_add(1),
        reply: words_of(&outcome.reply),
        at: outcome.at,
    };
    outcomes.iter().map(told).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Demand;
    use crate::intake::{Intake, Rules};
    use crate::keys::{DkimKeys, TokenRing};
    use crate::mail::{Address, Body, Envelope, Notify, QueueId, Recipient};
    use crate::outbound::attempt::put_off_due;
    use crate::outbound::{Delivery, Outbound, Routes, Style};
    use crate::privacy::PrivacyKey;
    use crate::queue::{Queue, heads_of};
    use crate::retry::Schedule;
    use crate::rewrite::{Limits, OnSigned, Scheme};
    use crate::settings::Settings;
    use crate::spool::{Cursor, Log, MessageHead, Options, Stored};
    use arc_swap::ArcSwap;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::watch;

    fn outbound(dir: &Path, min_free: u64) -> Outbound {
        let (log, recovered) = Log::open(Options { min_free, ..Options::new(dir) }).unwrap();
        let settings = Arc::new(Settings::new(log.clone(), &recovered.settings).0);
        let schedule = Schedule { pauses: vec![Duration::from_mins(1)], max_age: Duration::from_hours(100) };
        let queue = Arc::new(Queue::new(Vec::new(), heads_of(&log), clock::steady_ms(), &schedule));
        let rules = ArcSwap::from_pointee(Rules { reject_unknown: false, max_messages: 9 });
        let intake =
            Intake { log, queue, settings: Arc::clone(&settings), hostname: "relay.example.net".into(), rules };
        let limits = Limits { max_link_length: 1_000, max_links: 10, max_html_size: 1_000 };
        let (scheme, demand, on_signed) = (Scheme::Http, Demand::Nothing, OnSigned::Skip);
        let style = Style { scheme, demand, port: 0, on_signed, limits };
        let keys = TokenRing::open(dir).unwrap();
        let dkim = Arc::new(DkimKeys::new(dir));
        let routes = Routes::new(settings, Arc::clone(&keys.signer), dkim, Arc::new(PrivacyKey::new(&[7; 32])), style);
        Outbound::new(Arc::new(intake), routes, Delivery { smarthosts: Vec::new(), max_connections: 1, schedule })
    }

    /// The records of a message that has waited for five hours, and whose sender wants to know.
    async fn records_of_a_delay(outbound: &Outbound) -> Vec<Stored> {
        let mut recipient = Recipient::from(Address::parse("b@example.net").unwrap());
        recipient.notify = Notify { given: true, delay: true, ..Notify::default() };
        let (sender, body) = (Some(Address::parse("a@example.com").unwrap()), Body::default());
        let envelope = Envelope { sender, recipients: vec![recipient], body, smtputf8: false, ret: None, envid: None };
        let now = clock::unix_ms();
        let head = Arc::new(MessageHead {
            envelope,
            accepted_at: now,
            from_domain: None,
            from: "".into(),
            subject: "late".into(),
            message_id: "".into(),
            size: 5,
            tags: Vec::new(),
            role: crate::mail::Role::Submission,
        });
        let mut run = Run::new(outbound, QueueId::new(now, [7; 10]), head);
        let due = Due { recipient: 0, attempts: 9, age: 5 * 3_600_000, at: now, told: false };
        let outcome = run.put_off(&due, "451 later");
        run.settle(vec![(outcome, due)]);
        run.close(Some(&Bytes::from_static(b"Subject: late\r\n\r\nhello"))).await;
        let log = outbound.log.clone();
        tokio::task::spawn_blocking(move || log.close()).await.unwrap();
        let batch = outbound.log.read(Cursor::default(), 9).unwrap();
        batch.records.into_iter().map(|(_, stored)| stored).collect()
    }

    fn is_told(stored: &Stored) -> Option<bool> {
        let Stored::Outcomes { outcomes, .. } = stored else { return None };
        let told = |outcome: &Outcome| match outcome.status {
            Status::Deferred { told, .. } => Some(told),
            _ => None,
        };
        outcomes.iter().find_map(told)
    }

    #[tokio::test]
    async fn a_delay_is_on_record_as_told_behind_its_notice_alone() {
        let dir = tempfile::tempdir().unwrap();
        let records = records_of_a_delay(&outbound(dir.path(), 0)).await;
        assert!(matches!(&records[0], Stored::Message { head, .. } if head.envelope.sender.is_none()), "{records:?}");
        assert_eq!((records.len(), is_told(&records[1])), (2, Some(true)), "{records:?}");
    }

    #[tokio::test]
    async fn a_delay_that_nobody_could_be_told_of_is_told_later() {
        let dir = tempfile::tempdir().unwrap();
        let records = records_of_a_delay(&outbound(dir.path(), u64::MAX)).await;
        assert_eq!((records.len(), is_told(&records[0])), (1, Some(false)), "{records:?}");
    }

    #[tokio::test]
    async fn a_failed_probe_is_noted_for_a_long_queue_as_long_as_there_is_time() {
        let dir = tempfile::tempdir().unwrap();
        let outbound = outbound(dir.path(), 0);
        for n in 0..6 {
            let recipients = vec![Recipient::from(Address::parse("b@example.net").unwrap())];
            let (sender, body) = (Some(Address::parse("a@example.com").unwrap()), Body::default());
            let envelope = Envelope { sender, recipients, body, smtputf8: false, ret: None, envid: None };
            let id = QueueId::new(clock::unix_ms(), [n; 10]);
            outbound.intake.submit(id, envelope, b"Subject: x\r\n\r\n".to_vec()).await.unwrap();
        }
        outbound.queue.smarthost_is_down("refused", 0);
        let (stop, stopping) = watch::channel(false);
        let later = Instant::now() + Duration::from_mins(1);
        put_off_due(&outbound, "refused", Instant::now(), &stopping).await;
        assert_eq!(outbound.queue.backlog(), 5, "the next probe is due");
        stop.send(true).unwrap();
        put_off_due(&outbound, "refused", later, &stopping).await;
        assert_eq!(outbound.queue.backlog(), 4, "the relay stops");
        stop.send(false).unwrap();
        put_off_due(&outbound, "refused", later, &stopping).await;
        assert_eq!((outbound.queue.backlog(), outbound.queue.len()), (0, 6));
    }
}
