//! Who asks: the API key of a request, and how often it may ask.

use super::error::{ApiError, Kind};
use crate::domain::SenderDomain;
use crate::http::Client;
use crate::settings::{ApiKey, KeyLookup, Permission, Snapshot};
use axum::extract::FromRequestParts;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, RETRY_AFTER};
use http::request::Parts;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{HeaderBuilder, ObjectBuilder, OpenApi, RefOr};
use uuid::Uuid;

/// What is known of the caller, as the routes find it with the request.
#[derive(Clone)]
pub struct Caller(pub Result<ApiKey, ApiError>);

impl Caller {
    /// Reads `Authorization: Bearer KEY`.
    pub fn of(headers: &HeaderMap, settings: &Snapshot) -> Self {
        let missing = || Self(Err(ApiError::new(Kind::MissingKey, "Missing API key in the authorization header.")));
        let invalid = || Self(Err(ApiError::new(Kind::InvalidKey, "API key is invalid.")));
        let Some(value) = headers.get(AUTHORIZATION) else { return missing() };
        let Ok(value) = value.to_str() else { return invalid() };
        let value = value.trim();
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        let token = token.trim();
        if token.is_empty() || !scheme.eq_ignore_ascii_case("bearer") {
            return missing();
        }
        match settings.find_api_key(token) {
            KeyLookup::Found(key) => Self(Ok(key)),
            KeyLookup::Unknown => invalid(),
            KeyLookup::Unreadable => Self(Err(ApiError::new(Kind::Internal, "API keys cannot be read now."))),
        }
    }
}

/// A key that may use the API.
pub struct Full(pub ApiKey);

/// A key that may use the API and is tied to no domain.
pub struct Unbound;

impl<S: Sync> FromRequestParts<S> for Full {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::new(Kind::Internal, "An unexpected error occurred.");
        let Caller(key) = parts.extensions.get::<Caller>().cloned().ok_or_else(missing)?;
        let key = key?;
        match key.permission {
            Permission::FullAccess => Ok(Self(key)),
            Permission::SendingAccess => {
                Err(ApiError::new(Kind::RestrictedKey, "This API key is restricted to only send emails."))
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Unbound {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Full(key) = Full::from_request_parts(parts, state).await?;
        if key.domains.is_empty() {
            return Ok(Self);
        }
        Err(ApiError::new(Kind::RestrictedKey, "This API key is restricted to its domains and cannot do this."))
    }
}

impl Full {
    /// The domain with this id, if the key may see it; others are not there.
    pub fn domain<'a>(&self, settings: &'a Snapshot, id: Uuid) -> Result<&'a SenderDomain, ApiError> {
        let domain = settings.domain(id).filter(|domain| self.0.reaches(domain));
        domain.ok_or_else(|| ApiError::new(Kind::NotFound, "Domain not found"))
    }
}

/// How often each key, or each address without one, may ask: so many requests in a second, which come back evenly.
pub struct Limiter {
    limiter: RateLimiter<Subject, DashMapStateStore<Subject>, DefaultClock, StateInformationMiddleware>,
    limit: NonZeroU32,
    asked: AtomicU64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Subject {
    Key(Uuid),
    /// An IPv4 address or an IPv6 /64.
    Address(IpAddr),
}

/// Requests after which those who have gone quiet are forgotten.
const SWEEP_EVERY: u64 = 10_000;

impl Limiter {
    pub fn new(limit: NonZeroU32) -> Self {
        let limiter = RateLimiter::dashmap(Quota::per_second(limit)).with_middleware();
        Self { limiter, limit, asked: AtomicU64::new(0) }
    }

    /// Counts a request: the headers of its answer, and whether it is one too many.
    pub fn count(&self, caller: &Caller, client: &Client) -> (Vec<(HeaderName, u64)>, Option<ApiError>) {
        if self.asked.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.limiter.retain_recent();
        }
        let subject = match &caller.0 {
            Ok(key) => Subject::Key(key.id),
            Err(_) => Subject::Address(client.counted_as()),
        };
        let (remaining, refused) = match self.limiter.check_key(&subject) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(DefaultClock::default().now()))),
        };
        let mut headers = vec![(LIMIT, u64::from(self.limit.get())), (REMAINING, u64::from(remaining)), (RESET, 1)];
        let refused = refused.map(|wait| {
            headers.push((RETRY_AFTER, wait.as_secs().max(1)));
            let message = format!("Too many requests. You can make {} requests a second.", self.limit);
            ApiError::new(Kind::RateLimit, message)
        });
        (headers, refused)
    }

    /// `LIMIT;w=1`.
    pub fn policy(&self) -> String {
        format!("{};w=1", self.limit)
    }
}

pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Adds the headers that come with every answer to the description of each.
pub fn describe_limits(openapi: &mut OpenApi) {
    let whole =
        || HeaderBuilder::new().schema(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0))).build();
    let text = || HeaderBuilder::new().schema(ObjectBuilder::new().schema_type(Type::String)).build();
    for item in openapi.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().filter_map(Option::as_mut) {
            for (status, response) in &mut operation.responses.responses {
                let RefOr::T(response) = response else { continue };
                for name in [LIMIT, REMAINING, RESET] {
                    response.headers.insert(name.to_string(), whole());
                }
                response.headers.insert(POLICY.to_string(), text());
                if status == "429" {
                    response.headers.insert(RETRY_AFTER.to_string(), whole());
                }
            }
        }
    }
}
