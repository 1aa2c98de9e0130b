//! Whoever asks for a change may hang up at any moment: the change is made as a whole or not at all, and what is in
//! force is what a start would find.

use super::fixture::{Fixture, domain, head, key};
use super::{Ops, Verify};
use crate::clock;
use crate::intake::{Intake, MailFrom, Origin, Rules};
use crate::kill::KillKind;
use crate::mail::{Outcome, Protocol, QueueId, Role, Status};
use crate::ops::{self, DomainUpdate, NewDomain, NewKey, NewWebhook, WebhookUpdate};
use crate::settings::{Change, Permission};
use crate::spool::Entry;
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use uuid::Uuid;

/// Runs a future until it has had to wait `waits` times; then it is dropped. `late` lets what it waits for come first.
struct DropAfter<F> {
    future: Option<Pin<Box<F>>>,
    waits: usize,
}

impl<F: Future> Future for DropAfter<F> {
    type Output = bool;

    /// True when the future came to its end.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let Some(future) = &mut self.future else { return Poll::Ready(false) };
        if future.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        self.waits -= 1;
        if self.waits == 0 { Poll::Ready(false) } else { Poll::Pending }
    }
}

async fn drop_after<F: Future>(waits: usize, late: bool, future: F) -> bool {
    let mut cut = DropAfter { future: Some(Box::pin(future)), waits };
    let ended = Pin::new(&mut cut).await;
    if late {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    drop(cut);
    ended
}

/// What the operations of the table work on.
struct Place {
    fixture: Fixture,
    intake: Intake,
    /// A message that is deferred.
    mail: QueueId,
    domain: Uuid,
    webhook: Uuid,
    key: Uuid,
}

const DESTINATION: &str = "https://example.org/gone";

impl Place {
    async fn new() -> Self {
        let fixture = Fixture::new();
        let ops = Arc::clone(&fixture.ops);
        let own = domain("example.com", 1);
        let tied = key(&[&own]);
        let (domain, key) = (own.id, tied.id);
        let made = ops
            .settings
            .change(|_| Ok::<_, ops::OpError>((vec![Change::Domain(own), Change::ApiKey(tied.clone())], ())));
        made.await.unwrap();
        let new = NewWebhook {
            endpoint: "https://hooks.example.org/".to_owned(),
            events: vec!["email.bounced".to_owned()],
            enabled: true,
        };
        let webhook = ops::webhook_create(&ops, &tied, new).await.unwrap().id;
        ops::kill_add(&ops, KillKind::Link, DESTINATION).await.unwrap();
        ops::opt_out(&ops, None, "ada@example.net", None).await.unwrap();
        let mail = clock::queue_id();
        let head = Arc::new(head(mail, "example.com", "late"));
        let body = vec![Bytes::from_static(b"Subject: late\r\n\r\n")];
        ops.log.append(Entry::Message { id: mail, head: Arc::clone(&head), body }).await.unwrap();
        ops.queue.insert(mail, head, None);
        let now = clock::steady_ms();
        let status = Status::Deferred { attempts: 1, next: now + 3_600_000, age: 1, told: false };
        let outcomes = vec![Outcome { recipient: 0, status, reply: "450 later".into(), at: now }];
        ops.log.append(Entry::Outcomes { id: mail, outcomes: outcomes.clone(), report: None }).await.unwrap();
        ops.queue.set_width(4);
        ops.queue.take(now).unwrap();
        ops.queue.note(&mail, &outcomes);
        ops.queue.finish(&mail, None, now);
        let intake = Intake {
            log: ops.log.clone(),
            queue: Arc::clone(&ops.queue),
            settings: Arc::clone(&ops.settings),
            hostname: "relay.example.net".into(),
            rules: ArcSwap::from_pointee(Rules { reject_unknown: false, max_messages: 100 }),
        };
        Self { fixture, intake, mail, domain, webhook, key }
    }

    fn ops(&self) -> &Ops {
        &self.fixture.ops
    }

    /// What is in force and what a start would find, in words that can be compared.
    fn both(&self) -> (BTreeMap<String, Bytes>, BTreeMap<String, Bytes>) {
        let since = std::time::Instant::now();
        let snapshot = loop {
            // A change may come into force between the two looks.
            let snapshot = self.ops().settings.snapshot();
            if self.ops().queue.is_held() == snapshot.queue_held {
                break snapshot;
            }
            assert!(since.elapsed() < std::time::Duration::from_secs(10), "what is saved of a hold is not in force");
            std::thread::yield_now();
        };
        let mut memory = snapshot.records();
        for waits in self.ops().queue.list(usize::MAX) {
            let in_flight = if waits.in_flight { "taken" } else { "waits" };
            memory.insert(format!("mail {}", waits.id), Bytes::from(in_flight));
        }
        let (mut disk, mail) = self.fixture.on_disk();
        disk.extend(mail.iter().map(|id| (format!("mail {id}"), Bytes::from("waits"))));
        (memory, disk)
    }
}

type Asked<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
type Ask = for<'a> fn(&'a Place) -> Asked<'a>;

macro_rules! ask {
    (|$place:ident| $work:expr) => {
        |$place| Box::pin(async move { drop($work.await) })
    };
}

/// Every operation that changes something and waits meanwhile, but for those that make an RSA key, which takes long, and
/// put it in place as an import does.
const ALL: &[(&str, Ask)] = &[
    ("queue_remove", ask!(|p| ops::queue_remove(p.ops(), &p.mail))),
    ("queue_hold", ask!(|p| ops::queue_hold(p.ops(), true))),
    ("accept", |p| {
        Box::pin(async move {
            let envelope = head(p.mail, "example.com", "").envelope;
            let protocol = Protocol { extended: true, tls: false, authenticated: false, utf8: false };
            let client = Ipv4Addr::LOCALHOST.into();
            let (role, mail_from) = (Role::Submission, MailFrom::Own);
            let origin = Origin { helo: "client", client, protocol, login: None, role, mail_from };
            drop(p.intake.accept(envelope, b"From: a@example.com\r\n\r\nhello\r\n".to_vec(), origin).await);
        })
    }),
    ("submit", |p| {
        Box::pin(async move {
            let envelope = head(p.mail, "example.com", "").envelope;
            drop(p.intake.submit(clock::queue_id(), envelope, b"Subject: notice\r\n\r\n".to_vec()).await);
        })
    }),
    ("domain_add", |p| {
        Box::pin(async move {
            let new = NewDomain { name: "example.org".to_owned(), ..NewDomain::default() };
            drop(ops::domain_add(p.ops(), new).await);
        })
    }),
    ("domain_update", |p| {
        Box::pin(async move {
            let update = DomainUpdate { open: Some(true), ..DomainUpdate::default() };
            drop(ops::domain_update(p.ops(), p.domain, update).await);
        })
    }),
    ("domain_verify", ask!(|p| ops::domain_verify(p.ops(), p.domain, Verify::Ask, Duration::ZERO))),
    ("domain_remove", ask!(|p| ops::domain_remove(p.ops(), p.domain))),
    ("tracking_switch", ask!(|p| ops::tracking_switch(p.ops(), Some("example.com"), false))),
    ("key_create", |p| {
        Box::pin(async move {
            let new = NewKey { name: "another".to_owned(), permission: Permission::FullAccess, domains: Vec::new() };
            drop(ops::key_create(p.ops(), new).await);
        })
    }),
    ("key_rename", ask!(|p| ops::key_rename(p.ops(), p.key, "renamed".to_owned()))),
    ("key_delete", ask!(|p| ops::key_delete(p.ops(), p.key))),
    ("kill_add", ask!(|p| ops::kill_add(p.ops(), KillKind::Link, "https://example.org/other"))),
    ("kill_remove", ask!(|p| ops::kill_remove(p.ops(), KillKind::Link, DESTINATION))),
    ("opt_out", ask!(|p| ops::opt_out(p.ops(), None, "bob@example.net", None))),
    ("opt_in", ask!(|p| ops::opt_in(p.ops(), "ada@example.net", None))),
    ("webhook_update", |p| {
        Box::pin(async move {
            let update = WebhookUpdate { enabled: Some(false), ..WebhookUpdate::default() };
            drop(ops::webhook_update(p.ops(), &key(&[]), p.webhook, update).await);
        })
    }),
    ("webhook_rotate", |p| Box::pin(async move { drop(ops::webhook_rotate(p.ops(), &key(&[]), p.webhook).await) })),
    ("webhook_delete", |p| Box::pin(async move { drop(ops::webhook_delete(p.ops(), &key(&[]), p.webhook).await) })),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_as_a_whole_or_not_at_all_whenever_the_client_hangs_up() {
    for (name, ask) in ALL {
        for (waits, late) in [(1, false), (1, true), (2, false), (2, true), (3, false)] {
            let place = Place::new().await;
            let ended = drop_after(waits, late, ask(&place)).await;
            // What is on its way gets there.
            let end = std::time::Instant::now() + Duration::from_secs(10);
            loop {
                let (memory, disk) = place.both();
                if memory == disk {
                    break;
                }
                assert!(std::time::Instant::now() < end, "{name} after {waits} waits: {memory:?} and {disk:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if ended {
                break;
            }
        }
    }
}
