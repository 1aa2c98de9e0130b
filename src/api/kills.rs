//! `/kill-list`: links that are switched off, in whatever mail, so only for keys that are tied to no domain.

use super::Api;
use super::caller::Unbound;
use super::error::{ApiError, Refusals, json};
use super::input::{Fields, Id, Page, PageQuery};
use super::time::iso;
use crate::kill::KillKind;
use crate::ops::{self, KillView};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// What is to be switched off.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Fields` reads")]
pub struct AddKill {
    #[schema(value_type = KillName)]
    r#type: String,
    /// The id of a message; a destination, as an absolute http or https URL of up to 8,000 bytes; or the name of a
    /// host or sender domain.
    #[schema(min_length = 1)]
    value: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the schema")]
enum KillName {
    Message,
    Link,
    Domain,
}

#[derive(Serialize, ToSchema)]
pub struct KillItem {
    id: Uuid,
    #[schema(value_type = KillName)]
    r#type: KillKind,
    value: String,
    created_at: String,
}

#[derive(Serialize, ToSchema)]
pub struct KillAdded {
    object: &'static str,
    #[serde(flatten)]
    item: KillItem,
}

#[derive(Serialize, ToSchema)]
pub struct KillListed {
    object: &'static str,
    has_more: bool,
    data: Vec<KillItem>,
}

#[derive(Serialize, ToSchema)]
pub struct KillDeleted {
    object: &'static str,
    id: Uuid,
    deleted: bool,
}

/// Switch links off. What is off already keeps its entry.
#[utoipa::path(post, path = "/kill-list", operation_id = "kill_add",
    tag = "kill-list", request_body = AddKill,
    responses((status = 201, body = KillAdded), Refusals))]
pub async fn add(State(api): State<Arc<Api>>, _: Unbound, fields: Fields) -> Result<Response, ApiError> {
    let kind = match fields.required("type")?.as_str() {
        "message" => KillKind::Message,
        "link" => KillKind::Link,
        "domain" => KillKind::Domain,
        _ => return Err(ApiError::validation("The `type` field must be one of message, link, domain.")),
    };
    let killed = ops::kill_add(&api.ops, kind, &fields.required("value")?).await?;
    Ok(json(StatusCode::CREATED, &KillAdded { object: "kill", item: KillItem::of(killed) }))
}

/// List what is switched off.
#[utoipa::path(get, path = "/kill-list", operation_id = "kill_list",
    tag = "kill-list", params(PageQuery),
    responses((status = 200, body = KillListed), Refusals))]
pub async fn list(State(api): State<Arc<Api>>, _: Unbound, page: Page) -> Result<Response, ApiError> {
    let (kills, has_more) = page.of(ops::kill_list(&api.ops), |kill| kill.id);
    let data = kills.into_iter().map(KillItem::of).collect();
    Ok(json(StatusCode::OK, &KillListed { object: "list", has_more, data }))
}

/// Let links redirect again.
#[utoipa::path(delete, path = "/kill-list/{id}", operation_id = "kill_delete",
    tag = "kill-list", params(("id" = Uuid, Path)),
    responses((status = 200, body = KillDeleted), Refusals))]
pub async fn delete(State(api): State<Arc<Api>>, _: Unbound, Id(id): Id) -> Result<Response, ApiError> {
    ops::kill_delete(&api.ops, id).await?;
    Ok(json(StatusCode::OK, &KillDeleted { object: "kill", id, deleted: true }))
}

impl KillItem {
    fn of(kill: KillView) -> Self {
        Self { id: kill.id, r#type: kill.kind, value: kill.value, created_at: iso(kill.created_at) }
    }
}
