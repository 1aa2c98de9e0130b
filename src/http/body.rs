//! Request bodies, read whole within a size and a time.

use super::Response;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use std::fmt;
use std::time::Duration;

/// Why a body could not be read. Always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge {
        limit: usize,
    },
    TooSlow,
    /// The connection ended early, or the chunked coding is malformed.
    Broken,
}

/// Reads a body of at most `limit` bytes within `time`. A declared length over the limit is refused unread; after
/// an error the connection is closed when the answer has been sent.
pub async fn read_body(body: Incoming, limit: usize, time: Duration) -> Result<Bytes, BodyError> {
    let too_large = BodyError::TooLarge { limit };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large);
    }
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(BodyError::Broken),
        Err(_) => Err(BodyError::TooSlow),
    }
}

impl BodyError {
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<BodyError> for Response {
    fn from(error: BodyError) -> Self {
        let text = match error {
            BodyError::TooLarge { .. } => "The request body is too large.\n",
            BodyError::TooSlow => "The request body took too long.\n",
            BodyError::Broken => "The request body is incomplete.\n",
        };
        super::plain(error.status(), text)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "request body is over {limit} bytes"),
            Self::TooSlow => f.write_str("request body took too long"),
            Self::Broken => f.write_str("request body is incomplete"),
        }
    }
}

impl std::error::Error for BodyError {}
