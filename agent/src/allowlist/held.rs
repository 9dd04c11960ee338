//! What is held of the feeds, and what else is remembered.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ModeOrder, Temporary};
use crate::{
    boot::BootTime,
    config::{Config, Source},
    source::{
        Entry,
        feed::{Content, FeedId, Revision},
        microsoft365,
        read::fingerprint,
    },
};

/// What is known beside the configuration, and survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What is held of the feeds, also of instances that are not in use.
    pub held: BTreeMap<FeedId, Held>,
    /// What operators let pass for a while.
    pub temporary: Vec<Temporary>,
    /// An operator has stopped all updates.
    pub hold: bool,
    /// The mode that an operator wants.
    pub mode: Option<ModeOrder>,
}

impl Known {
    /// When enforcing ends unless it is confirmed, in nanoseconds since the boot.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.mode.as_ref()?.deadline.as_ref().map(BootTime::nanoseconds)
    }

    /// Adds what is built in for feeds of which nothing is held, and forgets
    /// feeds of sources that are gone.
    pub(super) fn follow(&mut self, config: &Config) {
        let feeds = config.feeds();
        self.held.retain(|id, _| matches!(id, FeedId::Instance(_)) || feeds.contains(id));
        for id in feeds {
            self.held.entry(id).or_insert_with_key(embedded);
        }
    }

    /// Whether the state directory would hold the same of both.
    pub(super) fn is_same_state(&self, other: &Self) -> bool {
        let known = |held: &BTreeMap<FeedId, Held>, id: &FeedId, other: &Held| {
            held.get(id).is_some_and(|held| held.is_same_state(other))
        };
        self.temporary == other.temporary
            && self.hold == other.hold
            && self.mode == other.mode
            && other.held.iter().all(|(id, held)| known(&self.held, id, held))
    }
}

/// The content of a feed in force, and what is about to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The revision of the content, unknown for what is built in.
    pub revision: Option<Revision>,
    /// Where it was taken from.
    pub provenance: Provenance,
    /// What the feed said.
    pub content: Arc<Content>,
    /// What it no longer contains, but stays for a while.
    pub pending: Vec<Pending>,
    /// Which definition of its source the content was read by; see
    /// [`definition`].
    pub definition: Option<String>,
}

impl Held {
    /// Whether the state directory would hold the same of both.
    fn is_same_state(&self, other: &Self) -> bool {
        self.revision == other.revision
            && self.pending == other.pending
            && self.definition == other.definition
            && (Arc::ptr_eq(&self.content, &other.content) || self.content == other.content)
    }

    /// Whether another definition of its source brought it than the one that is given. What
    /// another version of the program wrote in another form cannot be compared, and counts as
    /// the same: then losses are vetted and have their grace.
    pub(super) fn is_of_another(&self, source: Option<&Source>) -> bool {
        match (&self.definition, source.map(definition)) {
            (Some(before), Some(now)) => before.starts_with(FORM) && *before != now,
            (before, now) => before.is_some() != now.is_some(),
        }
    }

    /// Whether nothing was ever applied.
    pub(super) const fn is_built_in(&self) -> bool {
        matches!(self.provenance, Provenance::Embedded { .. } | Provenance::Nothing)
    }
}

/// The form of what [`definition`] gives.
const FORM: &str = "1-";

/// Names in few characters what a source selects: what another definition brought is replaced
/// by what the new one brings, with no grace period.
pub(super) fn definition(source: &Source) -> String {
    format!("{FORM}{}", fingerprint(source.definition.selects().as_bytes()))
}

/// Where the content in force was taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Provenance {
    /// The feed, in this run.
    Live {
        /// When it was applied.
        applied: Timestamp,
    },
    /// The state directory.
    LastKnownGood {
        /// When it was applied.
        applied: Timestamp,
    },
    /// The program.
    Embedded {
        /// When it was captured, as YYYY-MM-DD.
        captured: &'static str,
    },
    /// There is none.
    Nothing,
}

impl Provenance {
    /// The name, as in metrics and `status`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Live { .. } => "live",
            Self::LastKnownGood { .. } => "last_known_good",
            Self::Embedded { .. } => "embedded",
            Self::Nothing => "nothing",
        }
    }

    /// When the content was applied, or captured.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Live { applied } | Self::LastKnownGood { applied } => Some(*applied),
            Self::Embedded { captured } => midnight(captured),
            Self::Nothing => None,
        }
    }
}

/// A prefix that is no longer published, but stays in force for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The name of the source.
    pub source: String,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// When it was first missing.
    pub since: Timestamp,
    /// Successful polls after the one that missed it.
    pub polls: u32,
}

/// What the program itself knows of a feed.
#[must_use]
pub fn embedded(id: &FeedId) -> Held {
    let snapshot = match id {
        FeedId::Instance(instance) => microsoft365::snapshot(*instance),
        FeedId::Source(_) => None,
    };
    let (provenance, content) = match (snapshot, id) {
        (Some(snapshot), _) => (
            Provenance::Embedded { captured: &snapshot.captured },
            Content::Sets(snapshot.sets.clone()),
        ),
        (None, FeedId::Instance(_)) => (Provenance::Nothing, Content::Sets(Vec::new())),
        (None, FeedId::Source(_)) => (Provenance::Nothing, Content::Entries(Vec::new())),
    };
    Held {
        revision: None,
        provenance,
        content: Arc::new(content),
        pending: Vec::new(),
        definition: None,
    }
}

/// The start of a day, YYYY-MM-DD, in UTC.
pub(super) fn midnight(day: &str) -> Option<Timestamp> {
    format!("{day}T00:00:00Z").parse().ok()
}
