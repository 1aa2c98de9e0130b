//! `/healthz` and `/readyz`: for whoever watches the relay. No key is asked for.

use super::Api;
use crate::health::{self, Part};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;
use std::time::Duration;

/// How long log and store may take to show that they work.
const PATIENCE: Duration = Duration::from_secs(5);

/// 200 while the process answers at all.
pub async fn alive() -> Response {
    plain(StatusCode::OK, "alive\n".to_owned())
}

/// 200 when log and store work, else 503; a line for each says what was found.
pub async fn ready(State(api): State<Arc<Api>>) -> Response {
    let health = health::check(&api.ops.log, &api.ops.store, PATIENCE).await;
    let (status, first) = match health.is_ready() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    plain(status, format!("{first}\nlog: {}\nstore: {}\n", said(&health.log), said(&health.store)))
}

fn plain(status: StatusCode, text: String) -> Response {
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn said(part: &Part) -> &str {
    match part {
        Part::Works => "works",
        Part::Fails(why) => why,
        Part::Hangs => "does not answer",
    }
}
