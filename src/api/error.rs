//! What is answered when something is refused: `{"statusCode", "message", "name"}`, with names that all SDKs know.

use crate::ops::OpError;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// A refusal. The text is for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub kind: Kind,
    pub message: String,
}

/// Names and statuses of refusals (contract, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The body cannot be read at all.
    Unreadable,
    Validation,
    MissingField,
    InvalidParameter,
    InvalidRegion,
    InvalidAccess,
    MissingKey,
    RestrictedKey,
    InvalidKey,
    NotFound,
    MethodNotAllowed,
    RateLimit,
    /// Ours.
    Internal,
}

impl Kind {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unreadable => StatusCode::BAD_REQUEST,
            Self::Validation
            | Self::MissingField
            | Self::InvalidParameter
            | Self::InvalidRegion
            | Self::InvalidAccess => StatusCode::UNPROCESSABLE_ENTITY,
            Self::MissingKey | Self::RestrictedKey => StatusCode::UNAUTHORIZED,
            Self::InvalidKey => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RateLimit => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable | Self::Validation => "validation_error",
            Self::MissingField => "missing_required_field",
            Self::InvalidParameter => "invalid_parameter",
            Self::InvalidRegion => "invalid_region",
            Self::InvalidAccess => "invalid_access",
            Self::MissingKey => "missing_api_key",
            Self::RestrictedKey => "restricted_api_key",
            Self::InvalidKey => "invalid_api_key",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimit => "rate_limit_exceeded",
            Self::Internal => "internal_server_error",
        }
    }
}

/// A refusal as it is sent.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    #[serde(rename = "statusCode")]
    #[schema(example = 404)]
    status_code: u16,
    #[schema(example = "Domain not found")]
    message: String,
    #[schema(example = "not_found")]
    name: &'static str,
}

/// What any request may be answered instead of what it asks for.
pub struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let statuses = [
            (400, "The body cannot be read, or is too large"),
            (401, "No API key, or one that may not do this"),
            (403, "The API key is not valid"),
            (404, "There is no such thing"),
            (422, "A field or parameter is wrong"),
            (429, "Too many requests"),
            (500, "A fault of ours"),
        ];
        let response = |description: &str| {
            let content = Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
            ResponseBuilder::new().description(description).content("application/json", content).build().into()
        };
        statuses.into_iter().map(|(status, text)| (status.to_string(), response(text))).collect()
    }
}

impl ApiError {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(Kind::Validation, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let body = ErrorBody { status_code: status.as_u16(), message: self.message, name: self.kind.name() };
        json(status, &body)
    }
}

/// JSON as all answers have it.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("answers have string keys only and always serialise");
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl From<OpError> for ApiError {
    fn from(error: OpError) -> Self {
        let kind = match &error {
            OpError::UnknownDomain(_) | OpError::NoSuchDomain => return Self::new(Kind::NotFound, "Domain not found"),
            OpError::UnknownKey(_) => return Self::new(Kind::NotFound, "API key not found"),
            OpError::NotKilled => return Self::new(Kind::NotFound, "Kill list entry not found"),
            OpError::NoSuchWebhook => return Self::new(Kind::NotFound, "Webhook not found"),
            OpError::NoSuchWebhookEvent => return Self::new(Kind::NotFound, "Webhook event not found"),
            OpError::UnknownMessage(_) | OpError::NotQueued(_) => {
                return Self::new(Kind::NotFound, "Email not found");
            }
            OpError::Rule(_)
            | OpError::BadName(..)
            | OpError::DomainExists(_)
            | OpError::ChangedMeanwhile
            | OpError::HostTaken(..)
            | OpError::HostIsTarget(_)
            | OpError::UnsupportedSuffix { .. }
            | OpError::BadDkimKey(_)
            | OpError::BadEndpoint(..)
            | OpError::ClosedPort { .. }
            | OpError::UnknownEventName(_)
            | OpError::NoEventNames
            | OpError::UnknownAfter(_)
            | OpError::TooManyWebhooks(_)
            | OpError::BadKeyName => Kind::Validation,
            OpError::AmbiguousKey(_)
            | OpError::InFlight(_)
            | OpError::NothingToSearch
            | OpError::Kill(_)
            | OpError::TooManyOptOuts(_)
            | OpError::BadAddress(..)
            | OpError::Refused(_)
            | OpError::Periods(_)
            | OpError::TooManyRows(_)
            | OpError::BadQueueId(_) => Kind::Validation,
            OpError::Log(_) | OpError::Keys(_) | OpError::Fault(_) | OpError::Store(_) | OpError::NoHistory => {
                tracing::error!("the API could not answer: {error}");
                Kind::Internal
            }
        };
        Self::new(kind, capitalised(&error.to_string()))
    }
}

/// Our texts begin small, as parts of log lines; those of an API begin as sentences do.
fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    // A name stays as it is.
    let is_word = text.split(' ').next().is_some_and(|word| word.bytes().all(|b| b.is_ascii_lowercase()));
    match chars.next() {
        Some(first) if is_word => first.to_uppercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
