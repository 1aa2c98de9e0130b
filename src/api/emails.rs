//! `/emails`: what was accepted, and what became of it. Mail is taken over SMTP alone.

use super::Api;
use super::caller::Full;
use super::error::{ApiError, ErrorBody, Kind, Refusals, json};
use super::input::{Id, Page, PageQuery};
use super::time::iso;
use crate::mail::QueueId;
use crate::ops::{self, Email, OpError, Range};
use crate::rewrite::Report;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// A message as lists have it.
#[derive(Serialize, ToSchema)]
pub struct EmailItem {
    id: Uuid,
    /// The Message-ID field.
    message_id: String,
    /// The From field.
    from: String,
    /// The envelope's recipients.
    to: Vec<String>,
    /// Always null: the envelope does not tell them apart.
    cc: Option<Vec<String>>,
    bcc: Option<Vec<String>>,
    reply_to: Option<Vec<String>>,
    subject: String,
    created_at: String,
    /// `sent` (accepted), `delivered`, `delivery_delayed`, `bounced`, `canceled`, `failed`, `opened` or `clicked`.
    last_event: &'static str,
    scheduled_at: Option<String>,
}

/// A message with its recipients, and the report of rewriting.
#[derive(Serialize, ToSchema)]
pub struct EmailBody {
    /// Always `email`.
    object: &'static str,
    #[serde(flatten)]
    item: EmailItem,
    /// Bodies are not kept.
    html: Option<String>,
    text: Option<String>,
    tags: Vec<Tag>,
    recipients: Vec<EmailRecipient>,
    /// What rewriting did; null before the first attempt, and where nothing is kept of it.
    #[schema(value_type = Option<Object>)]
    report: Option<Report>,
}

#[derive(Serialize, ToSchema)]
pub struct Tag {
    name: String,
    value: String,
}

#[derive(Serialize, ToSchema)]
pub struct EmailRecipient {
    address: String,
    /// `queued`, `sending`, `deferred`, `delivered`, `relayed`, `bounced`, `held`, `removed` or `suppressed`.
    status: String,
    attempts: u32,
    /// The last reply of the smarthost.
    reply: String,
    at: Option<String>,
    next_attempt_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct EmailList {
    object: &'static str,
    has_more: bool,
    data: Vec<EmailItem>,
}

/// Entries of a page where nobody asks for a number.
const DEFAULT_LIMIT: usize = 20;

/// List the messages.
#[utoipa::path(get, path = "/emails", operation_id = "email_list",
    tag = "emails", params(PageQuery),
    responses((status = 200, body = EmailList), Refusals))]
pub async fn list(State(api): State<Arc<Api>>, Full(key): Full, page: Page) -> Result<Response, ApiError> {
    let cursor = |id: Option<Uuid>| id.map(|id| QueueId::from_bytes(id.into_bytes()));
    let range =
        Range { after: cursor(page.after), before: cursor(page.before), limit: page.limit.unwrap_or(DEFAULT_LIMIT) };
    let (emails, has_more) = aside(&Arc::clone(&api), move || {
        let settings = api.ops.settings.snapshot();
        // A key that is tied to domains need not walk past the mail of all others.
        let own = ops::domains_of(&settings, &key);
        ops::email_list(&api.ops, range, own.as_deref(), |head| {
            ops::may_see(&settings, &key, head.from_domain.as_deref(), head.accepted_at)
        })
    })
    .await?;
    let data = emails.iter().map(EmailItem::of).collect();
    Ok(json(StatusCode::OK, &EmailList { object: "list", has_more, data }))
}

/// One message.
#[utoipa::path(get, path = "/emails/{id}", operation_id = "email_get",
    tag = "emails", params(("id" = Uuid, Path)),
    responses((status = 200, body = EmailBody), Refusals))]
pub async fn get(State(api): State<Arc<Api>>, Full(key): Full, Id(id): Id) -> Result<Response, ApiError> {
    let id = QueueId::from_bytes(id.into_bytes());
    let email = aside(&Arc::clone(&api), move || ops::email_of(&api.ops, &key, &id)).await?;
    Ok(json(StatusCode::OK, &EmailBody::of(email)))
}

/// Sending over HTTP is not offered: mail is taken over SMTP.
#[utoipa::path(post, path = "/emails", operation_id = "email_send", tag = "emails",
    responses((status = 405, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub async fn send() -> Response {
    refuse_to_send()
}

/// Sending over HTTP is not offered: mail is taken over SMTP.
#[utoipa::path(post, path = "/emails/batch", operation_id = "email_send_batch", tag = "emails",
    responses((status = 405, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub async fn send_batch() -> Response {
    refuse_to_send()
}

fn refuse_to_send() -> Response {
    let message = "Sending over HTTP is not offered. Send over SMTP, with this API key as the password.";
    let mut response = ApiError::new(Kind::MethodNotAllowed, message).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Runs what reads the disk where it keeps nobody waiting.
pub(super) async fn aside<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce() -> Result<T, OpError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(ops::aside(&api.ops, work).await?)
}

impl EmailItem {
    fn of(email: &Email) -> Self {
        let message = &email.message;
        Self {
            id: message.id.parse().unwrap_or_default(),
            message_id: message.message_id.clone(),
            from: message.from.clone(),
            to: message.recipients.iter().map(|r| r.address.clone()).collect(),
            cc: None,
            bcc: None,
            reply_to: None,
            subject: message.subject.clone(),
            created_at: iso(message.accepted_at),
            last_event: last_event(email),
            scheduled_at: None,
        }
    }
}

fn last_event(email: &Email) -> &'static str {
    match email.interest {
        ops::Interest { clicked: true, .. } => return "clicked",
        ops::Interest { opened: true, .. } => return "opened",
        _ => {}
    }
    let newest = email.message.recipients.iter().max_by_key(|r| r.at);
    match newest.map_or("queued", |r| r.status.as_str()) {
        "delivered" | "relayed" => "delivered",
        "deferred" => "delivery_delayed",
        "bounced" => "bounced",
        "removed" => "canceled",
        "suppressed" => "failed",
        _ => "sent",
    }
}

impl EmailBody {
    fn of(email: Email) -> Self {
        let item = EmailItem::of(&email);
        let message = email.message;
        let recipient = |r: ops::RecipientView| EmailRecipient {
            address: r.address,
            status: r.status,
            attempts: r.attempts,
            reply: r.reply,
            at: (r.at > 0).then(|| iso(r.at)),
            next_attempt_at: r.next.map(iso),
        };
        Self {
            object: "email",
            item,
            html: None,
            text: None,
            tags: message.tags.into_iter().map(|(name, value)| Tag { name, value }).collect(),
            recipients: message.recipients.into_iter().map(recipient).collect(),
            report: message.report,
        }
    }
}
