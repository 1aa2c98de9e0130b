//! What happened, added up the simple way.

use super::smarthost::Smarthost;
use crate::mail::{QueueId, Status};
use crate::store::{self, Counter, Counts, Scope, Store};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A message that was accepted.
pub struct Sent {
    pub id: QueueId,
    /// Its recipients; the first word of each is what the smarthost does.
    pub to: Vec<String>,
    /// Who opened it, or clicked which link.
    pub hits: Vec<(u16, Option<u16>)>,
}

pub struct Truth {
    pub messages: Vec<Sent>,
    webhook: Uuid,
    /// Copies that may have been sent twice: the log could not be told of them.
    pub repeats: usize,
}

impl Truth {
    pub fn new(webhook: Uuid) -> Self {
        Self { messages: Vec::new(), webhook, repeats: 0 }
    }

    /// Holds what the relay says against what is so.
    pub fn compare(&self, store: &Store, peer: &Smarthost) {
        let seen = peer.seen();
        let (mut wanted, mut told) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, usize>::new());
        for (number, sent) in self.messages.iter().enumerate() {
            *wanted.entry("messages").or_default() += 1;
            let (row, _) =
                store::message(store, &sent.id).unwrap().unwrap_or_else(|| panic!("no row of message {number}"));
            for (place, to) in sent.to.iter().enumerate() {
                let times = seen.taken.get(&(format!("message {number}"), to.clone())).copied().unwrap_or(0);
                let status = row.recipients[place].status;
                let (counter, event) = match (times, to.starts_with("refused")) {
                    (0, true) => ("bounced", "email.bounced"),
                    (0, false) => ("failed", "email.failed"),
                    _ => ("delivered", "email.delivered"),
                };
                let is_so = match counter {
                    "bounced" => status == Status::Bounced,
                    "failed" => status == Status::Removed,
                    _ => matches!(status, Status::Delivered | Status::Relayed),
                };
                assert!(is_so, "{to} of message {number}: {counter}, and the history says {status:?}");
                *wanted.entry(counter).or_default() += 1;
                *wanted.entry("sent").or_default() += 1;
                *told.entry(event).or_default() += 1;
                *told.entry("email.sent").or_default() += 1;
            }
            let counts = store::counts(store, Scope::Message(sent.id)).unwrap();
            let (opens, clicks) = hits(&counts);
            let clicked = sent.hits.iter().filter(|(_, link)| link.is_some()).count();
            assert_eq!((opens, clicks), (sent.hits.len() - clicked, clicked), "hits of message {number}");
            *told.entry("email.opened").or_default() += sent.hits.len() - clicked;
            *told.entry("email.clicked").or_default() += clicked;
            let mut openers: Vec<_> = sent.hits.iter().filter(|(_, link)| link.is_none()).map(|(who, _)| who).collect();
            openers.sort_unstable();
            openers.dedup();
            assert_eq!(counts.get(Counter::OpenedAny), openers.len() as u64, "who opened message {number}");
        }
        let counts = all(store, Scope::Domain("example.com"));
        let table = [
            ("messages", Counter::Messages),
            ("sent", Counter::Sent),
            ("delivered", Counter::Delivered),
            ("bounced", Counter::BouncedPermanent),
            ("failed", Counter::Failed),
        ];
        for (name, counter) in table {
            assert_eq!(counts.get(counter), wanted.get(name).copied().unwrap_or(0), "{name} in the counts");
        }
        let mut deliveries = BTreeMap::<String, Vec<_>>::new();
        for delivery in store::deliveries(store, self.webhook, None, 100_000).unwrap() {
            let number = self.messages.iter().position(|sent| Some(sent.id) == delivery.email);
            deliveries.entry(delivery.kind).or_default().push((number, delivery.recipient));
        }
        for (event, count) in told {
            let found = deliveries.get(event).map_or(&[][..], Vec::as_slice);
            assert_eq!(found.len(), count, "webhooks of {event}: {found:?}");
        }
        let repeated: usize = seen.taken.values().map(|times| times - 1).sum();
        assert!(repeated <= self.repeats, "{repeated} copies were taken twice, and {} may have been", self.repeats);
    }
}

fn hits(counts: &Counts) -> (usize, usize) {
    let sum = |counters: [Counter; 3]| counters.iter().map(|counter| counts.get(*counter)).sum::<u64>() as usize;
    (
        sum([Counter::OpensHuman, Counter::OpensMachine, Counter::OpensUnknown]),
        sum([Counter::ClicksHuman, Counter::ClicksMachine, Counter::ClicksUnknown]),
    )
}

fn all(store: &Store, scope: Scope<'_>) -> Counts {
    let mut sum = Counts::default();
    store::counts_by_hour(store, scope, 0..u32::MAX).unwrap().iter().for_each(|(_, counts)| sum.add(counts));
    sum
}
