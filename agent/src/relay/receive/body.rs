//! Bodies within limits.

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    StatusCode,
    body::{Body as _, Bytes},
};

use super::memory::Held;
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
    /// All routes together hold as much as they may.
    NoMemory,
}

impl BadBody {
    /// The name as a metric label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "body_too_large",
            Self::TooSlow => "body_too_slow",
            Self::Broken => "body_broken",
            Self::NoMemory => "no_memory",
        }
    }

    /// The answer.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::NoMemory => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Reads a body of at most `limit` bytes, which `held` makes room for.
pub(super) async fn read(
    body: RequestBody,
    limit: usize,
    held: &mut Held,
) -> Result<Bytes, BadBody> {
    // What is announced to be too large is not read at all.
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(BadBody::TooLarge);
    }
    let mut body = Limited::new(body, limit);
    // Most come in one part, which is taken as it is.
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.downcast_ref() {
            _ if error.is::<LengthLimitError>() => BadBody::TooLarge,
            Some(BodyError::TimedOut(_)) => BadBody::TooSlow,
            _ => BadBody::Broken,
        })?;
        let Ok(part) = frame.into_data() else { continue };
        if !held.grow(part.len()) {
            return Err(BadBody::NoMemory);
        }
        if first.is_empty() && all.is_empty() {
            first = part;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&part);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}
