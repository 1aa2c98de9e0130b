//! The dashboard: pages for the operator, and for the customer whose domain it is.
//!
//! Pages are made on the server and work without script; `assets` has the one style and the one script, which only
//! makes them nicer. Whoever signs in with an API key sees and changes what that key may: the same [`crate::ops`] as the
//! API's are asked. The whole route table is `routes`. What holds for every request stands here: who is signed in
//! (`session`), that forms come from our own pages (`form`), the headers that browsers are told
//! to keep to, and that every fault is a page with a sentence (`error`).

mod assets;
mod configure;
mod csv;
mod domain;
mod domains;
mod email;
mod emails;
mod error;
mod facts;
mod filters;
mod form;
mod frame;
mod here;
mod keys;
mod kills;
mod measured;
mod metrics;
mod needs;
mod neutral;
mod overview;
mod plot;
mod preview;
mod queue;
mod queued;
mod reasons;
mod records;
mod removal;
mod session;
mod shown;
mod sign_in;
mod span;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod visit;
mod webhook;
mod webhooks;
mod words;

use crate::clock;
use crate::http::{BodyLimits, Client, Handler, Request, Response, read_body, waste};
use crate::mail::DomainName;
use crate::ops::Ops;
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytes::Bytes;
use error::Error;
use form::Form;
use frame::Signed;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use session::{Sessions, Throttle};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// Where the dashboard begins.
pub const ROOT: &str = "/dashboard";

/// What a form may bring.
const BODIES: BodyLimits = BodyLimits { whole: 256 * 1024, small: 16 * 1024, time: Duration::from_secs(20) };
/// Forms that are not small, at once.
const LARGE_BODIES: usize = 8;

/// What the pages work on.
pub struct Dashboard {
    pub ops: Arc<Ops>,
    pub setup: Setup,
    sessions: Sessions,
    throttle: Throttle,
}

/// What the configuration says that pages have to know.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Browsers reach us over TLS, so that cookies may say so.
    pub secure: bool,
    /// The relay's own name, which its notices come from.
    pub hostname: Option<DomainName>,
    /// Where mail is taken without TLS and without a password, if anywhere.
    pub smtp: Option<SocketAddr>,
}

/// The dashboard as it is served.
pub struct Served {
    dashboard: Arc<Dashboard>,
    router: Router,
    large_bodies: Semaphore,
}

/// Every page and every form.
fn routes() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/dashboard/assets/{name}", get(assets::get))
        .route("/dashboard/sign-in", get(sign_in::show).post(sign_in::submit))
        .route("/dashboard/sign-out", post(sign_in::out))
        // Overview.
        .route("/dashboard", get(overview::show))
        // Domains.
        .route("/dashboard/domains", get(domains::list))
        .route("/dashboard/domains/new", get(domains::new).post(domains::add))
        .route("/dashboard/domains/{id}", get(records::show))
        .route("/dashboard/domains/{id}/verify", get(records::lead).post(records::verify))
        .route("/dashboard/domains/{id}/configuration", get(domain::configuration))
        .route("/dashboard/domains/{id}/configure", get(configure::form).post(configure::save))
        .route("/dashboard/domains/{id}/delete", get(removal::confirm).post(removal::delete))
        // Emails.
        .route("/dashboard/emails", get(emails::list))
        .route("/dashboard/emails/{id}", get(email::timeline))
        .route("/dashboard/emails/{id}/report", get(email::report))
        .route("/dashboard/emails/{id}/preview", get(preview::show))
        .route("/dashboard/emails/{id}/preview/content", get(preview::content))
        // Metrics.
        .route("/dashboard/metrics", get(metrics::show))
        .route("/dashboard/metrics.csv", get(metrics::file))
        // Webhooks, API keys and queue.
        .route("/dashboard/webhooks", get(webhooks::list))
        .route("/dashboard/webhooks/new", get(webhooks::new).post(webhooks::add))
        .route("/dashboard/webhooks/{id}", get(webhook::show))
        .route("/dashboard/webhooks/{id}/edit", get(webhooks::edit).post(webhooks::update))
        .route("/dashboard/webhooks/{id}/rotate", get(webhooks::confirm_rotate).post(webhooks::rotate))
        .route("/dashboard/webhooks/{id}/delete", get(webhooks::confirm_delete).post(webhooks::delete))
        .route("/dashboard/webhooks/{id}/events/{event}", get(webhook::event))
        .route("/dashboard/webhooks/{id}/events/{event}/replay", post(webhook::replay))
        .route("/dashboard/api-keys", get(keys::list))
        .route("/dashboard/api-keys/new", get(keys::new).post(keys::add))
        .route("/dashboard/api-keys/{id}/rename", get(keys::rename).post(keys::renamed))
        .route("/dashboard/api-keys/{id}/delete", get(keys::confirm).post(keys::delete))
        .route("/dashboard/queue", get(queue::list))
        .route("/dashboard/queue/hold", post(queue::hold))
        .route("/dashboard/queue/retry", post(queue::retry))
        .route("/dashboard/queue/{id}", get(queued::show))
        .route("/dashboard/queue/{id}/retry", post(queued::retry))
        .route("/dashboard/queue/{id}/remove", get(queued::confirm).post(queued::remove))
        // Kill list.
        .route("/dashboard/kill-list", get(kills::list))
        .route("/dashboard/kill-list/new", get(kills::new).post(kills::add))
        .route("/dashboard/kill-list/{id}/delete", get(kills::confirm).post(kills::delete))
        .fallback(async || Error::NotThere)
        .method_not_allowed_fallback(async || Error::NoSuchMethod)
}

impl Served {
    pub fn new(ops: Arc<Ops>, setup: Setup) -> Self {
        let (sessions, throttle) = (Sessions::default(), Throttle::default());
        let dashboard = Arc::new(Dashboard { ops, setup, sessions, throttle });
        let router = routes().with_state(Arc::clone(&dashboard));
        Self { dashboard, router, large_bodies: Semaphore::new(LARGE_BODIES) }
    }

    /// Whether a path is the dashboard's.
    pub fn is_for(path: &str) -> bool {
        path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Who asks, as the pages find it with the request.
#[derive(Clone)]
struct Visitor {
    client: Client,
    /// The request came over TLS, as far as can be known.
    secure: bool,
    signed: Option<Signed>,
}

impl Handler for Served {
    async fn handle(&self, request: Request, client: Client) -> Response {
        let (head, body) = request.into_parts();
        let read = match head.method {
            Method::POST => read_body(body, BODIES, &self.large_bodies).await.map_err(Error::from),
            _ => {
                waste(body, BODIES.time).await;
                Ok(Bytes::new())
            }
        };
        self.answer(head, read, client).await
    }
}

impl Served {
    /// Answers a request whose body has been read.
    async fn answer(&self, mut head: Parts, body: Result<Bytes, Error>, client: Client) -> Response {
        let secure = self.dashboard.setup.secure || client.from_proxy && was_https(&head.headers);
        let signed = self.signed(&head.headers, secure);
        if let Some(signed) = &signed {
            let (settings, id) = (Arc::clone(&self.dashboard.ops.settings), signed.key.id);
            tokio::spawn(async move { settings.note_use(id, clock::unix_ms()).await });
        }
        let visitor = Visitor { client, secure, signed };
        let is_form = head.method == Method::POST;
        if let Some(plain) = head.uri.path().strip_suffix('/') {
            let query = head.uri.query().map_or_else(String::new, |query| format!("?{query}"));
            return finish(axum::response::Redirect::permanent(&format!("{plain}{query}")).into_response(), secure)
                .await;
        }
        let form = body.map(|body| Form::read(&body));
        let allowed = match form {
            Err(e) => Err(Box::new(e.into_response())),
            Ok(form) if !is_form => Ok(form),
            Ok(form) => form::check(&self.dashboard, &visitor, &head, form),
        };
        let mut response = match allowed {
            Err(refused) => *refused,
            Ok(form) => {
                head.extensions.insert(form);
                head.extensions.insert(visitor.clone());
                let request = http::Request::from_parts(head, Body::empty());
                match self.router.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        };
        if let Some(failed) = response.extensions_mut().remove::<Error>() {
            response = failed.page(&self.dashboard, visitor.signed.as_ref());
        }
        finish(response, secure).await
    }

    fn signed(&self, headers: &HeaderMap, secure: bool) -> Option<Signed> {
        let (id, csrf, key) = self.dashboard.sessions.find(headers, secure, clock::unix_ms())?;
        let settings = self.dashboard.ops.settings.snapshot();
        // A key that was revoked takes its sessions with it.
        let key = settings.api_keys.get(&key)?.clone();
        Some(Signed { id, csrf, key, by_itself: session::is_by_itself(headers) })
    }
}

/// Whether a proxy says that it was asked over TLS.
fn was_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Everything comes from us, nothing is embedded, nothing runs that is not a file of ours.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The headers of every answer, where it has none of its own.
async fn finish(response: axum::response::Response, secure: bool) -> Response {
    let (mut head, body) = response.into_parts();
    let same_origin = HeaderValue::from_static("same-origin");
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, same_origin.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("cross-origin-opener-policy"), same_origin.clone()),
        (HeaderName::from_static("cross-origin-resource-policy"), same_origin.clone()),
        (HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex")),
    ] {
        head.headers.entry(name).or_insert(value);
    }
    if secure {
        let month = HeaderValue::from_static("max-age=2592000");
        head.headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(month);
    }
    match body.collect().await {
        Ok(body) => Response::from_parts(head, Full::new(body.to_bytes())),
        Err(_) => crate::http::plain(StatusCode::INTERNAL_SERVER_ERROR, ""),
    }
}
