//! Refuses requests that two parties could read in two ways.
//!
//! What goes on to an upstream is framed anew, so no bytes of a client's framing
//! reach it. What is refused here is refused because it is only ever sent to
//! confuse: about where a request ends, or about which host it is for.
//!
//! # What the HTTP library does
//!
//! It refuses itself, with 400 and the end of the connection: whitespace before a
//! colon, folded lines, control characters, a `Content-Length` that is no plain
//! number, or several that differ, `Transfer-Encoding` that does not end in
//! `chunked` or comes with HTTP/1.0, HTTP/0.9 and unknown versions. A chunk size
//! that is none breaks the body off.
//!
//! It hides: a `Content-Length` beside a `Transfer-Encoding`. The latter is what
//! counts, and the connection ends with the answer (RFC 9112, 6.3), so that what
//! follows is never read as a request. A line that ends in a bare LF is taken as a
//! line (RFC 9112, 2.2), a second equal `Content-Length` as one.
//!
//! Of HTTP/2 it refuses fields that are about connections, and a
//! `content-length` that is not that of the body.

use hyper::{
    HeaderMap, Method, Request, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    http::uri::Authority,
};

/// Why a request is refused before anybody looks at what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The HTTP library could not read its head.
    Malformed,
    /// Its head is larger than `header_size`, or has more than 100 fields.
    HeadTooLarge,
    /// `CONNECT`, or another thing than a path or a whole address is asked for.
    Target,
    /// No host in HTTP/1.1, several, or one that is none.
    Host,
    /// The address and the `Host` field name two hosts.
    HostMismatch,
    /// `Transfer-Encoding` is not just `chunked`.
    TransferEncoding,
    /// Its source makes more requests than it may.
    SourceLimit,
}

impl Refusal {
    pub(super) const ALL: [Self; 7] = [
        Self::Malformed,
        Self::HeadTooLarge,
        Self::Target,
        Self::Host,
        Self::HostMismatch,
        Self::TransferEncoding,
        Self::SourceLimit,
    ];

    /// The name as a metric label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::Target => "target",
            Self::Host => "host",
            Self::HostMismatch => "host_mismatch",
            Self::TransferEncoding => "transfer_encoding",
            Self::SourceLimit => "source_limit",
        }
    }
}

/// Whether the head of a request can be read in one way only.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    check_target(request.method(), request.uri())?;
    check_host(request.version(), request.uri(), request.headers())?;
    check_transfer_encoding(request.headers())
}

fn check_target(method: &Method, target: &Uri) -> Result<(), Refusal> {
    let is_web = matches!(target.scheme_str(), None | Some("http" | "https"));
    if *method != Method::CONNECT && is_web && target.path().starts_with('/') {
        Ok(())
    } else {
        Err(Refusal::Target)
    }
}

fn check_host(version: Version, target: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut fields = headers.get_all(HOST).iter();
    let host = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(host), None) => {
            let host = Authority::try_from(host.as_bytes()).map_err(|_| Refusal::Host)?;
            Some(host)
        }
        (Some(_), Some(_)) => return Err(Refusal::Host),
    };
    // Without a user, and with a port that is a number if there is one.
    let is_host = |authority: &Authority| {
        let text = authority.as_str();
        let is_whole = text == authority.host() || authority.port_u16().is_some();
        !authority.host().is_empty() && !text.contains('@') && is_whole
    };
    match (target.authority(), &host) {
        (Some(asked), Some(host)) if !is_same(target, asked, host) => Err(Refusal::HostMismatch),
        (Some(authority), _) | (None, Some(authority)) if !is_host(authority) => Err(Refusal::Host),
        // HTTP/1.0 knows no Host.
        (None, None) if version > Version::HTTP_10 => Err(Refusal::Host),
        // RFC 9112, 3.2: even if the target names the host.
        (Some(_), None) if version == Version::HTTP_11 => Err(Refusal::Host),
        _ => Ok(()),
    }
}

/// Whether both name the same host and port.
fn is_same(target: &Uri, asked: &Authority, host: &Authority) -> bool {
    let default = if target.scheme_str() == Some("http") { 80 } else { 443 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
    asked.host().eq_ignore_ascii_case(host.host()) && port(asked) == port(host)
}

fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut fields = headers.get_all(TRANSFER_ENCODING).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::TransferEncoding),
    }
}
