//! What goes wrong with a pool and with its requests.

use std::{io, path::PathBuf, time::Duration};

use super::{connection::Failure, metrics::Outcome};
use crate::tls;

/// Why a pool cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or key cannot be used.
    #[error("upstream {upstream}, ca_file or client_certificate: {source}")]
    Tls {
        /// The pool.
        upstream: String,
        /// What is wrong, with the file.
        source: tls::Error,
    },
    /// The password cannot be read.
    #[error(
        "upstream {upstream}, credentials.password_file: {} cannot be read: {source}",
        .path.display()
    )]
    Password {
        /// The pool.
        upstream: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A value of the configuration cannot be part of a request.
    #[error("upstream {upstream}, {option}: {problem}")]
    Option {
        /// The pool.
        upstream: String,
        /// The option.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// All servers are down or left alone; nothing was sent.
    #[error("no server of upstream {upstream} is well; {last}")]
    Unavailable {
        /// The pool.
        upstream: String,
        /// What went wrong last.
        last: String,
    },
    /// No connection, or one that closed before anything was written to it; nothing
    /// was sent.
    #[error("no connection to {server}: {problem}")]
    Connect {
        /// The server.
        server: String,
        /// What was wrong.
        problem: String,
    },
    /// All connections were busy for as long as an answer may take; nothing was sent.
    #[error("{server}: all connections were busy for {} s", .after.as_secs_f32())]
    Busy {
        /// The server.
        server: String,
        /// How long.
        after: Duration,
    },
    /// No answer in time.
    #[error("{server} did not answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// The server.
        server: String,
        /// The limit.
        after: Duration,
    },
    /// The connection broke before the head of an answer was whole.
    #[error("the connection to {server} broke before it answered: {problem}")]
    Reset {
        /// The server.
        server: String,
        /// What was wrong.
        problem: String,
    },
    /// What came is not HTTP.
    #[error("what {server} answered is not HTTP: {problem}")]
    Invalid {
        /// The server.
        server: String,
        /// What was wrong.
        problem: String,
    },
    /// The request's own body failed, or the request cannot be made.
    #[error("the request to {server} could not be sent whole: {problem}")]
    Request {
        /// The server.
        server: String,
        /// What was wrong.
        problem: String,
    },
    /// The pool is being stopped; nothing was sent.
    #[error("upstream {0} is being stopped")]
    Stopping(String),
}

impl SendError {
    /// Says what a failure means for the request.
    pub(super) fn of(server: &str, failure: &Failure) -> Self {
        let (server, problem) = (server.to_owned(), failure.to_string());
        match failure {
            Failure::Connect(_) => Self::Connect { server, problem },
            Failure::Request(error) if error.is_user() => Self::Request { server, problem },
            Failure::Request(error) if error.is_parse() => Self::Invalid { server, problem },
            Failure::Request(_) => Self::Reset { server, problem },
        }
    }

    /// What became of the request at a server that was asked.
    pub(super) const fn outcome(&self) -> Outcome {
        match self {
            Self::Connect { .. } | Self::Unavailable { .. } | Self::Stopping(_) => Outcome::Connect,
            Self::Busy { .. } => Outcome::Busy,
            Self::Timeout { .. } => Outcome::Timeout,
            Self::Reset { .. } => Outcome::Reset,
            Self::Invalid { .. } => Outcome::Invalid,
            Self::Request { .. } => Outcome::Request,
        }
    }

    /// Whether no server can have seen any of the request.
    #[must_use]
    pub const fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Connect { .. } | Self::Busy { .. } | Self::Stopping(_)
        )
    }

    /// The name as a metric label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Connect { .. } => "connect",
            Self::Busy { .. } => "busy",
            Self::Timeout { .. } => "timeout",
            Self::Reset { .. } => "reset",
            Self::Invalid { .. } => "invalid",
            Self::Request { .. } => "request",
            Self::Stopping(_) => "stopping",
        }
    }
}
