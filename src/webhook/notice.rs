//! The mail to the operator which says that an endpoint was disabled. It goes through our own queue, with the null
//! reverse-path: nobody is to answer it.

use super::Webhooks;
use crate::clock;
use crate::intake::Refusal;
use crate::mail::{Address, Body, Envelope, QueueId};
use crate::settings::Webhook;
use mail_builder::MessageBuilder;
use mail_builder::headers::message_id::MessageId;
use sha2::{Digest, Sha256};

/// Puts the notice into the queue. Its id is derived from the endpoint and since when it failed, so that trying again
/// makes no second one while the first is still in the queue.
pub async fn send(webhooks: &Webhooks, to: &Address, webhook: &Webhook, why: &str, since: u64) -> Result<(), Refusal> {
    let digest = Sha256::new().chain_update(webhook.id.as_bytes()).chain_update(since.to_be_bytes()).finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&digest[..10]);
    let id = QueueId::new(since, random);
    let envelope = Envelope {
        sender: None,
        recipients: vec![to.clone().into()],
        body: Body::SevenBit,
        smtputf8: !to.is_ascii(),
        ret: None,
        envid: None,
    };
    let bytes = compose(to, webhook, why, &id, &webhooks.intake.hostname, clock::unix_ms());
    webhooks.intake.submit(id, envelope, bytes).await?;
    tracing::info!(webhook = %webhook.id, notice = %id, "operator notified");
    Ok(())
}

fn compose(to: &Address, webhook: &Webhook, why: &str, id: &QueueId, hostname: &str, now: u64) -> Vec<u8> {
    let text = format!(
        "The webhook {} was disabled: {why}.\r\n\r\n  Endpoint: {}\r\n  Events: {}\r\n\r\nIt is told of no events \
         until it is enabled again, by PATCH /webhooks/{} with {{\"status\": \"enabled\"}}. What was waiting for it \
         goes out then; what happens until then is not told.\r\n\r\nThis message was made automatically by {hostname}, \
         and nobody reads answers to it.\r\n",
        webhook.id,
        webhook.endpoint,
        webhook.events.join(", "),
        webhook.id,
    );
    let message = MessageBuilder::new()
        .from(format!("postmaster@{hostname}"))
        .to(to.as_str())
        .subject("A webhook was disabled")
        .date(i64::try_from(now / 1_000).unwrap_or_default())
        .message_id(MessageId::new(format!("webhook.{id}@{hostname}")))
        .header("Auto-Submitted", mail_builder::headers::raw::Raw::new("auto-generated"))
        .text_body(text);
    message.write_to_vec().unwrap_or_default()
}
