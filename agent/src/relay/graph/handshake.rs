//! The handshake: Graph posts `?validationToken=...` when a subscription is made,
//! and makes it only if the token comes back as plain text within ten seconds.
//!
//! The token is a stranger's text that the relay is asked to repeat under its own
//! name. So the answer is always the relay's own, plain text that no browser
//! takes for anything else, and holds the token and nothing else. If the upstream
//! answers, it only says yes, by repeating the token exactly; whatever else it
//! says is a no, answered 502, and its text goes nowhere.

use http_body_util::{BodyExt, Full};
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};

use super::BadHead;
use crate::relay::{Body, route::parameters};

/// Longest token; Graph's have less than 200 bytes.
const LONGEST: usize = 4 << 10;

/// Why the upstream's answer to a handshake is a no. The answer is 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongAnswer {
    /// Another status than 200.
    #[error("the upstream answered the handshake with {0} instead of 200")]
    Status(StatusCode),
    /// Another body than the token.
    #[error("the upstream answered the handshake with something else than the token")]
    Body,
}

impl WrongAnswer {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Body => "body",
        }
    }
}

/// The token in a query, if it has one. Graph encodes it as forms are: a space is
/// a `+`, a colon `%3a`.
///
/// # Errors
///
/// [`BadHead::Token`] if there are several, or it is empty, too long, not UTF-8,
/// or holds control characters.
pub fn token(query: &str) -> Result<Option<String>, BadHead> {
    let mut tokens =
        parameters(query).filter(|(name, _)| **name == *b"validationToken").map(|(_, value)| value);
    let Some(token) = tokens.next() else { return Ok(None) };
    if tokens.next().is_some() || token.is_empty() || token.len() > LONGEST {
        return Err(BadHead::Token);
    }
    match String::from_utf8(token.into_owned()) {
        Ok(token) if !token.contains(char::is_control) => Ok(Some(token)),
        _ => Err(BadHead::Token),
    }
}

/// The answer that makes the subscription.
#[must_use]
pub fn answer(token: String) -> Response<Body> {
    let body = Full::new(Bytes::from(token)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    let fields = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the upstream wants the subscription; [`answer`] tells Graph so.
///
/// # Errors
///
/// [`WrongAnswer`].
pub fn check_upstream_answer(
    status: StatusCode,
    body: &[u8],
    token: &str,
) -> Result<(), WrongAnswer> {
    if status != StatusCode::OK {
        return Err(WrongAnswer::Status(status));
    }
    if body == token.as_bytes() { Ok(()) } else { Err(WrongAnswer::Body) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_decoded_as_graph_encodes_it() {
        let query = "key=1&validationToken=Validation%3a+Testing+client+application+reachability\
                     +for+subscription+Request-Id%3a+522a8e7e&x";
        let expected = "Validation: Testing client application reachability for subscription \
                        Request-Id: 522a8e7e";
        assert_eq!(token(query), Ok(Some(expected.to_owned())));
        assert_eq!(token("validationToken=%3Cb%3E%2b%c3%a9"), Ok(Some("<b>+é".to_owned())));
        assert_eq!(token("key=1"), Ok(None));
        assert_eq!(token("ValidationToken=1"), Ok(None));
    }

    #[test]
    fn a_token_that_graph_does_not_make_is_refused() {
        let long = "a".repeat(4097);
        for value in ["", "a&validationToken=a", "%ff", "%0d%0aX:", "%c2%85", &long] {
            assert_eq!(token(&format!("validationToken={value}")), Err(BadHead::Token), "{value}");
        }
        let longest = "a".repeat(4096);
        assert_eq!(token(&format!("validationToken={longest}")), Ok(Some(longest)));
    }

    #[tokio::test]
    async fn the_answer_is_the_token_as_plain_text() {
        let response = answer("<b>".to_owned());
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "<b>");
    }

    #[test]
    fn the_upstream_has_to_repeat_the_token() {
        let check = |status, body: &str| {
            check_upstream_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "a b")
        };
        assert_eq!(check(200, "a b"), Ok(()));
        for body in ["", "a", "a b\n", "a+b", "\"a b\"", "A b"] {
            assert_eq!(check(200, body), Err(WrongAnswer::Body), "{body:?}");
        }
        for status in [201, 202, 204, 301, 404, 500] {
            assert_eq!(check(status, "a b").unwrap_err().name(), "status", "{status}");
        }
    }

    proptest! {
        #[test]
        fn any_token_comes_back_as_it_was_sent(text in "\\PC{1,50}") {
            let encoded =
                percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
            prop_assert_eq!(token(&format!("validationToken={encoded}")), Ok(Some(text)));
        }

        #[test]
        fn any_query_is_read_or_refused(query in any::<String>()) {
            let _ = token(&query);
        }
    }
}
