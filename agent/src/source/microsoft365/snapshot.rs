//! The endpoint sets that are built in, for a first start without network.

use std::sync::OnceLock;

use serde::Deserialize;

use super::{EndpointSet, Instance};

/// A captured answer of the service.
#[derive(Debug, Deserialize)]
pub struct Snapshot {
    /// Its cloud.
    pub instance: Instance,
    /// When it was captured, as YYYY-MM-DD. Its version is unknown: answers do
    /// not carry one.
    pub captured: String,
    /// The sets that have prefixes.
    pub sets: Vec<EndpointSet>,
}

/// The snapshot of an instance, if there is one. Worldwide only: no capture of
/// the other clouds is recent enough to be trusted with a decision.
#[must_use]
pub fn snapshot(instance: Instance) -> Option<&'static Snapshot> {
    static EMBEDDED: OnceLock<Option<Snapshot>> = OnceLock::new();
    EMBEDDED
        .get_or_init(|| {
            // A test reads this constant, so that it cannot be damaged in a release.
            serde_json::from_str(include_str!("../../../../deploy/data/endpoints-worldwide.json"))
                .ok()
        })
        .as_ref()
        .filter(|snapshot| snapshot.instance == instance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::microsoft365::parse_endpoints;

    #[test]
    fn the_snapshot_is_the_newest_capture() {
        let snapshot = snapshot(Instance::Worldwide).unwrap();
        assert_eq!(snapshot.captured, "2026-05-29");
        let capture =
            include_bytes!("../../../../tests/data/worldwide/worldwide-captured-2026-05-29.json");
        let mut sets = parse_endpoints(capture).unwrap().into_sets();
        sets.retain(|set| !set.ips.is_empty());
        assert_eq!(snapshot.sets, sets);
    }
}
