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
    /// No order before this time, whoever asks: the CA said so.
    #[serde(default)]
    pub ca_next: u64,
    /// When somebody's word last cut a pause short.
    #[serde(default)]
    pub asked_at: u64,
    /// A certificate was there once, so links over HTTPS may be on their way.
    #[serde(default)]
    pub had: bool,
}

/// Why an order failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFailure {
    pub message: String,
    /// The CA's own word on when to come back, in milliseconds.
    pub retry_after: Option<u64>,
    /// The CA will never issue for this name.
    pub refused: bool,
    /// The CA did issue, but nothing that can be used here: each further order would be wasted as well.
    pub in_vain: bool,
}

const FIRST_PAUSE_MS: u64 = 60_000;
const LAST_PAUSE_MS: u64 = 12 * 3_600_000;
/// Longer than a CA is taken at its word.
const MOST_CA_PAUSE_MS: u64 = 7 * 86_400_000;
/// Somebody's word cuts pauses short once in this time.
const ASK_PAUSE_MS: u64 = 10 * 60_000;
/// After that, pauses go on from where they would be after so many failures.
const ASKED_FAILURES: u32 = 4;

impl OrderFailure {
    /// One that is tried again after the usual pause.
    pub fn new(message: String) -> Self {
        Self { message, retry_after: None, refused: false, in_vain: false }
    }
}

impl CertificateState {
    /// A certificate is there.
    pub fn issued(not_after: u64) -> Self {
        Self { not_after: Some(not_after), had: true, ..Self::default() }
    }

    /// A certificate was issued now. However near its end the clock of this machine sees it, the next order waits for an
    /// hour, or a tenth of what is left.
    pub fn issued_now(not_after: u64, now: u64) -> Self {
        const LEAST_MS: u64 = 3_600_000;
        let next = now.saturating_add(LEAST_MS.min(not_after.saturating_sub(now) / 10));
        Self { next, ..Self::issued(not_after) }
    }

    /// An order failed. Pauses double from a minute to 12 hours, with up to a fifth more by `jitter` (0 to 255); one that
    /// was in vain has the longest at once, and the CA's word counts where it is longer. What is in use stays in use.
    pub fn failed(&self, failure: &OrderFailure, jitter: u8, now: u64) -> Self {
        let doubled = FIRST_PAUSE_MS << self.failures.min(20);
        let pause = if failure.in_vain { LAST_PAUSE_MS } else { doubled.min(LAST_PAUSE_MS) };
        let pause = pause + pause / 5 * u64::from(jitter) / 255;
        let ca_next = failure.retry_after.map_or(0, |pause| now.saturating_add(pause.min(MOST_CA_PAUSE_MS)));
        Self {
            not_after: self.not_after,
            failures: self.failures.saturating_add(1),
            next: now.saturating_add(pause).max(ca_next),
            message: Some(failure.message.clone()),
            ended: failure.refused,
            ca_next,
            asked_at: self.asked_at,
            had: self.had(),
        }
    }

    /// Somebody asks: a pause of ours, or the end of all orders, is cut short, so that what was mended shows. The CA's own
    /// time stands, and so does a pause that was cut short a few minutes ago, or asking would be a way to make any number
    /// of orders. Nothing where nothing changes.
    pub fn asked(&self, now: u64) -> Option<Self> {
        // What lies further ahead than it can was written with a wrong clock.
        let lately = self.asked_at <= now && now - self.asked_at < ASK_PAUSE_MS && self.asked_at != 0;
        let ca_next = if self.ca_next > now.saturating_add(MOST_CA_PAUSE_MS) { 0 } else { self.ca_next };
        let next = now.max(ca_next);
        let waits = self.message.is_some() && (self.ended || self.next > next);
        (waits && !lately).then(|| Self {
            failures: self.failures.min(ASKED_FAILURES),
            next,
            ended: false,
            ca_next,
            asked_at: now,
            ..self.clone()
        })
    }

    /// A certificate is or was there.
    pub fn had(&self) -> bool {
        self.had || self.not_after.is_some()
    }

    /// It may be forgotten: nothing in it keeps an order from being made too early, should its host come back.
    pub fn is_idle(&self, now: u64) -> bool {
        self.message.is_none() || now >= self.next.max(self.ca_next).max(self.asked_at.saturating_add(ASK_PAUSE_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn failure(retry_after: Option<u64>) -> OrderFailure {
        OrderFailure { retry_after, ..OrderFailure::new("no".into()) }
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
        let asked = state.asked(200).unwrap();
        assert_eq!((asked.next, asked.failures, asked.message.as_deref()), (200, ASKED_FAILURES, Some("no")));
        let vain = OrderFailure { in_vain: true, ..failure(None) };
        assert_eq!(CertificateState::default().failed(&vain, 0, 0).next, LAST_PAUSE_MS);
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let stored = r#"{"not_after":9,"failures":2,"next":5,"message":"no","ended":false}"#;
        let state: CertificateState = serde_json::from_str(stored).unwrap();
        assert!(state.had() && state.asked(1).is_some());
    }

    #[test]
    fn the_ca_may_ask_for_more() {
        let state = CertificateState::default();
        assert_eq!(state.failed(&failure(Some(3_600_000)), 0, 0).next, 3_600_000);
        assert_eq!(state.failed(&failure(Some(1_000)), 0, 0).next, 60_000);
        let refused = state.failed(&OrderFailure { refused: true, ..failure(None) }, 0, 0);
        assert!(refused.ended && !refused.asked(1).unwrap().ended);
    }

    #[test]
    fn asking_is_no_way_around_the_cas_own_time() {
        let limited = CertificateState::default().failed(&failure(Some(60 * MINUTE)), 255, 1_000);
        assert_eq!((limited.next, limited.asked(2_000)), (1_000 + 60 * MINUTE, None));
        // Our own pause beyond it is cut short, its own is not.
        let longer = CertificateState { failures: 30, ..CertificateState::default() };
        let longer = longer.failed(&failure(Some(60 * MINUTE)), 0, 1_000);
        assert_eq!(longer.next, 1_000 + LAST_PAUSE_MS);
        assert_eq!(longer.asked(2_000).unwrap().next, 1_000 + 60 * MINUTE);
        // The name was refused, and with it came a time.
        let refused =
            CertificateState::default().failed(&OrderFailure { refused: true, ..failure(Some(60 * MINUTE)) }, 0, 1_000);
        let asked = refused.asked(2_000).unwrap();
        assert_eq!((asked.next, asked.ended), (1_000 + 60 * MINUTE, false));
        // A clock that was years ahead has left a time that no CA has named.
        assert_eq!(longer.asked(0).unwrap().next, 1_000 + 60 * MINUTE);
        let ahead = CertificateState { ca_next: 9 * MOST_CA_PAUSE_MS, next: 9 * MOST_CA_PAUSE_MS, ..longer };
        assert_eq!(ahead.asked(5_000).unwrap().next, 5_000);
    }

    #[test]
    fn asking_again_and_again_makes_few_orders() {
        let (mut state, mut orders) = (CertificateState::default(), 0);
        let hour = 60 * MINUTE;
        for now in (hour..2 * hour).step_by(100) {
            state = state.asked(now).unwrap_or(state);
            if now >= state.next && !state.ended {
                orders += 1;
                state = state.failed(&OrderFailure { refused: orders % 2 == 0, ..failure(None) }, 0, now);
            }
        }
        assert!((6..=12).contains(&orders), "{orders} orders in an hour");
    }

    #[test]
    fn what_holds_an_order_back_is_not_forgotten() {
        assert!(CertificateState::issued_now(9 * 86_400_000, 5).is_idle(6));
        let limited = CertificateState::default().failed(&failure(Some(60 * MINUTE)), 0, 0);
        assert!(!limited.is_idle(59 * MINUTE) && limited.is_idle(60 * MINUTE));
        let asked = CertificateState::default().failed(&failure(None), 0, 0).asked(1_000).unwrap();
        assert!(!asked.is_idle(MINUTE) && asked.is_idle(1_000 + ASK_PAUSE_MS));
    }
}
