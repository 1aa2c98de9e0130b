//! The way to the CA: HTTPS with the system's roots and one more, and what the CA says about coming back.

use crate::clock;
use crate::http::innermost;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use std::cell::Cell;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

/// For one request.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any answer of a CA has.
const MAX_ANSWER: usize = 1024 * 1024;

/// A client of one CA. Cloning it is cheap.
#[derive(Clone)]
pub struct CaClient {
    http: reqwest::Client,
}

tokio::task_local! {
    /// Milliseconds of the Retry-After that came with the order's last refusal; 0: none.
    static RETRY_AFTER: Cell<u64>;
}

/// Runs an order, and says with its result when the CA wants to be asked again, in milliseconds.
pub async fn heeding_retry_after<T>(order: impl Future<Output = T>) -> (T, Option<u64>) {
    let noted = async {
        let result = order.await;
        (result, RETRY_AFTER.with(Cell::get))
    };
    let (result, ms) = RETRY_AFTER.scope(Cell::new(0), noted).await;
    (result, Some(ms).filter(|ms| *ms > 0))
}

/// Retry-After (RFC 9110 §10.2.3) in milliseconds from now: seconds, or a date. A week at most.
fn retry_after(value: &str) -> Option<u64> {
    const MOST_MS: u64 = 7 * 86_400_000;
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000).min(MOST_MS));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_millisecond();
    Some(u64::try_from(at).ok()?.saturating_sub(clock::unix_ms()).min(MOST_MS))
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
        Ok(Self { http })
    }

    /// Asks for the CA's directory (RFC 8555 §7.1.1).
    pub async fn answers(&self, directory: &str) -> Result<(), String> {
        let response = self.http.get(directory).send().await.map_err(|e| innermost(&e))?;
        match response.status() {
            status if status.is_success() => {}
            status => return Err(format!("it answers {status}")),
        }
        let body = response.text().await.map_err(|e| innermost(&e))?;
        let directory = serde_json::from_str::<serde_json::Value>(&body).unwrap_or_default();
        match directory.get("newNonce").and_then(|url| url.as_str()) {
            Some(_) => Ok(()),
            None => Err("what answers is no ACME directory".to_owned()),
        }
    }

    async fn send(self, request: http::Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let failed = |why: String| Error::Other(why.into());
        let (head, body) = request.into_parts();
        let is_get = head.method == http::Method::GET;
        let body = body.collect().await.map_err(|e| failed(e.to_string()))?.to_bytes();
        let request = self.http.request(head.method, head.uri.to_string()).headers(head.headers).body(body);
        let unreachable = |e: reqwest::Error| failed(format!("the CA cannot be reached: {}", innermost(&e)));
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            let said = response.headers().get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let ms = said.and_then(retry_after).unwrap_or(0);
            let _ = RETRY_AFTER.try_with(|held| held.set(ms));
            // The directory: what comes instead of it would be read as one.
            if is_get {
                return Err(failed(format!("the CA answers {status}")));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again() {
        assert_eq!(retry_after(" 120 "), Some(120_000));
        assert_eq!(retry_after("99999999999999999999"), None);
        assert_eq!(retry_after("9999999999"), Some(7 * 86_400_000));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(0));
        assert_eq!(retry_after("Fri, 31 Dec 2100 23:59:59 GMT"), Some(7 * 86_400_000));
        assert_eq!(retry_after("soon"), None);
    }
}
