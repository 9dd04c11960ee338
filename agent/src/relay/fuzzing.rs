//! Fields of requests and answers, for fuzzing: `tests/fuzz` sees nothing that is private.

use std::time::Duration;

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use jiff::Timestamp;

use super::{deliver, proxy::binding};

/// What is made of a field's value wherever it may stand.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As `Authorization`: whether it authenticates the connection.
    pub authenticates: bool,
    /// As `WWW-Authenticate`: whether it asks for that.
    pub challenges: bool,
    /// As `Retry-After`: how long it asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Field {
    /// Reads one.
    #[must_use]
    pub fn read(value: &HeaderValue) -> Self {
        let named = |name: HeaderName| HeaderMap::from_iter([(name, value.clone())]);
        Self {
            authenticates: binding::authenticates(&named(AUTHORIZATION)),
            challenges: binding::challenges(&named(WWW_AUTHENTICATE)),
            retry_after: deliver::retry_after(&named(RETRY_AFTER), Timestamp::now()),
        }
    }
}
