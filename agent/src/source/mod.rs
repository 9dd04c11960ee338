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

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(crate) use self::url::{concealed, shown};
use self::{
    feed::{Content, FeedId},
    microsoft365::{EndpointSet, Instance, Selection},
    read::Parse,
};
pub use self::{origin::Origin, url::Url};

pub mod dns;
pub mod feed;
pub mod fetch;
pub mod graph;
pub mod list;
pub mod microsoft365;
mod origin;
pub mod read;
pub mod service_tags;
mod url;

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
    /// A plain list in a file, which is watched.
    File {
        /// The file.
        path: PathBuf,
        /// Whether addresses of private networks are taken.
        allow_private: bool,
    },
    /// A plain list, or the export of another agent, over HTTPS.
    Url {
        /// Where it is.
        url: Url,
        /// PEM file with the only certificates to trust for it.
        ca_file: Option<PathBuf>,
        /// The sources of an export; all if empty.
        sources: Vec<String>,
        /// Time between polls, if not that of the web service.
        interval: Option<Duration>,
    },
    /// The addresses of DNS names.
    Dns {
        /// The names.
        names: Vec<String>,
        /// Servers to ask instead of those of the system.
        servers: Vec<SocketAddr>,
    },
    /// Azure service tags.
    ServiceTags {
        /// Their names.
        tags: Vec<String>,
        /// Where the file is.
        location: Location,
        /// PEM file with the only certificates to trust for it.
        ca_file: Option<PathBuf>,
        /// Time between polls, if not that of the web service.
        interval: Option<Duration>,
    },
}

/// Where a list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file.
    File(PathBuf),
    /// Behind a URL.
    Url(Url),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

/// How the list of a source is had.
struct List<'a> {
    location: Location,
    ca_file: Option<&'a PathBuf>,
    parse: Parse<'a>,
}

/// How often a file is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(2);

impl Definition {
    /// The instance of the web service that this source follows.
    #[must_use]
    pub fn instance(&self) -> Option<Instance> {
        match self {
            Self::Microsoft365 { instance, .. } | Self::Graph { instance } => Some(*instance),
            _ => None,
        }
    }

    /// The same of another cloud, for what follows the web service.
    #[must_use]
    pub fn of(self, instance: Instance) -> Self {
        match self {
            Self::Microsoft365 { selection, .. } => Self::Microsoft365 { instance, selection },
            Self::Graph { .. } => Self::Graph { instance },
            other => other,
        }
    }

    /// The feed behind the source of this name and definition.
    #[must_use]
    pub fn feed(&self, name: &str) -> Option<FeedId> {
        match self {
            Self::Microsoft365 { instance, .. } | Self::Graph { instance } => {
                Some(FeedId::Instance(*instance))
            }
            Self::Static { .. } => None,
            _ => Some(FeedId::Source(name.to_owned())),
        }
    }

    /// What decides about the content, as text. Neither how it is had, such as the credentials,
    /// the certificates to trust and the servers of names, nor how often: whoever changes
    /// only these expects the same list.
    #[must_use]
    pub fn selects(&self) -> String {
        let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        let selects = match self {
            Self::Microsoft365 { instance, selection } => {
                json!(["microsoft365", instance, format!("{selection:?}")])
            }
            Self::Graph { instance } => json!(["graph-notifications", instance]),
            Self::Static { prefixes } => json!(["static", prefixes]),
            Self::File { path, .. } => json!(["file", path.display().to_string()]),
            Self::Url { url, sources, .. } => json!(["url", url.place(), sorted(sources)]),
            Self::Dns { names, .. } => json!(["dns", sorted(names)]),
            Self::ServiceTags { tags, location: Location::File(path), .. } => {
                json!(["service-tags", "file", path.display().to_string(), sorted(tags)])
            }
            Self::ServiceTags { tags, location: Location::Url(url), .. } => {
                json!(["service-tags", "url", url.place(), sorted(tags)])
            }
        };
        selects.to_string()
    }

    /// The time between polls, where the source has its own.
    #[must_use]
    pub const fn interval(&self) -> Option<Duration> {
        match self {
            _ if self.is_read_from_file() => Some(FILE_INTERVAL),
            Self::Url { interval, .. } | Self::ServiceTags { interval, .. } => *interval,
            _ => None,
        }
    }

    /// Whether the feed is a file of this host.
    #[must_use]
    pub const fn is_read_from_file(&self) -> bool {
        matches!(self, Self::File { .. } | Self::ServiceTags { location: Location::File(_), .. })
    }

    /// Whether the operator of this host says what the source holds.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::Static { .. } | Self::File { .. })
    }

    /// Whether addresses of private networks are taken.
    #[must_use]
    pub const fn allows_private(&self) -> bool {
        matches!(self, Self::Static { .. } | Self::File { allow_private: true, .. })
    }

    fn list(&self) -> Option<List<'_>> {
        match self {
            Self::File { path, .. } => Some(List {
                location: Location::File(path.clone()),
                ca_file: None,
                parse: Parse::List(&[]),
            }),
            Self::Url { url, ca_file, sources, .. } => Some(List {
                location: Location::Url(url.clone()),
                ca_file: ca_file.as_ref(),
                parse: Parse::List(sources),
            }),
            Self::ServiceTags { tags, location, ca_file, .. } => Some(List {
                location: location.clone(),
                ca_file: ca_file.as_ref(),
                parse: Parse::ServiceTags(tags),
            }),
            _ => None,
        }
    }

    /// What this source takes out of what its feed says.
    #[must_use]
    pub fn take(&self, content: &Content) -> Vec<Entry> {
        match content {
            Content::Sets(sets) => self.select(sets),
            Content::Entries(entries) => entries.clone(),
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
            _ => return Vec::new(),
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
            Self::Graph { instance } => graph::addresses(*instance),
            Self::Static { prefixes } => prefixes
                .iter()
                .map(|prefix| Entry { prefix: *prefix, origin: Origin::Static })
                .collect(),
            _ => Vec::new(),
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
            Self::File { path, .. } => write!(f, "the list in {}", path.display()),
            Self::Url { url, sources, .. } if sources.is_empty() => write!(f, "the list at {url}"),
            Self::Url { url, sources, .. } => {
                write!(f, "{} of the export at {url}", sources.join(", "))
            }
            Self::Dns { names, .. } => write!(f, "the addresses of {}", names.join(", ")),
            Self::ServiceTags { tags, location, .. } => {
                write!(f, "the service tags {} of {location}", tags.join(", "))
            }
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

/// Reads a prefix, or a single address as the prefix that holds only it. Host
/// bits are an error, because they are most often a slip, and so is an IPv4 address
/// in IPv6 form, because no packet has it.
///
/// # Errors
///
/// A sentence that says what is wrong with the text.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let prefix = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| {
            format!(
                "{text:?} is not a prefix such as 198.51.100.0/24 or 2001:db8::/32, nor an address"
            )
        })?,
    };
    if prefix.trunc() != prefix {
        return Err(format!(
            "{text} has bits set behind its length; did you mean {}?",
            prefix.trunc()
        ));
    }
    match prefix.addr().to_canonical() {
        v4 @ IpAddr::V4(_) if prefix.addr().is_ipv6() => {
            let length = prefix.prefix_len().saturating_sub(96);
            Err(format!(
                "{text} is an IPv4 address in IPv6 form, which no packet has; did you mean \
                 {v4}/{length}?"
            ))
        }
        _ => Ok(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_or_its_slip_is_named() {
        for (text, expected) in [
            ("198.51.100.7", "198.51.100.7/32"),
            (" 198.51.100.0/24 ", "198.51.100.0/24"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse_prefix(text).unwrap().to_string(), expected);
        }
        for (text, says) in [
            ("198.51.100.7/24", "did you mean 198.51.100.0/24?"),
            ("::ffff:198.51.100.7", "did you mean 198.51.100.7/32?"),
            ("::ffff:198.51.100.0/120", "did you mean 198.51.100.0/24?"),
            ("198.51.100.0/33", "is not a prefix"),
            ("probe.example.com", "is not a prefix"),
        ] {
            let error = parse_prefix(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
