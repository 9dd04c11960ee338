//! From a usable answer to a list in force that is remembered.

use std::{collections::BTreeMap, sync::Arc};

use super::{Failure, Keeper};
use crate::{
    allowlist::{
        AllowList, Collect, Grace, Held, Leniency, Plan, Problem, Provenance, Publish, plan,
        vet_change, vet_sets,
    },
    config::Config,
    source::microsoft365::{EndpointSet, Instance, Version},
};

impl<C: Collect> Keeper<C> {
    pub(super) fn vet(&self, instance: Instance, sets: &[EndpointSet]) -> Result<(), Failure> {
        let held = self.held.get(&instance);
        let before = held.map(|held| held.sets.as_slice()).unwrap_or_default();
        let leniency = if self.feeds.get(&instance).is_some_and(|feed| feed.accept) {
            Leniency::Accepted
        } else if held.is_none_or(|held| held.version.is_none()) {
            Leniency::Losses
        } else {
            Leniency::Strict
        };
        let warnings = vet_sets(sets)
            .and_then(|()| vet_change(&self.config.sources, instance, before, sets, leniency))
            .map_err(Failure::refused)?;
        for warning in warnings {
            tracing::warn!(%instance, "taken nevertheless: {warning}");
        }
        Ok(())
    }

    /// Plans, publishes and persists.
    pub(super) fn step<P: Publish>(
        &mut self,
        instance: Instance,
        version: Version,
        sets: Vec<EndpointSet>,
        publisher: &mut P,
    ) -> Result<(), Failure> {
        let now = (self.clock)();
        let Some(before) = self.held.get(&instance) else { return Ok(()) };
        let feed = &self.config.feed;
        let grace = Grace { period: feed.removal_grace, polls: feed.removal_polls };
        let Plan { added, removed, pending } =
            plan(&self.config.sources, instance, before, &sets, now, grace);
        let applied = match before.provenance {
            Provenance::Live { applied } | Provenance::LastKnownGood { applied }
                if before.version == Some(version) =>
            {
                applied
            }
            _ => now,
        };
        let from = before.version;
        let waiting = pending.len();
        let provenance = Provenance::Live { applied };
        let after = Held { version: Some(version), provenance, sets, pending };
        let mut held = self.held.clone();
        held.insert(instance, after);
        self.commit(Arc::clone(&self.config), held, publisher)
            .map_err(|message| Failure::new("publish", message))?;
        if from != Some(version) || !removed.is_empty() {
            tracing::info!(%instance, %version, from = from.map(tracing::field::display),
                added = added.len(), removed = removed.len(), pending = waiting,
                hash = self.list.hash(), "the allow-list is up to date");
            for change in added {
                tracing::info!(%instance, source = change.source, prefix = %change.prefix, "added");
            }
            for change in removed {
                tracing::info!(%instance, source = change.source, prefix = %change.prefix, "removed");
            }
        }
        Ok(())
    }

    /// Puts another list or configuration in force, then remembers it.
    pub(super) fn commit<P: Publish>(
        &mut self,
        config: Arc<Config>,
        held: BTreeMap<Instance, Held>,
        publisher: &mut P,
    ) -> Result<(), String> {
        let list = Arc::new(AllowList::build(&config.sources, &held));
        // Most versions change no prefix of ours.
        if list.hash() != self.list.hash() || config != self.config {
            publisher.publish(&list, &config).map_err(|error| {
                self.metrics.publish_failed();
                tracing::error!(%error, hash = list.hash(), "the list cannot be put in force");
                format!("the list cannot be put in force: {error}")
            })?;
        }
        self.unsaved |= held.iter().any(|(instance, held)| {
            self.held.get(instance).is_none_or(|before| !before.is_same_state(held))
        });
        self.config = config;
        self.held = held;
        self.list = list;
        self.problem = None;
        self.warn_of_empty_sources();
        if self.unsaved {
            match self.state.save(&self.held) {
                Ok(()) => self.unsaved = false,
                Err(error) => {
                    self.metrics.save_failed();
                    tracing::error!(%error, "the list is in force, but not remembered");
                    self.problem = Some(Problem::new((self.clock)(), "state", &error));
                }
            }
        }
        Ok(())
    }

    pub(super) fn warn_of_empty_sources(&self) {
        for source in self.list.empty_sources() {
            tracing::warn!(source, "the source has no prefix: nobody passes through it");
        }
    }
}
