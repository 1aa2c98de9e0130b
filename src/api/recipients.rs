//! `/recipients`: what is kept of one person, shown and forgotten. For keys that are tied to no domain, since a person
//! may have mail of all.

use super::Api;
use super::caller::Unbound;
use super::emails::aside;
use super::error::{ApiError, Kind, Refusals, json};
use super::events::EventItem;
use super::input::{Page, PageQuery};
use super::time::iso;
use crate::ops::{self, KnownMessage};
use axum::extract::{FromRequestParts, Query, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Who is meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecipientQuery {
    #[param(required, value_type = String, format = Email)]
    email: Option<String>,
}

/// One message to the person, and what came of their copy.
#[derive(Serialize, ToSchema)]
struct RecipientMessage {
    id: Uuid,
    message_id: String,
    from: String,
    subject: String,
    created_at: String,
    events: Vec<EventItem>,
}

#[derive(Serialize, ToSchema)]
pub struct RecipientMessages {
    object: &'static str,
    has_more: bool,
    /// The newest first.
    data: Vec<RecipientMessage>,
}

#[derive(Serialize, ToSchema)]
pub struct RecipientErased {
    object: &'static str,
    /// Whether anything was kept.
    deleted: bool,
    /// In how many messages.
    messages: usize,
}

/// Messages of a page where nobody asks for a number.
const DEFAULT_LIMIT: usize = 20;

/// List all that is kept of a recipient, message by message.
#[utoipa::path(get, path = "/recipients", operation_id = "recipient_export",
    tag = "recipients", params(RecipientQuery, PageQuery),
    responses((status = 200, body = RecipientMessages), Refusals))]
pub async fn export(State(api): State<Arc<Api>>, _: Unbound, who: Who, page: Page) -> Result<Response, ApiError> {
    if page.before.is_some() {
        return Err(ApiError::validation("The `before` parameter is not offered here."));
    }
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    let found = aside(&Arc::clone(&api), move || {
        let mut found = Vec::new();
        let mut begun = page.after.is_none();
        ops::recipient_export(&api.ops, &who.0, |known: KnownMessage| {
            match begun {
                true => found.push(known),
                false => begun = known.message.id.parse().ok() == page.after,
            }
            found.len() <= limit
        })?;
        Ok(found)
    })
    .await?;
    let data = found.iter().take(limit).map(RecipientMessage::of).collect();
    Ok(json(StatusCode::OK, &RecipientMessages { object: "list", has_more: found.len() > limit, data }))
}

/// Forget a recipient: address, opens and clicks. Counts name nobody and stay.
#[utoipa::path(delete, path = "/recipients", operation_id = "recipient_erase",
    tag = "recipients", params(RecipientQuery),
    responses((status = 200, body = RecipientErased), Refusals))]
pub async fn erase(State(api): State<Arc<Api>>, _: Unbound, who: Who) -> Result<Response, ApiError> {
    let messages = ops::recipient_erase(&api.ops, &who.0).await?;
    Ok(json(StatusCode::OK, &RecipientErased { object: "recipient", deleted: messages > 0, messages }))
}

/// The address in the query.
pub struct Who(String);

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<RecipientQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|_| ApiError::validation("The query string cannot be read."))?;
        let missing = || ApiError::new(Kind::MissingField, "Missing `email` parameter.");
        query.email.filter(|email| !email.is_empty()).map(Self).ok_or_else(missing)
    }
}

impl RecipientMessage {
    fn of(known: &KnownMessage) -> Self {
        let message = &known.message;
        Self {
            id: message.id.parse().unwrap_or_default(),
            message_id: message.message_id.clone(),
            from: message.from.clone(),
            subject: message.subject.clone(),
            created_at: iso(message.accepted_at),
            events: known.events.iter().map(EventItem::of).collect(),
        }
    }
}
