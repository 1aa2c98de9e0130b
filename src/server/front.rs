//! What listens on `api.address`: the API, and the dashboard beside it.

use crate::http::{Client, Handler, Request, Response};
use crate::{api, dashboard};
use axum::body::Body;
use axum::response::{IntoResponse, Redirect};
use bytes::Bytes;
use http_body_util::Full;

/// Both, told apart by the path.
pub struct ApiFront {
    pub api: api::Served,
    pub dashboard: dashboard::Served,
}

impl Handler for ApiFront {
    async fn handle(&self, request: Request, client: Client) -> Response {
        let path = request.uri().path();
        if dashboard::Served::is_for(path) {
            return self.dashboard.handle(request, client).await;
        }
        if path == "/" {
            let (head, _): (_, Body) = Redirect::to(dashboard::ROOT).into_response().into_parts();
            return Response::from_parts(head, Full::new(Bytes::new()));
        }
        self.api.handle(request, client).await
    }
}
