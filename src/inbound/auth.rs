//! AUTH: whether a password is an API key that may send, and for whom.
//!
//! Any username will do (`resend` and a key work unchanged); the password alone is looked at, so a wrong password and
//! an unknown user are one thing, in text and in time. Guessing is slowed in [`super::throttle`].

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

    /// Checks a password that `client` (an IPv4 address or an IPv6 /64) sent, after a pause where it failed before.
    pub async fn check(&self, client: IpAddr, password: String) -> Verdict {
        let wait = self.throttle(|throttle, now| throttle.admit(client, now));
        let Some(wait) = wait else {
            tracing::debug!(%client, "authentication put off: too many failures");
            return Verdict::Unknown;
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
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
            Ok(KeyLookup::Unknown) => {
                self.throttle(|throttle, now| throttle.failed(client, now));
                metrics::counter!("trackpost_auth_failures_total").increment(1);
                tracing::warn!(%client, "authentication failed");
                Verdict::Wrong
            }
            Ok(KeyLookup::Unreadable) | Err(_) => Verdict::Unknown,
        }
    }

    fn throttle<T>(&self, ask: impl FnOnce(&mut Throttle, std::time::Duration) -> T) -> T {
        ask(&mut self.throttle.lock().unwrap_or_else(PoisonError::into_inner), self.began.elapsed())
    }
}
