//! Bodies within limits.

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    StatusCode,
    body::{Body as _, Bytes},
};

use crate::relay::listen::{BodyError, RequestBody};

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadBody {
    /// It is larger than the route takes.
    TooLarge,
    /// It took too long.
    TooSlow,
    /// It ended before its end, or was badly framed.
    Broken,
}

impl BadBody {
    /// The name as a metric label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "body_too_large",
            Self::TooSlow => "body_too_slow",
            Self::Broken => "body_broken",
        }
    }

    /// The answer.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(body: RequestBody, limit: usize) -> Result<Bytes, BadBody> {
    // What is announced to be too large is not read at all.
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(BadBody::TooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BadBody::TooLarge),
        Err(error) => match error.downcast_ref() {
            Some(BodyError::TimedOut(_)) => Err(BadBody::TooSlow),
            _ => Err(BadBody::Broken),
        },
    }
}
