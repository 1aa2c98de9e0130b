//! The tracking hosts: `/c/TOKEN` redirects, `/o/TOKEN.gif` is the pixel.
//!
//! A token is verified from the request and the keys alone, so a link works with the store down. What the token says
//! becomes a [`Hit`] in a bounded queue ([`HitQueue`]) before the answer goes out; writing hits down is
//! [`HitWriter`]'s, and judging them [`crate::event::classify`]'s. Connections, time-outs and the question who the
//! client is are [`crate::http`]'s.
//!
//! | request | answer |
//! | --- | --- |
//! | valid `/c/` | 302; 410 when the grace of a removed domain is over, or the link is on the kill list |
//! | any other `/c/` on a host of ours | 404, the same for every fault |
//! | `/o/` on a host of ours | the pixel, whatever the token |
//! | `/.well-known/trackpost/NONCE` on a host of ours | what only we can answer, see [`crate::token::Signer::probe`] |
//! | `/robots.txt`, `/favicon.ico`, `/` on a host of ours | a polite nothing |
//! | another host, without a token that is valid there | 421 (RFC 9110 §15.5.20) |
//! | not GET or HEAD | 405 |

mod hits;
mod hosts;
mod path;
mod repeats;
#[cfg(test)]
mod tests;

pub use hits::{DEFAULT_PLACES, HitQueue, HitWriter, hits};
pub use hosts::{HostState, Hosts};

use crate::event::{Hit, HitKind};
use crate::http::{Client, Handler, Request, Response, plain};
use crate::mail::{DomainName, QueueId};
use crate::tls::Challenges;
use crate::token::{Signer, Token, Verifier};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, USER_AGENT,
};
use http::{Method, StatusCode};
use http_body_util::Full;
use path::Route;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers the requests of the tracking hosts.
pub struct Tracker {
    signer: Arc<ArcSwap<Signer>>,
    verifier: Arc<ArcSwap<Verifier>>,
    hosts: Arc<ArcSwap<Hosts>>,
    queue: HitQueue,
    cname_target: DomainName,
    challenges: Challenges,
}

/// The same over TLS of our own: browsers are told to stay with it (RFC 6797).
pub struct Secure(pub Arc<Tracker>);

/// A year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

impl Handler for Secure {
    async fn handle(&self, request: Request, client: Client) -> Response {
        let mut response = self.0.handle(request, client).await;
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HSTS);
        response
    }
}

/// What becomes of a hit whose token is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Recorded,
    /// The domain is removed and in its grace, or the request came by way of `cname_target`.
    Unrecorded,
    /// The domain is removed and its grace is over.
    Gone,
}

impl Tracker {
    /// `verifier` and `hosts` may be swapped at any time; requests see the change at once. On `cname_target` links of
    /// all domains redirect for ever, unrecorded, if X-Forwarded-Host names the host they were made for.
    pub fn new(
        signer: Arc<ArcSwap<Signer>>,
        verifier: Arc<ArcSwap<Verifier>>,
        hosts: Arc<ArcSwap<Hosts>>,
        queue: HitQueue,
        cname_target: DomainName,
        challenges: Challenges,
    ) -> Self {
        Self { signer, verifier, hosts, queue, cname_target, challenges }
    }

    /// Answers one request. `path` is the target's path as sent, without the query; `agent` the value of User-Agent,
    /// empty if there is none; `now` milliseconds since 1970. Waits only while the queue of hits is full, and then
    /// 50 ms at most.
    pub async fn answer(&self, method: &Method, path: &str, client: &Client, agent: &[u8], now: u64) -> Response {
        let head = match *method {
            Method::GET => false,
            Method::HEAD => true,
            _ => return method_not_allowed(),
        };
        if let Some(answer) = self.challenges.answer(path) {
            let mut response = plain(StatusCode::OK, "-");
            *response.body_mut() = Full::new(Bytes::from(answer));
            return response;
        }
        let path = path::normalised(path);
        let visit = |id, recipient, kind| Hit {
            id,
            recipient,
            kind,
            at: now,
            count: 1,
            address: client.address,
            agent: agent_text(agent),
            head,
            repeat: false,
        };
        let route = Route::of(&path);
        match route {
            Route::Click(token) => {
                let said = self.recognise(client, now, |keys, host| click(keys, host, token));
                if let Some((click, standing, host)) = said {
                    let Click { id, recipient, link, url } = click;
                    if self.hosts.load().kill(host, &id, &url) {
                        metrics::counter!("trackpost_killed_links_total").increment(1);
                        return plain(StatusCode::GONE, "This link was switched off by its sender.\n");
                    }
                    match standing {
                        Standing::Recorded => {
                            let kind = HitKind::Click { link, url: url.as_str().into() };
                            self.queue.push(visit(id, recipient, kind)).await;
                        }
                        Standing::Unrecorded => {}
                        Standing::Gone => return plain(StatusCode::GONE, "This link is no longer available.\n"),
                    }
                    return redirect(url);
                }
                metrics::counter!("trackpost_token_failures_total", "kind" => "click").increment(1);
            }
            Route::Open(token) => {
                if let Some(((id, recipient), standing, _)) =
                    self.recognise(client, now, |keys, host| open(keys, host, token))
                {
                    if standing == Standing::Recorded {
                        self.queue.push(visit(id, recipient, HitKind::Open)).await;
                    }
                    return pixel();
                }
                metrics::counter!("trackpost_token_failures_total", "kind" => "open").increment(1);
            }
            Route::Probe(_) | Route::Robots | Route::Favicon | Route::Root | Route::Other => {}
        }
        if !self.is_ours(client) {
            return plain(StatusCode::MISDIRECTED_REQUEST, "This host is not served here.\n");
        }
        match route {
            Route::Open(_) => pixel(),
            Route::Probe(nonce) if nonce.len() <= MAX_NONCE => self.probe(client, nonce),
            Route::Robots => plain(StatusCode::OK, "User-agent: *\nDisallow: /\n"),
            Route::Favicon => plain(StatusCode::NO_CONTENT, ""),
            Route::Root => plain(StatusCode::OK, "This host serves the links and images of e-mail messages.\n"),
            Route::Click(_) | Route::Probe(_) | Route::Other => plain(StatusCode::NOT_FOUND, "Not found.\n"),
        }
    }

    /// What `verify` reads from the token, and the host that the token was made for: the one that was asked for, or, on
    /// `cname_target`, the one that the client claims: it only chooses what the MAC must be bound to, so it opens nothing.
    fn recognise<'a, T>(
        &self,
        client: &'a Client,
        now: u64,
        verify: impl Fn(&Verifier, &str) -> Option<T>,
    ) -> Option<(T, Standing, &'a str)> {
        let keys = self.verifier.load();
        let host = client.trusted_host();
        let by_cname_target = self.by_cname_target(client);
        if let Some(said) = verify(&keys, host) {
            let standing = match self.hosts.load().state(host) {
                Some(HostState::Active) | None => Standing::Recorded,
                Some(HostState::Removed { until }) if now >= until && !by_cname_target => Standing::Gone,
                Some(HostState::Removed { .. }) => Standing::Unrecorded,
            };
            return Some((said, standing, host));
        }
        if !by_cname_target {
            return None;
        }
        let claimed = client.claimed_host().filter(|claimed| *claimed != host)?;
        Some((verify(&keys, claimed)?, Standing::Unrecorded, claimed))
    }

    fn probe(&self, client: &Client, nonce: &str) -> Response {
        let mut response = plain(StatusCode::OK, "-");
        *response.body_mut() = Full::new(Bytes::from(self.signer.load().probe(client.trusted_host(), nonce)));
        response
    }

    fn is_ours(&self, client: &Client) -> bool {
        self.by_cname_target(client) || self.hosts.load().state(client.trusted_host()).is_some()
    }

    fn by_cname_target(&self, client: &Client) -> bool {
        let target = self.cname_target.as_str();
        client.host == target || client.trusted_host() == target
    }
}

impl Handler for Tracker {
    async fn handle(&self, request: Request, client: Client) -> Response {
        let agent = request.headers().get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
        self.answer(request.method(), request.uri().path(), &client, agent, now_ms()).await
    }
}

struct Click {
    id: QueueId,
    recipient: u16,
    link: u16,
    url: String,
}

fn click(keys: &Verifier, host: &str, token: &str) -> Option<Click> {
    match keys.click(host, token.as_bytes())? {
        Token::Click { id, recipient, link, url } => Some(Click { id, recipient, link, url }),
        Token::Open { .. } => None,
    }
}

fn open(keys: &Verifier, host: &str, token: &str) -> Option<(QueueId, u16)> {
    match keys.open(host, token.as_bytes())? {
        Token::Open { id, recipient } => Some((id, recipient)),
        Token::Click { .. } => None,
    }
}

fn redirect(url: String) -> Response {
    // The verifier lets printable ASCII through alone, so this cannot fail; if it did, no header would be made of it.
    let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(url)) else {
        return plain(StatusCode::NOT_FOUND, "Not found.\n");
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.reserve(5);
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_ROBOTS_TAG, HeaderValue::from_static("noindex"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

fn pixel() -> Response {
    let mut response = Response::new(Full::new(Bytes::from_static(&PIXEL)));
    let headers = response.headers_mut();
    headers.reserve(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    headers.insert(X_ROBOTS_TAG, HeaderValue::from_static("noindex"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("43"));
    response
}

fn method_not_allowed() -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are allowed here.\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The agent as UTF-8, cut to [`MAX_AGENT`] bytes at a character's end.
fn agent_text(agent: &[u8]) -> Box<str> {
    // A bad byte becomes three, none becomes fewer: what is cut off here would end past the limit as well, and a
    // character cut in half starts behind it.
    let text = String::from_utf8_lossy(&agent[..agent.len().min(MAX_AGENT + 4)]);
    text[..text.floor_char_boundary(MAX_AGENT)].into()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

const MAX_AGENT: usize = 512;
const MAX_NONCE: usize = 64;
const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

/// GIF89a, 1 × 1, its one colour transparent.
const PIXEL: [u8; 43] = [
    b'G', b'I', b'F', b'8', b'9', b'a', 1, 0, 1, 0, 0x80, 0, 0, // screen: 1 × 1, a table of two colours
    0, 0, 0, 255, 255, 255, // black, white
    0x21, 0xf9, 4, 1, 0, 0, 0, 0, // graphic control: colour 0 is transparent; end of block
    0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, // image: 1 × 1 at 0, 0
    2, 2, 0x44, 1, 0,    // LZW: one pixel of colour 0
    0x3b, // end
];
