//! What can be asked about the allow-list, and watched.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;

use super::{AllowList, Pending, Provenance};
use crate::source::microsoft365::{Instance, Version};

/// The list in force and how its feeds fare.
#[derive(Clone, Debug)]
pub struct Status {
    /// The list in force.
    pub list: Arc<AllowList>,
    /// The instances of the web service in use.
    pub feeds: BTreeMap<Instance, FeedStatus>,
    /// Why the last list could not be put in force, or not be remembered.
    pub problem: Option<Problem>,
}

/// How an instance of the web service fares.
#[derive(Clone, Debug, Serialize)]
pub struct FeedStatus {
    /// The instance.
    pub instance: Instance,
    /// Where the list in force was taken from.
    pub provenance: Provenance,
    /// Its version, where known.
    pub version: Option<Version>,
    /// The last answer that was usable.
    pub last_success: Option<Timestamp>,
    /// The last poll.
    pub last_attempt: Option<Timestamp>,
    /// The next poll; none while one is under way.
    pub next_attempt: Option<Timestamp>,
    /// What is wrong, until an answer is usable.
    pub problem: Option<Problem>,
    /// Prefixes that are no longer published and will go.
    pub pending_removals: Vec<Pending>,
}

/// Something that went wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// When.
    pub at: Timestamp,
    /// The reason, as in metrics.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// Whether this was a refusal that an operator can accept.
    pub can_be_accepted: bool,
}

impl Problem {
    pub(super) fn new(at: Timestamp, reason: &'static str, message: &impl ToString) -> Self {
        Self { at, reason, message: message.to_string(), can_be_accepted: false }
    }
}
