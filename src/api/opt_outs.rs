//! `/opt-outs`: recipients who are not tracked. They are asked for one by one; nobody can list them, since no address
//! is kept.

use super::Api;
use super::caller::Full;
use super::error::{ApiError, Kind, Refusals, json};
use super::input::{Fields, uuid};
use super::time::iso;
use crate::ops;
use axum::extract::{FromRequestParts, Query, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Who opts out, and of what.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Fields` reads")]
pub struct CreateOptOut {
    #[schema(format = Email)]
    email: String,
    /// Of mail of this sender domain alone. A key that is tied to domains must name one of them.
    domain_id: Option<Uuid>,
}

/// The opt-out that is meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OptOutQuery {
    #[param(required, value_type = String, format = Email)]
    email: Option<String>,
    /// Of mail of this sender domain. A key that is tied to domains must name one of them.
    #[param(value_type = Option<Uuid>)]
    domain_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct OptOutMade {
    object: &'static str,
    /// The same whenever this address opts out of the same.
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain_id: Option<Uuid>,
    created_at: String,
}

#[derive(Serialize, ToSchema)]
pub struct OptOutState {
    object: &'static str,
    /// Also where the address has opted out of all mail.
    opted_out: bool,
}

#[derive(Serialize, ToSchema)]
pub struct OptOutDeleted {
    object: &'static str,
    /// Whether there was one.
    deleted: bool,
}

/// Do not track mail to an address.
#[utoipa::path(post, path = "/opt-outs", operation_id = "opt_out_create",
    tag = "opt-outs", request_body = CreateOptOut,
    responses((status = 201, body = OptOutMade), Refusals))]
pub async fn create(State(api): State<Arc<Api>>, key: Full, fields: Fields) -> Result<Response, ApiError> {
    let wanted = Wanted { email: fields.required("email")?, domain: domain_id(fields.text("domain_id")?)? };
    let domain = wanted.domain_name(&api, &key)?;
    let made = ops::opt_out(&api.ops, Some(&key.0), &wanted.email, domain.as_deref()).await?;
    let made = OptOutMade { object: OBJECT, id: made.id, domain_id: wanted.domain, created_at: iso(made.created_at) };
    Ok(json(StatusCode::CREATED, &made))
}

/// Is mail to an address tracked?
#[utoipa::path(get, path = "/opt-outs", operation_id = "opt_out_get",
    tag = "opt-outs", params(OptOutQuery),
    responses((status = 200, body = OptOutState), Refusals))]
pub async fn ask(State(api): State<Arc<Api>>, key: Full, wanted: Wanted) -> Result<Response, ApiError> {
    let domain = wanted.domain_name(&api, &key)?;
    let opted_out = ops::opted_out(&api.ops, &wanted.email, domain.as_deref())?;
    Ok(json(StatusCode::OK, &OptOutState { object: OBJECT, opted_out }))
}

/// Track mail to an address again. An opt-out of all mail and one of a domain are taken back each by itself.
#[utoipa::path(delete, path = "/opt-outs", operation_id = "opt_out_delete",
    tag = "opt-outs", params(OptOutQuery),
    responses((status = 200, body = OptOutDeleted), Refusals))]
pub async fn delete(State(api): State<Arc<Api>>, key: Full, wanted: Wanted) -> Result<Response, ApiError> {
    let domain = wanted.domain_name(&api, &key)?;
    let deleted = ops::opt_in(&api.ops, &wanted.email, domain.as_deref()).await?;
    Ok(json(StatusCode::OK, &OptOutDeleted { object: OBJECT, deleted }))
}

const OBJECT: &str = "opt_out";

/// An opt-out as a request names it.
pub struct Wanted {
    email: String,
    domain: Option<Uuid>,
}

impl Wanted {
    /// The name of the sender domain, if the key may speak for it; a key that is tied to domains speaks for no others.
    fn domain_name(&self, api: &Api, key: &Full) -> Result<Option<String>, ApiError> {
        match self.domain {
            Some(id) => Ok(Some(key.domain(&api.ops.settings.snapshot(), id)?.name.to_string())),
            None if key.0.domains.is_empty() => Ok(None),
            None => {
                let message = "This API key is restricted to its domains: name one of them as `domain_id`.";
                Err(ApiError::new(Kind::RestrictedKey, message))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<OptOutQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|_| ApiError::validation("The query string cannot be read."))?;
        let missing = || ApiError::new(Kind::MissingField, "Missing `email` parameter.");
        let email = query.email.filter(|email| !email.is_empty()).ok_or_else(missing)?;
        Ok(Self { email, domain: domain_id(query.domain_id)? })
    }
}

fn domain_id(text: Option<String>) -> Result<Option<Uuid>, ApiError> {
    let bad = || ApiError::new(Kind::InvalidParameter, "`domain_id` must be a valid UUID.");
    text.map(|text| uuid(&text).ok_or_else(bad)).transpose()
}
