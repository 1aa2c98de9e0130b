//! The whole relay against a plain fold of everything that happened: random mail, outcomes, hits, commands that are
//! cut short, crashes, deleted views and failing disks, with caches down to one message. In the end counts, events,
//! webhooks and the queue must be what simple addition says.
//!
//! `MODEL_CASES` says how many cases are tried; a failure prints the steps that lead to it, cut down to the fewest.

mod life;
mod smarthost;
mod truth;

use crate::event::{Hit, HitKind};
use crate::ops::{self, NewWebhook};
use crate::settings::{ApiKey, Permission};
use crate::spool::Entry;
use crate::{clock, store};
use life::{Life, until};
use proptest::prelude::*;
use smarthost::{Fate, Smarthost};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use truth::Truth;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<Fate>),
    /// Opens, or clicks, of a recipient of a message, both counted from the newest.
    Hit {
        message: usize,
        recipient: usize,
        link: Option<u16>,
    },
    /// An operator removes a message that nobody has tried yet, and hangs up after so many turns.
    Remove(usize),
    /// An operator holds the queue, or lets it go, and hangs up.
    Hold(bool, usize),
    Crash,
    /// A crash, and the view is gone.
    DeleteStore,
    /// The disk takes nothing for a while, as mail goes out; then it does again, or the relay is killed.
    DiskFails {
        killed: bool,
    },
    Pause,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![5 => Just(Fate::Taken), 2 => Just(Fate::Refused), 2 => Just(Fate::Later)];
    prop_oneof![
        8 => proptest::collection::vec(fate, 1..12).prop_map(Step::Send),
        6 => (0..4usize, 0..12usize, proptest::option::of(0..3u16))
            .prop_map(|(message, recipient, link)| Step::Hit { message, recipient, link }),
        2 => (0..4usize).prop_map(Step::Remove),
        2 => (any::<bool>(), 0..3usize).prop_map(|(held, turns)| Step::Hold(held, turns)),
        1 => Just(Step::Crash),
        1 => Just(Step::DeleteStore),
        2 => Just(Step::Pause),
    ]
}

/// How long outcomes may wait for the disk while delivery goes on, and what a busy machine may take on top.
const STUCK: Duration = Duration::from_millis(2_500);

/// Copies that two connections can have under way.
const IN_FLIGHT: usize = 2 * 12;

struct World {
    dir: TempDir,
    peer: Smarthost,
    cached: usize,
    life: Option<Life>,
    truth: Truth,
}

impl World {
    fn new(cached: usize) -> Self {
        let (dir, peer) = (tempfile::tempdir().unwrap(), Smarthost::start());
        let life = Life::start(dir.path(), &peer, cached);
        let key = ApiKey::new(uuid::Uuid::nil(), "model".to_owned(), "re_model", Permission::FullAccess, Vec::new(), 0);
        let events = ["sent", "delivered", "bounced", "failed", "opened", "clicked"];
        let events = events.iter().map(|event| format!("email.{event}")).collect();
        let endpoint = "http://127.0.0.1:9/".to_owned();
        let webhook = NewWebhook { endpoint, events, enabled: true };
        let webhook = life.block_on(ops::webhook_create(&life.ops, &key, webhook)).unwrap();
        Self { dir, peer, cached, life: Some(life), truth: Truth::new(webhook.id) }
    }

    fn life(&self) -> &Life {
        self.life.as_ref().expect("it lives between two steps")
    }

    fn send(&mut self, fates: &[Fate]) -> usize {
        let number = self.truth.messages.len();
        let to: Vec<String> = fates.iter().enumerate().map(|(n, fate)| fate.address(n)).collect();
        let id = self.life().send(&format!("message {number}"), &to);
        self.truth.messages.push(truth::Sent { id, to, hits: Vec::new() });
        number
    }

    fn crash(&mut self, store_too: bool) {
        // What the smarthost had taken when the relay was killed, and the log had not been told.
        self.truth.repeats += IN_FLIGHT;
        self.life.take().expect("it lives").crash();
        if store_too {
            let _ = std::fs::remove_dir_all(self.dir.path().join("store"));
        }
        self.life = Some(Life::start(self.dir.path(), &self.peer, self.cached));
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Send(fates) => drop(self.send(fates)),
            Step::Hit { message, recipient, link } => self.hit(*message, *recipient, *link),
            Step::Remove(turns) => {
                let queue = std::sync::Arc::clone(&self.life().ops.queue);
                queue.hold(true);
                let number = self.send(&[Fate::Taken, Fate::Taken]);
                let life = self.life();
                let id = self.truth.messages[number].id;
                life.cut_short(ops::queue_remove(&life.ops, &id), *turns);
                queue.hold(life.ops.settings.snapshot().queue_held);
            }
            Step::Hold(held, turns) => {
                let life = self.life();
                life.cut_short(ops::queue_hold(&life.ops, *held), *turns);
                until("what is saved of a hold is in force", || {
                    (life.ops.settings.snapshot().queue_held == life.ops.queue.is_held()).then_some(())
                });
            }
            Step::Crash => self.crash(false),
            Step::DeleteStore => self.crash(true),
            Step::DiskFails { killed } => self.disk_fails(*killed),
            Step::Pause => std::thread::sleep(Duration::from_millis(40)),
        }
    }

    fn hit(&mut self, message: usize, recipient: usize, link: Option<u16>) {
        let count = self.truth.messages.len();
        let Some(sent) = count.checked_sub(1 + message).map(|number| &mut self.truth.messages[number]) else { return };
        let recipient = u16::try_from(recipient % sent.to.len()).unwrap();
        let kind = match link {
            None => HitKind::Open,
            Some(link) => HitKind::Click { link, url: format!("https://example.org/{link}").into() },
        };
        let hit = Hit {
            id: sent.id,
            recipient,
            kind,
            at: clock::unix_ms(),
            count: 1,
            address: [192, 0, 2, 7].into(),
            agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into(),
            head: false,
            repeat: false,
        };
        sent.hits.push((recipient, link));
        let life = self.life();
        life.block_on(life.ops.log.append(Entry::Hits(vec![hit]))).unwrap();
    }

    /// No more may leave than what was under way while the first outcome had waited for its time.
    fn disk_fails(&mut self, killed: bool) {
        let queue = std::sync::Arc::clone(&self.life().ops.queue);
        queue.hold(true);
        for _ in 0..200 {
            self.send(&[Fate::Taken]);
        }
        let before = self.peer.taken();
        self.life().faults.fail(true);
        queue.hold(false);
        // Where outcomes of what was sent before wait already, none does.
        let log = self.life().ops.log.clone();
        until("the first goes out", || (self.peer.taken() > before || log.stuck_for().is_some()).then_some(()));
        drop(log);
        let since = Instant::now();
        std::thread::sleep(STUCK);
        let so_far = self.peer.taken();
        std::thread::sleep(Duration::from_millis(500));
        let later = self.peer.taken();
        assert!(later - so_far <= 2, "{} left {:?} after the disk failed", later - so_far, since.elapsed());
        self.truth.repeats += later - before + IN_FLIGHT;
        if killed {
            // It reads the log, which is open as long as somebody may.
            drop(queue);
            self.life.take().expect("it lives").crash();
            self.life = Some(Life::start(self.dir.path(), &self.peer, self.cached));
        } else {
            self.life().faults.fail(false);
            queue.hold(self.life().ops.settings.snapshot().queue_held);
        }
    }

    /// Lets everything come to its end, and compares.
    fn settle(mut self) {
        let life = self.life.take().expect("it lives");
        life.block_on(ops::queue_hold(&life.ops, false)).unwrap();
        until("the queue is empty", || life.ops.queue.is_empty().then_some(()));
        let store = life.stop();
        self.truth.compare(&store, &self.peer);
        assert!(
            store::message_ids(&store, None, None, None, 10_000, false).unwrap().len() == self.truth.messages.len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(8),
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    })]

    #[test]
    fn everything_that_happened_is_told_once(
        cached in prop_oneof![Just(1usize), Just(2), Just(5), Just(20_000)],
        mut steps in proptest::collection::vec(step(), 5..40),
        fails in proptest::option::weighted(0.25, (0..40usize, any::<bool>())),
    ) {
        // It takes seconds, so it happens once in some cases.
        if let Some((at, killed)) = fails {
            steps.insert(at.min(steps.len()), Step::DiskFails { killed });
        }
        let mut world = World::new(cached);
        for step in &steps {
            world.act(step);
        }
        world.settle();
    }
}
