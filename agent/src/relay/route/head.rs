//! Header fields that stand there once, or do not count.

use hyper::{
    HeaderMap,
    header::{AsHeaderName, CONTENT_TYPE, HeaderValue},
};

/// The one field of a name; `None` if there is none, or several.
pub fn single(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    let mut fields = headers.get_all(name).iter();
    let first = fields.next().map(HeaderValue::as_bytes);
    if fields.next().is_some() { None } else { first }
}

/// Whether the one `Content-Type` is this, with or without parameters.
#[must_use]
pub fn is_of_type(headers: &HeaderMap, expected: &str) -> bool {
    let field = single(headers, CONTENT_TYPE).unwrap_or_default();
    let essence = field.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(expected.as_bytes())
}
