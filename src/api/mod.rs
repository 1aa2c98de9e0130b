//! What listens on `api.address`: the REST API, its description, whether the relay lives and works, and what it
//! measures of itself.
//!
//! The whole route table is [`routes`]. The wire contract is that of Resend's SDKs, which work with their base URL
//! changed; what follows from it for every request stands here: slashes are collapsed, bodies are read whole within
//! `BODIES`, every answer of a route is JSON and says how often one may ask. Changes and look-ups are [`crate::ops`]'s.

mod caller;
mod domains;
mod emails;
mod error;
mod events;
mod health;
mod input;
mod keys;
mod kills;
mod metrics;
mod opt_outs;
mod prometheus;
mod recipients;
mod time;
mod webhooks;

use crate::clock;
use crate::health::Watch;
use crate::http::{BodyError, BodyLimits, Client, Handler, Request, Response, read_body, waste};
use crate::meters::Meters;
use crate::ops::Ops;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use caller::{Caller, Limiter};
use error::{ApiError, Kind};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What a request may bring.
const BODIES: BodyLimits = BodyLimits { whole: 1024 * 1024, small: 16 * 1024, time: Duration::from_secs(20) };
/// Bodies that are not small, at once.
const LARGE_BODIES: usize = 32;

/// What the routes work on.
pub struct Api {
    pub ops: Arc<Ops>,
    meters: Meters,
    health: Arc<Watch>,
    limiter: Option<Limiter>,
    /// Where it listens.
    address: IpAddr,
    /// Made once.
    description: Bytes,
}

/// The API as it is served.
pub struct Served {
    /// Room for bodies that are not small.
    large_bodies: Semaphore,
    api: Arc<Api>,
    router: Router,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "trackpost", description = "Sender domains, API keys, mail and webhooks of an SMTP relay with tracking."),
    modifiers(&WithKey),
    components(schemas(error::ErrorBody)),
    security(("key" = []))
)]
struct Description;

struct WithKey;

impl utoipa::Modify for WithKey {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("key", bearer);
    }
}

/// The whole route table of the API proper.
fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(domains::list, domains::create))
        .routes(routes!(domains::get, domains::update, domains::delete))
        .routes(routes!(domains::verify))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::rename, keys::delete))
        .routes(routes!(emails::list, emails::send))
        .routes(routes!(emails::send_batch))
        .routes(routes!(emails::get))
        .routes(routes!(events::list))
        .routes(routes!(recipients::export, recipients::erase))
        .routes(routes!(kills::list, kills::add))
        .routes(routes!(kills::delete))
        .routes(routes!(opt_outs::ask, opt_outs::create, opt_outs::delete))
        .routes(routes!(metrics::get))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::get, webhooks::update, webhooks::delete))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(webhooks::events))
        .routes(routes!(webhooks::event))
        .routes(routes!(webhooks::replay))
        .routes(routes!(webhooks::attempts))
}

impl Served {
    /// `limit` is how many requests a second a key may make; `None`: as many as it likes. `address` is where it listens.
    pub fn new(ops: Arc<Ops>, meters: Meters, health: Arc<Watch>, limit: Option<NonZeroU32>, address: IpAddr) -> Self {
        let (router, mut openapi) = routes().split_for_parts();
        if limit.is_some() {
            caller::describe_limits(&mut openapi);
        }
        let description = openapi.to_json().expect("a description has string keys only and always serialises").into();
        let api = Arc::new(Api { ops, meters, health, limiter: limit.map(Limiter::new), address, description });
        let router = router
            .route("/openapi.json", get(describe))
            .route("/healthz", get(health::alive))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(prometheus::get))
            .fallback(not_there)
            .method_not_allowed_fallback(async || {
                ApiError::new(Kind::MethodNotAllowed, "Method is not allowed for the requested path.")
            })
            .with_state(Arc::clone(&api));
        Self { large_bodies: Semaphore::new(LARGE_BODIES), api, router }
    }
}

async fn not_there() -> ApiError {
    ApiError::new(Kind::NotFound, "The requested endpoint does not exist.")
}

async fn describe(State(api): State<Arc<Api>>) -> axum::response::Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], api.description.clone()).into_response()
}

impl Handler for Served {
    async fn handle(&self, request: Request, client: Client) -> Response {
        let caller = Caller::of(request.headers(), &self.api.ops.settings.snapshot());
        let watched = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
        let counted = self.api.limiter.as_ref().filter(|_| !watched).map(|limiter| limiter.count(&caller, &client));
        let (headers, refused) = counted.unwrap_or_default();
        if let Ok(key) = &caller.0 {
            let (settings, id) = (Arc::clone(&self.api.ops.settings), key.id);
            tokio::spawn(async move { settings.note_use(id, clock::unix_ms()).await });
        }
        let mut response = match refused {
            Some(refused) => whole(refused.into_response()).await,
            None => self.answer(request, caller, client).await,
        };
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from(value));
        }
        if let Some(limiter) = self.api.limiter.as_ref().filter(|_| !watched)
            && let Ok(policy) = HeaderValue::from_str(&limiter.policy())
        {
            response.headers_mut().insert(caller::POLICY, policy);
        }
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

impl Served {
    async fn answer(&self, request: Request, caller: Caller, client: Client) -> Response {
        let (mut head, body) = request.into_parts();
        let body = match caller.0.is_ok() {
            true => read_body(body, BODIES, &self.large_bodies).await.map_err(refusal),
            // Nothing is kept for those who have no key.
            false => {
                waste(body, BODIES.time).await;
                Ok(Bytes::new())
            }
        };
        let body = match body {
            Ok(body) => body,
            Err(refused) => return whole(refused.into_response()).await,
        };
        head.uri = collapsed(&head.uri).unwrap_or(head.uri);
        head.extensions.insert(caller);
        head.extensions.insert(client);
        let request = http::Request::from_parts(head, Body::from(body));
        match self.router.clone().oneshot(request).await {
            Ok(response) => whole(response).await,
            Err(never) => match never {},
        }
    }
}

/// What a body that cannot be taken is answered.
fn refusal(error: BodyError) -> ApiError {
    match error {
        BodyError::Busy => ApiError::new(Kind::RateLimit, "Too many large requests at once, try again later."),
        BodyError::TooLarge { .. } | BodyError::TooSlow | BodyError::Broken => {
            ApiError::new(Kind::Unreadable, format!("The {error}."))
        }
    }
}

/// The target without doubled slashes and without one at its end: SDKs join base and path in their own ways.
fn collapsed(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && (path == "/" || !path.ends_with('/')) {
        return None;
    }
    let mut plain = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        plain.push('/');
        plain.push_str(part);
    }
    if plain.is_empty() {
        plain.push('/');
    }
    if let Some(query) = uri.query() {
        plain.push('?');
        plain.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(plain).ok()?);
    Uri::from_parts(parts).ok()
}

/// The answer with its body whole, which it is from the start.
async fn whole(response: axum::response::Response) -> Response {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(head, Full::new(body.to_bytes())),
        Err(_) => crate::http::plain(StatusCode::INTERNAL_SERVER_ERROR, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_collapsed() {
        for (target, want) in [
            ("/domains", None),
            ("/", None),
            ("//domains", Some("/domains")),
            ("///domains//a/", Some("/domains/a")),
            ("/domains/?limit=1", Some("/domains?limit=1")),
            ("//", Some("/")),
            ("http://h//domains?a=//b", Some("http://h/domains?a=//b")),
        ] {
            let got = collapsed(&target.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(got.as_deref(), want, "{target}");
        }
    }
}
