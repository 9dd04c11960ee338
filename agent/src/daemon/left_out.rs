//! What Microsoft publishes an address as, where the chosen sources leave it out.
//!
//! The most frequent question about a refused address is whether it should have
//! passed. The feeds hold all endpoint sets that have prefixes, also those that
//! no source takes, so the answer is at hand, offline too.

use std::{cmp::Reverse, net::IpAddr};

use crate::{
    admin::api::LeftOut,
    allowlist::{self, AllowList},
    config::{Config, UNDECLARED, undeclared},
    source::{
        Entry, Origin,
        feed::{Content, FeedId},
        graph,
        microsoft365::{EndpointSet, Instance},
    },
};

/// Most hosts that are named.
const HOSTS: usize = 5;

/// The published prefixes that contain an address which the list does not; the
/// longest first.
pub(super) fn left_out(list: &AllowList, config: &Config, address: IpAddr) -> Vec<LeftOut> {
    let mut found = Vec::new();
    for feed in list.feeds() {
        if let FeedId::Instance(instance) = feed.id {
            found.extend(within(instance, &feed.content, config, address));
        }
    }
    // Where nothing of Microsoft's is followed, what is built in may explain it.
    if !list.feeds().iter().any(|feed| matches!(feed.id, FeedId::Instance(_))) {
        let held = allowlist::embedded(&FeedId::Instance(Instance::Worldwide));
        found.extend(within(Instance::Worldwide, &held.content, config, address));
    }
    found.sort_by_key(|found| Reverse(found.prefix.prefix_len()));
    found
}

fn within(instance: Instance, content: &Content, config: &Config, address: IpAddr) -> Vec<LeftOut> {
    let of_sets = content.sets().iter().filter_map(|set| {
        let prefix = *set.ips.iter().find(|prefix| prefix.contains(&address))?;
        let shown =
            EndpointSet { urls: set.urls.iter().take(HOSTS).cloned().collect(), ..set.clone() };
        Some(LeftOut {
            instance: instance.to_string(),
            prefix,
            set: Some(set.id),
            service_area: Some(set.service_area.clone()),
            origin: Origin::of(&shown).to_string(),
            urls: shown.urls,
            suggestion: suggestion(instance, set, config),
        })
    });
    let of_graph = graph::addresses(instance).into_iter().filter_map(|Entry { prefix, origin }| {
        prefix.contains(&address).then(|| LeftOut {
            instance: instance.to_string(),
            prefix,
            set: None,
            service_area: None,
            urls: Vec::new(),
            origin: origin.to_string(),
            suggestion: ready_made(instance, "graph-notifications", config),
        })
    });
    of_sets.chain(of_graph).collect()
}

/// What would take an endpoint set.
fn suggestion(instance: Instance, set: &EndpointSet, config: &Config) -> String {
    let one = std::slice::from_ref(set);
    let fitting = UNDECLARED
        .into_iter()
        // The strict one takes no more than the other.
        .filter(|name| *name != "exchange-online-strict")
        .find(|name| {
            undeclared(name)
                .map(|definition| definition.of(instance))
                .is_some_and(|definition| !definition.select(one).is_empty())
        });
    match fitting {
        Some(name) => ready_made(instance, name, config),
        None => {
            let host = set.urls.first();
            let criterion = host.map_or_else(
                || format!("service_areas = [{:?}]", set.service_area),
                |host| format!("url_hosts = [{host:?}]"),
            );
            format!(
                "declare a source with kind = \"microsoft365\", instance = \"{instance}\", \
                 {criterion}, and add it to the guard"
            )
        }
    }
}

fn ready_made(instance: Instance, name: &str, config: &Config) -> String {
    let declared = config.sources.iter().find(|source| source.name == name);
    match declared.and_then(|source| source.definition.instance()) {
        // It is there, but another guard's, or the address is newer than it.
        Some(of) if of == instance => format!("add \"{name}\" to the guard"),
        None if instance == Instance::Worldwide => format!("add \"{name}\" to the guard"),
        _ => format!(
            "declare a source with kind = \"{name}\", instance = \"{instance}\", and add it to \
             the guard"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{allowlist::Known, daemon::explain};

    fn check(sources: &str, address: &str) -> Vec<LeftOut> {
        let text = format!(
            "[[guard]]\nport = 443\nsources = [{sources}]\n[source.x]\nkind = \
                            \"static\"\nprefixes = [\"10.0.0.0/8\"]"
        );
        let config = Config::parse("test".as_ref(), &text).unwrap();
        let held = config.feeds().into_iter().map(|id| {
            let held = allowlist::embedded(&id);
            (id, held)
        });
        let known = Known { held: held.collect(), ..Known::default() };
        let list = Arc::new(AllowList::build(&config.sources, &known));
        explain(&list, &config, address.parse().unwrap()).left_out
    }

    #[test]
    fn an_address_of_a_set_that_no_source_takes_is_explained_with_what_to_add() {
        // In set 56, the one with the Graph host.
        let found = check("\"exchange-online\"", "20.190.128.1");
        let common = found.iter().find(|found| found.set == Some(56)).unwrap();
        assert_eq!(common.service_area.as_deref(), Some("Common"));
        assert_eq!(common.suggestion, "add \"graph-notifications\" to the guard");
        assert!(common.origin.starts_with("endpoint set 56 (Common"), "{}", common.origin);

        let single = check("\"exchange-online\"", "20.9.37.73");
        assert_eq!(single[0].set, None);
        assert_eq!(single[0].suggestion, "add \"graph-notifications\" to the guard");
        // Teams is nothing that is ready-made.
        let teams = check("\"exchange-online\"", "52.112.0.1");
        assert!(teams[0].suggestion.contains("kind = \"microsoft365\""), "{teams:?}");
    }

    #[test]
    fn what_is_built_in_explains_where_nothing_is_followed() {
        let found = check("\"x\"", "40.96.1.1");
        assert_eq!(found[0].suggestion, "add \"exchange-online\" to the guard");
    }

    #[test]
    fn what_passes_or_is_not_published_needs_no_explanation() {
        assert_eq!(check("\"exchange-online\"", "40.96.1.1"), []);
        assert_eq!(check("\"exchange-online\"", "192.0.2.1"), []);
    }
}
