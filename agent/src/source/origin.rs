//! Where a prefix comes from, for whoever asks why an address is allowed.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::microsoft365::EndpointSet;

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
    /// A file.
    File {
        /// Its path.
        path: Arc<str>,
    },
    /// A list that was fetched.
    Url {
        /// From where, without what may be a secret.
        url: Arc<str>,
    },
    /// An address of a DNS name.
    Dns {
        /// The name.
        name: Arc<str>,
    },
    /// An Azure service tag.
    ServiceTag {
        /// Its name.
        tag: Arc<str>,
        /// The number of the publication.
        publication: u64,
    },
    /// An operator, for a while.
    Temporary {
        /// Why.
        reason: String,
        /// Until when.
        until: Timestamp,
    },
}

impl Origin {
    pub(crate) fn of(set: &EndpointSet) -> Self {
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
            Self::File { path } => write!(f, "file {path}"),
            Self::Url { url } => write!(f, "list at {url}"),
            Self::Dns { name } => write!(f, "DNS name {name}"),
            Self::ServiceTag { tag, publication } => {
                write!(f, "service tag {tag} of publication {publication}")
            }
            Self::Temporary { reason, until } => {
                write!(f, "allowed by hand until {until}: {reason}")
            }
        }
    }
}
