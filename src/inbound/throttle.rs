//! What slows down guessing of passwords: failures per client address, and all failures together.
//!
//! Never by user name: every user is `resend`. It is asked about wrong passwords alone, so an attack shuts out nobody who
//! has the right one; and a client whose password was right lately is not held up by the failures of others when it
//! mistypes. The clock is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Failures of one client that cost nothing: people mistype.
const FREE: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// After so long without a failure a client begins anew.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// How long a right password speaks for its address.
const GOOD: Duration = Duration::from_secs(24 * 60 * 60);
/// Failures of all clients in a row that cost nothing, and what each one beyond them costs all who are not known.
const FREE_OVERALL: u32 = 50;
const PAUSE_OVERALL: Duration = Duration::from_millis(50);
/// One that would have to wait longer is told to come back instead, so that waiting connections do not pile up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients that are remembered at most.
const MAX_CLIENTS: usize = 20_000;

/// Times are counted from any fixed moment.
#[derive(Debug, Default)]
pub struct Throttle {
    clients: HashMap<IpAddr, Client>,
    failures: u32,
    failed_at: Duration,
    free_at: Duration,
}

#[derive(Debug, Default)]
struct Client {
    failures: u32,
    failed_at: Duration,
    free_at: Duration,
    /// When its password was right the last time.
    good_at: Option<Duration>,
}

impl Throttle {
    /// How long the answer to a wrong password of this client has to wait; `None` when it is to come back later. Those of
    /// one client wait one behind the other, on however many connections they come.
    pub fn admit(&mut self, client: IpAddr, now: Duration) -> Option<Duration> {
        let known = self.clients.get(&client);
        let is_good = known.and_then(|c| c.good_at).is_some_and(|at| now < at + GOOD);
        let own = known.map_or(Duration::ZERO, |c| c.free_at);
        let free_at = if is_good { own } else { own.max(self.free_at) };
        let wait = free_at.saturating_sub(now);
        if wait > PATIENCE {
            return None;
        }
        if let Some(client) = self.clients.get_mut(&client).filter(|c| c.failures >= FREE) {
            client.free_at = now + wait + pause(client.failures);
        }
        Some(wait)
    }

    pub fn failed(&mut self, client: IpAddr, now: Duration) {
        if now > self.failed_at + FORGET {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
        if self.failures > FREE_OVERALL {
            self.free_at = self.free_at.max(now) + PAUSE_OVERALL;
        }
        self.make_room(now);
        let client = self.clients.entry(client).or_default();
        if now > client.failed_at + FORGET {
            client.failures = 0;
        }
        client.failures = client.failures.saturating_add(1);
        client.failed_at = now;
        if client.failures >= FREE {
            client.free_at = client.free_at.max(now + pause(client.failures));
        }
    }

    pub fn succeeded(&mut self, client: IpAddr, now: Duration) {
        self.make_room(now);
        *self.clients.entry(client).or_default() = Client { good_at: Some(now), ..Client::default() };
    }

    fn make_room(&mut self, now: Duration) {
        if self.clients.len() < MAX_CLIENTS {
            return;
        }
        self.clients.retain(|_, c| now < c.failed_at + FORGET || c.good_at.is_some_and(|at| now < at + GOOD));
        if self.clients.len() >= MAX_CLIENTS {
            // All are recent: an attack from very many addresses, which the overall pause holds up.
            self.clients.retain(|_, c| c.good_at.is_some());
        }
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.clear();
        }
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(FREE).min(8);
    (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn failures_slow_their_own_client() {
        let mut throttle = Throttle::default();
        for _ in 0..3 {
            assert_eq!(throttle.admit(A, at(0)), Some(at(0)));
            throttle.failed(A, at(0));
        }
        assert_eq!(throttle.admit(A, at(0)), Some(at(500)));
        assert_eq!(throttle.admit(A, at(0)), Some(at(1_000)), "a second connection waits behind the first");
        assert_eq!(throttle.admit(B, at(0)), Some(at(0)));
        for _ in 0..20 {
            throttle.failed(A, at(0));
        }
        assert_eq!(throttle.admit(A, at(0)), Some(at(8_000)));
        assert_eq!(throttle.admit(A, at(0)), None);
        throttle.succeeded(A, at(9_000));
        assert_eq!(throttle.admit(A, at(9_000)), Some(at(0)));
    }

    #[test]
    fn an_old_failure_is_forgotten() {
        let mut throttle = Throttle::default();
        for _ in 0..10 {
            throttle.failed(A, at(0));
        }
        let later = FORGET + at(20_000);
        throttle.failed(A, later);
        assert_eq!(throttle.admit(A, later), Some(at(0)));
    }

    #[test]
    fn many_addresses_slow_all_but_the_known() {
        let mut throttle = Throttle::default();
        throttle.succeeded(B, at(0));
        for n in 0..250u32 {
            throttle.failed(IpAddr::V4((0x0a00_0000 + n).into()), at(0));
        }
        assert_eq!(throttle.admit(A, at(0)), Some(at(10_000)));
        assert_eq!(throttle.admit(B, at(0)), Some(at(0)));
        throttle.failed(A, at(0));
        assert_eq!(throttle.admit(A, at(0)), None);
        assert_eq!(throttle.admit(A, at(60_000)), Some(at(0)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut throttle = Throttle::default();
        for n in 0..100_000u32 {
            throttle.failed(IpAddr::V4(n.into()), at(u64::from(n)));
            assert!(throttle.clients.len() <= MAX_CLIENTS);
        }
    }
}
