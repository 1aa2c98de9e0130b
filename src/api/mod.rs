//! What listens on `api.address`. So far: whether the relay lives, and whether it works.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /healthz` | 200 while the process answers at all |
//! | `GET /readyz` | 200 when log and store work, else 503; a line for each says what was found |
//! | any other | 404 |

use crate::health::{self, Part};
use crate::http::{Client, Handler, Request, Response, plain};
use crate::spool::Log;
use crate::store::MaybeStore;
use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::Full;
use std::time::Duration;

/// How long log and store may take to show that they work.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the routes work on.
pub struct Api {
    pub log: Log,
    pub store: MaybeStore,
}

impl Handler for Api {
    async fn handle(&self, request: Request, _: Client) -> Response {
        let known = matches!(request.uri().path(), "/healthz" | "/readyz");
        if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/healthz" => plain(StatusCode::OK, "alive\n"),
            "/readyz" => self.ready().await,
            _ => plain(StatusCode::NOT_FOUND, "Nothing is here.\n"),
        }
    }
}

impl Api {
    async fn ready(&self) -> Response {
        let health = health::check(&self.log, &self.store, PATIENCE).await;
        let (status, first) = match health.is_ready() {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        };
        let text = format!("{first}log: {}\nstore: {}\n", said(&health.log), said(&health.store));
        let mut response = plain(status, first);
        *response.body_mut() = Full::new(Bytes::from(text));
        response
    }
}

fn said(part: &Part) -> &str {
    match part {
        Part::Works => "works",
        Part::Fails(why) => why,
        Part::Hangs => "does not answer",
    }
}
