//! A relay without its listeners, to test on.

use super::{Ops, READERS, Terms};
use crate::clock;
use crate::config::WebhookPorts;
use crate::domain::{Demand, Expected, SenderDomain};
use crate::keys::{DkimKeys, TokenRing};
use crate::mail::{Address, DomainName, Outcome, QueueId, Status};
use crate::privacy::PrivacyKey;
use crate::queue::{Queue, heads_of};
use crate::retry::Schedule;
use crate::settings::{ApiKey, Permission, Settings, Tie};
use crate::spool::{Entry, Log, MessageHead, Options};
use crate::store::{self, MaybeStore, MessageRow, RecipientRow, Store, commit_now};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

/// It, and the folder that goes with it.
pub struct Fixture {
    pub ops: Arc<Ops>,
    dir: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (log, recovered) = Log::open(Options { min_free: 0, ..Options::new(dir.path()) }).unwrap();
        let (settings, _) = Settings::new(log.clone(), &recovered.settings);
        let schedule = Schedule { pauses: vec![Duration::from_secs(60)], max_age: Duration::from_secs(3_600) };
        let store = MaybeStore::default();
        store.store(Some(Arc::new(Store::open(dir.path()).unwrap())));
        let name = |name| DomainName::parse(name).unwrap();
        let ops = Ops {
            settings: Arc::new(settings),
            keys: TokenRing::open(dir.path()).unwrap(),
            dkim: Arc::new(DkimKeys::new(dir.path())),
            dkim_turn: tokio::sync::Mutex::default(),
            queue: Arc::new(Queue::new(Vec::new(), heads_of(&log), clock::steady_ms(), &schedule)),
            log,
            store,
            webhooks: Arc::default(),
            forget: tokio::sync::mpsc::channel(1).0,
            privacy: Arc::new(PrivacyKey::new(&[7; 32])),
            terms: ArcSwap::from_pointee(Terms {
                expected: Expected { cname_target: name("track.example.net"), caa_issuer: name("ca.example.net") },
                demand: Demand::Nothing,
                by_acme: false,
                unsupported_suffixes: Vec::new(),
                policy_url: None,
                removed_domain_grace: Duration::ZERO,
                private_webhooks: true,
                webhook_ports: WebhookPorts::Any,
            }),
            readers: tokio::sync::Semaphore::new(READERS),
            forget_dns: AtomicBool::new(false),
        };
        Self { ops: Arc::new(ops), dir }
    }

    /// What a start would find now: the settings as their records are, and unsettled messages.
    pub fn on_disk(&self) -> (BTreeMap<String, Bytes>, Vec<QueueId>) {
        let copy = tempfile::tempdir().unwrap();
        let to = copy.path().join("log");
        fs::create_dir(&to).unwrap();
        for file in fs::read_dir(self.dir.path().join("log")).unwrap().flatten() {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        let (log, found) = Log::open(Options { min_free: 0, ..Options::new(copy.path()) }).unwrap();
        let (settings, _) = Settings::new(log, &found.settings);
        (settings.snapshot().records(), found.messages.iter().map(|live| live.id).collect())
    }

    /// Puts messages into the history, each delivered to its one recipient.
    pub fn keep(&self, messages: impl IntoIterator<Item = (QueueId, MessageHead)>) {
        let store = self.ops.store.load_full().unwrap();
        let mut writes = Vec::new();
        for (id, head) in messages {
            let at = head.accepted_at + 1;
            let state = RecipientRow { status: Status::Delivered, reply: "250 2.0.0 Ok".into(), at, delay: None };
            let recipients = vec![state; head.envelope.recipients.len()];
            store::message_writes(&id, &MessageRow { head: Arc::new(head), recipients, report: None }, 0, &mut writes);
        }
        aside(|| commit_now(&store, writes).unwrap());
    }

    /// Puts a message through the log, as if it had been delivered.
    pub fn log(&self, id: QueueId, head: &MessageHead, body: &str) {
        let message = Entry::Message { id, head: Arc::new(head.clone()), body: vec![Bytes::from(body.to_owned())] };
        let at = head.accepted_at + 1;
        let outcomes = vec![Outcome { recipient: 0, status: Status::Delivered, reply: Box::default(), at }];
        let outcomes = Entry::Outcomes { id, outcomes, report: None };
        aside(|| [message, outcomes].into_iter().for_each(|entry| self.ops.log.append(entry).wait().unwrap()));
    }
}

/// Waits on a thread of its own: those of asynchronous tests may not.
pub fn aside(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}

/// The head of a message of `example.com`, or of another domain, to one recipient.
pub fn head(id: QueueId, domain: &str, subject: &str) -> MessageHead {
    MessageHead {
        envelope: crate::mail::Envelope {
            sender: None,
            recipients: vec![Address::parse("ada@example.net").unwrap().into()],
            body: crate::mail::Body::default(),
            smtputf8: false,
            ret: None,
            envid: None,
        },
        accepted_at: id.unix_ms(),
        from_domain: Some(domain.into()),
        from: format!("News <news@{domain}>").into(),
        subject: subject.into(),
        message_id: format!("<{id}@{domain}>").into(),
        size: 100,
        tags: Vec::new(),
        role: crate::mail::Role::Submission,
    }
}

/// A domain that was added at `at`.
pub fn domain(name: &str, at: u64) -> SenderDomain {
    SenderDomain::new(DomainName::parse(name).unwrap(), Uuid::from_u128(u128::from(at) + 1), at)
}

/// A key that is tied to these domains.
pub fn key(domains: &[&SenderDomain]) -> ApiKey {
    let ties = domains.iter().map(|domain| Tie { id: domain.id, name: domain.name.clone() }).collect();
    ApiKey::new(Uuid::from_u128(7), "test".to_owned(), "re_test", Permission::FullAccess, ties, 0)
}
