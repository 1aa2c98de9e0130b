//! Answers to a CA's question whether a host is ours (HTTP-01, RFC 8555 §8.3), held while an order is under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The path below which a CA asks, the token behind it.
pub const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// Answers by token.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Mutex<HashMap<Box<str>, Box<str>>>>);

/// While it lives, a token is answered.
pub struct Held {
    challenges: Challenges,
    token: Box<str>,
}

impl Challenges {
    /// Answers `token` until the result is dropped.
    #[must_use]
    pub fn hold(&self, token: &str, answer: &str) -> Held {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(token.into(), answer.into());
        Held { challenges: self.clone(), token: token.into() }
    }

    /// The answer to a request for `path`, if it is one of a CA that we wait for.
    pub fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(CHALLENGE_PATH)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).map(ToString::to_string)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.challenges.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_while_it_is_held() {
        let challenges = Challenges::default();
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a"), None);
        let held = challenges.hold("a", "a.thumb");
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a").as_deref(), Some("a.thumb"));
        for other in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/b", "a", "/c/a"] {
            assert_eq!(challenges.answer(other), None, "{other}");
        }
        drop(held);
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a"), None);
    }
}
