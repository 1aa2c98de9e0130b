//! One endpoint: what is next is sent, and what came of it is written down before anything else begins.

use super::{IN_FLIGHT, PAUSE, Rules, Webhooks, aside, notice};
use crate::clock;
use crate::ops;
use crate::settings::Webhook;
use crate::store::{self, Attempt, Busy, Delivery, DeliveryStatus, Settled, Store, StoreError, Write};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use uuid::Uuid;

/// Even with nothing due: the clock may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Longest pause between two tries to write to a store that fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Failures are noted in the settings when they have lasted so long, or a twentieth of what disables an endpoint: each
/// note is a record in the log.
const NOTED_AFTER_MS: u64 = 60_000;

/// What an endpoint's task holds.
struct Endpoint {
    webhooks: Arc<Webhooks>,
    id: Uuid,
    sending: JoinSet<Attempt>,
    sent: HashMap<Id, Delivery>,
    /// What is not on disk yet. Nothing begins before it is.
    unwritten: Vec<Write>,
    /// Since when nothing but failures came from this URL.
    failing: Failing,
    failed_first: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Failing {
    endpoint: String,
    since: Option<u64>,
    /// The settings know.
    noted: bool,
}

/// Sends until the endpoint is gone or disabled, or `stop` says so. What is being sent then is seen through.
pub async fn serve(
    webhooks: Arc<Webhooks>,
    id: Uuid,
    mut kicked: watch::Receiver<()>,
    mut stop: watch::Receiver<bool>,
) {
    let mut changes = webhooks.ops.settings.changes();
    let mut endpoint = Endpoint {
        webhooks,
        id,
        sending: JoinSet::new(),
        sent: HashMap::new(),
        unwritten: Vec::new(),
        failing: Failing::default(),
        failed_first: false,
    };
    let (mut repaired, mut pause) = (false, PAUSE);
    loop {
        changes.borrow_and_update();
        kicked.borrow_and_update();
        let webhook = endpoint.webhook().filter(|_| !*stop.borrow());
        let next = match endpoint.webhooks.ops.store.load_full() {
            // A store that is opened anew is told of by nobody.
            None => Ok(Some(clock::unix_ms() + PAUSE.as_millis() as u64)),
            Some(store) => endpoint.step(&store, webhook.is_some(), &mut repaired).await,
        };
        let stopping = *stop.borrow();
        if webhook.is_none() && endpoint.sending.is_empty() && (endpoint.unwritten.is_empty() || stopping) {
            return;
        }
        let wait = match next {
            Ok(next) => {
                pause = PAUSE;
                let until = next.map(|next| Duration::from_millis(next.saturating_sub(clock::unix_ms())));
                until.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
            }
            Err(e) => {
                tracing::warn!(webhook = %id, "what is told to an endpoint cannot be looked up or written down: {e}");
                let wait = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                wait
            }
        };
        tokio::select! {
            ended = endpoint.sending.join_next_with_id(), if !endpoint.sending.is_empty() => {
                if let Some(ended) = ended {
                    endpoint.ended(ended).await;
                }
                // What ended meanwhile is written down together.
                while let Some(ended) = endpoint.sending.try_join_next_with_id() {
                    endpoint.ended(ended).await;
                }
            }
            changed = changes.changed(), if !stopping => if changed.is_err() { return },
            kicked = kicked.changed(), if !stopping => if kicked.is_err() { return },
            _ = async { drop(stop.wait_for(|stop| *stop).await) }, if !stopping => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Endpoint {
    /// The endpoint as it is now, if it is there and enabled.
    fn webhook(&mut self) -> Option<Webhook> {
        let webhook = self.webhooks.ops.settings.snapshot().webhooks.get(&self.id).cloned()?;
        if !webhook.enabled {
            // Whoever enables it again has it begin anew.
            self.failing = Failing::default();
            return None;
        }
        let forgiven = self.failing.noted && webhook.failing_since.is_none();
        if self.failing.endpoint != webhook.endpoint || forgiven {
            let (since, noted) = (webhook.failing_since, webhook.failing_since.is_some());
            self.failing = Failing { endpoint: webhook.endpoint.clone(), since, noted };
        }
        Some(webhook)
    }

    /// Writes down what there is, and sends what is next. When to do so again, if nothing else happens.
    async fn step(&mut self, store: &Arc<Store>, sends: bool, repaired: &mut bool) -> Result<Option<u64>, StoreError> {
        self.write(store).await?;
        if !sends {
            return Ok(None);
        }
        let mut from = None;
        while !*repaired {
            let (looked, id, at) = (Arc::clone(store), self.id, from.take());
            let writes;
            (writes, from) = aside(move || store::repair_deliveries(&looked, id, at)).await?;
            store.commit(writes).await?;
            *repaired = from.is_none();
        }
        loop {
            let busy: Busy = self.sent.values().map(|sent| (sent.order, sent.email)).collect();
            let slots = IN_FLIGHT - busy.len().min(IN_FLIGHT);
            let (looked, id, now, failed_first) = (Arc::clone(store), self.id, clock::unix_ms(), self.failed_first);
            self.failed_first = !failed_first;
            let due = aside(move || store::due_deliveries(&looked, id, now, &busy, slots, failed_first)).await?;
            self.unwritten.extend(due.tidy);
            self.write(store).await?;
            // As it is after the look: an event of after a change is told as that says.
            let Some(webhook) = self.webhook() else { return Ok(Some(0)) };
            for delivery in due.start {
                let (poster, webhook, told) = (self.webhooks.poster.clone(), webhook.clone(), delivery.clone());
                let sending = async move { poster.post(&webhook, &told, clock::unix_ms()).await };
                self.sent.insert(self.sending.spawn(sending).id(), delivery);
            }
            if !due.more {
                return Ok(due.next);
            }
        }
    }

    async fn write(&mut self, store: &Store) -> Result<(), StoreError> {
        if !self.unwritten.is_empty() {
            store.commit(self.unwritten.clone()).await?;
            self.unwritten.clear();
        }
        Ok(())
    }

    /// What an attempt brought.
    async fn ended(&mut self, ended: Result<(Id, Attempt), tokio::task::JoinError>) {
        let (task, attempt) = match ended {
            Ok(ended) => ended,
            Err(e) => {
                let why = format!("sending failed: {e}");
                (e.id(), Attempt { status: 0, response: why, sent_at: clock::unix_ms() })
            }
        };
        let Some(delivery) = self.sent.remove(&task) else { return };
        let rules = self.webhooks.rules.load_full();
        let settled = settled(&rules, &delivery, attempt, clock::unix_ms(), u32::from_be_bytes(clock::random()));
        let well = settled.status == DeliveryStatus::Success;
        let outcome = if well { "success" } else { "failure" };
        metrics::counter!("trackpost_webhook_attempts_total", "outcome" => outcome).increment(1);
        tracing::debug!(
            webhook = %self.id, event = delivery.id, status = settled.attempt.status, reply = settled.attempt.response,
            "event told"
        );
        if settled.status == DeliveryStatus::Failed {
            tracing::warn!(
                webhook = %self.id, event = delivery.id, status = settled.attempt.status,
                reply = settled.attempt.response, "an event was given up"
            );
        }
        let status = settled.attempt.status;
        self.note(&rules, well, status).await;
        let Some(store) = self.webhooks.ops.store.load_full() else { return };
        let (id, earlier) = (self.id, std::mem::take(&mut self.unwritten));
        let kept = earlier.clone();
        let writes = aside(move || {
            let mut writes = earlier;
            store::settled_writes(&store, id, &delivery, &settled, &mut writes)?;
            Ok(writes)
        });
        // What cannot be written down is sent again.
        self.unwritten = writes.await.unwrap_or(kept);
    }

    /// Keeps count of failures, and disables an endpoint that wants or answers nothing any more.
    async fn note(&mut self, rules: &Rules, well: bool, status: u16) {
        let now = clock::unix_ms();
        let ops = Arc::clone(&self.webhooks.ops);
        if well {
            self.failing.since = None;
            if self.failing.noted {
                self.failing.noted = self.tell(&ops, None).await.is_err();
            }
            return;
        }
        let since = *self.failing.since.get_or_insert(now);
        let lasted = now.saturating_sub(since);
        let disable_after = u64::try_from(rules.disable_after.as_millis()).unwrap_or(u64::MAX);
        let why = match status {
            410 => "it answered 410 Gone".to_owned(),
            _ if lasted >= disable_after => {
                format!("every attempt since {} failed", crate::event::payload::iso_z(since))
            }
            _ => {
                if !self.failing.noted && lasted >= NOTED_AFTER_MS.min(disable_after / 20) {
                    self.failing.noted = self.tell(&ops, Some(since)).await.is_ok();
                }
                return;
            }
        };
        self.disable(rules, &why, since).await;
    }

    async fn tell(&self, ops: &ops::Ops, since: Option<u64>) -> Result<(), ops::OpError> {
        let told = ops::webhook_failing(ops, self.id, &self.failing.endpoint, since).await;
        told.inspect_err(|e| tracing::warn!(webhook = %self.id, "its failures cannot be noted: {e}"))
    }

    async fn disable(&mut self, rules: &Rules, why: &str, since: u64) {
        let Some(webhook) = self.webhook().filter(|webhook| webhook.endpoint == self.failing.endpoint) else { return };
        // The mail first: told and not done is better than done and not told.
        if let Some(to) = &rules.notify
            && let Err(refused) = notice::send(&self.webhooks, to, &webhook, why, since).await
        {
            tracing::error!(webhook = %self.id, "the operator cannot be told: {}", refused.reply());
        }
        match ops::webhook_disable(&self.webhooks.ops, self.id, &webhook.endpoint, why).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                tracing::warn!(webhook = %self.id, endpoint = webhook.endpoint, "webhook disabled: {why}");
            }
            Err(e) => tracing::error!(webhook = %self.id, "cannot be disabled: {e}"),
        }
    }
}

/// What follows from an attempt's answer. `dice` spreads a pause by up to a tenth, upward.
fn settled(rules: &Rules, delivery: &Delivery, attempt: Attempt, now: u64, dice: u32) -> Settled {
    if (200..300).contains(&attempt.status) {
        return Settled { attempt, status: DeliveryStatus::Success, due: 0 };
    }
    match rules.retry.get(delivery.state.failures as usize) {
        None => Settled { attempt, status: DeliveryStatus::Failed, due: 0 },
        Some(pause) => {
            let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
            let jitter = u64::from(dice) % (pause / 10 + 1);
            Settled { attempt, status: DeliveryStatus::Attempting, due: now + pause + jitter }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Order, State};

    #[test]
    fn pauses_are_the_contracts() {
        let seconds = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000];
        let rules = Rules {
            retry: seconds.map(Duration::from_secs).to_vec(),
            disable_after: Duration::from_secs(1),
            notify: None,
        };
        let after = |failures: u32, status: u16, dice: u32| {
            let state = State { failures, ..State::default() };
            let delivery = Delivery {
                order: Order([0; 20]),
                id: "msg_1".into(),
                kind: "email.sent".into(),
                created_at: 0,
                email: None,
                recipient: None,
                state,
                payload: Vec::new(),
            };
            let attempt = Attempt { status, response: String::new(), sent_at: 0 };
            let settled = settled(&rules, &delivery, attempt, 1_000, dice);
            (settled.status, settled.due)
        };
        for (failures, pause) in (0..).zip(seconds.map(|s| s * 1_000)) {
            assert_eq!(after(failures, 500, 0), (DeliveryStatus::Attempting, 1_000 + pause));
            let (_, late) = after(failures, 0, u32::MAX);
            assert!((1_000 + pause..=1_000 + pause + pause / 10).contains(&late), "{failures}");
        }
        assert_eq!(after(7, 500, 0), (DeliveryStatus::Failed, 0));
        for (status, want) in
            [(200, true), (204, true), (299, true), (199, false), (301, false), (404, false), (0, false)]
        {
            assert_eq!(after(0, status, 0).0 == DeliveryStatus::Success, want, "{status}");
        }
    }
}
