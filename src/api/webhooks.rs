//! `/webhooks`.

use super::Api;
use super::caller::Full;
use super::emails::aside;
use super::error::{ApiError, Kind, Refusals, json};
use super::input::{Fields, Id, Page, PageQuery, uuid};
use super::time::iso_spaced;
use crate::event::payload::{EVENT_NAMES, iso_z};
use crate::ops::{self, NewWebhook, WebhookUpdate};
use crate::settings::Webhook;
use crate::store::{Delivery, DeliveryStatus};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::openapi::schema::{ArrayBuilder, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// An endpoint to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Fields` reads")]
pub struct CreateWebhook {
    /// Where events are posted to.
    #[schema(example = "https://webhook.example.com/handler")]
    endpoint: String,
    #[schema(schema_with = some_event_names)]
    events: Vec<String>,
    /// `enabled` unless given.
    #[schema(value_type = Option<WebhookStatus>)]
    status: Option<String>,
}

/// What is to change; what is absent stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Fields` reads")]
pub struct UpdateWebhook {
    #[schema(example = "https://webhook.example.com/handler")]
    endpoint: Option<String>,
    #[schema(schema_with = other_event_names)]
    events: Option<Vec<String>>,
    #[schema(value_type = Option<WebhookStatus>)]
    status: Option<String>,
}

/// The names of events, at least one of them.
fn some_event_names() -> RefOr<Schema> {
    event_names().into()
}

/// The same; null stands for what is there.
fn other_event_names() -> RefOr<Schema> {
    event_names().schema_type(SchemaType::from_iter([Type::Array, Type::Null])).into()
}

fn event_names() -> ArrayBuilder {
    let name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(EVENT_NAMES));
    ArrayBuilder::new().items(name).min_items(Some(1))
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the schema")]
enum WebhookStatus {
    Enabled,
    Disabled,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the schema")]
enum WebhookEventStatus {
    Pending,
    Attempting,
    Success,
    Failed,
}

/// A new endpoint, or a new secret of one.
#[derive(Serialize, ToSchema)]
pub struct WebhookMade {
    /// Always `webhook`.
    object: &'static str,
    id: Uuid,
    signing_secret: String,
}

/// An endpoint.
#[derive(Serialize, ToSchema)]
pub struct WebhookBody {
    /// Always `webhook`.
    object: &'static str,
    #[serde(flatten)]
    item: WebhookItem,
    signing_secret: String,
    /// Why we disabled it, where it was us.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    disabled_because: Option<String>,
}

/// An endpoint as lists have it.
#[derive(Serialize, ToSchema)]
pub struct WebhookItem {
    id: Uuid,
    created_at: String,
    /// `enabled` or `disabled`. A disabled endpoint is told nothing, and never of what happens while it is disabled.
    #[schema(value_type = WebhookStatus)]
    status: &'static str,
    endpoint: String,
    events: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub struct WebhookList {
    object: &'static str,
    has_more: bool,
    data: Vec<WebhookItem>,
}

#[derive(Serialize, ToSchema)]
pub struct WebhookId {
    object: &'static str,
    id: Uuid,
}

#[derive(Serialize, ToSchema)]
pub struct WebhookDeleted {
    object: &'static str,
    id: Uuid,
    deleted: bool,
}

/// An event that an endpoint is told.
#[derive(Serialize, ToSchema)]
pub struct WebhookEvent {
    /// The same for every endpoint and attempt, and what receivers read as `svix-id`.
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created_at: String,
    #[schema(value_type = WebhookEventStatus)]
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct WebhookEventList {
    object: &'static str,
    has_more: bool,
    data: Vec<WebhookEvent>,
}

/// An event with what is told.
#[derive(Serialize, ToSchema)]
pub struct WebhookEventBody {
    /// Always `webhook_event`.
    object: &'static str,
    #[serde(flatten)]
    event: WebhookEvent,
    /// Where an attempt failed and another will be made.
    next_attempt_at: Option<String>,
    #[schema(value_type = Object)]
    payload: serde_json::Value,
}

#[derive(Serialize, ToSchema)]
pub struct WebhookEventId {
    /// Always `webhook_event`.
    object: &'static str,
    id: String,
}

#[derive(Serialize, ToSchema)]
pub struct WebhookAttempt {
    id: String,
    /// 0 where nothing was answered.
    http_status_code: u16,
    /// The first 1,000 bytes of what was answered, or why nothing was.
    response: String,
    sent_at: String,
}

#[derive(Serialize, ToSchema)]
pub struct WebhookAttemptList {
    object: &'static str,
    has_more: bool,
    data: Vec<WebhookAttempt>,
}

/// Which part of a list of events or attempts, the newest first.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventPageQuery {
    /// Entries at most, 1 to 100; 20 unless given.
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// The id after which to go on.
    after: Option<String>,
}

/// Which part of a list of events or attempts.
pub struct EventPage {
    limit: usize,
    after: Option<String>,
}

const DEFAULT_LIMIT: usize = 20;

impl<S: Send + Sync> FromRequestParts<S> for EventPage {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<EventPageQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|_| ApiError::validation("The query string cannot be read."))?;
        let limit = match query.limit.as_deref().map(str::parse::<usize>) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit @ 1..=100)) => limit,
            Some(_) => return Err(ApiError::validation("The `limit` parameter must be between 1 and 100.")),
        };
        Ok(Self { limit, after: query.after })
    }
}

/// The endpoint and the event in a path.
pub struct EventOf {
    webhook: Uuid,
    event: String,
}

impl<S: Send + Sync> FromRequestParts<S> for EventOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = || ApiError::new(Kind::InvalidParameter, "The id must be a valid UUID.");
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((webhook, event)) = path.map_err(|_| bad())?;
        Ok(Self { webhook: uuid(&webhook).ok_or_else(bad)?, event })
    }
}

/// Make an endpoint. One that is made with a key that is tied to domains is told of these alone.
#[utoipa::path(post, path = "/webhooks", operation_id = "webhook_create",
    tag = "webhooks", request_body = CreateWebhook,
    responses((status = 201, body = WebhookMade), Refusals))]
pub async fn create(State(api): State<Arc<Api>>, Full(key): Full, fields: Fields) -> Result<Response, ApiError> {
    let endpoint = fields.required("endpoint")?;
    let missing = || ApiError::new(Kind::MissingField, "Missing `events` field.");
    let events = fields.texts("events")?.ok_or_else(missing)?;
    let new = NewWebhook { endpoint, events, enabled: status(&fields)?.unwrap_or(true) };
    let made = ops::webhook_create(&api.ops, &key, new).await?;
    Ok(json(StatusCode::CREATED, &WebhookMade::of(made.id, made.secret.reveal())))
}

/// List the endpoints.
#[utoipa::path(get, path = "/webhooks", operation_id = "webhook_list",
    tag = "webhooks", params(PageQuery),
    responses((status = 200, body = WebhookList), Refusals))]
pub async fn list(State(api): State<Arc<Api>>, Full(key): Full, page: Page) -> Result<Response, ApiError> {
    let settings = api.ops.settings.snapshot();
    let own = settings.webhooks.values().rev().filter(|webhook| key.reaches_webhook(webhook));
    let (webhooks, has_more) = page.of(own.collect(), |webhook| webhook.id);
    let data = webhooks.into_iter().map(WebhookItem::of).collect();
    Ok(json(StatusCode::OK, &WebhookList { object: "list", has_more, data }))
}

/// One endpoint with its secret.
#[utoipa::path(get, path = "/webhooks/{id}", operation_id = "webhook_get",
    tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, body = WebhookBody), Refusals))]
pub async fn get(State(api): State<Arc<Api>>, Full(key): Full, Id(id): Id) -> Result<Response, ApiError> {
    let settings = api.ops.settings.snapshot();
    let webhook = settings.webhooks.get(&id).filter(|webhook| key.reaches_webhook(webhook));
    let webhook = webhook.ok_or(ops::OpError::NoSuchWebhook)?;
    Ok(json(StatusCode::OK, &WebhookBody::of(webhook)))
}

/// Change an endpoint.
#[utoipa::path(patch, path = "/webhooks/{id}", operation_id = "webhook_update",
    tag = "webhooks", params(("id" = Uuid, Path)), request_body = UpdateWebhook,
    responses((status = 200, body = WebhookId), Refusals))]
pub async fn update(
    State(api): State<Arc<Api>>,
    Full(key): Full,
    Id(id): Id,
    fields: Fields,
) -> Result<Response, ApiError> {
    let update = WebhookUpdate {
        endpoint: fields.text("endpoint")?,
        events: fields.texts("events")?,
        enabled: status(&fields)?,
    };
    ops::webhook_update(&api.ops, &key, id, update).await?;
    Ok(json(StatusCode::OK, &WebhookId { object: "webhook", id }))
}

/// Remove an endpoint, with what was told to it.
#[utoipa::path(delete, path = "/webhooks/{id}", operation_id = "webhook_delete",
    tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, body = WebhookDeleted), Refusals))]
pub async fn delete(State(api): State<Arc<Api>>, Full(key): Full, Id(id): Id) -> Result<Response, ApiError> {
    ops::webhook_delete(&api.ops, &key, id).await?;
    Ok(json(StatusCode::OK, &WebhookDeleted { object: "webhook", id, deleted: true }))
}

/// Make a new secret. For 24 hours, requests are signed with the one before as well.
#[utoipa::path(post, path = "/webhooks/{id}/signing-secret/rotate", operation_id = "webhook_rotate",
    tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, body = WebhookMade), Refusals))]
pub async fn rotate(State(api): State<Arc<Api>>, Full(key): Full, Id(id): Id) -> Result<Response, ApiError> {
    let secret = ops::webhook_rotate(&api.ops, &key, id).await?;
    Ok(json(StatusCode::OK, &WebhookMade::of(id, secret.reveal())))
}

/// List what an endpoint is told.
#[utoipa::path(get, path = "/webhooks/{id}/events", operation_id = "webhook_event_list",
    tag = "webhooks", params(("id" = Uuid, Path), EventPageQuery),
    responses((status = 200, body = WebhookEventList), Refusals))]
pub async fn events(
    State(api): State<Arc<Api>>,
    Full(key): Full,
    Id(id): Id,
    page: EventPage,
) -> Result<Response, ApiError> {
    let (found, has_more) =
        aside(&Arc::clone(&api), move || ops::webhook_events(&api.ops, &key, id, page.after.as_deref(), page.limit))
            .await?;
    let data = found.iter().map(WebhookEvent::of).collect();
    Ok(json(StatusCode::OK, &WebhookEventList { object: "list", has_more, data }))
}

/// One event with what is told.
#[utoipa::path(get, path = "/webhooks/{id}/events/{event_id}", operation_id = "webhook_event_get",
    tag = "webhooks", params(("id" = Uuid, Path), ("event_id" = String, Path)),
    responses((status = 200, body = WebhookEventBody), Refusals))]
pub async fn event(State(api): State<Arc<Api>>, Full(key): Full, of: EventOf) -> Result<Response, ApiError> {
    let found = aside(&Arc::clone(&api), move || ops::webhook_event(&api.ops, &key, of.webhook, &of.event)).await?;
    let next = (found.state.status == DeliveryStatus::Attempting).then(|| iso_z(found.state.due));
    let body = WebhookEventBody {
        object: "webhook_event",
        event: WebhookEvent::of(&found),
        next_attempt_at: next,
        payload: serde_json::from_slice(&found.payload).unwrap_or_default(),
    };
    Ok(json(StatusCode::OK, &body))
}

/// Send an event again, under the same id.
#[utoipa::path(post, path = "/webhooks/{id}/events/{event_id}/replay", operation_id = "webhook_event_replay",
    tag = "webhooks", params(("id" = Uuid, Path), ("event_id" = String, Path)),
    responses((status = 200, body = WebhookEventId), Refusals))]
pub async fn replay(State(api): State<Arc<Api>>, Full(key): Full, of: EventOf) -> Result<Response, ApiError> {
    ops::webhook_replay(&api.ops, &key, of.webhook, &of.event).await?;
    Ok(json(StatusCode::OK, &WebhookEventId { object: "webhook_event", id: of.event }))
}

/// List the attempts to tell an event.
#[utoipa::path(get, path = "/webhooks/{id}/events/{event_id}/attempts", operation_id = "webhook_attempt_list",
    tag = "webhooks", params(("id" = Uuid, Path), ("event_id" = String, Path), EventPageQuery),
    responses((status = 200, body = WebhookAttemptList), Refusals))]
pub async fn attempts(
    State(api): State<Arc<Api>>,
    Full(key): Full,
    of: EventOf,
    page: EventPage,
) -> Result<Response, ApiError> {
    let (found, has_more) = aside(&Arc::clone(&api), move || {
        ops::webhook_attempts(&api.ops, &key, of.webhook, &of.event, page.after.as_deref(), page.limit)
    })
    .await?;
    let data = found.into_iter().map(|(id, attempt)| WebhookAttempt {
        id,
        http_status_code: attempt.status,
        response: attempt.response,
        sent_at: iso_z(attempt.sent_at),
    });
    Ok(json(StatusCode::OK, &WebhookAttemptList { object: "list", has_more, data: data.collect() }))
}

/// Whether the endpoint is to be enabled.
fn status(fields: &Fields) -> Result<Option<bool>, ApiError> {
    match fields.text("status")?.as_deref() {
        None => Ok(None),
        Some("enabled") => Ok(Some(true)),
        Some("disabled") => Ok(Some(false)),
        Some(_) => Err(ApiError::validation("The `status` field must be one of enabled, disabled.")),
    }
}

impl WebhookMade {
    fn of(id: Uuid, secret: &str) -> Self {
        Self { object: "webhook", id, signing_secret: secret.to_owned() }
    }
}

impl WebhookItem {
    fn of(webhook: &Webhook) -> Self {
        Self {
            id: webhook.id,
            created_at: iso_spaced(webhook.created_at),
            status: if webhook.enabled { "enabled" } else { "disabled" },
            endpoint: webhook.endpoint.clone(),
            events: webhook.events.clone(),
        }
    }
}

impl WebhookBody {
    fn of(webhook: &Webhook) -> Self {
        let disabled_because = webhook.disabled_because.clone().filter(|_| !webhook.enabled);
        let signing_secret = webhook.secret.reveal().to_owned();
        Self { object: "webhook", item: WebhookItem::of(webhook), signing_secret, disabled_because }
    }
}

impl WebhookEvent {
    fn of(delivery: &Delivery) -> Self {
        let status = match delivery.state.status {
            DeliveryStatus::Pending => "pending",
            DeliveryStatus::Attempting => "attempting",
            DeliveryStatus::Success => "success",
            DeliveryStatus::Failed => "failed",
        };
        Self { id: delivery.id.clone(), kind: delivery.kind.clone(), created_at: iso_z(delivery.created_at), status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SigningSecret;
    use serde_json::{Value, json};
    use std::path::Path;

    fn fixture(name: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/webhooks").join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// With what is random, or cut to the millisecond, as the contract has it.
    fn shown(value: &impl Serialize) -> Value {
        let mut value = serde_json::to_value(value).unwrap();
        let item = if value.get("data").is_some() { &mut value["data"][0] } else { &mut value };
        if item.get("created_at").is_some() {
            assert_eq!(item["created_at"], "2026-03-28 17:12:02.059000+00");
            item["created_at"] = json!("2026-03-28 17:12:02.059593+00");
        }
        if item.get("signing_secret").is_some() {
            assert_eq!(item["signing_secret"].as_str().map(str::len), Some(38));
            item["signing_secret"] = json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        }
        value
    }

    #[test]
    fn answers_are_the_contracts() {
        let id = Uuid::parse_str("4dd369bc-aa82-4ff3-97de-514ae3000ee0").unwrap();
        let webhook = |events: &[&str]| {
            let events = events.iter().map(|name| (*name).to_owned()).collect();
            let url = "https://webhook.example.com/handler".to_owned();
            Webhook::new(id, url, events, SigningSecret::new([5; 24]), Vec::new(), 1_774_717_922_059)
        };
        let (one, three) = (webhook(&["email.opened"]), webhook(&["email.delivered", "email.opened", "email.clicked"]));
        let made = WebhookMade::of(id, one.secret.reveal());
        assert_eq!(shown(&made), fixture("webhook_create_201.json"));
        assert_eq!(shown(&WebhookBody::of(&three)), fixture("webhook_get_200.json"));
        let list = WebhookList { object: "list", has_more: false, data: vec![WebhookItem::of(&one)] };
        assert_eq!(shown(&list), fixture("webhook_list_200.json"));
        assert_eq!(shown(&WebhookId { object: "webhook", id }), fixture("webhook_update_200.json"));
        let deleted = WebhookDeleted { object: "webhook", id, deleted: true };
        assert_eq!(shown(&deleted), fixture("webhook_delete_200.json"));
        let disabled = Webhook { enabled: false, disabled_because: Some("it answered 410".into()), ..one };
        let shown = shown(&WebhookBody::of(&disabled));
        assert_eq!((&shown["status"], &shown["disabled_because"]), (&json!("disabled"), &json!("it answered 410")));
    }
}
