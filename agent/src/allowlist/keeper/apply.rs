//! From a usable answer to a list in force that is remembered.

use std::sync::Arc;

use super::{Failure, Keeper};
use crate::{
    allowlist::{
        AllowList, Change, Collect, Event, Grace, Held, Known, Leniency, Offer, Plan, Problem,
        Provenance, Publish, Record, held::definition, plan, vet_change, vet_content,
    },
    config::Config,
    source::{
        feed::{Content, FeedId, Revision},
        microsoft365::MAX_PREFIXES,
    },
};

/// No grace at all: what an operator changes takes effect at once.
const NO_GRACE: Grace = Grace { period: std::time::Duration::ZERO, polls: 0 };

/// What a commit changed.
pub(super) struct Delta {
    pub(super) added: Vec<Change>,
    pub(super) removed: Vec<Change>,
}

impl<C: Collect> Keeper<C> {
    pub(super) fn vet(
        &self,
        id: &FeedId,
        revision: Option<&Revision>,
        content: &Content,
    ) -> Result<(), Failure> {
        let accept = self.feeds.get(id).is_some_and(|feed| feed.accept);
        self.vet_as(id, revision, content, accept)
    }

    pub(super) fn vet_as(
        &self,
        id: &FeedId,
        revision: Option<&Revision>,
        content: &Content,
        accept: bool,
    ) -> Result<(), Failure> {
        let source = self.config.source_of(id);
        let held = self.known.held.get(id);
        let nothing = Content::Entries(Vec::new());
        let before = held.map_or(&nothing, |held| &held.content);
        let is_other = held.is_some_and(|held| held.is_of_another(source));
        let leniency = if accept {
            Leniency::Accepted
        } else if is_other || held.is_none_or(Held::is_built_in) {
            Leniency::Losses
        } else {
            Leniency::Strict
        };
        let private = source.is_some_and(|source| source.definition.allows_private());
        let warnings = vet_content(content, private)
            .and_then(|()| vet_change(&self.config.sources, id, before, content, leniency))
            .map_err(|refusal| Failure::refused(&refusal, revision.cloned()))?;
        for warning in warnings {
            tracing::warn!(feed = %id, "taken nevertheless: {warning}");
        }
        Ok(())
    }

    /// Plans, publishes and persists.
    pub(super) fn step<P: Publish>(
        &mut self,
        id: &FeedId,
        revision: Option<Revision>,
        content: Arc<Content>,
        event: Event,
        publisher: &mut P,
    ) -> Result<(), Failure> {
        let now = (self.clock)();
        let Some(before) = self.known.held.get(id) else { return Ok(()) };
        let source = self.config.source_of(id);
        let definition = source.map(definition);
        let is_other = before.is_of_another(source) && !before.is_built_in();
        let grace = if is_other { NO_GRACE } else { self.grace() };
        let Plan { added, removed, pending } =
            plan(&self.config.sources, id, before, &content, now, grace);
        if pending.len() > MAX_PREFIXES {
            let message = format!(
                "more than {MAX_PREFIXES} prefixes that are no longer published would stay; is a \
                 protected source fed by what always changes?"
            );
            return Err(Failure::new("too_many_pending", message));
        }
        let applied = match before.provenance {
            Provenance::Live { applied } | Provenance::LastKnownGood { applied }
                if before.revision == revision && event == Event::Applied =>
            {
                applied
            }
            _ => now,
        };
        let from = before.revision.clone();
        let waiting = pending.len();
        let provenance = Provenance::Live { applied };
        let mut known = self.known.clone();
        let after = Held { revision: revision.clone(), provenance, content, pending, definition };
        known.held.insert(id.clone(), after);
        let delta = self
            .commit(Arc::clone(&self.config), known, publisher)
            .map_err(|message| Failure::new("publish", message))?;
        if from == revision && removed.is_empty() && event == Event::Applied {
            return Ok(());
        }
        let text = |revision: &Option<Revision>| revision.as_ref().map(ToString::to_string);
        tracing::info!(feed = %id, revision = text(&revision), from = text(&from),
            added = added.len(), removed = removed.len(), pending = waiting,
            hash = self.list.hash(), "the allow-list is up to date");
        for change in added {
            tracing::info!(feed = %id, source = change.source, prefix = %change.prefix, "added");
        }
        for change in removed {
            tracing::info!(feed = %id, source = change.source, prefix = %change.prefix, "removed");
        }
        let record = Record {
            feed: Some(id.to_string()),
            from: text(&from),
            to: text(&revision),
            pending: waiting,
            ..Record::new(now, event, self.list.hash())
        };
        self.record(&record.changing(&delta.added, &delta.removed));
        Ok(())
    }

    /// Remembers what a feed says and is not put in force.
    pub(super) fn offer(
        &mut self,
        id: &FeedId,
        revision: Revision,
        content: &Content,
        problem: Option<Problem>,
    ) {
        let at = (self.clock)();
        let Some(held) = self.known.held.get(id) else { return };
        let Plan { added, removed, .. } =
            plan(&self.config.sources, id, held, content, at, NO_GRACE);
        let offer = Offer { at, revision, added, removed, problem };
        self.offers.insert(id.clone(), offer);
    }

    pub(super) fn revision(&self, id: &FeedId) -> Option<String> {
        self.known.held.get(id)?.revision.as_ref().map(ToString::to_string)
    }

    fn grace(&self) -> Grace {
        let feed = &self.config.feed;
        Grace { period: feed.removal_grace, polls: feed.removal_polls }
    }

    /// Puts another list or configuration in force, then remembers it.
    pub(super) fn commit<P: Publish>(
        &mut self,
        config: Arc<Config>,
        known: Known,
        publisher: &mut P,
    ) -> Result<Delta, String> {
        let list = Arc::new(AllowList::build(&config.sources, &known));
        let is_other = list.hash() != self.list.hash();
        // Most versions change no prefix of ours.
        let is_same = (&config, known.deadline()) == (&self.config, self.known.deadline());
        if is_other || !is_same {
            self.publish(&list, &config, known.deadline(), publisher)?;
        }
        let delta = if is_other {
            Delta { added: list.beyond(&self.list), removed: self.list.beyond(&list) }
        } else {
            Delta { added: Vec::new(), removed: Vec::new() }
        };
        self.unsaved |= !self.known.is_same_state(&known);
        self.config = config;
        self.known = known;
        self.list = list;
        self.problem = None;
        self.plan_expiry();
        self.warn_of_empty_sources();
        if self.unsaved {
            match self.state.save(&self.known) {
                Ok(()) => self.unsaved = false,
                Err(error) => {
                    self.metrics.save_failed();
                    tracing::error!(%error, "the list is in force, but not remembered");
                    self.problem = Some(Problem::new((self.clock)(), "state", &error));
                }
            }
        }
        Ok(delta)
    }

    pub(super) fn publish<P: Publish>(
        &self,
        list: &Arc<AllowList>,
        config: &Arc<Config>,
        deadline: Option<u64>,
        publisher: &mut P,
    ) -> Result<(), String> {
        publisher.publish(list, config, deadline).map_err(|error| {
            self.metrics.publish_failed();
            tracing::error!(%error, hash = list.hash(), "the list cannot be put in force");
            format!("the list cannot be put in force: {error}")
        })
    }

    pub(super) fn warn_of_empty_sources(&self) {
        for source in self.list.empty_sources() {
            tracing::warn!(source, "the source has no prefix: nobody passes through it");
        }
    }
}
