//! Where prefixes come from.
//!
//! A [`Definition`] says what a named source consists of; [`Definition::select`]
//! turns it into [`Entry`]s. Every entry knows its [`Origin`], because the first
//! question about a verdict is "why is this address allowed?".
//!
//! This module knows nothing of BPF, of configuration files or of the state on
//! disk. It reads what others publish, and everything it reads is bounded and
//! parsed into types; it judges nothing. Whether an answer may replace the list
//! in force is for `allowlist` to say.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::microsoft365::{EndpointSet, Instance, Selection};

pub mod fetch;
pub mod graph;
pub mod microsoft365;

/// What a named source consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    /// Endpoint sets of the Microsoft 365 web service.
    Microsoft365 {
        /// The cloud.
        instance: Instance,
        /// The sets.
        selection: Selection,
    },
    /// The senders of Graph change notifications: the endpoint sets that list
    /// the Graph host, and the single addresses that Microsoft publishes apart.
    Graph {
        /// The cloud.
        instance: Instance,
    },
    /// Fixed prefixes, such as the NAT gateways of a Pega Cloud environment.
    Static {
        /// The prefixes, without host bits.
        prefixes: Vec<IpNet>,
    },
}

impl Definition {
    /// The instance of the web service that this source follows.
    #[must_use]
    pub fn instance(&self) -> Option<Instance> {
        match self {
            Self::Microsoft365 { instance, .. } | Self::Graph { instance } => Some(*instance),
            Self::Static { .. } => None,
        }
    }

    /// What this source takes out of an answer of the web service.
    #[must_use]
    pub fn select(&self, sets: &[EndpointSet]) -> Vec<Entry> {
        let graph;
        let selection = match self {
            Self::Microsoft365 { selection, .. } => selection,
            Self::Graph { instance } => {
                graph = graph::selection(*instance);
                &graph
            }
            Self::Static { .. } => return Vec::new(),
        };
        let mut entries: Vec<_> = sets
            .iter()
            .filter(|set| selection.matches(set))
            .flat_map(|set| {
                let origin = Origin::of(set);
                set.ips.iter().map(move |prefix| Entry { prefix: *prefix, origin: origin.clone() })
            })
            .collect();
        sort(&mut entries);
        entries
    }

    /// What this source holds whatever the web service answers.
    #[must_use]
    pub fn fixed(&self) -> Vec<Entry> {
        let mut entries = match self {
            Self::Microsoft365 { .. } => Vec::new(),
            Self::Graph { instance } => graph::addresses(*instance),
            Self::Static { prefixes } => prefixes
                .iter()
                .map(|prefix| Entry { prefix: *prefix, origin: Origin::Static })
                .collect(),
        };
        sort(&mut entries);
        entries
    }
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Microsoft365 { instance, selection } => write!(f, "{instance}: {selection}"),
            Self::Graph { instance } => {
                write!(f, "{instance}: {} and published addresses", graph::selection(*instance))
            }
            Self::Static { prefixes } => write!(f, "{} fixed prefixes", prefixes.len()),
        }
    }
}

/// A prefix and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The prefix, without host bits.
    pub prefix: IpNet,
    /// Who says so.
    pub origin: Origin,
}

/// Sorts entries by prefix and drops those whose prefix comes twice: the first
/// origin stays.
pub fn sort(entries: &mut Vec<Entry>) {
    entries.sort_by_key(|entry| entry.prefix);
    entries.dedup_by_key(|entry| entry.prefix);
}

/// Who says that a prefix belongs to a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// An endpoint set of the Microsoft 365 web service.
    EndpointSet {
        /// Its number, which means something within one instance only.
        id: u32,
        /// Its service area.
        service_area: String,
        /// The hosts that it lists; shared, because every prefix of a set has them.
        urls: Arc<[String]>,
    },
    /// The published addresses of Graph change notifications.
    GraphAddresses {
        /// When Microsoft published them, as YYYY-MM-DD.
        published: String,
    },
    /// The configuration.
    Static,
}

impl Origin {
    fn of(set: &EndpointSet) -> Self {
        Self::EndpointSet {
            id: set.id,
            service_area: set.service_area.clone(),
            urls: set.urls.as_slice().into(),
        }
    }

    /// The same with few hosts, for where it is written once per prefix.
    pub(crate) fn brief(self) -> Self {
        match self {
            Self::EndpointSet { id, service_area, urls } => {
                Self::EndpointSet { id, service_area, urls: urls.iter().take(3).cloned().collect() }
            }
            other => other,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndpointSet { id, service_area, urls } if urls.is_empty() => {
                write!(f, "endpoint set {id} ({service_area})")
            }
            Self::EndpointSet { id, service_area, urls } => {
                write!(f, "endpoint set {id} ({service_area}: {})", urls.join(", "))
            }
            Self::GraphAddresses { published } => {
                write!(f, "published Graph notification addresses of {published}")
            }
            Self::Static => f.write_str("configuration"),
        }
    }
}

/// Reads a prefix, or a single address as the prefix that holds only it. Host
/// bits are an error, because they are most often a slip.
///
/// # Errors
///
/// A sentence that says what is wrong with the text.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let prefix: IpNet = text.parse().map_err(|_| {
        format!("{text:?} is not a prefix such as 198.51.100.0/24 or 2001:db8::/32, nor an address")
    })?;
    if prefix.trunc() == prefix {
        Ok(prefix)
    } else {
        Err(format!("{text} has bits set behind its length; did you mean {}?", prefix.trunc()))
    }
}
