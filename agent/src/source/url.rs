//! URLs of lists, which may hold a secret.
//!
//! A server of lists may ask for a token in the query, or for a name and a password
//! before the host. Both are sent, and shown nowhere: not in the log, in errors, on
//! the command line, in an export or in the state directory. The path is shown.

use std::fmt;

use hyper::Uri;

use super::read::fingerprint;

/// What stands in the place of what is not shown.
const CONCEALED: char = '…';

/// An `https` URL with a host.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    /// All of it, for whoever sends the request.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.0
    }

    /// Where the list is, without what is only there to be let in: user, password and query.
    pub(super) fn place(&self) -> String {
        let shown = shown(&self.0);
        shown.split('?').next().unwrap_or_default().to_owned()
    }
}

impl TryFrom<&str> for Url {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        match text.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some("https") && uri.host().is_some() => Ok(Self(uri)),
            _ => Err(format!(
                "url \"{}\" is not allowed; it must be https://host[:port]/path, because the list \
                 decides who may pass",
                concealed(text)
            )),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

/// Tells URLs apart that differ in what is not shown.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} {}", fingerprint(self.0.to_string().as_bytes()))
    }
}

/// A URL without user, password and query.
pub(crate) fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    let query = uri.query().map(|_| format!("?{CONCEALED}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}{query}", uri.path())
}

/// A text of which any word may be a URL, and none need be a correct one.
pub(crate) fn concealed(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    text.split_inclusive(is_end).map(concealed_word).collect()
}

fn concealed_word(word: &str) -> String {
    let content = word.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
    let end = word.strip_prefix(content).unwrap_or_default();
    let (before, query) = match content.split_once('?') {
        Some((before, query)) if !query.is_empty() => (before, format!("?{CONCEALED}")),
        // The end of a question.
        _ => (content, String::new()),
    };
    let before = match before.rsplit_once('@') {
        Some((user, rest)) => {
            let scheme = user.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
            format!("{}{CONCEALED}@{rest}", scheme.unwrap_or_default())
        }
        None => before.to_owned(),
    };
    format!("{before}{query}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_password_and_query_are_not_shown() {
        for (text, expected) in [
            ("https://lists.example.com/a.txt", "https://lists.example.com/a.txt"),
            ("https://lists.example.com:8443/a?token=hush", "https://lists.example.com:8443/a?…"),
            ("https://edge:hush@[2001:db8::7]:444/a", "https://[2001:db8::7]:444/a"),
            ("https://hush@lists.example.com", "https://lists.example.com/"),
        ] {
            let url = Url::try_from(text).unwrap();
            assert_eq!(url.to_string(), expected);
            assert!(!format!("{url:?}").contains("hush"), "{url:?}");
            assert_eq!(url.uri().to_string().trim_end_matches('/'), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn urls_that_differ_in_a_secret_are_told_apart() {
        let debug = |text: &str| format!("{:?}", Url::try_from(text).unwrap());
        assert_ne!(debug("https://example.com/?a"), debug("https://example.com/?b"));
        assert_eq!(debug("https://example.com/?a"), debug("https://example.com/?a"));
    }

    #[test]
    fn a_url_that_is_not_allowed_is_not_shown_either() {
        for text in ["http://a:hush@example.com/?hush", "example.com/?hush", "https://?hush"] {
            let error = Url::try_from(text).unwrap_err();
            assert!(error.contains("must be https://") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn in_a_text_every_word_is_looked_at() {
        let text = "url = \"http://edge:hu/sh@proxy/?hush\" # ask me@example.com, why?";
        assert_eq!(concealed(text), "url = \"http://…@proxy/?…\" # ask …@example.com, why?");
    }
}
