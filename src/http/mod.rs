//! HTTP/1 for the tracking hosts, the API and the dashboard: listeners, limits, and who asked for which host.
//!
//! Owned here: accepting connections within [`Limits`], time-outs, graceful shutdown, the [`Client`] of a request,
//! and reading a bounded body. What is answered is a [`Handler`]'s affair; routes, tokens and sign-in live elsewhere.

mod body;
mod client;
mod listener;
mod pace;
#[cfg(test)]
mod tests;

pub use crate::domain::is_public;
pub use body::{BodyError, BodyLimits, MAX_WASTE, read_body, waste};
pub use client::{BadHost, Client, MAX_FORWARDED_HOSTS};
pub use listener::serve;

use bytes::Bytes;
use http_body_util::Full;
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

/// Below it, a tracking host answers what only this relay can answer: how it is found out whether a host leads here.
pub const PROBE_PATH: &str = "/.well-known/trackpost/";

/// A request as it arrived; its body has not been read.
pub type Request = http::Request<hyper::body::Incoming>;
/// An answer; its body is whole.
pub type Response = http::Response<Full<Bytes>>;

/// The reason at the bottom of an error, which is the one that says something: clients wrap it several times.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Answers the requests of a listener.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request, client: Client) -> impl Future<Output = Response> + Send;
}

/// What may stand before a listener and speak for its clients.
#[derive(Clone, Debug, Default)]
pub struct Fronts {
    /// Peers whose X-Forwarded-For and X-Forwarded-Host count. A balancer's client may be one.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Load balancers, each of whose connections begins with a PROXY header (version 2), which says who the peer is.
    /// Where there are any, all others are refused.
    pub balancers: Arc<[IpNet]>,
}

/// Bounds on what clients may take from one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections in all; one more is answered 503 and closed.
    pub connections: usize,
    /// Open connections of one IPv4 address or one IPv6 /64; trusted proxies are exempt, and balancers
    /// where they speak for themselves.
    pub connections_per_client: usize,
    /// This machine is no single client, since a proxy on it stands for many: it is exempt as well.
    pub loopback_is_many: bool,
    /// Bytes of a request line and its headers; longer ones are answered 431 or 414.
    pub head_bytes: usize,
    /// From the first byte of a request to the end of its headers; also for a TLS handshake and for a PROXY header.
    pub head_time: Duration,
    /// Without a request on an open connection.
    pub idle_time: Duration,
    /// Without progress while we write.
    pub write_time: Duration,
    /// For requests in progress at shutdown.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_client: 1_000,
            loopback_is_many: true,
            head_bytes: 16 * 1024,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(75),
            write_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(10),
        }
    }
}

/// A short text as an answer that no cache keeps and no search engine lists.
pub fn plain(status: http::StatusCode, text: &'static str) -> Response {
    use http::HeaderValue;
    use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
    const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if !text.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ROBOTS, HeaderValue::from_static("noindex"));
    response
}
