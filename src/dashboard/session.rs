//! Who is signed in, how often a wrong key may be tried, and how often a right one may sign in.
//!
//! A session is a random token in a cookie, of which only the hash is kept, in memory: a restart signs everybody out.
//! What somebody has typed meanwhile is kept ([`super::form`]).
//!
//! A key has [`MOST_OF_KEY`] sessions, and its own end when there are more. Where all together are too many, those of keys
//! that are tied to domains end for each other alone: no customer ends an operator's.

use crate::clock;
use crate::http::Client;
use crate::settings::ApiKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Milliseconds without a request after which a session ends.
const IDLE_MS: u64 = 12 * 3_600_000;
/// Milliseconds after which it ends in any case.
const LONGEST_MS: u64 = 7 * 24 * 3_600_000;
/// Sessions of one key at once; past them the one that was idle longest ends.
const MOST_OF_KEY: usize = 100;
/// Sessions at once of all keys that are tied to domains, and as many of all others; past them likewise.
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
    /// The key is tied to domains.
    is_tied: bool,
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
    pub fn begin(&self, key: &ApiKey, secure: bool, now: u64) -> (HeaderValue, SessionId, String) {
        let (token, csrf) = (random(), random());
        let id = hash(&token);
        let (key, is_tied) = (key.id, !key.domains.is_empty());
        let mut all = self.all();
        all.retain(|_, session| session.is_alive(now));
        make_room(&mut all, MOST_OF_KEY, |session| session.key == key);
        make_room(&mut all, MOST, |session| session.is_tied == is_tied);
        all.insert(id, Session { key, is_tied, csrf: csrf.clone(), began: now, used: now, notice: None });
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

/// Ends the one that was idle longest, where there are `most` of a kind.
fn make_room(all: &mut HashMap<SessionId, Session>, most: usize, is_one: impl Fn(&Session) -> bool) {
    let of_kind = || all.iter().filter(|(_, session)| is_one(session));
    if of_kind().count() >= most
        && let Some(oldest) = of_kind().min_by_key(|(_, session)| session.used).map(|(id, _)| *id)
    {
        all.remove(&oldest);
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

/// How often each address may give a wrong key (ten times, then once in six seconds), and sign in with one right key
/// (sixty times, then once in a second).
pub struct Throttle {
    wrong: Limiter<IpAddr>,
    right: Limiter<(IpAddr, Uuid)>,
}

type Limiter<T> = RateLimiter<T, DashMapStateStore<T>, DefaultClock>;

const WRONG_KEYS: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
const SIGN_INS: NonZeroU32 = NonZeroU32::new(60).expect("sixty is not zero");
/// What is remembered before those who have gone quiet are forgotten.
const REMEMBERED: usize = 10_000;

impl Default for Throttle {
    fn default() -> Self {
        Self {
            wrong: RateLimiter::dashmap(Quota::per_minute(WRONG_KEYS)),
            right: RateLimiter::dashmap(Quota::per_minute(SIGN_INS)),
        }
    }
}

impl Throttle {
    /// Counts a wrong key; false where it is one too many.
    pub fn takes_wrong(&self, client: &Client) -> bool {
        counts(&self.wrong, client.counted_as())
    }

    /// Counts somebody with this key; false where that is once too often. Others from the same address are not held up.
    pub fn takes_right(&self, client: &Client, key: Uuid) -> bool {
        counts(&self.right, (client.counted_as(), key))
    }
}

fn counts<T: Clone + Eq + Hash>(limiter: &Limiter<T>, who: T) -> bool {
    if limiter.len() > REMEMBERED {
        limiter.retain_recent();
    }
    limiter.check_key(&who).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::DomainName;
    use crate::settings::{Permission, Tie};

    fn key(id: u128, domains: Vec<Tie>) -> ApiKey {
        ApiKey::new(Uuid::from_u128(id), "k".into(), "re_a", Permission::FullAccess, domains, 0)
    }

    fn tied(id: u128) -> ApiKey {
        key(id, vec![Tie { id: Uuid::from_u128(id), name: DomainName::parse("example.com").unwrap() }])
    }

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
        let key = key(7, vec![]);
        for secure in [false, true] {
            let (cookie, id, csrf) = sessions.begin(&key, secure, 1_000);
            let headers = headers(&cookie);
            assert_eq!(sessions.find(&headers, secure, 2_000), Some((id, csrf, key.id)));
            assert_eq!(sessions.find(&headers, !secure, 2_000), None, "the name tells TLS");
            let gone = sessions.end(&id, secure);
            assert!(gone.to_str().unwrap().contains("Max-Age=0"));
            assert_eq!(sessions.find(&headers, secure, 2_000), None);
        }
    }

    #[test]
    fn cookies_are_kept_from_scripts_and_other_sites() {
        let sessions = Sessions::default();
        let text = |secure| sessions.begin(&key(0, vec![]), secure, 0).0.to_str().unwrap().to_owned();
        let (plain, secure) = (text(false), text(true));
        assert!(plain.starts_with("trackpost=") && plain.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{plain}");
        assert!(secure.starts_with("__Host-trackpost=") && secure.ends_with("; SameSite=Lax; Secure"), "{secure}");
    }

    #[test]
    fn idle_ones_end_and_so_do_old_ones() {
        let sessions = Sessions::default();
        let headers = headers(&sessions.begin(&key(0, vec![]), false, 0).0);
        let is_there = |at| sessions.find(&headers, false, at).is_some();
        let mut at = 0;
        while at + IDLE_MS <= LONGEST_MS {
            assert!(is_there(at), "{at}");
            at += IDLE_MS - 1;
        }
        assert!(!is_there(LONGEST_MS));
        let mut left_open = self::headers(&sessions.begin(&key(0, vec![]), false, 0).0);
        left_open.insert("x-live", HeaderValue::from_static("1"));
        assert!(sessions.find(&left_open, false, IDLE_MS - 1).is_some());
        assert!(sessions.find(&left_open, false, IDLE_MS).is_none(), "a page that keeps itself fresh is nobody");
        let idle = self::headers(&sessions.begin(&key(0, vec![]), false, 0).0);
        assert!(sessions.find(&idle, false, IDLE_MS).is_none());
    }

    #[test]
    fn a_key_ends_its_own_sessions_alone() {
        let sessions = Sessions::default();
        let operator = headers(&sessions.begin(&key(0, vec![]), false, 0).0);
        let other = headers(&sessions.begin(&tied(1), false, 0).0);
        let first = headers(&sessions.begin(&tied(2), false, 0).0);
        for n in 1..MOST_OF_KEY as u64 {
            sessions.begin(&tied(2), false, n);
        }
        assert!(sessions.find(&first, false, 0).is_some());
        for n in 0..1_000 {
            sessions.begin(&tied(2), false, MOST_OF_KEY as u64 + n);
        }
        assert_eq!(sessions.all().len(), MOST_OF_KEY + 2);
        assert!(sessions.find(&first, false, 0).is_none());
        assert!(sessions.find(&operator, false, 0).is_some() && sessions.find(&other, false, 0).is_some());
    }

    #[test]
    fn customers_do_not_end_an_operators_session() {
        let sessions = Sessions::default();
        let operator = headers(&sessions.begin(&key(0, vec![]), false, 0).0);
        for n in 0..MOST as u64 {
            // As if they had begun before; one after the other they would take long.
            let id = hash(&n.to_string());
            let (key, csrf) = (Uuid::from_u128(u128::from(n) + 1), String::new());
            sessions.all().insert(id, Session { key, is_tied: true, csrf, began: n, used: n + 1, notice: None });
        }
        for n in 0..50 {
            sessions.begin(&tied(u128::from(n) + 100_000), false, n + 50_000);
        }
        assert_eq!(sessions.all().len(), MOST + 1);
        assert!(sessions.find(&operator, false, 0).is_some());
    }

    #[test]
    fn a_notice_is_told_once() {
        let sessions = Sessions::default();
        let (_, id, _) = sessions.begin(&key(0, vec![]), false, 0);
        let notice = Notice { text: "Done.".into(), bad: false };
        sessions.tell(&id, notice.clone());
        assert_eq!((sessions.told(&id), sessions.told(&id)), (Some(notice), None));
    }

    #[test]
    fn wrong_keys_are_slowed_by_address() {
        let throttle = Throttle::default();
        let takes = |address| throttle.takes_wrong(&client(address));
        assert!((0..10).all(|_| takes("2001:db8::1")));
        assert!(!takes("2001:db8::2"));
        assert!(takes("192.0.2.1"));
    }

    #[test]
    fn sign_ins_are_slowed_by_address_and_key() {
        let throttle = Throttle::default();
        let takes = |address, key| throttle.takes_right(&client(address), Uuid::from_u128(key));
        assert!((0..60).all(|_| takes("2001:db8::1", 1)));
        assert!(!takes("2001:db8::2", 1));
        assert!(takes("2001:db8::2", 2) && takes("192.0.2.1", 1));
    }

    fn client(address: &str) -> Client {
        let address = address.parse().unwrap();
        let (host, forwarded_hosts) = (String::new(), Vec::new());
        Client { address, peer: address, from_proxy: false, host, forwarded_hosts }
    }
}
