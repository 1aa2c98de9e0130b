//! Notices to senders (RFC 3464) about what became of their message: composed in [`crate::dsn`], put into the queue
//! here like any other mail, with the null reverse-path.
//!
//! A notice's queue id is derived from the message, what is told and the recipients it is told about. So a crash
//! between a notice and the outcome that it tells of makes the same one again, which the log takes once while the first
//! is still in the queue.

use super::Outbound;
use crate::clock;
use crate::dsn::{Concerned, Kind, Notice, compose, is_wanted};
use crate::intake::Refusal;
use crate::mail::{QueueId, Recipient};
use crate::spool::{Entry, MessageHead};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// What is told of one recipient.
#[derive(Clone, Debug)]
pub struct Told {
    /// Index into the envelope's recipients.
    pub recipient: u16,
    pub attempts: u32,
    pub reply: Box<str>,
    pub at: u64,
}

/// True when the sender is to hear of this.
pub fn is_owed(kind: Kind, head: &MessageHead, recipient: u16) -> bool {
    let wants = |recipient: &Recipient| is_wanted(kind, recipient);
    head.envelope.sender.is_some() && head.envelope.recipients.get(usize::from(recipient)).is_some_and(wants)
}

/// Puts a notice into the queue and returns when it is on disk; where nobody wants one, there is none.
///
/// `body` is the message where it is at hand; else it is read, and what cannot be read is not returned to its sender.
/// `behind` is written in any case, behind the notice and in one go with it.
pub async fn send(
    outbound: &Outbound,
    kind: Kind,
    id: QueueId,
    head: &MessageHead,
    told: &[Told],
    smarthost: &str,
    (body, behind): (Option<&Bytes>, Option<Entry>),
) -> Result<(), Refusal> {
    let recipient = |told: &Told| head.envelope.recipients.get(usize::from(told.recipient));
    let concerned: Vec<Concerned<'_>> = told
        .iter()
        .filter(|told| is_owed(kind, head, told.recipient))
        .filter_map(|told| {
            let recipient = recipient(told)?;
            Some(Concerned { recipient, reply: &told.reply, at: told.at, attempts: told.attempts })
        })
        .collect();
    if concerned.is_empty() {
        outbound.intake.follow(behind);
        return Ok(());
    }
    let original = match body {
        Some(body) => body.clone(),
        None => {
            let log = outbound.log.clone();
            let read = tokio::task::spawn_blocking(move || log.body(&id)).await;
            read.ok().and_then(Result::ok).map(Bytes::from).unwrap_or_default()
        }
    };
    let dsn_id = derived_id(kind, &id, told);
    let notice = Notice {
        kind,
        id,
        dsn_id,
        hostname: &outbound.intake.hostname,
        smarthost,
        envelope: &head.envelope,
        arrived_at: head.accepted_at,
        now: clock::unix_ms(),
        concerned: &concerned,
        subject: &head.subject,
        original: &original,
    };
    let Some((envelope, bytes)) = compose(&notice) else {
        outbound.intake.follow(behind);
        return Ok(());
    };
    outbound.intake.submit_with(dsn_id, envelope, bytes, behind).await?;
    tracing::info!(queue_id = %id, dsn = %dsn_id, "sender notified");
    Ok(())
}

fn derived_id(kind: Kind, id: &QueueId, told: &[Told]) -> QueueId {
    let mut hash = Sha256::new();
    hash.update(match kind {
        Kind::Failed => b"failed ",
        Kind::Delayed { .. } => b"delayed",
        Kind::Relayed => b"relayed",
    });
    hash.update(id.as_bytes());
    for told in told {
        hash.update(told.recipient.to_be_bytes());
    }
    let digest = hash.finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&digest[..10]);
    QueueId::new(id.unix_ms(), random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_is_told_and_of_whom() {
        let id = QueueId::new(1_700_000_000_000, [7; 10]);
        let told = |recipient| Told { recipient, attempts: 1, reply: "550 no".into(), at: 1 };
        let other = |recipient| Told { recipient, attempts: 9, reply: "551".into(), at: 2 };
        let one = derived_id(Kind::Failed, &id, &[told(0), told(3)]);
        assert_eq!(one, derived_id(Kind::Failed, &id, &[other(0), other(3)]));
        assert_ne!(one, derived_id(Kind::Failed, &id, &[told(0)]));
        assert_ne!(one, derived_id(Kind::Relayed, &id, &[told(0), told(3)]));
        assert_ne!(one, derived_id(Kind::Failed, &QueueId::new(1, [7; 10]), &[told(0), told(3)]));
        assert_eq!(one.unix_ms(), id.unix_ms());
    }
}
