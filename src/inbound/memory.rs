//! The memory that messages on their way in may take, in two pools, so that a few large ones never keep the many
//! small ones waiting.
//!
//! A message of up to [`SMALL_MESSAGE`] takes from the small pool in steps as it arrives. A larger one takes its
//! declared SIZE, else the largest size there is, from the large pool at once: if it took in steps, several half-read
//! ones could wait for each other.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Messages up to this size take from the small pool.
pub const SMALL_MESSAGE: u64 = 256 * 1024;
/// The large pool, in bytes. No message may be larger.
pub const LARGE_POOL: u64 = 72 * 1024 * 1024;
const SMALL_POOL: u64 = 24 * 1024 * 1024;
const STEP: u64 = 32 * 1024;
/// How long a client waits for room.
const PATIENCE: Duration = Duration::from_secs(60);

/// The two pools.
pub struct Memory {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    max_message: u64,
}

/// What one message holds.
#[derive(Default)]
pub struct Share {
    small: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
    bytes: u64,
}

/// There was no room for as long as a client may be kept waiting.
#[derive(Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Memory {
    pub fn new(max_message: u64) -> Self {
        let pool = |bytes: u64| Arc::new(Semaphore::new(kib(bytes) as usize));
        Self { small: pool(SMALL_POOL), large: pool(LARGE_POOL), max_message: max_message.min(LARGE_POOL) }
    }

    /// Room for a message before its first byte, by what its client declared.
    pub async fn reserve(&self, declared: Option<u64>) -> Result<Share, NoRoom> {
        let mut share = Share::default();
        self.cover(&mut share, declared.unwrap_or(STEP).max(1), declared).await?;
        Ok(share)
    }

    /// Makes `share` hold at least `bytes`.
    pub async fn cover(&self, share: &mut Share, bytes: u64, declared: Option<u64>) -> Result<(), NoRoom> {
        if bytes <= share.bytes {
            return Ok(());
        }
        if bytes > SMALL_MESSAGE {
            let whole = if share.large.is_some() { self.max_message } else { declared.unwrap_or(self.max_message) };
            let whole = whole.max(bytes).min(self.max_message);
            // What it had is given back first, or it could wait for itself.
            *share = Share::default();
            share.large = Some(take(&self.large, whole).await?);
            share.bytes = whole;
            return Ok(());
        }
        let target = bytes.next_multiple_of(STEP);
        let more = take(&self.small, target - share.bytes).await?;
        match &mut share.small {
            Some(held) => held.merge(more),
            None => share.small = Some(more),
        }
        share.bytes = target;
        Ok(())
    }
}

impl Share {
    /// Bytes that may be buffered before more must be asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

async fn take(pool: &Arc<Semaphore>, bytes: u64) -> Result<OwnedSemaphorePermit, NoRoom> {
    let waited = tokio::time::timeout(PATIENCE, Arc::clone(pool).acquire_many_owned(kib(bytes)));
    waited.await.map_err(|_| NoRoom)?.map_err(|_| NoRoom)
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn small_ones_never_wait_for_large_ones() {
        let memory = Memory::new(50 * MIB);
        let large = memory.reserve(Some(50 * MIB)).await.unwrap();
        assert_eq!(memory.reserve(Some(30 * MIB)).await.err(), Some(NoRoom));
        let mut small = memory.reserve(None).await.unwrap();
        assert_eq!(small.bytes(), STEP);
        memory.cover(&mut small, 100_000, None).await.unwrap();
        assert_eq!(small.bytes(), 128 * 1024);
        drop(large);
        memory.reserve(Some(30 * MIB)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_grows_past_what_it_said_takes_the_largest_size() {
        let memory = Memory::new(50 * MIB);
        let mut share = memory.reserve(Some(MIB)).await.unwrap();
        assert_eq!(share.bytes(), MIB);
        memory.cover(&mut share, MIB + 1, Some(MIB)).await.unwrap();
        assert_eq!(share.bytes(), 50 * MIB);
        let mut undeclared = memory.reserve(None).await.unwrap();
        assert_eq!(memory.cover(&mut undeclared, SMALL_MESSAGE + 1, None).await, Err(NoRoom));
        drop(share);
        memory.cover(&mut undeclared, SMALL_MESSAGE + 1, None).await.unwrap();
        assert_eq!(undeclared.bytes(), 50 * MIB);
    }
}
