//! Why a poll led to nothing, and what follows from it.

use std::time::Duration;

use crate::{
    allowlist::Refusal,
    source::{fetch, microsoft365},
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
        }
    }

    pub(super) fn of(error: &microsoft365::Error) -> Self {
        let failure = Self::new(error.name(), error.to_string());
        match error {
            microsoft365::Error::Malformed { .. }
            | microsoft365::Error::Fetch(fetch::Error::TooLarge { .. }) => {
                Self { refused: true, ..failure }
            }
            microsoft365::Error::Fetch(error) => Self { throttled: error.throttled(), ..failure },
            microsoft365::Error::Moving | microsoft365::Error::Url(_) => failure,
        }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self {
            refused: true,
            published: true,
            can_be_accepted: refusal.can_be_accepted(),
            ..Self::new(refusal.name(), refusal.to_string())
        }
    }
}
