//! The dashboard over a relay's parts without its listeners, and somebody who looks at it.

use super::super::*;
use crate::domain::SenderDomain;
use crate::mail::DomainName;
use crate::ops::fixture::Fixture;
use crate::ops::{self, NewKey, Terms};
use crate::settings::{Change, Permission};
use crate::spool::AppendError;
use url::form_urlencoded;
use uuid::Uuid;

pub const HOST: &str = "relay.example.net";
pub const AUTHORITY: &str = "relay.example.net:8081";
pub const ORIGIN: &str = "http://relay.example.net:8081";

/// The dashboard, and what it works on.
pub struct Place {
    pub served: Served,
    pub ops: Arc<Ops>,
    _fixture: Fixture,
}

/// An answer, read.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

/// Somebody with a browser: the cookie, and the token that forms carry.
#[derive(Clone, Default)]
pub struct Browser {
    pub cookie: String,
    pub csrf: String,
}

impl Place {
    pub fn new(secure: bool) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fixture = Fixture::new();
        let ops = Arc::clone(&fixture.ops);
        ops.terms.store(Arc::new(Terms { private_webhooks: false, ..Terms::clone(&ops.terms.load()) }));
        ops.queue.set_width(8);
        Self { served: Served::new(Arc::clone(&ops), Setup { secure, ..Setup::default() }), ops, _fixture: fixture }
    }

    /// A sender domain that is set up.
    pub async fn domain(&self, name: &str) {
        let id = Uuid::from_bytes(*clock::queue_id().as_bytes());
        let domain = SenderDomain::new(DomainName::parse(name).unwrap(), id, clock::unix_ms());
        let added = self.ops.settings.change(|_| Ok::<_, AppendError>((vec![Change::Domain(domain)], ())));
        added.await.unwrap();
    }

    /// A key, tied to these domains: its id and its token.
    pub async fn key(&self, permission: Permission, domains: &[&str]) -> (Uuid, String) {
        let domains = domains.iter().map(|name| (*name).to_owned()).collect();
        let new = NewKey { name: "a key".to_owned(), permission, domains };
        let made = ops::key_create(&self.ops, new).await.unwrap();
        (made.id.parse().unwrap(), made.token)
    }

    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Result<Bytes, Error>,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path).header("host", AUTHORITY);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let address = "192.0.2.7".parse().unwrap();
        let client =
            Client { address, peer: address, from_proxy: false, host: HOST.to_owned(), forwarded_hosts: Vec::new() };
        let (head, body) = self.served.answer(head, body, client).await.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let answer = Answer { status: head.status, headers: head.headers, text };
        answer.is_safe(path);
        answer
    }

    pub async fn get(&self, path: &str, browser: &Browser) -> Answer {
        self.ask(Method::GET, path, &[("cookie", &browser.cookie)], Ok(Bytes::new())).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.ask(Method::POST, path, headers, Ok(body.into())).await
    }

    /// A form as the browser sends it.
    pub async fn post(&self, path: &str, browser: &Browser, fields: &[(&str, &str)]) -> Answer {
        let headers = [("cookie", &*browser.cookie), ("origin", ORIGIN), ("sec-fetch-site", "same-origin")];
        self.post_with(path, &headers, &[&[("csrf", &*browser.csrf)], fields].concat()).await
    }

    /// Signs in with a token.
    pub async fn sign_in(&self, token: &str) -> Browser {
        let answer = self.post(sign_in::PATH, &Browser::default(), &[("key", token)]).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, ROOT), "{}", answer.text);
        let cookie = answer.cookie();
        let csrf =
            self.get("/dashboard/webhooks", &Browser { cookie: cookie.clone(), csrf: String::new() }).await.csrf();
        Browser { cookie, csrf }
    }

    /// The operator, signed in.
    pub async fn operator(&self) -> Browser {
        let (_, token) = self.key(Permission::FullAccess, &[]).await;
        self.sign_in(&token).await
    }

    pub fn webhooks(&self) -> usize {
        self.ops.settings.snapshot().webhooks.len()
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn location(&self) -> &str {
        self.header("location")
    }

    /// What the browser sends back of the cookie that was set.
    pub fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap().to_owned()
    }

    pub fn csrf(&self) -> String {
        self.between("name=\"csrf\" value=\"", "\"").to_owned()
    }

    pub fn between(&self, before: &str, after: &str) -> &str {
        let rest = self.text.split_once(before).unwrap_or_else(|| panic!("no {before} in {}", self.text)).1;
        rest.split_once(after).unwrap().0
    }

    /// What holds for whatever is answered.
    pub fn is_safe(&self, path: &str) {
        let policy = self.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"), "{path}");
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin"), ("x-robots-tag", "noindex")]
        {
            assert_eq!(self.header(name), value, "{path}");
        }
        let is_kept = self.header("cache-control") != "no-store";
        assert_eq!(is_kept, path.starts_with("/dashboard/assets/") && self.status == StatusCode::OK, "{path}");
        assert!(self.text.len() < 200_000, "{path} has {} bytes", self.text.len());
        if self.header("content-type").starts_with("text/html") {
            for forbidden in [" style=", "<style", "<script>", " onclick=", " onload=", " onerror=", "javascript:"] {
                assert!(!self.text.contains(forbidden), "{path}: {forbidden}");
            }
        }
    }

    /// Somebody is led to sign in, and back to `to`.
    pub fn leads_to_sign_in(&self, to: &str) -> bool {
        let to = form_urlencoded::Serializer::new(String::new()).append_pair("to", to).finish();
        self.status == StatusCode::SEE_OTHER && self.location() == format!("{}?{to}", sign_in::PATH)
    }
}
