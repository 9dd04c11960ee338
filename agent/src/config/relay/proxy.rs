//! What is special to a route of kind `proxy`.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::super::value;

/// A route for requests of clients to a server behind the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// How long the server may send nothing of an answer that has begun.
    pub idle_timeout: Duration,
    /// Whether the server is told the host that the client asked for.
    pub keep_host: bool,
    /// What is answered while an operator has drained all servers; an empty 503 if not
    /// given.
    pub maintenance: Option<Maintenance>,
    /// Protocols that a connection may change to, in lower case.
    pub upgrades: Vec<String>,
}

impl Proxy {
    /// Whether a connection may change to this protocol, as a client names it.
    #[must_use]
    pub fn upgrades_to(&self, protocol: &str) -> bool {
        self.upgrades.iter().any(|allowed| allowed.eq_ignore_ascii_case(protocol))
    }
}

/// The protocols of `upgrades`, as they are compared.
pub(super) fn protocols(given: &[String]) -> Result<Vec<String>, String> {
    let protocol = |name: &String| {
        let is_fine =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-./^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_fine) {
            return Err(format!(
                "upgrades: {name:?} is no name of a protocol, such as \"websocket\""
            ));
        }
        let name = name.to_ascii_lowercase();
        // HTTP again, whose requests nobody would look at.
        if name == "h2c" || name.starts_with("http/") || name.starts_with("tls/") {
            return Err(format!("upgrades: {name} is never let through"));
        }
        Ok(name)
    };
    given.iter().map(protocol).collect()
}

/// The answer while all servers are drained: 503 with this body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// File with the body.
    pub file: PathBuf,
    /// Its `Content-Type`.
    #[serde(default = "html")]
    pub content_type: String,
    /// After how long clients may try again.
    #[serde(default = "five_minutes", deserialize_with = "value::duration")]
    pub retry_after: Duration,
}

fn html() -> String {
    "text/html; charset=utf-8".to_owned()
}

const fn five_minutes() -> Duration {
    Duration::from_secs(300)
}
