//! AUTH: whether a password is an API key that may send, and for whom.
//!
//! Any username will do (`resend` and a key work unchanged); the password alone is looked at, so a wrong password and
//! an unknown user are one thing, in text and in time. A right key is never held up: nobody guesses 256 bits, and were
//! there a pause before it, failures of others could shut it out. Those who guess are slowed in [`super::throttle`].

use super::throttle::Throttle;
use crate::clock;
use crate::intake::Login;
use crate::settings::{KeyLookup, Settings};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What came of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right(Login),
    Wrong,
    /// It cannot be said now.
    Unknown,
}

pub struct Authenticator {
    settings: Arc<Settings>,
    throttle: Mutex<Throttle>,
    began: Instant,
}

impl Authenticator {
    pub fn new(settings: Arc<Settings>) -> Self {
        Self { settings, throttle: Mutex::default(), began: Instant::now() }
    }

    /// Checks a password that `client` (an IPv4 address or an IPv6 /64) sent. A wrong one is answered after a pause.
    pub async fn check(&self, client: IpAddr, password: String) -> Verdict {
        let settings = self.settings.snapshot();
        // Every key is compared, which takes its time where there are many.
        let found = tokio::task::spawn_blocking(move || settings.find_api_key(&password)).await;
        match found {
            Ok(KeyLookup::Found(key)) => {
                self.throttle(|throttle, now| throttle.succeeded(client, now));
                let settings = Arc::clone(&self.settings);
                tokio::spawn(async move { settings.note_use(key.id, clock::unix_ms()).await });
                Verdict::Right(Login { key: key.id })
            }
            Ok(KeyLookup::Unknown) => self.wrong(client).await,
            Ok(KeyLookup::Unreadable) | Err(_) => Verdict::Unknown,
        }
    }

    async fn wrong(&self, client: IpAddr) -> Verdict {
        let Some(wait) = self.throttle(|throttle, now| throttle.admit(client, now)) else {
            tracing::debug!(%client, "authentication put off: too many failures");
            return Verdict::Unknown;
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        self.throttle(|throttle, now| throttle.failed(client, now));
        metrics::counter!("trackpost_auth_failures_total").increment(1);
        tracing::warn!(%client, "authentication failed");
        Verdict::Wrong
    }

    fn throttle<T>(&self, ask: impl FnOnce(&mut Throttle, std::time::Duration) -> T) -> T {
        ask(&mut self.throttle.lock().unwrap_or_else(PoisonError::into_inner), self.began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::Fixture;
    use crate::ops::{NewKey, key_create};
    use crate::settings::Permission;

    #[tokio::test]
    async fn failures_of_others_never_hold_up_the_right_key() {
        let fixture = Fixture::new();
        let new = NewKey { name: "app".to_owned(), permission: Permission::SendingAccess, domains: Vec::new() };
        let made = key_create(&fixture.ops, new).await.unwrap();
        let authenticator = Authenticator::new(Arc::clone(&fixture.ops.settings));
        let from = |n: u32| IpAddr::V4(n.into());
        for n in 0..800 {
            authenticator.throttle(|throttle, now| throttle.failed(from(n), now));
        }
        // Who has failed itself is no exception: others may send from its address.
        for client in [from(5_000), from(7)] {
            let verdict = authenticator.check(client, made.token.clone()).await;
            assert!(matches!(verdict, Verdict::Right(_)), "{verdict:?}");
        }
        assert_eq!(authenticator.check(from(5_001), "re_wrong".to_owned()).await, Verdict::Unknown);
    }
}
