//! `/healthz` and `/readyz`: for whoever watches the relay. No key is asked for.

use super::Api;
use crate::health::Part;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;
use std::time::Duration;

/// How long log and store may take to show that they work.
const PATIENCE: Duration = Duration::from_secs(5);

/// 200 while mail makes progress, else 503; a line for each part says what was found.
pub async fn alive(State(api): State<Arc<Api>>) -> Response {
    let progress = api.health.progress();
    let (status, first) = match progress.is_well() {
        true => (StatusCode::OK, "alive"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not well"),
    };
    plain(status, format!("{first}\n{progress}\n"))
}

/// 200 when log and store work, else 503; a line for each says what was found.
pub async fn ready(State(api): State<Arc<Api>>) -> Response {
    let health = api.health.check(PATIENCE).await;
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
