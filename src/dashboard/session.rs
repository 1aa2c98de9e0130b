//! Who is signed in, and how often a wrong key may be tried.
//!
//! A session is a random token in a cookie, of which only the hash is kept, in memory: a restart signs everybody out.
//! What somebody has typed meanwhile is kept ([`super::form`]).

use crate::clock;
use crate::http::Client;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Milliseconds without a request after which a session ends.
const IDLE_MS: u64 = 12 * 3_600_000;
/// Milliseconds after which it ends in any case.
const LONGEST_MS: u64 = 7 * 24 * 3_600_000;
/// Sessions at once; past them the one that was idle longest ends.
const MOST: usize = 10_000;

/// The hash of a session's token.
pub type SessionId = [u8; 32];

/// A sentence that the next page begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub text: String,
    /// Something went wrong.
    pub bad: bool,
}

struct Session {
    key: Uuid,
    csrf: String,
    began: u64,
    used: u64,
    notice: Option<Notice>,
}

/// All sessions.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<SessionId, Session>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        // A panic elsewhere leaves the table whole: each change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session with this key: the cookie that names it, its id, and what its forms carry.
    pub fn begin(&self, key: Uuid, secure: bool, now: u64) -> (HeaderValue, SessionId, String) {
        let (token, csrf) = (random(), random());
        let id = hash(&token);
        let mut all = self.all();
        all.retain(|_, session| session.is_alive(now));
        if all.len() >= MOST
            && let Some(oldest) = all.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id)
        {
            all.remove(&oldest);
        }
        all.insert(id, Session { key, csrf: csrf.clone(), began: now, used: now, notice: None });
        (cookie(&token, secure, ""), id, csrf)
    }

    /// The session that a request names: its id, what its forms carry, and its key. It counts as used now, unless a page
    /// has asked by itself.
    pub fn find(&self, headers: &HeaderMap, secure: bool, now: u64) -> Option<(SessionId, String, Uuid)> {
        let id = hash(token(headers, name(secure))?);
        let mut all = self.all();
        let session = all.get_mut(&id).filter(|session| session.is_alive(now))?;
        if !is_by_itself(headers) {
            session.used = now;
        }
        Some((id, session.csrf.clone(), session.key))
    }

    /// Ends a session; the cookie that makes the browser forget it.
    pub fn end(&self, id: &SessionId, secure: bool) -> HeaderValue {
        self.all().remove(id);
        cookie("", secure, "; Max-Age=0")
    }

    /// Says something on the next page of this session.
    pub fn tell(&self, id: &SessionId, notice: Notice) {
        if let Some(session) = self.all().get_mut(id) {
            session.notice = Some(notice);
        }
    }

    /// What is to be said, once.
    pub fn told(&self, id: &SessionId) -> Option<Notice> {
        self.all().get_mut(id)?.notice.take()
    }
}

impl Session {
    fn is_alive(&self, now: u64) -> bool {
        now < self.used.saturating_add(IDLE_MS) && now < self.began.saturating_add(LONGEST_MS)
    }
}

/// Whether the script of a page that keeps itself fresh has sent a request, and nobody has clicked.
pub fn is_by_itself(headers: &HeaderMap) -> bool {
    headers.contains_key("x-live")
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(clock::random::<32>())
}

fn hash(token: &str) -> SessionId {
    Sha256::digest(token.as_bytes()).into()
}

/// `__Host-`: no other host, also none under ours, can set it (RFC 6265bis §4.1.3.2). It needs TLS.
fn name(secure: bool) -> &'static str {
    if secure { "__Host-trackpost" } else { "trackpost" }
}

fn cookie(token: &str, secure: bool, end: &str) -> HeaderValue {
    let tls = if secure { "; Secure" } else { "" };
    let text = format!("{}={token}; Path=/; HttpOnly; SameSite=Lax{tls}{end}", name(secure));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn token<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, token)| token)
}

/// How often each address may give a wrong key: ten times, then once in six seconds.
pub struct Throttle(RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>);

const WRONG_KEYS: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
/// Addresses that are remembered before those that have gone quiet are forgotten.
const ADDRESSES: usize = 10_000;

impl Default for Throttle {
    fn default() -> Self {
        Self(RateLimiter::dashmap(Quota::per_minute(WRONG_KEYS)))
    }
}

impl Throttle {
    /// Counts an attempt; false where it is one too many.
    pub fn takes(&self, client: &Client) -> bool {
        if self.0.len() > ADDRESSES {
            self.0.retain_recent();
        }
        self.0.check_key(&client.counted_as()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &HeaderValue) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        headers.append(header::COOKIE, HeaderValue::from_static("other=1; a"));
        headers.append(header::COOKIE, HeaderValue::try_from(format!("x=y; {pair}; z")).unwrap());
        headers
    }

    #[test]
    fn sessions_begin_are_found_and_end() {
        let sessions = Sessions::default();
        let key = Uuid::from_u128(7);
        for secure in [false, true] {
            let (cookie, id, csrf) = sessions.begin(key, secure, 1_000);
            let headers = headers(&cookie);
            assert_eq!(sessions.find(&headers, secure, 2_000), Some((id, csrf, key)));
            assert_eq!(sessions.find(&headers, !secure, 2_000), None, "the name tells TLS");
            let gone = sessions.end(&id, secure);
            assert!(gone.to_str().unwrap().contains("Max-Age=0"));
            assert_eq!(sessions.find(&headers, secure, 2_000), None);
        }
    }

    #[test]
    fn cookies_are_kept_from_scripts_and_other_sites() {
        let sessions = Sessions::default();
        let text = |secure| sessions.begin(Uuid::nil(), secure, 0).0.to_str().unwrap().to_owned();
        let (plain, secure) = (text(false), text(true));
        assert!(plain.starts_with("trackpost=") && plain.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{plain}");
        assert!(secure.starts_with("__Host-trackpost=") && secure.ends_with("; SameSite=Lax; Secure"), "{secure}");
    }

    #[test]
    fn idle_ones_end_and_so_do_old_ones() {
        let sessions = Sessions::default();
        let headers = headers(&sessions.begin(Uuid::nil(), false, 0).0);
        let is_there = |at| sessions.find(&headers, false, at).is_some();
        let mut at = 0;
        while at + IDLE_MS <= LONGEST_MS {
            assert!(is_there(at), "{at}");
            at += IDLE_MS - 1;
        }
        assert!(!is_there(LONGEST_MS));
        let mut left_open = self::headers(&sessions.begin(Uuid::nil(), false, 0).0);
        left_open.insert("x-live", HeaderValue::from_static("1"));
        assert!(sessions.find(&left_open, false, IDLE_MS - 1).is_some());
        assert!(sessions.find(&left_open, false, IDLE_MS).is_none(), "a page that keeps itself fresh is nobody");
        let idle = self::headers(&sessions.begin(Uuid::nil(), false, 0).0);
        assert!(sessions.find(&idle, false, IDLE_MS).is_none());
    }

    #[test]
    fn there_are_not_too_many() {
        let sessions = Sessions::default();
        let first = headers(&sessions.begin(Uuid::nil(), false, 0).0);
        for n in 1..MOST as u64 {
            sessions.begin(Uuid::nil(), false, n);
        }
        assert!(sessions.find(&first, false, 0).is_some());
        sessions.begin(Uuid::nil(), false, MOST as u64);
        assert_eq!(sessions.all().len(), MOST);
        assert!(sessions.find(&first, false, 0).is_none());
    }

    #[test]
    fn a_notice_is_told_once() {
        let sessions = Sessions::default();
        let (_, id, _) = sessions.begin(Uuid::nil(), false, 0);
        let notice = Notice { text: "Done.".into(), bad: false };
        sessions.tell(&id, notice.clone());
        assert_eq!((sessions.told(&id), sessions.told(&id)), (Some(notice), None));
    }

    #[test]
    fn wrong_keys_are_slowed_by_address() {
        let throttle = Throttle::default();
        let takes = |address: &str| {
            let address = address.parse().unwrap();
            let (host, forwarded_hosts) = (String::new(), Vec::new());
            throttle.takes(&Client { address, peer: address, from_proxy: false, host, forwarded_hosts })
        };
        assert!((0..10).all(|_| takes("2001:db8::1")));
        assert!(!takes("2001:db8::2"));
        assert!(takes("192.0.2.1"));
    }
}
