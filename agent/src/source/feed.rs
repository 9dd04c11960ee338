//! What the feeds of the allow-list have in common.
//!
//! An instance of the Microsoft web service feeds several sources with its
//! endpoint sets; a list behind a URL, a file, DNS names and service tags each
//! feed the one source that they belong to. Both have a revision, which says
//! whether there is anything new, and a content, which sources select from.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Entry, dns, fetch,
    microsoft365::{self, EndpointSet, Instance, Malformed, Version},
};

/// Names a feed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedId {
    /// An instance of the Microsoft web service.
    Instance(Instance),
    /// The feed of one source, by its name.
    Source(String),
}

impl fmt::Display for FeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(instance) => instance.fmt(f),
            Self::Source(name) => f.write_str(name),
        }
    }
}

/// Which content of a feed it is: a published version, or a text that changes
/// with it, such as an entity tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revision {
    /// A version of the Microsoft web service.
    Version(Version),
    /// Anything else.
    Tag(String),
}

impl Revision {
    /// The version, if it is one.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        match self {
            Self::Version(version) => Some(*version),
            Self::Tag(_) => None,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Tag(text) => f.write_str(text),
        }
    }
}

/// What a feed says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Endpoint sets that have prefixes.
    Sets(Vec<EndpointSet>),
    /// Prefixes.
    Entries(Vec<Entry>),
}

impl Content {
    /// Endpoint sets; none if it is a list of prefixes.
    #[must_use]
    pub fn sets(&self) -> &[EndpointSet] {
        match self {
            Self::Sets(sets) => sets,
            Self::Entries(_) => &[],
        }
    }

    /// Prefixes; none if it is endpoint sets.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match self {
            Self::Sets(_) => &[],
            Self::Entries(entries) => entries,
        }
    }

    /// Endpoint sets without those that have no prefixes.
    #[must_use]
    pub fn of_sets(mut sets: Vec<EndpointSet>) -> Self {
        sets.retain(|set| !set.ips.is_empty());
        Self::Sets(sets)
    }

    /// Prefixes, sorted, each once.
    #[must_use]
    pub fn of_entries(mut entries: Vec<Entry>) -> Self {
        super::sort(&mut entries);
        Self::Entries(entries)
    }
}

/// What a poll of a feed brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collected {
    /// What is in force is still the latest.
    Unchanged {
        /// Its revision.
        revision: Revision,
        /// When to ask again, where the answer says.
        valid_for: Option<Duration>,
    },
    /// There is something else.
    New {
        /// Its revision.
        revision: Revision,
        /// What it says.
        content: Content,
        /// When to ask again, where the answer says.
        valid_for: Option<Duration>,
    },
}

impl From<microsoft365::Collected> for Collected {
    fn from(collected: microsoft365::Collected) -> Self {
        match collected {
            microsoft365::Collected::Unchanged(version) => {
                Self::Unchanged { revision: Revision::Version(version), valid_for: None }
            }
            microsoft365::Collected::New(answer) => Self::New {
                revision: Revision::Version(answer.version),
                content: Content::of_sets(answer.sets.into_sets()),
                valid_for: None,
            },
        }
    }
}

/// Why a poll of a feed brought nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The Microsoft web service gave no usable answer.
    #[error(transparent)]
    Microsoft365(#[from] microsoft365::Error),
    /// There was no answer.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The answer, or the file, cannot be used.
    #[error("{of}: {problem}")]
    Malformed {
        /// What was read.
        of: String,
        /// What is wrong with it.
        problem: Malformed,
    },
    /// A file cannot be read.
    #[error("reading {path} failed: {problem}")]
    File {
        /// The file.
        path: String,
        /// The answer of the system.
        problem: String,
    },
    /// Names cannot be resolved.
    #[error(transparent)]
    Dns(#[from] dns::Error),
}

impl Error {
    /// The reason as a metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Microsoft365(error) => error.name(),
            Self::Fetch(error) => error.name(),
            Self::Malformed { problem, .. } => problem.name(),
            Self::File { .. } => "file",
            Self::Dns(error) => error.name(),
        }
    }

    /// Whether there was an answer, which cannot be used.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Malformed { .. }
                | Self::Fetch(fetch::Error::TooLarge { .. })
                | Self::Microsoft365(
                    microsoft365::Error::Malformed { .. }
                        | microsoft365::Error::Fetch(fetch::Error::TooLarge { .. })
                )
        )
    }

    /// How long the server asked to be left alone, if it throttles.
    #[must_use]
    pub fn throttled(&self) -> Option<Duration> {
        match self {
            Self::Fetch(error) | Self::Microsoft365(microsoft365::Error::Fetch(error)) => {
                error.throttled()
            }
            _ => None,
        }
    }
}
