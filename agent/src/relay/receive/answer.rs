//! Answers of the relay's own.

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER},
};

use crate::relay::Body;

/// When Microsoft may try again what could not be made durable. Graph and Exchange
/// have their own pauses, which are longer.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("10");

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    response
}
