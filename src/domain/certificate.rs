//! What is known of a tracking host's certificate, and when to order the next one. Pure; times are milliseconds since
//! 1970.

use serde::{Deserialize, Serialize};

/// The certificate of one host, as settings keep it. The certificate itself is a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateState {
    /// Of the one in use; nothing where there is none.
    pub not_after: Option<u64>,
    /// Orders that failed since the last one that did not.
    pub failures: u32,
    /// No order before this time.
    pub next: u64,
    /// Why the last order failed, in the CA's words where there are any.
    pub message: Option<String>,
    /// The CA refuses this name: no further order until somebody asks.
    pub ended: bool,
}

/// Why an order failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFailure {
    pub message: String,
    /// The CA's own word on when to come back, in milliseconds.
    pub retry_after: Option<u64>,
    /// The CA will never issue for this name.
    pub refused: bool,
}

const FIRST_PAUSE_MS: u64 = 60_000;
const LAST_PAUSE_MS: u64 = 12 * 3_600_000;

impl CertificateState {
    /// A certificate is there.
    pub fn issued(not_after: u64) -> Self {
        Self { not_after: Some(not_after), ..Self::default() }
    }

    /// A certificate was issued now. However near its end the clock of this machine sees it, the next order waits for an
    /// hour, or a tenth of what is left.
    pub fn issued_now(not_after: u64, now: u64) -> Self {
        const LEAST_MS: u64 = 3_600_000;
        let next = now.saturating_add(LEAST_MS.min(not_after.saturating_sub(now) / 10));
        Self { next, ..Self::issued(not_after) }
    }

    /// An order failed. Pauses double from a minute to 12 hours, with up to a fifth more by `jitter` (0 to 255); the
    /// CA's word counts where it is longer. What is in use stays in use.
    pub fn failed(&self, failure: &OrderFailure, jitter: u8, now: u64) -> Self {
        let doubled = FIRST_PAUSE_MS << self.failures.min(20);
        let pause = doubled.min(LAST_PAUSE_MS);
        let pause = pause + pause / 5 * u64::from(jitter) / 255;
        let pause = pause.max(failure.retry_after.unwrap_or(0));
        Self {
            not_after: self.not_after,
            failures: self.failures.saturating_add(1),
            next: now.saturating_add(pause),
            message: Some(failure.message.clone()),
            ended: failure.refused,
        }
    }

    /// Somebody asks: what stood in the way is tried again at once.
    pub fn asked(&self) -> Self {
        Self { failures: 0, next: 0, ended: false, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(retry_after: Option<u64>) -> OrderFailure {
        OrderFailure { message: "no".into(), retry_after, refused: false }
    }

    #[test]
    fn pauses_double_up_to_half_a_day() {
        let mut state = CertificateState::issued(9);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            state = state.failed(&failure(None), 0, 100);
            pauses.push(state.next - 100);
        }
        assert_eq!(pauses[..4], [60_000, 120_000, 240_000, 480_000]);
        assert_eq!((pauses[39], state.not_after), (LAST_PAUSE_MS, Some(9)));
        assert_eq!(CertificateState::default().failed(&failure(None), 255, 0).next, 72_000);
        let asked = state.asked();
        assert_eq!((asked.next, asked.failures, asked.message.as_deref()), (0, 0, Some("no")));
    }

    #[test]
    fn the_ca_may_ask_for_more() {
        let state = CertificateState::default();
        assert_eq!(state.failed(&failure(Some(3_600_000)), 0, 0).next, 3_600_000);
        assert_eq!(state.failed(&failure(Some(1_000)), 0, 0).next, 60_000);
        let refused = state.failed(&OrderFailure { refused: true, ..failure(None) }, 0, 0);
        assert!(refused.ended && !refused.asked().ended);
    }
}
