//! A request on its way to a server, and which of its fields may go there.

use std::fmt;

use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Method,
    body::Bytes,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    http::uri::PathAndQuery,
};

use crate::relay::Body;

/// A request for a [`Pool`](super::Pool). Credentials, `Host` and the configured
/// fields are set by the pool.
#[derive(Debug)]
pub struct Outbound {
    /// The method.
    pub method: Method,
    /// Path and query at the server.
    pub path_and_query: PathAndQuery,
    /// Header fields. Those that belong to one connection do not go on.
    pub headers: HeaderMap,
    /// The body.
    pub body: Payload,
}

impl Outbound {
    /// Another one, if the body can be had again.
    pub(super) fn again(&self) -> Option<Self> {
        let Payload::Whole(body) = &self.body else { return None };
        Some(Self {
            method: self.method.clone(),
            path_and_query: self.path_and_query.clone(),
            headers: self.headers.clone(),
            body: Payload::Whole(body.clone()),
        })
    }
}

/// The body of an [`Outbound`]. What it holds shows in no log.
pub enum Payload {
    /// All of it; it can be sent to one server after the other.
    Whole(Bytes),
    /// As it comes. It goes to one server only, whatever [`Repeat`] says.
    Stream(Body),
}

impl Payload {
    pub(super) fn into_body(self) -> Sent {
        match self {
            Self::Whole(bytes) => Either::Left(Full::new(bytes)),
            Self::Stream(body) => Either::Right(body),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl From<Body> for Payload {
    fn from(body: Body) -> Self {
        Self::Stream(body)
    }
}

/// The body that the HTTP client sends.
pub(super) type Sent = Either<Full<Bytes>, Body>;

/// When a request that failed is sent to the next server. An answer, whatever its
/// status, is no failure; neither is a server that takes too long, because by then
/// there is no time for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Never.
    Never,
    /// If it certainly was not sent: no connection, or one that was closed before
    /// anything was written to it. For requests that must not be made twice.
    Unsent,
    /// Whenever there was no answer. For requests that may be made twice.
    Always,
}

/// Removes what belongs to one connection (RFC 9110, section 7.6.1): `Connection`
/// and the fields that it names, and those that it should name.
pub(in crate::relay) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    const FIELDS: [HeaderName; 9] = [
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("proxy-authentication-info"),
    ];
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in FIELDS {
        headers.remove(name);
    }
}

/// Leaves only what may go to a server. Framing is the HTTP client's business, and
/// a wrong `Content-Length` would be a way to smuggle a second request.
pub(super) fn clean(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in [CONTENT_LENGTH, EXPECT, HOST] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn fields_of_one_connection_do_not_go_on() {
        let mut given = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic AAAA"),
            ("proxy-authenticate", "Basic"),
            ("proxy-connection", "keep-alive"),
            ("content-type", "text/xml"),
        ]);
        remove_hop_by_hop(&mut given);
        assert_eq!(given, headers(&[("content-type", "text/xml")]));
    }

    #[test]
    fn the_framing_and_the_host_of_the_sender_do_not_go_to_a_server() {
        let mut given = headers(&[
            ("content-length", "7"),
            ("expect", "100-continue"),
            ("host", "edge.example.com"),
            ("soapaction", "x"),
        ]);
        clean(&mut given);
        assert_eq!(given, headers(&[("soapaction", "x")]));
    }
}
