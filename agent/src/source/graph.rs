//! The senders of Microsoft Graph change notifications.
//!
//! None of them lies in an Exchange prefix. Microsoft documents them as ranges
//! and single addresses. The ranges are exactly the prefixes of the endpoint set
//! that lists the Graph host, so they follow the web service. The single
//! addresses are in no endpoint set and only stand on a documentation page, which
//! has lagged behind reality before: they are embedded with their date, and
//! operators can add to them with a static source.

use std::sync::OnceLock;

use ipnet::IpNet;
use serde::Deserialize;

use super::{
    Entry, Origin,
    microsoft365::{HostPattern, Instance, Selection},
};

/// The state of the documentation page that is built in.
#[derive(Debug, Default, Deserialize)]
struct Addresses {
    published: String,
    worldwide: Vec<std::net::IpAddr>,
    usgov: Vec<std::net::IpAddr>,
    china: Vec<std::net::IpAddr>,
}

fn embedded() -> &'static Addresses {
    static EMBEDDED: OnceLock<Addresses> = OnceLock::new();
    EMBEDDED.get_or_init(|| {
        // A test reads this constant, so that it cannot be damaged in a release.
        serde_json::from_str(include_str!("../../../deploy/data/graph-addresses.json"))
            .unwrap_or_default()
    })
}

/// When the built-in addresses were published, as YYYY-MM-DD.
#[must_use]
pub fn published() -> &'static str {
    &embedded().published
}

/// The published single addresses of one cloud.
#[must_use]
pub fn addresses(instance: Instance) -> Vec<Entry> {
    let all = embedded();
    let list = match instance {
        Instance::Worldwide => &all.worldwide,
        Instance::UsGovDod | Instance::UsGovGccHigh => &all.usgov,
        Instance::China => &all.china,
    };
    let origin = Origin::GraphAddresses { published: all.published.clone() };
    list.iter()
        .map(|address| Entry { prefix: IpNet::from(*address), origin: origin.clone() })
        .collect()
}

/// The endpoint sets that list the Graph host of one cloud.
#[must_use]
pub fn selection(instance: Instance) -> Selection {
    Selection {
        tcp_port: Some(443),
        url_hosts: vec![HostPattern::exact(host(instance))],
        ..Selection::default()
    }
}

fn host(instance: Instance) -> &'static str {
    match instance {
        Instance::Worldwide => "graph.microsoft.com",
        Instance::UsGovDod => "dod-graph.microsoft.us",
        Instance::UsGovGccHigh => "graph.microsoft.us",
        Instance::China => "microsoftgraph.chinacloudapi.cn",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_addresses_are_the_published_ones() {
        assert_eq!(published(), "2025-01-08");
        for (instance, count) in [
            (Instance::Worldwide, 90),
            (Instance::UsGovDod, 16),
            (Instance::UsGovGccHigh, 16),
            (Instance::China, 8),
        ] {
            assert_eq!(addresses(instance).len(), count, "{instance}");
        }
    }
}
