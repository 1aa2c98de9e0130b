//! Crowds of sessions on a clock of the test's own.

use super::*;
use std::net::Ipv4Addr;
use uuid::Uuid;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * 1024;
const READ: u64 = 64 * KIB;
const SECOND: Duration = Duration::from_secs(1);

/// A session in DATA with so many bytes there.
struct Sender<'a> {
    share: Share<'a>,
    there: u64,
}

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

impl<'a> Sender<'a> {
    fn begin(memory: &'a Memory, number: u32, declared: Option<u64>) -> Self {
        let share = memory.share(client(number));
        share.begin(declared);
        Self { share, there: 0 }
    }

    /// Sends more, as a connection does it: room first, then what has come.
    async fn send(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let mut left = bytes;
        while left > 0 {
            if self.share.gave_way() {
                return Err(NoRoom);
            }
            if !self.share.cover(self.there + READ, self.there) {
                self.share.wait_for(self.there + READ).await?;
            }
            let read = left.min(READ);
            left -= read;
            self.there += read;
            self.share.received(self.there);
            if !self.share.hold(self.there, self.there) {
                return Err(NoRoom);
            }
        }
        Ok(())
    }

    fn held(&self) -> u64 {
        self.share.holder.held.load(Ordering::SeqCst)
    }
}

fn held(memory: &Memory) -> (u64, u64) {
    let (small, large) = (memory.small.held.load(Ordering::SeqCst), memory.large.held.load(Ordering::SeqCst));
    assert!(small <= SMALL_POOL && large <= LARGE_POOL, "{small} {large}");
    (small, large)
}

/// What a new client waits for room for 20 KB.
async fn waits(memory: &Memory, number: u32) -> Duration {
    let began = Instant::now();
    let mut sender = Sender::begin(memory, number, None);
    sender.send(20_000).await.expect("it has room in the end");
    assert!(sender.share.keep());
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_holds_nothing() {
    let memory = Memory::new(50 * MIB);
    let declared = [None, Some(262_144), Some(50 * MIB)];
    let silent: Vec<_> = (0..2_000).map(|n| Sender::begin(&memory, n, declared[n as usize % 3])).collect();
    assert_eq!(held(&memory), (0, 0));
    assert_eq!(waits(&memory, 9_999).await, Duration::ZERO);
    drop(silent);
    assert_eq!(held(&memory), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn those_who_stopped_give_way_to_a_new_one_and_to_no_more_than_it_needs() {
    let memory = Memory::new(50 * MIB);
    let mut crowd: Vec<_> = (0..500).map(|n| Sender::begin(&memory, n, None)).collect();
    for sender in &mut crowd {
        sender.send(60_000).await.expect("the slowest gives way, not the newest");
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let before: Vec<_> = crowd.iter().map(|sender| sender.share.gave_way()).collect();
    assert!(before.iter().filter(|gone| **gone).count() < 250, "no more than there was need for");
    // The longest silent went first: those who are left came last.
    let first_left = before.iter().position(|gone| !gone).unwrap();
    assert!(before[first_left..].iter().all(|gone| !gone));
    for number in 0..50 {
        assert!(waits(&memory, 10_000 + number).await < SECOND);
    }
    held(&memory);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_on_stays_while_one_has_stopped() {
    let memory = Memory::new(50 * MIB);
    let mut good: Vec<_> = (0..20).map(|n| Sender::begin(&memory, n, None)).collect();
    let mut crowd: Vec<_> = (100..380).map(|n| Sender::begin(&memory, n, None)).collect();
    for sender in &mut crowd {
        sender.send(60_000).await.unwrap();
    }
    for _ in 0..20 {
        for sender in &mut good {
            sender.send(8 * KIB).await.unwrap();
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    for number in 0..200 {
        assert!(waits(&memory, 1_000 + number).await < SECOND);
    }
    assert!(good.iter().all(|sender| !sender.share.gave_way()));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_drip_are_no_progress() {
    let memory = Memory::new(50 * MIB);
    let mut drips: Vec<_> = (0..307).map(|n| Sender::begin(&memory, n, None)).collect();
    for sender in &mut drips {
        sender.send(60_000).await.unwrap();
    }
    for _ in 0..10 {
        tokio::time::advance(Duration::from_millis(100)).await;
        for sender in &mut drips {
            let _ = sender.send(1).await;
        }
    }
    assert!(waits(&memory, 9_999).await < SECOND);
}

#[tokio::test(start_paused = true)]
async fn two_large_ones_that_stop_do_not_keep_a_third_out() {
    let memory = Memory::new(50 * MIB);
    let mut stopped: Vec<_> = (0..2).map(|n| Sender::begin(&memory, n, Some(36 * MIB))).collect();
    for sender in &mut stopped {
        sender.send(35 * MIB).await.unwrap();
    }
    let began = Instant::now();
    let mut third = Sender::begin(&memory, 3, Some(30 * MIB));
    third.send(30 * MIB).await.unwrap();
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    assert_eq!(stopped.iter().filter(|sender| sender.share.gave_way()).count(), 1, "as many as there was need for");
    let gone = stopped.iter().find(|sender| sender.share.gave_way()).unwrap();
    assert_eq!(gone.held(), 0);
    held(&memory);
}

#[tokio::test(start_paused = true)]
async fn large_ones_that_come_on_wait_for_each_other_and_none_gives_way() {
    let memory: &'static Memory = Box::leak(Box::new(Memory::new(50 * MIB)));
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            tokio::spawn(async move {
                // Every other one has not said how large it is.
                let mut sender = Sender::begin(memory, number, (number % 2 == 0).then_some(25 * MIB));
                for _ in 0..25 {
                    sender.send(MIB).await?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    held(memory);
                }
                assert!(sender.share.keep());
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, NoRoom>(())
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert_eq!(held(memory), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn small_ones_never_wait_for_large_ones() {
    let memory = Memory::new(72 * MIB);
    let mut large = Sender::begin(&memory, 1, Some(72 * MIB));
    large.send(72 * MIB).await.unwrap();
    assert!(large.share.keep());
    assert_eq!(waits(&memory, 2).await, Duration::ZERO);
    let mut other = Sender::begin(&memory, 3, None);
    let before = Instant::now();
    assert_eq!(other.send(MIB).await, Err(NoRoom), "what is whole never gives way");
    assert!(before.elapsed() >= PATIENCE);
    drop(large);
    let mut other = Sender::begin(&memory, 3, None);
    other.send(MIB).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn messages_that_all_wait_for_each_other_do_not_wait_for_long() {
    let memory: &'static Memory = Box::leak(Box::new(Memory::new(50 * MIB)));
    // More than fits, each of them half there before the first can end.
    let tasks: Vec<_> = (0..400)
        .map(|number| {
            tokio::spawn(async move {
                let mut sender = Sender::begin(memory, number, Some(180 * KIB));
                for _ in 0..3 {
                    sender.send(60 * KIB).await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                assert!(sender.share.keep());
                Ok::<_, NoRoom>(())
            })
        })
        .collect();
    let began = Instant::now();
    let mut served = 0;
    for task in tasks {
        served += usize::from(task.await.unwrap().is_ok());
    }
    // Three times what fits came at once, and half of it is there: of those, some must go for others to end.
    assert!(served >= 130, "{served} of 400");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(held(memory), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_client_and_one_key_yield_to_others() {
    let key = Uuid::from_u128(7);
    // By one client whose keys differ, and by one key whose clients do. All of them come on well.
    for by_key in [false, true] {
        let memory = Memory::new(50 * MIB);
        let hog = |n: u32| if by_key { n } else { 1 };
        let mut crowd: Vec<_> = (0..100).map(|n| Sender::begin(&memory, hog(n), None)).collect();
        for sender in &mut crowd {
            sender.share.of_key(Some(if by_key { key } else { Uuid::from_u128(u128::from(sender.share.id) + 100) }));
            sender.send(180 * KIB).await.unwrap();
        }
        let new = async {
            let mut sender = Sender::begin(&memory, 5_000, None);
            sender.share.of_key(Some(Uuid::from_u128(9)));
            sender.send(20_000).await
        };
        let busy = async {
            loop {
                for sender in &crowd {
                    // Progress, without an end.
                    sender.share.mark(0);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let began = Instant::now();
        tokio::select! {
            sent = new => assert_eq!(sent, Ok(())),
            () = busy => unreachable!(),
        }
        assert!(began.elapsed() < SECOND, "by key {by_key}: {:?}", began.elapsed());
        held(&memory);
    }
}

#[tokio::test(start_paused = true)]
async fn what_else_a_session_keeps_is_counted_and_gives_way() {
    let memory = Memory::new(50 * MIB);
    let lists: Vec<_> = (0..75).map(|n| memory.share(client(n))).collect();
    for (n, list) in lists.iter().enumerate() {
        assert!(list.hold(230 * KIB, 0), "{n}");
    }
    // All are new, so none is slow yet, and there is no time to wait.
    let another = memory.share(client(1_000));
    assert!(!another.hold(2 * MIB, 0));
    tokio::time::advance(SECOND).await;
    assert!(another.hold(2 * MIB, 0));
    let gone = lists.iter().filter(|list| list.gave_way()).count();
    assert!((6..14).contains(&gone), "{gone}");
    assert!(another.hold(0, 0) && another.is_empty());
    drop((lists, another));
    assert_eq!(held(&memory), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_gave_way_may_begin_again() {
    let memory = Memory::new(50 * MIB);
    let mut first = Sender::begin(&memory, 1, None);
    first.send(60_000).await.unwrap();
    memory.send_away(&mut memory.sessions(), first.share.id);
    assert!(first.share.gave_way() && !first.share.keep() && first.send(1).await == Err(NoRoom));
    assert_eq!(held(&memory), (0, 0));
    first.share.release();
    first.there = 0;
    first.send(60_000).await.unwrap();
    assert!(first.share.keep() && held(&memory).0 > 0);
    first.share.release();
    assert_eq!(held(&memory), (0, 0));
}

/// Accounts balance whatever many threads do at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_counted_twice() {
    let memory: &'static Memory = Box::leak(Box::new(Memory::new(2 * MIB)));
    let tasks: Vec<_> = (0..200u32)
        .map(|number| {
            tokio::spawn(async move {
                for round in 0..20u32 {
                    let mut sender = Sender::begin(memory, number % 50, None);
                    let size = u64::from((number * 31 + round * 17) % 700) * KIB;
                    let sent = sender.send(size).await;
                    tokio::task::yield_now().await;
                    if sent.is_ok() && round % 3 > 0 {
                        sender.share.keep();
                    }
                    if number % 2 == 0 {
                        memory.send_away(&mut memory.sessions(), sender.share.id);
                    }
                    if round % 4 == 0 {
                        sender.share.release();
                    }
                    held(memory);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(held(memory), (0, 0));
}
