//! The bounds of one SMTP session: sizes, counts and times, each with the rule that it comes from.
//!
//! What an operator can set (message size, recipients) is in [`super::SessionConfig`]; what concerns many sessions at
//! once (connections, message bytes in memory) belongs to the shell. Nothing here reads a clock: the session counts,
//! the shell measures.

use super::Phase;
use std::time::Duration;

/// Octets of a command line, CRLF included. RFC 5321 §4.5.3.1.4 asks for 512, and extensions add to it.
pub const COMMAND_LINE: usize = 2_048;

/// Octets of an AUTH command and of the lines that continue it, CRLF included (RFC 4954 §4).
pub const AUTH_LINE: usize = 12_288;

/// Octets of a refused line that are still read while its end is awaited; then the session closes.
pub const SKIPPED_LINE: usize = 64 * 1_024;

/// Refused commands after which the session closes, counted anew after every accepted message.
pub const ERRORS: u32 = 20;

/// Commands that move no mail (NOOP, RSET, EHLO, HELO, VRFY, HELP) between two accepted messages.
pub const IDLE_COMMANDS: u32 = 100;

/// Failed AUTH exchanges after which the session closes (RFC 4954 §4 allows it).
pub const AUTH_FAILURES: u32 = 3;

/// What is reserved at least for a message, in octets, when the first of them comes. More follow as much as twice what
/// is there, but for messages over [`RESERVED_TWICE`].
pub const RESERVED: usize = 4 * 1_024;

/// Beyond this, a quarter more than what is there is reserved.
pub const RESERVED_TWICE: usize = 1_024 * 1_024;

/// Octets that are reserved beyond a declared size, for what is put in front of the message.
pub const IN_FRONT: usize = 1_024;

/// How long the shell waits for the client, by phase. The defaults are the least that RFC 5321 §4.5.3.2 asks of a
/// server, where it asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the next command (§4.5.3.2.7).
    pub command: Duration,
    /// For the rest of a line that has begun: no honest client types it by the letter.
    pub line: Duration,
    /// For the next piece of message data (§4.5.3.2.5).
    pub data_block: Duration,
    /// For a TLS handshake. No RFC names one; a handshake is never slow for good reason.
    pub handshake: Duration,
    /// For the client to read what we send, while our socket is full.
    pub write: Duration,
    /// Octets a second that DATA must bring on average once [`Self::rate_grace`] is over; 0 asks for none.
    pub data_rate: u64,
    /// How long DATA runs before [`Self::data_rate`] is asked for.
    pub rate_grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(5 * 60),
            line: Duration::from_secs(30),
            data_block: Duration::from_secs(3 * 60),
            handshake: Duration::from_secs(60),
            write: Duration::from_secs(3 * 60),
            data_rate: 500,
            rate_grace: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// How long the next read may take, or `None` while the client waits for us.
    pub fn read(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Command => Some(self.command),
            Phase::Data => Some(self.data_block),
            Phase::Answering => None,
        }
    }

    /// True when `received` octets in `elapsed` are too few for DATA to go on.
    pub fn is_too_slow(&self, received: u64, elapsed: Duration) -> bool {
        elapsed > self.rate_grace && received < self.data_rate.saturating_mul(elapsed.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_asked_for_after_the_grace() {
        let times = Timeouts { data_rate: 100, ..Timeouts::default() };
        let table = [(0, 30, false), (0, 31, true), (3_100, 31, false), (3_099, 31, true), (u64::MAX, 9_999, false)];
        for (received, seconds, slow) in table {
            assert_eq!(times.is_too_slow(received, Duration::from_secs(seconds)), slow, "{received} in {seconds} s");
        }
    }

    #[test]
    fn only_a_client_that_we_wait_for_can_time_out() {
        let times = Timeouts::default();
        assert_eq!(times.read(Phase::Command), Some(Duration::from_secs(300)));
        assert_eq!(times.read(Phase::Data), Some(Duration::from_secs(180)));
        assert_eq!(times.read(Phase::Answering), None);
    }
}
