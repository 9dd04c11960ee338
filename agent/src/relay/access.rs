//! The access log: a line for each request, at the target `access`.
//!
//! What the listener refuses has its line too: a request that is framed in two ways, or
//! one too many of its source. So has a connection that breaks the protocol, though there
//! is no request to tell of, and one whose TLS is passed on, when it ends. Connections that
//! bring no request, or end before there is TLS, have none; metrics count them.
//!
//! It holds what is needed to find a request again, and no secret: of the query the
//! names of the parameters, of paths that nobody may guess nothing, of credentials the
//! scheme. A body shows only by the size of the answer, if that is announced.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{HeaderMap, Method, Response, StatusCode, body::Body as _, header::AUTHORIZATION};

use super::{Body, listen::Peer, route::Target};
use crate::config::{Route, RouteKind};

/// What is said of a request before it is handled.
pub(super) struct Entry {
    method: Method,
    target: String,
    scheme: String,
}

impl Entry {
    pub(super) fn new(
        method: &Method,
        headers: &HeaderMap,
        target: &Target,
        route: &Route,
    ) -> Self {
        let target = match route.kind {
            RouteKind::Proxy(_) => target.redacted(),
            // Nobody may guess the path.
            RouteKind::Graph(_) | RouteKind::Ews(_) => target.host().to_owned(),
        };
        Self { method: method.clone(), target, scheme: scheme(headers) }
    }

    /// Writes it, when the head of the answer is there.
    pub(super) fn answered(
        self,
        peer: &Peer,
        route: &Route,
        response: &Response<Body>,
        took: Duration,
    ) {
        let Self { method, target, scheme } = self;
        tracing::info!(
            target: "access",
            source = %peer.source,
            listener = &*peer.listener,
            route = route.name,
            %method,
            request = target,
            authorization = scheme,
            status = response.status().as_u16(),
            bytes = response.body().size_hint().exact(),
            seconds = took.as_secs_f64(),
            "request"
        );
    }
}

/// Writes a request that no route takes, or that cannot be read.
pub(super) fn refused(
    peer: &Peer,
    method: Option<&Method>,
    reason: &str,
    status: Option<StatusCode>,
) {
    tracing::info!(
        target: "access",
        source = %peer.source,
        listener = &*peer.listener,
        method = method.map(Method::as_str),
        reason,
        status = status.map(|status| status.as_u16()),
        "request"
    );
}

/// A connection that is passed on. Dropped, it is written, however the connection ended.
pub(super) struct PassedOn {
    /// None: nothing is logged.
    peer: Option<Arc<Peer>>,
    passthrough: String,
    since: Instant,
    result: &'static str,
}

impl PassedOn {
    /// Begins; until more is known, it was cut off.
    pub(super) fn new(peer: Option<Arc<Peer>>, passthrough: &str) -> Self {
        let passthrough = passthrough.to_owned();
        Self { peer, passthrough, since: Instant::now(), result: "cut" }
    }

    /// It ended so.
    pub(super) const fn ended(&mut self, result: &'static str) {
        self.result = result;
    }
}

impl Drop for PassedOn {
    fn drop(&mut self) {
        let Some(peer) = &self.peer else { return };
        tracing::info!(
            target: "access",
            source = %peer.source,
            listener = &*peer.listener,
            passthrough = self.passthrough,
            request = peer.server_name,
            result = self.result,
            seconds = self.since.elapsed().as_secs_f64(),
            "connection"
        );
    }
}

/// The scheme of credentials; a word that is none may be a secret.
fn scheme(headers: &HeaderMap) -> String {
    const KNOWN: [&str; 6] = ["basic", "bearer", "digest", "ntlm", "negotiate", "kerberos"];
    let said = headers.get(AUTHORIZATION).map(|field| field.as_bytes());
    let Some(said) = said else { return "none".to_owned() };
    let word = said.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let known = KNOWN.iter().find(|known| word.eq_ignore_ascii_case(known.as_bytes()));
    known.map_or_else(|| "other".to_owned(), |known| (*known).to_owned())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn of_credentials_only_a_known_scheme_is_told() {
        for (said, told) in [
            ("NTLM TlRMTVNTUAAB", "ntlm"),
            ("basic dTpw", "basic"),
            ("hunter2", "other"),
            ("hunter2 Basic", "other"),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(said))]);
            assert_eq!(scheme(&headers), told);
        }
        assert_eq!(scheme(&HeaderMap::new()), "none");
    }
}
