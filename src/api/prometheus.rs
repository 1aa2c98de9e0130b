//! `/metrics`: what the relay measures of itself, for Prometheus.
//!
//! On this machine anybody may ask, as long as no proxy brings the request and its host is this machine: a page in a
//! browser here whose name suddenly leads to this machine (DNS rebinding) names another. From elsewhere it takes a key
//! that may do everything.

use super::Api;
use super::caller::Unbound;
use super::error::ApiError;
use crate::clock;
use crate::http::Client;
use crate::meters::Page;
use crate::ops::{self, Ops};
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, header};
use std::net::IpAddr;
use std::sync::Arc;

/// The exposition format's own type.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Somebody on this machine, or somebody with a key for everything.
pub struct Watcher;

impl FromRequestParts<Arc<Api>> for Watcher {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<Api>) -> Result<Self, ApiError> {
        let is_ours = |client: &Client| is_local(client, &parts.headers) && names_us(&client.host, state.address);
        if parts.extensions.get::<Client>().is_some_and(is_ours) {
            return Ok(Self);
        }
        Unbound::from_request_parts(parts, state).await.map(|_| Self)
    }
}

/// From this machine, and not by a proxy that says that it is one.
fn is_local(client: &Client, headers: &HeaderMap) -> bool {
    let is_forwarded =
        |name: &header::HeaderName| name.as_str().starts_with("x-forwarded-") || name == header::FORWARDED;
    client.peer.is_loopback() && !client.from_proxy && !headers.keys().any(is_forwarded)
}

/// Whether a host is this machine by a name or an address that nobody else can have: no name that DNS answers for.
/// HTTP/1.0, which browsers do not speak, may name none.
fn names_us(host: &str, api: IpAddr) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|ip| ip.to_canonical());
    match address {
        Ok(address) => address.is_loopback() || address == api,
        Err(_) => matches!(host, "" | "localhost") || host.ends_with(".localhost"),
    }
}

/// Everything in [`crate::meters::ALL`] that there is something to say of.
pub async fn get(State(api): State<Arc<Api>>, _: Watcher) -> Response {
    let mut page = api.meters.page();
    look(&api.ops, &mut page, clock::unix_ms());
    ([(header::CONTENT_TYPE, CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")], page.into_text()).into_response()
}

/// What is a state, as it is now.
fn look(ops: &Ops, page: &mut Page, now: u64) {
    let truth = |yes: bool| f64::from(u8::from(yes));
    let queue = ops.queue.figures();
    let states =
        [("ready", queue.ready as f64), ("deferred", queue.deferred as f64), ("sending", queue.sending as f64)];
    page.show("trackpost_queue_messages", states);
    let oldest = queue.oldest.map_or(0, |at| now.saturating_sub(at));
    page.show_one("trackpost_queue_oldest_seconds", oldest as f64 / 1_000.0);
    page.show_one("trackpost_queue_held", truth(ops.queue.is_held()));
    page.show_one("trackpost_smarthost_reachable", truth(ops.queue.unreachable().is_none()));

    let log = ops.log.stats();
    page.show_one("trackpost_log_sync_failures_total", log.failed_syncs as f64);
    page.show_one("trackpost_log_bytes", log.bytes as f64);
    page.show_one("trackpost_log_live_bytes", log.live_bytes as f64);
    page.show_one("trackpost_log_unread_bytes", log.unread_bytes as f64);
    page.show_one("trackpost_log_damaged_records", log.bad_records as f64);
    page.show_one("trackpost_log_full", truth(ops.log.is_full()));
    page.show_one("trackpost_log_stuck_seconds", ops.log.stuck_for().map_or(0.0, |stuck| stuck.as_secs_f64()));
    page.show_one("trackpost_log_waiting_entries", log.waiting_for_disk as f64);
    page.show_one("trackpost_disk_free_bytes", log.free_bytes as f64);
    page.show_one("trackpost_store_open", truth(ops.store.load().is_some()));

    let settings = ops.settings.snapshot();
    let wanted = ops::hosts_with_certificates(&settings, &ops.terms.load(), now);
    let hosts: Vec<_> = wanted.into_iter().map(|wanted| wanted.host).collect();
    let known = |host| settings.certificates.get(host);
    let ends = |host| Some(known(host)?.not_after? as f64 / 1_000.0);
    let expiry = hosts.iter().filter_map(|host| Some((host.as_str(), ends(host)?)));
    page.show("trackpost_certificate_expiry_timestamp_seconds", expiry);
    let missing = hosts.iter().map(|host| (host.as_str(), truth(ends(host).is_none())));
    page.show("trackpost_certificate_missing", missing);
    let failed = hosts.iter().map(|host| (host.as_str(), known(host).map_or(0, |state| state.failures)));
    let disabled = settings.webhooks.values().filter(|webhook| webhook.disabled_because.is_some()).count();
    page.show_one("trackpost_webhooks_disabled", disabled as f64);
    page.show("trackpost_certificate_failed_orders", failed.map(|(host, failures)| (host, f64::from(failures))));
    page.show("trackpost_build_info", [(env!("CARGO_PKG_VERSION"), 1.0)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn hosts_that_are_this_machine() {
        let api = "192.0.2.5".parse().unwrap();
        for (host, want) in [
            ("localhost", true),
            ("metrics.localhost", true),
            ("127.0.0.1", true),
            ("127.9.8.7", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("192.0.2.5", true),
            ("", true),
            ("192.0.2.6", false),
            ("[2001:db8::1]", false),
            ("rebind.example", false),
            ("localhost.example", false),
            ("notlocalhost", false),
            ("127.0.0.1.example", false),
        ] {
            assert_eq!(names_us(host, api), want, "{host}");
        }
    }

    #[test]
    fn who_is_on_this_machine() {
        let client = |peer: &str, from_proxy| Client {
            address: "192.0.2.1".parse().unwrap(),
            peer: peer.parse().unwrap(),
            from_proxy,
            host: "localhost".into(),
            forwarded_hosts: Vec::new(),
        };
        let headers = |names: &[&'static str]| -> HeaderMap {
            names.iter().map(|name| (header::HeaderName::from_static(name), HeaderValue::from_static("x"))).collect()
        };
        for (peer, from_proxy, names, want) in [
            ("127.0.0.1", false, &[][..], true),
            ("127.1.2.3", false, &["accept", "x-real"], true),
            ("::1", false, &[], true),
            ("192.0.2.7", false, &[], false),
            ("127.0.0.1", true, &[], false),
            ("127.0.0.1", false, &["x-forwarded-for"], false),
            ("127.0.0.1", false, &["forwarded"], false),
            ("::1", false, &["x-forwarded-proto"], false),
        ] {
            assert_eq!(is_local(&client(peer, from_proxy), &headers(names)), want, "{peer} {from_proxy} {names:?}");
        }
    }
}
