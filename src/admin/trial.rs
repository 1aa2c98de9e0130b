//! `trackpost test`: one message through everything, and what became of it.

use crate::clock;
use crate::domain::Demand;
use crate::intake::{Intake, MailFrom, Origin};
use crate::mail::{Address, Body, Envelope, Protocol, Role};
use crate::ops::{self, MessageView, OpError, Ops};
use crate::settings::Snapshot;
use mail_builder::MessageBuilder;
use mail_builder::headers::message_id::MessageId;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::Instant;

/// How long the caller waits for the smarthost's answer.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Sends a message to `to` and says what the smarthost made of it, or what has happened so far.
pub async fn send(ops: &Ops, intake: &Intake, to: &str, from: Option<&str>) -> Result<MessageView, OpError> {
    let parse = |text: &str| Address::parse(text).map_err(|e| OpError::BadAddress(text.to_owned(), e));
    let to = parse(to)?;
    let from = parse(
        &from
            .map_or_else(|| sender(&ops.settings.snapshot(), ops.terms.load().demand, &intake.hostname), str::to_owned),
    )?;
    let smtputf8 = !to.is_ascii() || !from.is_ascii();
    let bytes = compose(&from, &to, &intake.hostname);
    let envelope = Envelope {
        sender: Some(from),
        recipients: vec![to.into()],
        body: Body::SevenBit,
        smtputf8,
        ret: None,
        envid: None,
    };
    let protocol = Protocol { extended: true, tls: false, authenticated: false, utf8: smtputf8 };
    let origin = Origin {
        helo: &intake.hostname,
        client: Ipv4Addr::LOCALHOST.into(),
        protocol,
        login: None,
        role: Role::Submission,
        mail_from: MailFrom::Own,
    };
    let accepted = intake.accept(envelope, bytes, origin).await;
    let id = accepted.map_err(|refusal| OpError::Refused(refusal.reply().to_string()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waits = ops.queue.contains(&id);
        let shown = ops::queue_show(ops, &id);
        // Settled and in the history; or tried, and put off. While the history lags, the queue says nothing.
        let done = match &shown {
            Ok(message) => message.recipients.iter().all(|r| r.attempts > 0 || !waits && r.status != "queued"),
            // It may be about to open.
            Err(_) => false,
        };
        if done || Instant::now() > deadline {
            return shown;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where nobody names a sender: of a domain that is tracked, if there is one, so that there is something to see.
fn sender(settings: &Snapshot, demand: Demand, hostname: &str) -> String {
    let tracked = settings.domains.values().find(|domain| domain.active_subdomain(demand).is_some());
    let domain = tracked.map_or(hostname, |domain| domain.name.as_str());
    format!("postmaster@{domain}")
}

fn compose(from: &Address, to: &Address, hostname: &str) -> Vec<u8> {
    let now = clock::unix_ms();
    let id = format!("test.{}@{hostname}", clock::queue_id());
    let text = format!(
        "This message was sent by `trackpost test` on {hostname}.\r\n\r\nIf you can read it, mail passes. In the HTML \
         version, a link and a pixel show whether it is tracked.\r\n"
    );
    let html = format!(
        "<!DOCTYPE html>\r\n<html><body>\r\n<p>This message was sent by <code>trackpost test</code> on {hostname}.</p>\
         \r\n<p>If you can read it, mail passes. Follow <a href=\"https://example.com/trackpost-test\">this link</a>, \
         then see <code>trackpost events tail</code>.</p>\r\n</body></html>\r\n"
    );
    let message = MessageBuilder::new()
        .from(from.as_str())
        .to(to.as_str())
        .subject(format!("Test of {hostname}"))
        .date(i64::try_from(now / 1000).unwrap_or_default())
        .message_id(MessageId::new(id))
        .text_body(text)
        .html_body(html);
    message.write_to_vec().unwrap_or_default()
}
