//! Turns at reading the history.

use super::{OpError, Ops};
use crate::domain::SenderDomain;
use crate::mail::QueueId;
use crate::settings::{ApiKey, Snapshot};
use std::time::Duration;
use tokio::time::Instant;

/// Readers of the history at once: it can take long, and others want the disk as well.
pub const READERS: usize = 4;
/// How long an answer waits for the history to be open.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs what reads the disk where it keeps nobody waiting. The history opens some moments after the server has.
pub async fn aside<T: Send + 'static>(
    ops: &Ops,
    work: impl FnOnce() -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError> {
    let end = Instant::now() + PATIENCE;
    while ops.store.load().is_none() && Instant::now() < end {
        tokio::time::sleep(PATIENCE / 100).await;
    }
    let _turn = ops.readers.acquire().await;
    apart(work).await
}

/// Runs what reads the disk, but not the history, where it keeps nobody waiting.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(OpError::Fault("an unexpected error occurred".to_owned())),
    }
}

/// Whether a key may see mail of this From domain, accepted at this time. A key that is tied to domains sees their mail
/// alone, while they are there; not what somebody else sent before the domain was added, under the same name.
pub fn may_see(settings: &Snapshot, key: &ApiKey, from: Option<&str>, accepted_at: u64) -> bool {
    let own = |domain: &SenderDomain| {
        Some(domain.name.as_str()) == from && key.reaches(domain) && accepted_at >= domain.created_at
    };
    key.domains.is_empty() || key.domains.iter().filter_map(|tie| settings.domains.get(&tie.name)).any(own)
}

/// One message, if the key may see it; others are not there. Reads the disk.
pub fn email_of(ops: &Ops, key: &ApiKey, id: &QueueId) -> Result<super::Email, OpError> {
    let email = super::email_show(ops, id)?;
    let settings = ops.settings.snapshot();
    match may_see(&settings, key, email.message.from_domain.as_deref(), email.message.accepted_at) {
        true => Ok(email),
        false => Err(OpError::UnknownMessage(*id)),
    }
}
