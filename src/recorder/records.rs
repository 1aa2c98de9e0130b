//! What each kind of record does to messages, recipients and counts.
//!
//! The first record of a message makes its row, and any later one under the same id changes nothing. A recipient that is
//! settled stays so. What an error interrupts leaves the fold half changed: whoever calls must go back to what is
//! written.

use super::erased::{hush, is_nobodys, without_erased};
use super::fold::Fold;
use super::known::Known;
use super::news::News;
use crate::event::payload::{Told, Visit};
use crate::event::{Class, Event, Hit, HitFacts, HitKind, HitRef as Part, MachineReason, classify};
use crate::mail::{Address, Outcome, QueueId, Status};
use crate::rewrite::ReportFacts;
use crate::spool::{Cursor, MessageHead, Stored};
use crate::store::{
    Counter, Delay, ERASED, HitEntry, HitRef, MessageRow, RecipientRow, Store, StoreError, Waiting, is_known,
    time_writes,
};
use std::sync::Arc;

/// Where a record stands, and what that means.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub place: Cursor,
    /// It is not in the counts yet.
    pub is_new: bool,
    /// Milliseconds at the pace of time.
    pub now: u64,
}

impl Fold<'_> {
    /// Folds one record in. After an error nothing that is not written may be used any more.
    pub fn record(&mut self, place: Cursor, record: Stored, now: u64) -> Result<(), StoreError> {
        self.cursor = place;
        self.quiet = self.shown.is_some_and(|shown| place <= shown);
        let at = At { place, is_new: self.counted.is_none_or(|counted| place > counted), now };
        match record {
            Stored::Message { id, head, statuses, again } => self.message(at, id, head, (statuses, again))?,
            Stored::Outcomes { id, outcomes, report } => self.outcomes(at, id, outcomes, report.as_deref())?,
            Stored::Hits(hits) if at.is_new => self.hits(place, hits)?,
            Stored::Hits(_) | Stored::Setting { .. } | Stored::Settings(_) => {}
        }
        self.pass(place);
        Ok(())
    }

    /// Everything up to `place` was told, and counted where that can be.
    pub fn pass(&mut self, place: Cursor) {
        self.shown = self.shown.max(Some(place));
        if self.store().is_some() {
            self.counted = self.counted.max(Some(place));
        }
    }

    fn message(
        &mut self,
        at: At,
        id: QueueId,
        head: Arc<MessageHead>,
        (statuses, again): (Option<Vec<Outcome>>, bool),
    ) -> Result<(), StoreError> {
        let store = self.store();
        let Some(store) = store else {
            if !again {
                self.tell(|| Event::sent(id, head.accepted_at));
            }
            if self.messages.find(&id, None)?.is_none() {
                self.messages.hold(id, Known::new(head));
            }
            return Ok(());
        };
        // Moved on by compaction, submitted twice under one id, or read once more: it is there from its first place.
        if self.messages.holds(&id) || is_known(&store, &id)? {
            return match statuses {
                Some(statuses) => self.catch_up(at, id, &store, statuses),
                None => Ok(()),
            };
        }
        let head = without_erased(self.recorder.webhooks.settings.erasures(), head, at.place, again);
        let waiting = self.waiting.take(&id, &store, &mut self.writes)?;
        let queued =
            |_| RecipientRow { status: Status::Queued, reply: Box::default(), at: head.accepted_at, delay: None };
        let recipients = head.envelope.recipients.iter().map(queued).collect();
        let known = Known::new(Arc::clone(&head));
        if at.is_new {
            // Also one that was moved on: where its first place is gone, it is counted here.
            self.sums.accepted(&known);
        }
        if at.is_new && !again {
            self.tell(|| Event::sent(id, head.accepted_at));
            let mut news = News::new(&self.recorder.webhooks, at.place, self.begun);
            for recipient in (0u16..).take(if news.is_idle() { 0 } else { known.delivered.len() }) {
                let told = (Told::Sent, head.accepted_at, 0);
                news.tell(&known, id, recipient, told, &mut self.deliveries);
            }
            self.told |= !news.is_idle();
        }
        let row = MessageRow { head, recipients, report: None };
        // What waited leaves the store together with the row that it went into.
        self.messages.put(id, row, !waiting.is_empty(), at.place, at.now);
        let told_of = |place: u16| {
            waiting.iter().any(|(_, what)| match what {
                Waiting::Outcomes { outcomes, .. } => outcomes.iter().any(|outcome| outcome.recipient == place),
                Waiting::Hit(_) => false,
            })
        };
        let folded = statuses.into_iter().flatten().filter(|outcome| !told_of(outcome.recipient)).collect();
        // Nobody is told of these again: they were in the log before.
        self.apply(at, id, folded, None, None)?;
        let mut times = Vec::new();
        let mut news = News::new(&self.recorder.webhooks, at.place, self.begun);
        for ((_, place, _), what) in waiting {
            news.happened = place;
            match what {
                Waiting::Outcomes { outcomes, report } => {
                    self.apply(at, id, outcomes, report.as_deref(), Some(&mut news))?;
                }
                Waiting::Hit(hit) => {
                    let entries = self.hit(Some(&store), &hit, &mut news)?;
                    times.extend(entries.into_iter().map(|entry| (hit.at, entry)));
                }
            }
        }
        time_writes(at.place, times, &mut self.writes);
        Ok(())
    }

    /// Puts in what compaction has written of a message that is there, where that was not met in the log.
    fn catch_up(&mut self, at: At, id: QueueId, store: &Store, statuses: Vec<Outcome>) -> Result<(), StoreError> {
        let Some(known) = legible(&id, self.messages.statuses(&id, store))? else { return Ok(()) };
        let is_new = |outcome: &Outcome| {
            let known = known.get(usize::from(outcome.recipient));
            known.is_some_and(|known| !known.is_settled() && *known != outcome.status)
        };
        let missed: Vec<_> = statuses.into_iter().filter(is_new).collect();
        if missed.is_empty() { Ok(()) } else { self.apply(at, id, missed, None, None) }
    }

    fn outcomes(
        &mut self,
        at: At,
        id: QueueId,
        outcomes: Vec<Outcome>,
        report: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let store = self.store();
        let known = match &store {
            Some(store) => legible(&id, self.messages.change(&id, store, at.place, at.now))?.map(|(known, _)| known),
            None => self.messages.find(&id, None)?,
        };
        let recipients = known.map(|known| Arc::clone(&known.head));
        for outcome in &outcomes {
            // Without the message's record the address is not at hand, and the event is told without it.
            let place = usize::from(outcome.recipient);
            let to = recipients.as_ref().and_then(|head| head.envelope.recipients.get(place));
            if self.is_watched()
                && let Some(event) = Event::of_outcome(id, to.map(|to| &to.address), outcome)
            {
                self.tell(|| event);
            }
        }
        match (store, recipients) {
            (Some(_), Some(_)) => {
                let mut news = News::new(&self.recorder.webhooks, at.place, self.begun);
                self.apply(at, id, outcomes, report, Some(&mut news))?;
            }
            (Some(_), None) if at.is_new => {
                let report = report.map(<[u8]>::to_vec);
                self.waiting.put((id, at.place, 0), Waiting::Outcomes { outcomes, report });
            }
            (Some(_), None) => {}
            (None, _) => {
                if let Some(known) = self.messages.find(&id, None)? {
                    outcomes.iter().for_each(|outcome| known.note(outcome));
                    known.facts = report.and_then(ReportFacts::from_kept).or(known.facts);
                }
            }
        }
        Ok(())
    }

    /// Puts outcomes into the row of a message that is there.
    fn apply(
        &mut self,
        at: At,
        id: QueueId,
        mut outcomes: Vec<Outcome>,
        report: Option<&[u8]>,
        mut news: Option<&mut News>,
    ) -> Result<(), StoreError> {
        let Some(store) = self.store() else { return Ok(()) };
        let Some((known, row)) = self.messages.change(&id, &store, at.place, at.now)? else { return Ok(()) };
        hush(&row.head, &mut outcomes);
        if let Some(report) = report
            && let Some(facts) = ReportFacts::from_kept(report)
        {
            if known.facts.replace(facts).is_none() && at.is_new {
                let when = outcomes.first().map_or(known.head.accepted_at, |outcome| outcome.at);
                self.sums.planned(known, &facts, when);
            }
            if !is_nobodys(&row.head) {
                row.report = Some(report.to_vec());
            }
        }
        self.told |= at.is_new && news.as_ref().is_some_and(|news| !news.is_idle());
        for outcome in outcomes {
            let Some(before) = row.recipients.get_mut(usize::from(outcome.recipient)) else { continue };
            if before.status.is_settled() {
                // A second word about it is a crash's echo, or the log is read once more.
                continue;
            }
            known.note(&outcome);
            if at.is_new {
                let to = known.head.envelope.recipients.get(usize::from(outcome.recipient)).map(|r| &r.address);
                let tracked = to.is_some_and(|to| !(self.recorder.left_alone)(known.domain(), to));
                self.sums.outcome(known, before, &outcome, tracked);
                if let (Some(told), Some(news)) = (told_of(before, &outcome), &mut news) {
                    news.tell(known, id, outcome.recipient, (told, outcome.at, 0), &mut self.deliveries);
                }
            }
            set(before, outcome);
        }
        Ok(())
    }

    fn hits(&mut self, place: Cursor, hits: Vec<Hit>) -> Result<(), StoreError> {
        let store = self.store();
        let mut times = Vec::new();
        let mut news = News::new(&self.recorder.webhooks, place, self.begun);
        self.told |= !news.is_idle();
        for (number, hit) in (0u32..).zip(hits) {
            if store.is_some() && legible(&hit.id, self.messages.find(&hit.id, store.as_deref()))?.is_none() {
                self.waiting.put((hit.id, place, number), Waiting::Hit(hit));
                continue;
            }
            let entries = self.hit(store.as_deref(), &hit, &mut news)?;
            times.extend(entries.into_iter().map(|entry| (hit.at, entry)));
        }
        time_writes(place, times, &mut self.writes);
        Ok(())
    }

    /// Counts some of the hits whose message did not come, or only lets them go.
    pub fn take_from_waiting(&mut self, counts: bool) -> Result<(), StoreError> {
        let Some(store) = self.store() else { return Ok(()) };
        self.quiet = false;
        for ((_, place, _), what) in self.waiting.take_some(&store, &mut self.writes)? {
            if let (Waiting::Hit(hit), true) = (what, counts) {
                let mut news = News::new(&self.recorder.webhooks, place, self.begun);
                self.hit(Some(&store), &hit, &mut news)?;
            }
        }
        Ok(())
    }

    /// Takes a hit, or as much of it as is no flood's, and the rest as such. The entries that were made.
    fn hit(&mut self, store: Option<&Store>, hit: &Hit, news: &mut News) -> Result<Vec<HitRef>, StoreError> {
        let mut entries = Vec::new();
        for (part, is_flood) in self.floods.part(hit) {
            entries.extend(self.part(store, &part, is_flood, news)?);
        }
        Ok(entries)
    }

    fn part(
        &mut self,
        store: Option<&Store>,
        hit: &Hit,
        is_flood: bool,
        news: &mut News,
    ) -> Result<Option<HitRef>, StoreError> {
        let keeps_traces = self.keeps_traces();
        let known = legible(&hit.id, self.messages.find(&hit.id, store))?;
        // Without a word of its delivery it cannot be judged by the time since.
        let delivered = known.as_ref().map(|known| known.delivered_at(hit.recipient, hit.at)).filter(|at| *at > 0);
        let mut class = classify(hit, delivered, &self.recorder.machines.load());
        let links =
            known.as_ref().and_then(|known| known.facts).map(|facts| u16::try_from(facts.links).unwrap_or(u16::MAX));
        let verdict = match (&hit.kind, &class) {
            // An image proxy's opens come from few addresses for many people, and are known for what they are.
            (HitKind::Open, Class::Machine(_)) => None,
            // More of the same shows nothing new.
            _ if is_flood => None,
            _ => Some(self.bursts.note(hit, links)),
        };
        let (this, earlier) = verdict.map_or((None, Vec::new()), |verdict| (verdict.this, verdict.earlier));
        if let (Some(reason), false) = (this, matches!(class, Class::Machine(_))) {
            class = Class::Machine(reason);
        }
        if is_flood && !matches!(class, Class::Machine(_)) {
            class = Class::Machine(MachineReason::Flood);
        }
        let to = known.as_ref().and_then(|known| known.head.envelope.recipients.get(usize::from(hit.recipient)));
        let to = to.map(|recipient| recipient.address.clone());
        let mut entry = None;
        match (known, store) {
            (Some(known), Some(store)) => {
                let is_unseen = |to: &Address| to.as_str() == ERASED || (self.recorder.left_alone)(known.domain(), to);
                if to.as_ref().is_some_and(is_unseen) {
                    // They do not want to be seen, or were forgotten.
                    return Ok(None);
                }
                let noted = self.people.note(store, known, (hit, keeps_traces), class, &mut self.sums)?;
                (class, entry) = (noted.class, noted.entry);
                if let Some(entry) = entry {
                    let (address, agent) = if keeps_traces { (Some(hit.address), &*hit.agent) } else { (None, "") };
                    let visit = Visit { at: hit.at, address, agent, class: &class };
                    let told = match &hit.kind {
                        HitKind::Open => Told::Opened(visit),
                        HitKind::Click { url, .. } => Told::Clicked { visit, link: url },
                    };
                    let told = (told, hit.at, u64::from(entry.number));
                    news.tell(known, hit.id, hit.recipient, told, &mut self.deliveries);
                }
                self.relabel(store, earlier)?;
            }
            // The message was forgotten, so this is nobody's; it happened all the same.
            (None, Some(_)) => {
                let counter = match (&hit.kind, &class) {
                    (HitKind::Open, Class::Machine(_)) => Counter::OpensMachine,
                    (HitKind::Open, _) => Counter::OpensHuman,
                    (HitKind::Click { .. }, Class::Machine(_)) => Counter::ClicksMachine,
                    (HitKind::Click { .. }, Class::Human) => Counter::ClicksHuman,
                    (HitKind::Click { .. }, Class::Unknown(_)) => Counter::ClicksUnknown,
                };
                self.sums.add_for(None, hit.at, counter, i64::from(hit.count));
            }
            (_, None) => {}
        }
        metrics::counter!("trackpost_hits_total", "class" => class.word()).increment(u64::from(hit.count));
        if self.is_watched() {
            let facts = HitFacts {
                id: hit.id,
                recipient: hit.recipient,
                number: entry.map_or(u32::MAX, |entry| entry.number),
                kind: &hit.kind,
                at: hit.at,
                count: hit.count,
                class: &class,
                address: Some(hit.address).filter(|_| keeps_traces),
                agent: if keeps_traces { &hit.agent } else { "" },
            };
            self.tell(|| Event::of_hit(facts, to.as_ref()));
        }
        Ok(entry)
    }

    /// Gives hits another label, now that others have shown what they were part of.
    fn relabel(&mut self, store: &Store, hits: Vec<(Part, MachineReason)>) -> Result<(), StoreError> {
        for (hit, reason) in hits {
            let Some(known) = legible(&hit.id, self.messages.find(&hit.id, Some(store)))? else { continue };
            let is_it = |entry: &HitEntry| {
                entry.at == hit.at && entry.link() == hit.link && entry.address.is_none_or(|a| a == hit.address)
            };
            let (whose, class) = ((hit.id, hit.recipient), Class::Machine(reason));
            if self.people.relabel(store, known, (whose, &is_it), &class, &mut self.sums)?.is_some() {
                metrics::counter!("trackpost_hits_relabelled_total").increment(1);
            }
        }
        Ok(())
    }
}

/// A row that was read and makes no sense is as good as none, since it will make none the next time either: what belongs
/// to it is nobody's. Any other error may pass.
pub(super) fn legible<T>(id: &QueueId, found: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Err(StoreError::Malformed) => {
            tracing::error!(queue_id = %id, "the history's row of a message is damaged, and is passed over");
            metrics::counter!("trackpost_rows_damaged_total").increment(1);
            Ok(None)
        }
        found => found,
    }
}

/// What webhooks are told of an outcome: each step of a copy once.
fn told_of<'a>(before: &RecipientRow, outcome: &'a Outcome) -> Option<Told<'a>> {
    match outcome.status {
        Status::Delivered | Status::Relayed => Some(Told::Delivered),
        Status::Bounced => Some(Told::Bounced { reply: &outcome.reply, gave_up: outcome.reply.starts_with('4') }),
        Status::Removed => Some(Told::Failed { reason: "removed_by_operator" }),
        Status::Suppressed => Some(Told::Failed { reason: "suppressed" }),
        Status::Deferred { .. } | Status::Stranded { .. } => before.delay.is_none().then_some(Told::DeliveryDelayed),
        Status::Queued | Status::Held => None,
    }
}

fn set(recipient: &mut RecipientRow, outcome: Outcome) {
    let delay = match outcome.status {
        Status::Deferred { .. } | Status::Stranded { .. } if recipient.delay.is_none() => {
            Some(Delay { at: outcome.at, reply: outcome.reply.clone() })
        }
        _ => recipient.delay.take(),
    };
    *recipient = RecipientRow { status: outcome.status, reply: outcome.reply, at: outcome.at, delay };
}
