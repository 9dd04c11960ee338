//! What can be asked about the allow-list, and watched.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use super::{AllowList, Change, Pending, Provenance, Temporary};
use crate::{
    config::Mode,
    source::feed::{FeedId, Revision},
};

/// The list in force and how its feeds fare.
#[derive(Clone, Debug)]
pub struct Status {
    /// The list in force.
    pub list: Arc<AllowList>,
    /// The feeds in use.
    pub feeds: BTreeMap<FeedId, FeedStatus>,
    /// What feeds offered and was not put in force.
    pub offers: BTreeMap<FeedId, Offer>,
    /// What operators let pass for a while.
    pub temporary: Vec<Temporary>,
    /// An operator has stopped all updates.
    pub hold: bool,
    /// What happens to refused packets.
    pub mode: Mode,
    /// What the configuration says about it.
    pub configured_mode: Mode,
    /// When the mode before comes back, unless this one is confirmed.
    pub confirm_by: Option<Timestamp>,
    /// Why the last list could not be put in force, or not be remembered.
    pub problem: Option<Problem>,
}

impl Status {
    /// The mode that an operator ordered, if it is another than the configured one.
    #[must_use]
    pub fn mode_order(&self) -> Option<Mode> {
        (self.mode != self.configured_mode).then_some(self.mode)
    }
}

/// How a feed fares.
#[derive(Clone, Debug, Serialize)]
pub struct FeedStatus {
    /// The feed.
    pub id: FeedId,
    /// Where the content in force was taken from.
    pub provenance: Provenance,
    /// Its revision, where known.
    pub revision: Option<Revision>,
    /// The time between polls while they succeed.
    pub interval: Duration,
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

/// What a feed says and is not in force, because it was refused, is held back by
/// an operator, or was only asked for to be seen.
#[derive(Clone, Debug)]
pub struct Offer {
    /// When it was seen.
    pub at: Timestamp,
    /// Its revision.
    pub revision: Revision,
    /// Prefixes that would come.
    pub added: Vec<Change>,
    /// Prefixes that would go, after the grace period.
    pub removed: Vec<Change>,
    /// Why it was refused, if it was.
    pub problem: Option<Problem>,
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
