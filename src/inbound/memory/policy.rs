//! Who gives way when a pool is short. It sees what each session holds and how fast it comes on; it takes nothing
//! away itself, and reads no clock.
//!
//! A session's age is the time since its last [`super::PROGRESS`] bytes came, so it tells a slow session from a fast
//! one and a silent one from both. It stands still while the session waits for us.
//!
//! 1. Slow sessions give way, the slowest first, and only if that makes room.
//! 2. A client, or a key, that has less than its share gets room from those that have more, once it has waited.
//! 3. When nothing would come free by itself (all wait for each other), the slowest of all gives way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// One pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that may be held.
    pub room: u64,
    /// Bytes that may be held once a session comes that holds none yet; the rest lets the others end.
    pub fresh_room: u64,
    /// The age at which a session is slow.
    pub slow_after: Duration,
    /// When slow sessions give way, so much more of theirs is freed, so that the next need need not look again.
    pub margin: u64,
}

/// A session that holds memory of a pool, or wants some.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub client: IpAddr,
    /// Which API key it has shown; 0 for none.
    pub key: u64,
    pub held: u64,
    /// What a large message is going to be; 0 for others.
    pub expected: u64,
    pub age: Duration,
    /// It may be told to give way: its message has not come whole.
    pub open: bool,
    pub waiting: bool,
}

/// What a session wants.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Its place among the sessions.
    pub session: usize,
    /// Bytes that it wants to hold in all.
    pub bytes: u64,
    pub waited: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is room once these have given way.
    Room(Vec<usize>),
    /// It is itself the one to give way.
    GivesWay,
    Waits,
}

/// One look at a pool. What is answered counts for what is asked next.
pub struct Round {
    limits: Limits,
    seen: Vec<Seen>,
    /// The slowest first.
    by_age: Vec<usize>,
    counted: u64,
    by_client: HashMap<IpAddr, u64>,
    by_key: HashMap<u64, u64>,
}

impl Round {
    pub fn new(limits: Limits, seen: Vec<Seen>) -> Self {
        let mut by_age: Vec<usize> = (0..seen.len()).filter(|i| seen[*i].open && seen[*i].held > 0).collect();
        by_age.sort_by_key(|i| std::cmp::Reverse(seen[*i].age));
        let mut round = Self { limits, seen, by_age, counted: 0, by_client: HashMap::new(), by_key: HashMap::new() };
        for session in 0..round.seen.len() {
            round.count(session, true);
        }
        round
    }

    /// Whether a client, or a key, has more than its share. Its needs come last.
    pub fn is_over_share(&self, session: usize) -> bool {
        let Seen { client, key, .. } = self.seen[session];
        let (client, key) = (of(&self.by_client, &client), of(&self.by_key, &key));
        client > share(&self.limits, self.by_client.len()) || key > share(&self.limits, self.by_key.len())
    }

    pub fn answer(&mut self, need: &Need) -> Answer {
        let me = self.seen[need.session];
        let target = need.bytes.max(me.expected);
        let limit = if me.held == 0 { self.limits.fresh_room } else { self.limits.room };
        // What would be counted beyond the limit.
        let short = (self.counted + target).saturating_sub(self.counts_as(need.session)).saturating_sub(limit);
        let answer = match short {
            0 => Answer::Room(Vec::new()),
            short => self.make_room(need, target, short),
        };
        if let Answer::Room(gone) = &answer {
            for &session in gone {
                self.forget(session);
            }
            self.count(need.session, false);
            let me = &mut self.seen[need.session];
            (me.held, me.waiting, me.age) = (need.bytes, false, Duration::ZERO);
            self.count(need.session, true);
        }
        answer
    }

    fn make_room(&self, need: &Need, target: u64, short: u64) -> Answer {
        let stuck = !self.seen.iter().enumerate().any(|(i, seen)| i != need.session && self.comes_free(seen));
        let (mut gone, mut freed) = (Vec::new(), 0);
        for &session in self.by_age.iter().filter(|i| self.seen[**i].held > 0) {
            let is_slow = self.is_slow(&self.seen[session]);
            if freed >= short + if is_slow { self.limits.margin } else { 0 } || !(is_slow || stuck) {
                break;
            }
            if session == need.session {
                if freed < short && stuck {
                    return Answer::GivesWay;
                }
                break;
            }
            freed += self.counts_as(session);
            gone.push(session);
        }
        if freed >= short {
            return Answer::Room(gone);
        }
        if need.waited >= self.limits.slow_after {
            self.take_from_others(need, target, gone, short - freed)
        } else {
            Answer::Waits
        }
    }

    /// Goes on with those that have more than their share, if this one has not.
    fn take_from_others(&self, need: &Need, target: u64, mut gone: Vec<usize>, mut short: u64) -> Answer {
        let me = self.seen[need.session];
        let more = target.saturating_sub(self.counts_as(need.session));
        let mut clients = Shares::new(&self.limits, &self.by_client, me.client, more);
        let mut keys = Shares::new(&self.limits, &self.by_key, me.key, more);
        for &session in &self.by_age {
            let seen = &self.seen[session];
            if short == 0 || session == need.session || seen.held == 0 || gone.contains(&session) {
                continue;
            }
            let bytes = self.counts_as(session);
            if clients.has_over(&seen.client) || keys.has_over(&seen.key) {
                clients.give(seen.client, bytes);
                keys.give(seen.key, bytes);
                short = short.saturating_sub(bytes);
                gone.push(session);
            }
        }
        if short == 0 { Answer::Room(gone) } else { Answer::Waits }
    }

    /// Waiting is worth while: it will be whole, or is whole already.
    fn comes_free(&self, seen: &Seen) -> bool {
        seen.held > 0 && (!seen.open || !seen.waiting && !self.is_slow(seen))
    }

    fn is_slow(&self, seen: &Seen) -> bool {
        seen.age >= self.limits.slow_after
    }

    /// A large message that comes on well is sure of the room that it will need, so that large ones never wait for
    /// each other. A slow one is sure of what it has.
    fn counts_as(&self, session: usize) -> u64 {
        let seen = &self.seen[session];
        let sure = seen.held > 0 && !(seen.open && self.is_slow(seen));
        if sure { seen.held.max(seen.expected) } else { seen.held }
    }

    fn count(&mut self, session: usize, add: bool) {
        let Seen { client, key, .. } = self.seen[session];
        let bytes = self.counts_as(session);
        let change = |sum: &mut u64| *sum = if add { *sum + bytes } else { sum.saturating_sub(bytes) };
        change(&mut self.counted);
        change(self.by_client.entry(client).or_default());
        change(self.by_key.entry(key).or_default());
    }

    fn forget(&mut self, session: usize) {
        self.count(session, false);
        (self.seen[session].held, self.seen[session].expected) = (0, 0);
    }
}

/// What clients, or keys, hold beside their share, for one that asks for more.
struct Shares<'a, K> {
    held: &'a HashMap<K, u64>,
    given: HashMap<K, u64>,
    share: u64,
    /// The one that asks stays within its share.
    deserving: bool,
}

impl<'a, K: std::hash::Hash + Eq + Copy> Shares<'a, K> {
    fn new(limits: &Limits, held: &'a HashMap<K, u64>, me: K, more: u64) -> Self {
        let share = share(limits, held.len());
        Self { held, given: HashMap::new(), share, deserving: of(held, &me) + more <= share }
    }

    fn has_over(&self, who: &K) -> bool {
        self.deserving && of(self.held, who).saturating_sub(of(&self.given, who)) > self.share
    }

    fn give(&mut self, who: K, bytes: u64) {
        *self.given.entry(who).or_default() += bytes;
    }
}

fn share(limits: &Limits, count: usize) -> u64 {
    limits.room / count.max(1) as u64
}

fn of<K: std::hash::Hash + Eq>(sums: &HashMap<K, u64>, who: &K) -> u64 {
    sums.get(who).copied().unwrap_or(0)
}
