//! Microsoft Graph change notifications: what a request has to be, and its answer.
//!
//! Graph first asks whether the address is meant ([`handshake`]), then posts
//! notifications, several in one request and perhaps of several subscriptions,
//! applications and tenants ([`delivery`]). It does not sign them: a
//! subscription's `clientState` comes back with each of its notifications, and
//! those that bring data bring tokens too ([`token`]).
//!
//! [`guard`] tells the kinds of request apart by their heads. [`Checks::judge`]
//! decides about each notification by itself: what passes goes on byte for byte,
//! what does not is counted and left out. The sender gets 202 in both cases, so
//! that nobody learns from an answer what passes.
//!
//! # When things fail
//!
//! What cannot be read is refused with 400. Where tokens have to be checked and
//! Microsoft's keys could never be had, or do not include one that may be new,
//! nothing is decided: 503, and Graph repeats it for hours.

pub mod delivery;
pub mod handshake;
mod json;
pub mod keys;
pub mod token;

use hyper::{Method, http::request::Parts};

pub use self::{
    delivery::{Accepted, Checks, Judged, Refusal, Undecided},
    keys::Keys,
};
use super::route::{Target, is_of_type};

/// A request, by its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Graph asks whether the address is meant, and wants this token back.
    Handshake(String),
    /// Notifications.
    Delivery,
}

/// Why a request is refused by its head. The answer is 404, but 400 for
/// [`BadHead::Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadHead {
    /// Graph only posts.
    #[error("the method is not POST")]
    Method,
    /// It is not said to be JSON.
    #[error("the content is not application/json")]
    ContentType,
    /// There are several tokens, or one that Graph does not make.
    #[error("the validationToken is not one of Graph's")]
    Token,
}

impl BadHead {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::ContentType => "content_type",
            Self::Token => "token",
        }
    }
}

/// Tells what a request is by its head.
///
/// # Errors
///
/// [`BadHead`].
pub fn guard(head: &Parts, target: &Target) -> Result<Request, BadHead> {
    if head.method != Method::POST {
        return Err(BadHead::Method);
    }
    if let Some(query) = target.query()
        && let Some(token) = handshake::token(query)?
    {
        return Ok(Request::Handshake(token));
    }
    if is_of_type(&head.headers, "application/json") {
        Ok(Request::Delivery)
    } else {
        Err(BadHead::ContentType)
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request as HttpRequest;

    use super::*;

    fn guarded(method: &str, uri: &str, types: &[&str]) -> Result<Request, BadHead> {
        let mut request = HttpRequest::builder().method(method).uri(uri).header("host", "a");
        for content_type in types {
            request = request.header("content-type", *content_type);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let target = Target::parse(&head).unwrap();
        guard(&head, &target)
    }

    #[test]
    fn a_handshake_is_told_by_its_token_and_a_delivery_by_its_type() {
        let token = Request::Handshake("a b".to_owned());
        assert_eq!(guarded("POST", "/?x=1&validationToken=a+b", &["text/plain"]), Ok(token));
        for content_type in ["application/json", "Application/JSON ; charset=utf-8"] {
            assert_eq!(guarded("POST", "/?x", &[content_type]), Ok(Request::Delivery));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(guarded("GET", "/?validationToken=a", &[]), Err(BadHead::Method));
        assert_eq!(guarded("PUT", "/", &["application/json"]), Err(BadHead::Method));
        assert_eq!(guarded("POST", "/?validationToken=", &[]), Err(BadHead::Token));
        for types in [&[][..], &["text/plain"], &["application/jsonx"], &["application/json"; 2]] {
            assert_eq!(guarded("POST", "/", types), Err(BadHead::ContentType), "{types:?}");
        }
    }
}
