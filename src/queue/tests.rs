//! The queue in the hands of its three users: intake, delivery, the operator.

use super::*;
use crate::mail::{Address, Envelope};
use std::ops::Bound;
use std::time::Duration;

pub(super) fn head(recipients: usize) -> Arc<MessageHead> {
    let address = Address::parse("a@example.net").unwrap();
    Arc::new(MessageHead {
        envelope: Envelope {
            sender: None,
            recipients: vec![address.into(); recipients],
            body: Default::default(),
            smtputf8: false,
            ret: None,
            envid: None,
        },
        accepted_at: 0,
        from_domain: None,
        from: "".into(),
        subject: "".into(),
        message_id: "".into(),
        size: 0,
        tags: Vec::new(),
        role: crate::mail::Role::Submission,
    })
}

fn id(n: u8) -> QueueId {
    QueueId::new(u64::from(n), [n; 10])
}

fn outcome(recipient: u16, status: Status) -> Outcome {
    Outcome { recipient, status, reply: "x".into(), at: 1 }
}

fn deferred(next: u64) -> Status {
    Status::Deferred { attempts: 1, next, age: 5, told: false }
}

fn schedule() -> Schedule {
    Schedule { pauses: vec![Duration::from_secs(60)], max_age: Duration::from_secs(3600) }
}

fn queue() -> Queue {
    let queue = Queue::new(Vec::new(), |_| Some(head(1)), 0, &schedule());
    queue.set_width(8);
    queue
}

fn up(queue: &Queue) {
    queue.smarthost_is_up();
    let mut last = None;
    while let Some(next) = queue.free_stranded(last) {
        last = Some(next);
    }
}

fn due(attempt: &Attempt) -> Vec<(u16, u32)> {
    attempt.due.iter().map(|due| (due.recipient, due.attempts)).collect()
}

#[test]
fn parts_are_listed_from_either_end() {
    let queue = queue();
    (1..=9).rev().for_each(|n| queue.insert(id(n), head(1), None));
    let ids = |listed: Vec<Listed>| listed.iter().map(|listed| listed.id).collect::<Vec<_>>();
    assert_eq!(ids(queue.list(3)), [id(1), id(2), id(3)]);
    assert_eq!(ids(queue.list(99)).len(), 9);
    let between = (Bound::Excluded(id(1)), Bound::Excluded(id(9)));
    let page = |backwards, limit| ids(queue.page(between, limit, backwards, |_| true));
    assert!(queue.page((between.1, between.0), 9, true, |_| true).is_empty(), "nothing is between these");
    assert_eq!(page(false, 3), [id(2), id(3), id(4)]);
    assert_eq!(page(true, 3), [id(8), id(7), id(6)]);
    assert_eq!((page(true, 0), page(false, 7).len(), page(true, 99).len()), (Vec::new(), 7, 7));
}

#[test]
fn first_in_first_out_until_deferred() {
    let queue = queue();
    queue.insert(id(1), head(2), None);
    queue.insert(id(2), head(1), None);
    let first = queue.take(0).unwrap();
    assert_eq!((first.id, due(&first)), (id(1), vec![(0, 0), (1, 0)]));
    queue.note(&id(1), &[outcome(0, Status::Delivered), outcome(1, deferred(100))]);
    queue.finish(&id(1), None, 0);
    assert_eq!(queue.take(0).unwrap().id, id(2));
    queue.note(&id(2), &[outcome(0, Status::Relayed)]);
    queue.finish(&id(2), None, 0);
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.wake_due(99), Some(100));
    assert!(queue.take(99).is_none());
    assert_eq!(queue.wake_due(100), None);
    let again = queue.take(100).unwrap();
    assert_eq!(again.due, [Due { recipient: 1, attempts: 1, age: 5, at: 1, told: false }]);
}

#[test]
fn a_smarthost_that_is_down_strands_and_frees() {
    let queue = queue();
    queue.insert(id(1), head(1), None);
    queue.insert(id(2), head(1), None);
    let attempt = queue.take(0).unwrap();
    queue.smarthost_is_down("connection refused", 7);
    let stranded = Status::Stranded { attempts: 1, next: 60_000, age: 5, told: false };
    queue.note(&attempt.id, &[outcome(0, stranded)]);
    queue.finish(&attempt.id, None, 7);
    assert!(queue.take(0).is_none());
    assert_eq!(queue.unreachable().unwrap().since, 7);
    up(&queue);
    let order: Vec<_> = std::iter::from_fn(|| queue.take(8)).map(|a| (a.id, due(&a))).collect();
    assert_eq!(order, [(id(2), vec![(0, 0)]), (id(1), vec![(0, 1)])]);
    assert_eq!(queue.wake_due(u64::MAX), None);
}

#[test]
fn a_long_queue_is_moved_in_batches() {
    let queue = queue();
    let id = |n: u64| QueueId::new(n, [0; 10]);
    let many = BATCH as u64 * 2 + 10;
    queue.smarthost_is_down("connection refused", 0);
    for n in 0..many {
        queue.insert(id(n), head(1), None);
        queue.take_stranded(0).unwrap();
        queue.note(&id(n), &[outcome(0, Status::Stranded { attempts: 1, next: 60_000, age: 5, told: false })]);
        queue.finish(&id(n), None, 0);
    }
    queue.smarthost_is_up();
    let first = queue.free_stranded(None);
    assert_eq!((first, queue.backlog()), (Some((60_000, id(999))), BATCH));
    // Of what is left, a batch falls due by time.
    assert_eq!((queue.wake_due(60_000), queue.backlog()), (Some(60_000), 2 * BATCH));
    queue.smarthost_is_down("connection refused", 0);
    assert_eq!((queue.free_stranded(first), queue.backlog()), (None, 2 * BATCH), "it is down again");
    assert_eq!((queue.retry(None), queue.backlog()), (BATCH + 10, 2 * BATCH + 10), "those that fell due count");
}

#[test]
fn what_the_operator_does() {
    let queue = queue();
    queue.insert(id(1), head(1), None);
    queue.hold(true);
    assert!(queue.take(0).is_none());
    queue.hold(false);
    assert_eq!(queue.take(0).unwrap().id, id(1));
    assert_eq!(queue.claim(&id(1)), Err(ClaimError::InFlight));
    assert_eq!(queue.retry(Some(&id(1))), 0);
    queue.note(&id(1), &[outcome(0, deferred(500))]);
    queue.finish(&id(1), None, 0);
    assert!(queue.take(1).is_none());
    assert_eq!(queue.retry(None), 1);
    assert_eq!(due(&queue.take(1).unwrap()), [(0, 1)]);
    queue.finish(&id(1), None, 1);
    assert_eq!(queue.claim(&id(1)), Ok(vec![0]));
    assert!(queue.take(u64::MAX).is_none(), "it is the operator's now");
    queue.note(&id(1), &[outcome(0, Status::Removed)]);
    queue.finish(&id(1), None, 1);
    assert_eq!(queue.claim(&id(1)), Err(ClaimError::Unknown));
}

/// What the log has of a message to one recipient.
fn live(n: u8, status: Status) -> Live {
    let (lane, newest) = ("example.net".into(), vec![outcome(0, status)]);
    Live { id: id(n), accepted_at: 0, lane, from_domain: None, recipients: 1, newest }
}

#[test]
fn a_due_time_that_the_clock_left_far_ahead_is_a_pause_away_at_most() {
    let recovered = vec![live(1, deferred(90_000_000)), live(2, deferred(1_000_030))];
    let queue = Queue::new(recovered, |_| Some(head(1)), 1_000_000, &schedule());
    assert_eq!(queue.wake_due(1_000_000), Some(1_000_030));
    assert_eq!(queue.wake_due(1_000_030), Some(1_067_500));
}

#[test]
fn the_hot_budget_is_bounded_and_nobody_waits_for_it() {
    let queue = queue();
    let body = Bytes::from(vec![0; HOT_MESSAGE]);
    let fits = HOT_BYTES / (HOT_MESSAGE + 512);
    (0..200).for_each(|n| queue.insert(id(n), head(1), Some(body.clone())));
    queue.insert(id(201), head(1), Some(Bytes::from(vec![0; HOT_MESSAGE + 1])));
    assert_eq!(queue.len(), 201);
    let hot = std::iter::from_fn(|| {
        let attempt = queue.take(0)?;
        queue.note(&attempt.id, &[outcome(0, Status::Delivered)]);
        queue.finish(&attempt.id, None, 0);
        Some(attempt.hot.is_some())
    });
    let hot: Vec<_> = hot.collect();
    assert_eq!((hot.len(), hot.iter().filter(|hot| **hot).count()), (201, fits));
    assert!(hot[..fits].iter().all(|hot| *hot), "those that are sent first");
}

#[test]
fn figures_follow_what_the_operator_takes_away() {
    let queue = queue();
    let figures = || {
        let Figures { ready, deferred, sending, .. } = queue.figures();
        (ready, deferred, sending)
    };
    (1..=3).for_each(|n| queue.insert(id(n), head(1), Some(Bytes::from_static(b"x"))));
    queue.take(0).unwrap();
    queue.note(&id(1), &[outcome(0, deferred(500))]);
    queue.finish(&id(1), None, 0);
    assert_eq!(figures(), (2, 1, 0));
    for (n, left) in [(1, (2, 0, 0)), (2, (1, 0, 0))] {
        queue.claim(&id(n)).unwrap();
        queue.note(&id(n), &[outcome(0, Status::Removed)]);
        queue.finish(&id(n), None, 1);
        assert_eq!(figures(), left);
    }
    // Where the log cannot be written, it stays.
    queue.claim(&id(3)).unwrap();
    assert_eq!((figures(), queue.retry(None)), ((0, 0, 1), 0));
    queue.finish(&id(3), None, 1);
    assert_eq!((figures(), queue.wake_due(u64::MAX)), ((1, 0, 0), None));
    assert_eq!((queue.take(1).unwrap().id, figures()), (id(3), (0, 0, 1)));
    assert!(queue.take(1).is_none());
}

#[test]
fn who_makes_workers_hears_of_a_message_that_no_worker_waits_for() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};
    let queue = queue();
    let mut context = Context::from_waker(Waker::noop());
    let mut crowded = || pin!(queue.crowded()).poll(&mut context).is_ready();
    queue.insert(id(1), head(1), None);
    assert!(crowded());
    queue.take(0).unwrap();
    assert!(!crowded());
    // The one worker is busy with the first for as long as that takes.
    queue.insert(id(2), head(1), None);
    assert!(crowded());
    queue.take(0).unwrap();
    let mut idle = Box::pin(queue.work());
    let mut context = Context::from_waker(Waker::noop());
    while idle.as_mut().poll(&mut context).is_ready() {
        idle = Box::pin(queue.work());
    }
    queue.insert(id(3), head(1), None);
    assert!(!crowded() && idle.as_mut().poll(&mut context).is_ready(), "this one is for who waits");
}

#[test]
fn what_was_stranded_before_the_start_waits_for_the_smarthost_alone() {
    let stranded = Status::Stranded { attempts: 3, next: 60_000, age: 9, told: true };
    let recovered = vec![live(1, stranded), live(2, deferred(50_000))];
    let queue = Queue::new(recovered, |_| Some(head(1)), 7, &schedule());
    queue.set_width(8);
    let down = queue.unreachable().unwrap();
    assert_eq!((down.since, &*down.why, queue.take(8).is_none()), (1, "x", true));
    up(&queue);
    let attempt = queue.take(8).unwrap();
    assert_eq!((attempt.id, attempt.due), (id(1), vec![Due { recipient: 0, attempts: 3, age: 9, at: 1, told: true }]));
    assert!(queue.take(8).is_none(), "a smarthost put this one off");
}

#[test]
fn whose_messages_are_in_the_queue_is_counted() {
    let queue = queue();
    let name = |name| DomainName::parse(name).unwrap();
    let (one, two) = (name("one.example"), name("two.example"));
    let of = |domain: Option<&str>| {
        let head = MessageHead::clone(&head(1));
        Arc::new(MessageHead { from_domain: domain.map(Into::into), ..head })
    };
    for (n, domain) in [(1, Some("one.example")), (2, Some("one.example")), (3, Some("two.example")), (4, None)] {
        queue.insert(id(n), of(domain), None);
    }
    let counted = || (queue.len_of([&one]), queue.len_of([&two]), queue.len_of([&one, &two]));
    assert_eq!(counted(), (2, 1, 3));
    let taken: Vec<_> = std::iter::from_fn(|| queue.take(1)).map(|attempt| attempt.id).collect();
    queue.note(&taken[0], &[outcome(0, deferred(90))]);
    queue.finish(&taken[0], None, 2);
    assert_eq!(counted(), (2, 1, 3), "it waits again");
    for taken in &taken[1..] {
        queue.note(taken, &[outcome(0, Status::Delivered)]);
        queue.finish(taken, None, 2);
    }
    assert_eq!(queue.retry(None), 1);
    let id = queue.take(100).unwrap().id;
    assert_eq!((taken.len(), counted().2), (4, 1));
    queue.note(&id, &[outcome(0, Status::Bounced)]);
    queue.finish(&id, None, 101);
    assert_eq!((queue.len(), counted()), (0, (0, 0, 0)));
}
