use super::super::commit_now;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const HOOK: Uuid = Uuid::from_u128(7);

fn order(n: u32) -> Order {
    Order::new(crate::spool::Cursor { segment: 1, offset: 2 }, n)
}

fn message(n: u8) -> QueueId {
    QueueId::new(1, [n; 10])
}

fn make(store: &Store, webhook: Uuid, n: u32, email: Option<u8>, size: usize) {
    let (id, payload) = (format!("msg_{n}"), vec![b'x'; size]);
    let recipient = email.map(|n| format!("Ada{n}@example.net"));
    let new = NewDelivery {
        webhook,
        id: &id,
        kind: "email.sent",
        created_at: u64::from(n),
        order: order(n),
        email: email.map(message),
        recipient: recipient.as_deref(),
        payload: &payload,
    };
    let mut writes = Vec::new();
    delivery_writes(&new, &mut writes);
    commit_now(store, writes).unwrap();
}

/// What may be sent at `now`, by number, with the queue tidied.
fn look(store: &Store, now: u64, busy: &Busy) -> Vec<Delivery> {
    loop {
        let due = due_deliveries(store, HOOK, now, busy, 8, false).unwrap();
        commit_now(store, due.tidy).unwrap();
        if !due.more {
            return due.start;
        }
    }
}

fn numbers(found: &[Delivery]) -> Vec<u64> {
    found.iter().map(|delivery| delivery.created_at).collect()
}

fn settle(store: &Store, sent: &Delivery, status: DeliveryStatus, due: u64) {
    let attempt = Attempt { status: 200, response: "ok".into(), sent_at: 5 };
    let mut writes = Vec::new();
    settled_writes(store, HOOK, sent, &Settled { attempt, status, due }, &mut writes).unwrap();
    commit_now(store, writes).unwrap();
}

fn rows(store: &Store) -> usize {
    store.scan(b"w", b"x", usize::MAX, false).unwrap().len()
}

#[test]
fn payloads_of_any_size_come_back_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (n, size) in [(1, 10), (2, 1_990), (3, 50_000), (4, 0), (5, 2_000)] {
        make(&store, HOOK, n, Some(1), size);
        make(&store, Uuid::from_u128(8), n + 10, None, size);
    }
    let all = deliveries(&store, HOOK, None, 9).unwrap();
    assert_eq!(numbers(&all), [5, 4, 3, 2, 1]);
    assert_eq!(all.iter().map(|d| d.payload.len()).collect::<Vec<_>>(), [2_000, 0, 50_000, 1_990, 10]);
    assert_eq!(numbers(&deliveries(&store, HOOK, None, 2).unwrap()), [5, 4]);
    assert_eq!(numbers(&deliveries(&store, HOOK, Some(order(4)), 2).unwrap()), [3, 2]);
    assert_eq!(numbers(&deliveries(&store, HOOK, Some(order(1)), 2).unwrap()), [0; 0]);
    let one = delivery_order(&store, HOOK, "msg_3").unwrap().unwrap();
    assert_eq!(delivery(&store, HOOK, one).unwrap().as_ref(), Some(&all[2]));
    assert_eq!(delivery_order(&store, HOOK, "msg_13").unwrap(), None);
    assert_eq!(delivery(&store, HOOK, order(13)).unwrap(), None);
}

#[test]
fn events_of_a_message_go_one_after_the_other_and_others_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (n, email) in [(1, Some(1)), (2, Some(1)), (3, Some(2)), (4, None), (5, None), (6, Some(1))] {
        make(&store, HOOK, n, email, 10);
    }
    let first = look(&store, 9, &Busy::new());
    assert_eq!(numbers(&first), [1, 3, 4]);
    let busy: Busy = first.iter().map(|sent| (sent.order, sent.email)).collect();
    assert!(look(&store, 9, &busy).is_empty());
    // A failure keeps those behind it back.
    settle(&store, &first[0], DeliveryStatus::Attempting, 100);
    settle(&store, &first[1], DeliveryStatus::Success, 0);
    settle(&store, &first[2], DeliveryStatus::Failed, 0);
    assert_eq!(numbers(&look(&store, 99, &Busy::new())), [5]);
    assert_eq!(due_deliveries(&store, HOOK, 99, &Busy::new(), 8, false).unwrap().next, Some(100));
    let again = look(&store, 100, &Busy::new());
    assert_eq!(numbers(&again), [5, 1]);
    assert_eq!((again[1].state.attempts, again[1].state.failures), (1, 1));
    settle(&store, &again[1], DeliveryStatus::Success, 0);
    let last = look(&store, 100, &Busy::new());
    assert_eq!(numbers(&last), [2, 5]);
    settle(&store, &last[0], DeliveryStatus::Success, 0);
    assert_eq!(numbers(&look(&store, 100, &Busy::new())), [5, 6]);
    let attempts = delivery_attempts(&store, HOOK, order(1), None, 9).unwrap();
    assert_eq!(attempts.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(delivery_attempts(&store, HOOK, order(1), Some(1), 9).unwrap().len(), 1);
}

#[test]
fn a_log_that_is_folded_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 1..=3 {
        make(&store, HOOK, n, Some(1), 3_000);
    }
    let sent = look(&store, 9, &Busy::new());
    settle(&store, &sent[0], DeliveryStatus::Success, 0);
    let sent = look(&store, 9, &Busy::new());
    settle(&store, &sent[0], DeliveryStatus::Attempting, 50);
    let before = deliveries(&store, HOOK, None, 9).unwrap();
    for n in 1..=3 {
        make(&store, HOOK, n, Some(1), 3_000);
    }
    assert_eq!(deliveries(&store, HOOK, None, 9).unwrap(), before);
    assert!(look(&store, 49, &Busy::new()).is_empty());
    assert_eq!(numbers(&look(&store, 50, &Busy::new())), [2]);
}

#[test]
fn what_is_asked_for_again_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 1..=2 {
        make(&store, HOOK, n, Some(1), 10);
    }
    let sent = look(&store, 9, &Busy::new());
    settle(&store, &sent[0], DeliveryStatus::Attempting, 1_000);
    commit_now(&store, vec![replay_write(HOOK, order(1))]).unwrap();
    // Not while it is being sent.
    let busy: Busy = [(order(1), Some(message(1)))].into();
    assert!(look(&store, 9, &busy).is_empty());
    let again = look(&store, 9, &Busy::new());
    assert_eq!(numbers(&again), [1]);
    assert_eq!(again[0].state, State { status: DeliveryStatus::Pending, attempts: 1, failures: 0, due: 0 });
    settle(&store, &again[0], DeliveryStatus::Success, 0);
    commit_now(&store, vec![replay_write(HOOK, order(1))]).unwrap();
    assert_eq!(numbers(&look(&store, 9, &Busy::new())), [1], "and its message waits for it");
    assert_eq!(delivery_attempts(&store, HOOK, order(1), None, 9).unwrap().len(), 2);
}

#[test]
fn what_is_asked_for_again_while_its_message_is_busy_is_not_forgotten() {
    for ends in [DeliveryStatus::Success, DeliveryStatus::Attempting] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 1..=3 {
            make(&store, HOOK, n, Some(1), 10);
        }
        let first = look(&store, 9, &Busy::new());
        settle(&store, &first[0], DeliveryStatus::Success, 0);
        let second = look(&store, 9, &Busy::new());
        let busy: Busy = [(order(2), Some(message(1)))].into();
        commit_now(&store, vec![replay_write(HOOK, order(1))]).unwrap();
        assert!(look(&store, 9, &busy).is_empty());
        settle(&store, &second[0], ends, 50);
        let mut told = Vec::new();
        while let [sent] = &look(&store, 99, &Busy::new())[..] {
            told.push(sent.created_at);
            settle(&store, sent, DeliveryStatus::Success, 0);
        }
        let again = if ends == DeliveryStatus::Success { vec![1, 3] } else { vec![1, 2, 3] };
        assert_eq!(told, again);
    }
}

#[test]
fn nothing_is_left_of_what_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let other = Uuid::from_u128(9);
    for n in 1..=6 {
        make(&store, HOOK, n, Some(u8::try_from(n % 2).unwrap()), 5_000);
        make(&store, other, n, Some(1), 10);
    }
    for sent in look(&store, 9, &Busy::new()) {
        settle(&store, &sent, DeliveryStatus::Failed, 0);
    }
    // By recipient, in any case of letters.
    let (writes, count) = erase_deliveries_of(&store, "aDA1@example.NET", 2).unwrap();
    assert_eq!(count, 2);
    commit_now(&store, writes).unwrap();
    while let (writes, 1..) = erase_deliveries_of(&store, "ada1@example.net", 2).unwrap() {
        commit_now(&store, writes).unwrap();
    }
    assert_eq!(numbers(&deliveries(&store, HOOK, None, 9).unwrap()), [6, 4, 2]);
    assert!(deliveries(&store, other, None, 9).unwrap().is_empty());
    // By age.
    let (writes, count) = expired_deliveries(&store, 5, 9).unwrap();
    assert_eq!(count, 2);
    commit_now(&store, writes).unwrap();
    assert_eq!(numbers(&deliveries(&store, HOOK, None, 9).unwrap()), [6]);
    assert_eq!(numbers(&look(&store, 9, &Busy::new())), [6]);
    // By endpoint.
    assert!(foreign_deliveries(&store, |id| id == HOOK).unwrap().is_empty());
    assert_eq!(foreign_deliveries(&store, |_| false).unwrap(), [HOOK]);
    loop {
        let writes = forget_deliveries(&store, HOOK, 1).unwrap();
        if writes.is_empty() {
            break;
        }
        commit_now(&store, writes).unwrap();
    }
    assert_eq!(rows(&store), 0);
}

#[test]
fn what_was_erased_while_it_was_sent_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    make(&store, HOOK, 1, Some(1), 10);
    let sent = look(&store, 9, &Busy::new());
    commit_now(&store, erase_deliveries_of(&store, "ada1@example.net", 9).unwrap().0).unwrap();
    settle(&store, &sent[0], DeliveryStatus::Attempting, 50);
    assert_eq!(rows(&store), 0);
}

#[test]
fn a_lane_that_lost_its_place_in_the_queue_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 1..=4 {
        make(&store, HOOK, n, Some(u8::try_from(n % 2).unwrap()), 10);
    }
    let queue = store.scan(b"wq", b"wr", 9, false).unwrap();
    commit_now(&store, queue.into_iter().map(|(key, _)| Write::Delete(key)).collect()).unwrap();
    assert!(look(&store, 9, &Busy::new()).is_empty());
    let (writes, rest) = repair_deliveries(&store, HOOK, None).unwrap();
    assert_eq!(rest, None);
    commit_now(&store, writes).unwrap();
    assert_eq!(numbers(&look(&store, 9, &Busy::new())), [1, 2]);
}

/// What happens to a queue: something new, a look with so many slots, an end of what is being sent, the log folded
/// again, something asked for again, time.
#[derive(Clone, Debug)]
enum Step {
    New(u8),
    End(usize, u8),
    Fold,
    Replay(u32),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u8).prop_map(Step::New),
        6 => (0..8_usize, 0..3_u8).prop_map(|(which, how)| Step::End(which, how)),
        1 => Just(Step::Fold),
        1 => (0..30_u32).prop_map(Step::Replay),
        2 => (1..60_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: each lane in order, never two of one lane at once, and in the end everything is settled.
    #[test]
    fn no_delivery_is_lost_or_overtaken(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (mut now, mut made) = (100, Vec::<u8>::new());
        let mut sent: Vec<Delivery> = Vec::new();
        let mut done = BTreeSet::new();
        let finish = vec![Step::End(0, 0); 200];
        for (turn, step) in steps.into_iter().chain([Step::Wait(10_000)]).chain(finish).enumerate() {
            match step {
                Step::New(lane) => {
                    made.push(lane);
                    make(&store, HOOK, u32::try_from(made.len()).unwrap() - 1, Some(lane), 10);
                }
                Step::End(which, how) if !sent.is_empty() => {
                    let ended = sent.remove(which % sent.len());
                    let status = [DeliveryStatus::Success, DeliveryStatus::Attempting, DeliveryStatus::Failed];
                    let status = status[usize::from(how)];
                    settle(&store, &ended, status, if how == 1 { now + 30 } else { 0 });
                    if how != 1 {
                        done.insert(ended.created_at);
                    }
                }
                Step::End(..) => {}
                Step::Fold => (0..made.len()).for_each(|n| make(&store, HOOK, u32::try_from(n).unwrap(), Some(made[n]), 10)),
                Step::Replay(n) if (n as usize) < made.len() => {
                    commit_now(&store, vec![replay_write(HOOK, order(n))]).unwrap();
                    done.remove(&u64::from(n));
                }
                Step::Replay(_) => {}
                Step::Wait(ms) => now += ms,
            }
            let busy: Busy = sent.iter().map(|sent| (sent.order, sent.email)).collect();
            let due = due_deliveries(&store, HOOK, now, &busy, 3_usize.saturating_sub(sent.len()), turn % 2 == 0).unwrap();
            commit_now(&store, due.tidy).unwrap();
            for started in due.start {
                let lane = made[usize::try_from(started.created_at).unwrap()];
                prop_assert!(sent.iter().all(|other| other.email != started.email), "two of lane {lane} at once");
                sent.push(started);
            }
        }
        let all: BTreeSet<u64> = (0..made.len() as u64).collect();
        prop_assert_eq!(done, all);
        let open = [b"wq", b"wl", b"wy"].map(|kind| store.scan(kind, &prefix_end(kind), 9, false).unwrap().len());
        prop_assert_eq!(open, [0, 0, 0]);
    }
}
