//! `/emails/{id}/events`: what happened to one message.

use super::Api;
use super::caller::Full;
use super::emails::aside;
use super::error::{ApiError, Refusals, json};
use super::input::{Id, Page, PageQuery};
use super::time::iso;
use crate::event::Event;
use crate::mail::QueueId;
use crate::ops;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// One step in the life of a message.
#[derive(Serialize, ToSchema)]
pub(super) struct EventItem {
    id: Uuid,
    /// `email.sent`, `email.delivered`, `email.opened` and their like.
    #[serde(rename = "type")]
    kind: &'static str,
    created_at: String,
    /// Whose copy it was; left out where it is of the whole message.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Box<str>>,
    /// The smarthost's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Box<str>>,
    /// The destination of a click.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Box<str>>,
    /// What an open or click was taken for: `human`, `machine` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    /// Why, where it was not taken for a person's.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Box<str>>,
    /// The same hit within a few seconds is one event.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    /// Left out once it is no longer kept, as the agent is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    ip_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<Box<str>>,
}

#[derive(Serialize, ToSchema)]
pub struct EventList {
    object: &'static str,
    has_more: bool,
    data: Vec<EventItem>,
}

/// Entries of a page where nobody asks for a number.
const DEFAULT_LIMIT: usize = 100;

/// List what happened to a message, the newest first.
#[utoipa::path(get, path = "/emails/{id}/events", operation_id = "email_events",
    tag = "emails", params(("id" = Uuid, Path), PageQuery),
    responses((status = 200, body = EventList), Refusals))]
pub async fn list(State(api): State<Arc<Api>>, Full(key): Full, Id(id): Id, page: Page) -> Result<Response, ApiError> {
    let id = QueueId::from_bytes(id.into_bytes());
    let (events, has_more) = aside(&Arc::clone(&api), move || {
        ops::email_of(&api.ops, &key, &id)?;
        ops::events_of_page(&api.ops, &id, page.after, page.before, page.limit.unwrap_or(DEFAULT_LIMIT))
    })
    .await?;
    let data = events.iter().map(EventItem::of).collect();
    Ok(json(StatusCode::OK, &EventList { object: "list", has_more, data }))
}

impl EventItem {
    pub(super) fn of(event: &Event) -> Self {
        Self {
            id: event.uuid(),
            kind: event.kind.name(),
            created_at: iso(event.at),
            recipient: event.to.clone(),
            reply: event.reply.clone(),
            link: event.link.clone(),
            class: event.class,
            reason: event.reason.clone(),
            count: event.count,
            ip_address: event.address,
            user_agent: event.agent.clone(),
        }
    }
}
