//! The Microsoft 365 IP address and URL web service.
//!
//! It publishes *endpoint sets*: hosts, prefixes and ports of a service area. The
//! sets carry no version; `/version` does, and the two have to be paired by the
//! client ([`Client::collect`]). Set numbers mean something within one instance
//! only and come and go, so sets are chosen by what they say ([`Selection`]).
//!
//! The service describes where *clients* connect to. It is not a promise about
//! the senders of notifications, though experience bears it out; hence the
//! gate's monitor mode.
//!
//! Every answer is bounded in bytes, records and prefixes while it is read, and
//! unknown attributes are tolerated, as the service's interface policy asks.

mod answer;
mod client;
mod request_id;
mod select;
mod snapshot;

use std::{fmt, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(crate) use self::answer::{TOO_MANY, excerpt};
pub use self::{
    answer::{
        EndpointSets, MAX_BYTES, MAX_PREFIXES, MAX_RECORDS, Malformed, parse_endpoints,
        parse_version,
    },
    client::{Answer, BASE_URL, Client, Collected, Error},
    request_id::RequestId,
    select::{HostPattern, Ports, Selection},
    snapshot::{Snapshot, snapshot},
};

/// A cloud that the service publishes endpoints for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Instance {
    /// The commercial cloud, and GCC (not High).
    Worldwide,
    /// US government, Department of Defense.
    UsGovDod,
    /// US government, GCC High.
    UsGovGccHigh,
    /// Operated by 21Vianet.
    China,
}

impl Instance {
    /// Every instance.
    pub const ALL: [Self; 4] = [Self::Worldwide, Self::UsGovDod, Self::UsGovGccHigh, Self::China];

    /// The name as the service spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worldwide => "Worldwide",
            Self::UsGovDod => "USGovDoD",
            Self::UsGovGccHigh => "USGovGCCHigh",
            Self::China => "China",
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Instance> for &'static str {
    fn from(instance: Instance) -> Self {
        instance.name()
    }
}

impl FromStr for Instance {
    type Err = String;

    /// In any case: Microsoft's own examples differ.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|instance| instance.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("{text:?} is not an instance of the web service; there are {names}")
            })
    }
}

impl TryFrom<String> for Instance {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A published version, YYYYMMDDNN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(u64);

impl Version {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().map(Self).map_err(|_| format!("{text:?} is not a number"))
        } else {
            let shown: String = text.chars().take(20).collect();
            Err(format!("{shown:?} is not a version of ten digits"))
        }
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Hosts, prefixes and ports that Microsoft publishes together. The names are
/// those of the service's JSON, and are kept on disk in the same form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSet {
    /// A number that is unique within one instance.
    pub id: u32,
    /// Such as `Exchange` or `Common`; new values may appear.
    pub service_area: String,
    /// Hosts and host patterns.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Prefixes, as published.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpNet>,
    /// TCP ports; none if absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Ports::is_empty")]
    pub tcp_ports: Ports,
    /// UDP ports; none if absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Ports::is_empty")]
    pub udp_ports: Ports,
}

/// `null` counts as absent.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
