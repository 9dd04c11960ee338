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
