//! Somebody who is signed in and asks for pages, for tests: over the real routes, without a listener.

use super::{Client, Served, Setup, Visitor, finish};
use crate::clock;
use crate::dashboard::form::Form;
use crate::dashboard::frame::Signed;
use crate::http::Response;
use crate::ops::fixture::Fixture;
use crate::settings::ApiKey;
use axum::body::Body;
use http_body_util::BodyExt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tower::ServiceExt;

pub struct Visit {
    served: Served,
    visitor: Visitor,
}

impl Visit {
    pub fn new(fixture: &Fixture, key: ApiKey) -> Self {
        let served = Served::new(Arc::clone(&fixture.ops), Setup::default());
        let (_, id, csrf) = served.dashboard.sessions.begin(&key, false, clock::unix_ms());
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client =
            Client { address, peer: address, from_proxy: false, host: String::new(), forwarded_hosts: Vec::new() };
        Self {
            served,
            visitor: Visitor { client, secure: false, signed: Some(Signed { id, csrf, key, by_itself: false }) },
        }
    }

    pub async fn get(&self, path: &str) -> Response {
        let mut request = http::Request::get(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(self.visitor.clone());
        request.extensions_mut().insert(Form::default());
        let mut response = self.served.router.clone().oneshot(request).await.unwrap();
        if let Some(failed) = response.extensions_mut().remove::<super::Error>() {
            response = failed.page(&self.served.dashboard, self.visitor.signed.as_ref());
        }
        finish(response, false).await
    }

    pub async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status().as_u16()
    }

    /// A page that is there.
    pub async fn page(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }
}
