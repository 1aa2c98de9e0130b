//! Request bodies, read whole within a size, a time, and the room that all of them share.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use std::fmt;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Bounds on bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of one body.
    pub whole: usize,
    /// Up to so many bytes there is always room for one.
    pub small: usize,
    /// For all of it to come.
    pub time: Duration,
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge {
        limit: usize,
    },
    TooSlow,
    /// The connection ended early, or the chunked coding is malformed.
    Broken,
    /// Too many large ones at this moment. Nobody's fault.
    Busy,
}

/// Reads a body. One that is not small takes a place of `room` while it is read. What is refused is still read, up to
/// [`MAX_WASTE`] bytes, and thrown away: a client that is still sending when the connection closes may never see why.
pub async fn read_body(mut body: Incoming, limits: BodyLimits, room: &Semaphore) -> Result<Bytes, BodyError> {
    let too_large = BodyError::TooLarge { limit: limits.whole };
    if body.size_hint().lower() > limits.whole as u64 {
        waste(body, limits.time).await;
        return Err(too_large);
    }
    let whole = async {
        let (mut read, mut place) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            let size = read.len() + data.len();
            if size > limits.whole {
                return Err(too_large);
            }
            if place.is_none() && size > limits.small {
                place = Some(room.try_acquire().map_err(|_| BodyError::Busy)?);
            }
            read.extend_from_slice(&data);
        }
        Ok(Bytes::from(read))
    };
    let read = tokio::time::timeout(limits.time, whole).await.unwrap_or(Err(BodyError::TooSlow));
    if matches!(read, Err(BodyError::TooLarge { .. } | BodyError::Busy)) {
        waste(body, limits.time).await;
    }
    read
}

/// Of a body that nobody wants, so much is read.
pub const MAX_WASTE: usize = 32 * 1024 * 1024;

/// Reads a body and throws it away.
pub async fn waste(body: Incoming, time: Duration) {
    let mut body = Limited::new(body, MAX_WASTE);
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(time, all).await;
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "request body is over {limit} bytes"),
            Self::TooSlow => f.write_str("request body took too long"),
            Self::Broken => f.write_str("request body is incomplete"),
            Self::Busy => f.write_str("request body is one of too many large ones at once"),
        }
    }
}

impl std::error::Error for BodyError {}
