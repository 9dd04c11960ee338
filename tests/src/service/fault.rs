//! What can go wrong with the endpoint service, each seen in life or easily had by
//! a proxy in between.

use std::time::Duration;

/// Which requests a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// `/version`.
    Version,
    /// `/endpoints`.
    Endpoints,
    /// `/list`: a list of the stand-in's own, for sources that are no part of the service.
    List,
    /// Every request.
    Any,
}

impl On {
    /// The method that a path asks for.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path.split('/').nth(1)?.to_ascii_lowercase().as_str() {
            "version" => Some(Self::Version),
            "endpoints" => Some(Self::Endpoints),
            "list" => Some(Self::List),
            _ => None,
        }
    }

    /// Whether a request for `method` is meant.
    #[must_use]
    pub fn covers(self, method: Option<Self>) -> bool {
        self == Self::Any || Some(self) == method
    }
}

/// What a failing service does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429, as for a client that asks too often.
    TooManyRequests,
    /// 500 and a page for people.
    ServerError,
    /// No answer, and the connection stays open: what users saw in place of 429.
    Hang,
    /// The connection is reset in place of an answer.
    Reset,
    /// The right answer, in pieces of `piece` bytes every `pause`.
    Slow {
        /// Bytes in a piece.
        piece: usize,
        /// Time between pieces.
        pause: Duration,
    },
    /// 200 and a page for people, as from a captive portal.
    Html,
    /// The right answer, cut off in the middle: the rest that was announced never
    /// comes.
    Truncated,
    /// 200 and nothing.
    Empty,
    /// 200 and `[]`: published empty.
    EmptyArray,
    /// 200 and this many bytes of JSON that never ends.
    Huge {
        /// How many.
        bytes: usize,
    },
    /// 302 to another place.
    Redirect {
        /// Where to.
        location: String,
    },
}

/// The certificate that the service shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// The right one.
    Valid,
    /// One of 2020.
    Expired,
    /// One for another host.
    WrongName,
}
