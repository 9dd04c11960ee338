//! The query: it goes on byte for byte, but for what is taken out on purpose.

use std::borrow::Cow;

use percent_encoding::{percent_decode, percent_decode_str};

use super::BadTarget;

/// Refuses what no sender has a use for and some reader would stumble over:
/// control characters, escaped or not, and what is not ASCII.
pub(super) fn check(query: &str) -> Result<(), BadTarget> {
    let plain = query.bytes().all(|byte| byte.is_ascii_graphic());
    let escaped =
        query.contains('%') && percent_decode_str(query).any(|byte| byte.is_ascii_control());
    if plain && !escaped { Ok(()) } else { Err(BadTarget::Query) }
}

/// The parameters of a query with their values, decoded as those of a form: `+`
/// is a space. A value need not be UTF-8.
pub fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query.split('&').filter(|parameter| !parameter.is_empty()).map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (decode(name), decode(value))
    })
}

/// A query without the parameters of these names, in any case; the others stay
/// byte for byte.
#[must_use]
pub fn without_parameters<'a>(query: &'a str, names: &[&str]) -> Cow<'a, str> {
    let is_named = |parameter: &str| {
        let name = decode(parameter.split('=').next().unwrap_or_default());
        names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    };
    if !query.split('&').any(is_named) {
        return Cow::Borrowed(query);
    }
    let kept: Vec<_> = query.split('&').filter(|parameter| !is_named(parameter)).collect();
    Cow::Owned(kept.join("&"))
}

fn decode(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode(spaced.as_bytes()).collect());
    }
    percent_decode_str(text).into()
}
