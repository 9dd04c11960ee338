//! Which requests of clients may be sent again, and how.

use hyper::{HeaderMap, Method, Request, Uri, body::Body as _};

use super::SendError;
use crate::relay::Body;

/// A request that has no answer, and the request itself if it was not sent.
pub(super) struct Failed {
    pub(super) error: SendError,
    pub(super) unsent: Option<Request<Body>>,
}

impl Failed {
    /// What went wrong, and the request if it may be sent again: it was not sent, or there
    /// is no answer to it and it may be made twice.
    pub(super) fn again(self, replay: Option<&Replay>) -> (SendError, Option<Request<Body>>) {
        let Self { error, unsent } = self;
        let is_unanswered = matches!(
            error,
            SendError::Reset { .. } | SendError::Invalid { .. } | SendError::Timeout { .. }
        );
        let again = unsent.or_else(|| replay.filter(|_| is_unanswered).map(Replay::request));
        (error, again)
    }
}

/// A request without a body that may be made twice (RFC 9110, 9.2.1).
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Replay {
    pub(super) fn of(request: &Request<Body>) -> Option<Self> {
        let is_whole = request.body().is_end_stream();
        (request.method().is_safe() && is_whole).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::default());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}
