//! Who the relay is to its servers.

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::Error;
use crate::config;

/// The field with the Basic credentials, if there are any. It shows in no log.
pub(super) fn header(
    upstream: &config::Upstream,
) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
    let Some(basic) = &upstream.credentials else { return Ok(None) };
    let unusable = |problem: String| Error::Option {
        upstream: upstream.name.clone(),
        option: "credentials.password_file",
        problem: format!("{}: {problem}", basic.password_file.display()),
    };
    let text = fs::read_to_string(&basic.password_file).map_err(|source| Error::Password {
        upstream: upstream.name.clone(),
        path: basic.password_file.clone(),
        source,
    })?;
    // Editors end a file with a line feed; a password may well end with a blank.
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.contains(char::is_control) {
        return Err(unusable("the file has to hold the password, in one line".to_owned()));
    }
    let encoded = BASE64_STANDARD.encode(format!("{}:{password}", basic.username));
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
        .map_err(|error| unusable(error.to_string()))?;
    value.set_sensitive(true);
    Ok(Some((AUTHORIZATION, value)))
}
