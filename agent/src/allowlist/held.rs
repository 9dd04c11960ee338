//! What is held of one instance of the web service.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::source::{
    Entry,
    microsoft365::{self, EndpointSet, Instance, Version},
};

/// Endpoint sets in force, and what is about to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The version of the sets, unknown for the built-in ones.
    pub version: Option<Version>,
    /// Where they were taken from.
    pub provenance: Provenance,
    /// The sets that have prefixes.
    pub sets: Vec<EndpointSet>,
    /// What they no longer contain, but stays for a while.
    pub pending: Vec<Pending>,
}

impl Held {
    /// Whether the state directory would hold the same of both.
    pub(super) fn is_same_state(&self, other: &Self) -> bool {
        self.version == other.version && self.sets == other.sets && self.pending == other.pending
    }
}

/// Where the sets in force were taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Provenance {
    /// The web service, in this run.
    Live {
        /// When they were applied.
        applied: Timestamp,
    },
    /// The state directory.
    LastKnownGood {
        /// When they were applied.
        applied: Timestamp,
    },
    /// The program.
    Embedded {
        /// When they were captured, as YYYY-MM-DD.
        captured: &'static str,
    },
    /// There are none.
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

    /// When the sets were applied, or captured.
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

/// What the program itself knows of an instance.
#[must_use]
pub fn embedded(instance: Instance) -> Held {
    let (provenance, sets) = match microsoft365::snapshot(instance) {
        Some(snapshot) => {
            (Provenance::Embedded { captured: &snapshot.captured }, snapshot.sets.clone())
        }
        None => (Provenance::Nothing, Vec::new()),
    };
    Held { version: None, provenance, sets, pending: Vec::new() }
}

/// The start of a day, YYYY-MM-DD, in UTC.
pub(super) fn midnight(day: &str) -> Option<Timestamp> {
    format!("{day}T00:00:00Z").parse().ok()
}
