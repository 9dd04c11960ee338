//! Why a poll led to nothing, and what follows from it.

use std::time::Duration;

use crate::{
    allowlist::Refusal,
    source::feed::{Error, Revision},
};

/// Why a poll led to nothing.
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// There was an answer, and it was refused.
    pub(super) refused: bool,
    /// It was an answer of the service: asking again soon brings the same.
    pub(super) published: bool,
    pub(super) can_be_accepted: bool,
    pub(super) throttled: Option<Duration>,
    /// The revision of a refused answer, where it is known.
    pub(super) revision: Option<Revision>,
}

impl Failure {
    pub(super) fn new(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            refused: false,
            published: false,
            can_be_accepted: false,
            throttled: None,
            revision: None,
        }
    }

    pub(super) fn of(error: &Error) -> Self {
        Self {
            refused: error.is_refusal(),
            throttled: error.throttled(),
            ..Self::new(error.name(), error.to_string())
        }
    }

    pub(super) fn refused(refusal: &Refusal, revision: Option<Revision>) -> Self {
        Self {
            refused: true,
            published: true,
            can_be_accepted: refusal.can_be_accepted(),
            revision,
            ..Self::new(refusal.name(), refusal.to_string())
        }
    }
}
