//! The queue id of a message, which is also the `email_id` of its events and of the API.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// A UUIDv7 (RFC 9562 §5.7): ids sort by the time at which the message was accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueId([u8; 16]);

impl QueueId {
    /// Makes an id from the time of acceptance (milliseconds since 1970) and ten random bytes.
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid().into_bytes())
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The time of acceptance in milliseconds since 1970, as the id carries it.
    pub fn unix_ms(&self) -> u64 {
        self.0[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for QueueId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Uuid::try_parse(text)?.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_time_and_sort_by_it() {
        let early = QueueId::new(1_700_000_000_000, [255; 10]);
        let late = QueueId::new(1_700_000_000_001, [0; 10]);
        assert!(early < late);
        assert_eq!(late.unix_ms(), 1_700_000_000_001);
        assert_eq!(late.to_string().parse::<QueueId>().unwrap(), late);
        assert_eq!(&late.to_string()[14..15], "7");
    }
}
