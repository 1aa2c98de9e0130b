//! The way to the CA: HTTPS with the system's roots and one more, and what the CA says about coming back.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// For one request.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any answer of a CA has.
const MAX_ANSWER: usize = 1024 * 1024;

/// A client of one CA. Cloning it is cheap.
#[derive(Clone)]
pub struct CaClient {
    http: reqwest::Client,
    /// Milliseconds of the last Retry-After that came with a refusal; 0: none.
    retry_after: Arc<AtomicU64>,
}

impl CaClient {
    /// `ca_file` (PEM) holds a root beside the system's. The text says what is wrong with it.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .timeout(PATIENCE)
            .connect_timeout(PATIENCE / 3)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = ca_file {
            let pem = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| format!("{}: {e}", path.display()))?;
            for root in roots {
                builder = builder.add_root_certificate(root);
            }
        }
        let http = builder.build().map_err(|e| innermost(&e))?;
        Ok(Self { http, retry_after: Arc::default() })
    }

    /// What the last refusal said about coming back, in milliseconds.
    pub fn take_retry_after(&self) -> Option<u64> {
        Some(self.retry_after.swap(0, Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// Asks for the CA's directory (RFC 8555 §7.1.1).
    pub async fn answers(&self, directory: &str) -> Result<(), String> {
        let response = self.http.get(directory).send().await.map_err(|e| innermost(&e))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answers {status}")),
        }
    }

    async fn send(self, request: http::Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let failed = |why: String| Error::Other(why.into());
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|e| failed(e.to_string()))?.to_bytes();
        let request = self.http.request(head.method, head.uri.to_string()).headers(head.headers).body(body);
        let unreachable = |e: reqwest::Error| failed(format!("the CA cannot be reached: {}", innermost(&e)));
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            let seconds = response.headers().get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let seconds = seconds.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
            self.retry_after.store(seconds.min(7 * 86_400) * 1_000, Ordering::Relaxed);
        }
        let mut answer = http::Response::builder().status(status);
        if let Some(headers) = answer.headers_mut() {
            headers.clone_from(response.headers());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(failed("the CA's answer is too long".to_owned()));
            }
        }
        // A proxy's error page says nothing that could be read as a problem (RFC 8555 §6.7).
        if !status.is_success() && serde_json::from_slice::<serde_json::Value>(&body).is_err() {
            let detail = format!("the CA answers {status}");
            body = serde_json::json!({ "detail": detail, "status": status.as_u16() }).to_string().into_bytes();
        }
        let answer = answer.body(Full::new(Bytes::from(body))).map_err(|e| failed(e.to_string()))?;
        Ok(BytesResponse::from(answer))
    }
}

impl HttpClient for CaClient {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().send(request))
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
