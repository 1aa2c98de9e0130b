//! `/api-keys`.

use super::Api;
use super::caller::Unbound;
use super::error::{ApiError, Kind, Refusals, json};
use super::input::{Fields, Id, Page, PageQuery, uuid};
use super::time::iso;
use crate::ops::{self, KeyView, NewKey};
use crate::settings::Permission;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// A key to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Fields` reads")]
pub struct CreateKey {
    #[schema(min_length = 1, max_length = 50)]
    name: String,
    /// `full_access` unless given.
    #[schema(value_type = Option<PermissionName>)]
    permission: Option<String>,
    /// The key is good for this domain alone.
    domain_id: Option<Uuid>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the schema")]
enum PermissionName {
    FullAccess,
    SendingAccess,
}

/// A new name.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Fields` reads")]
pub struct RenameKey {
    #[schema(min_length = 1, max_length = 50)]
    name: String,
}

/// A new key. The token is shown this once.
#[derive(Serialize, ToSchema)]
pub struct KeyMade {
    id: String,
    token: String,
}

#[derive(Serialize, ToSchema)]
pub struct KeyItem {
    id: String,
    name: String,
    created_at: String,
    /// Within an hour.
    last_used_at: Option<String>,
    /// `full_access` or `sending_access`.
    #[schema(value_type = String)]
    permission: Permission,
    /// Names of the domains that it is tied to; empty: all.
    domains: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub struct KeyList {
    object: &'static str,
    has_more: bool,
    data: Vec<KeyItem>,
}

#[derive(Serialize, ToSchema)]
pub struct KeyId {
    object: &'static str,
    id: Uuid,
}

#[derive(Serialize, ToSchema)]
pub struct KeyDeleted {
    object: &'static str,
    id: Uuid,
    deleted: bool,
}

/// Make a key.
#[utoipa::path(post, path = "/api-keys", operation_id = "api_key_create",
    tag = "api-keys", request_body = CreateKey,
    responses((status = 201, body = KeyMade), Refusals))]
pub async fn create(State(api): State<Arc<Api>>, _: Unbound, fields: Fields) -> Result<Response, ApiError> {
    let name = fields.required("name")?;
    let permission = match fields.text("permission")?.as_deref() {
        None | Some("full_access") => Permission::FullAccess,
        Some("sending_access") => Permission::SendingAccess,
        Some(_) => {
            let message = "Access must be \"full_access\" | \"sending_access\".";
            return Err(ApiError::new(Kind::InvalidAccess, message));
        }
    };
    let domains = match fields.text("domain_id")? {
        None => Vec::new(),
        Some(text) => {
            let bad = || ApiError::new(Kind::InvalidParameter, "The `domain_id` field must be a valid UUID.");
            let id = uuid(&text).ok_or_else(bad)?;
            let settings = api.ops.settings.snapshot();
            let domain = settings.domain(id).ok_or_else(|| ApiError::new(Kind::NotFound, "Domain not found"))?;
            vec![domain.name.to_string()]
        }
    };
    let made = ops::key_create(&api.ops, NewKey { name, permission, domains }).await?;
    Ok(json(StatusCode::CREATED, &KeyMade { id: made.id, token: made.token }))
}

/// List the keys.
#[utoipa::path(get, path = "/api-keys", operation_id = "api_key_list",
    tag = "api-keys", params(PageQuery),
    responses((status = 200, body = KeyList), Refusals))]
pub async fn list(State(api): State<Arc<Api>>, _: Unbound, page: Page) -> Result<Response, ApiError> {
    let mut keys = ops::key_list(&api.ops);
    keys.reverse();
    let (keys, has_more) = page.of(keys, |key| key.id.parse().unwrap_or_default());
    let data = keys.into_iter().map(KeyItem::of).collect();
    Ok(json(StatusCode::OK, &KeyList { object: "list", has_more, data }))
}

/// Give a key another name.
#[utoipa::path(patch, path = "/api-keys/{id}", operation_id = "api_key_rename",
    tag = "api-keys", params(("id" = Uuid, Path)), request_body = RenameKey,
    responses((status = 200, body = KeyId), Refusals))]
pub async fn rename(State(api): State<Arc<Api>>, _: Unbound, Id(id): Id, fields: Fields) -> Result<Response, ApiError> {
    ops::key_rename(&api.ops, id, fields.required("name")?).await?;
    Ok(json(StatusCode::OK, &KeyId { object: "api_key", id }))
}

/// Take a key away.
#[utoipa::path(delete, path = "/api-keys/{id}", operation_id = "api_key_delete",
    tag = "api-keys", params(("id" = Uuid, Path)),
    responses((status = 200, body = KeyDeleted), Refusals))]
pub async fn delete(State(api): State<Arc<Api>>, _: Unbound, Id(id): Id) -> Result<Response, ApiError> {
    ops::key_delete(&api.ops, id).await?;
    Ok(json(StatusCode::OK, &KeyDeleted { object: "api_key", id, deleted: true }))
}

impl KeyItem {
    fn of(key: KeyView) -> Self {
        Self {
            id: key.id,
            name: key.name,
            created_at: iso(key.created_at),
            last_used_at: key.last_used_at.map(iso),
            permission: key.permission,
            domains: key.domains,
        }
    }
}
