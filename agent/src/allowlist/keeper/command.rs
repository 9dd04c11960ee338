//! What a keeper can be told, and how it obeys.

use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::{sync::oneshot, time::Instant};

use super::{EXPIRY_CHECK, Feed, Keeper, SOONEST_EXPIRY_CHECK};
use crate::{
    allowlist::{Collect, Event, Known, Publish, Record, Temporary, settled, temporary},
    config::{Config, Source},
    source::{
        feed::{Content, FeedId, Revision},
        microsoft365::{MAX_BYTES, Version, parse_endpoints},
        read,
    },
};

/// Whether a command was obeyed; a sentence if not.
pub type Outcome = Result<(), String>;

/// What a keeper can be told.
#[derive(Debug)]
pub enum Command {
    /// Poll every feed now.
    Refresh {
        /// Only to see what they say.
        dry_run: bool,
    },
    /// Poll a feed now, and take its answer even if a source loses more than is
    /// believed. An answer that cannot be right is refused all the same.
    Accept(FeedId),
    /// Put nothing in force that feeds say, or go on with it.
    Hold {
        /// Which of it.
        hold: bool,
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
    /// Take the content of a feed from an operator.
    Import {
        /// What and for which feed.
        import: Import,
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
    /// Let a prefix pass for a while.
    Allow {
        /// The entry.
        entry: Temporary,
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
    /// Take that back.
    Disallow {
        /// Its prefix.
        prefix: IpNet,
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
    /// Drop what is refused.
    Enforce {
        /// For so long, unless it is confirmed.
        confirm_within: Option<std::time::Duration>,
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
    /// Make a trial of enforcing last.
    Confirm {
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
    /// Drop nothing any more.
    Monitor {
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
    /// Publish once more what is in force, because something changed that the publisher adds
    /// to it: the addresses of this host.
    Republish {
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
    /// Go on with another configuration. Its list and guards are in force when
    /// `done` says so; after an error the old ones are.
    Reload {
        /// The configuration.
        config: Arc<Config>,
        /// The outcome.
        done: oneshot::Sender<Outcome>,
    },
}

/// The content of a feed, as an operator brings it.
#[derive(Clone, Debug)]
pub struct Import {
    /// The feed.
    pub feed: FeedId,
    /// An answer of `/endpoints`, or the list of a source.
    pub body: Vec<u8>,
    /// The version of an answer of `/endpoints`, which does not carry one.
    pub version: Option<Version>,
    /// Take it even if a source loses more than is believed.
    pub accept: bool,
}

impl<C: Collect> Keeper<C> {
    pub(super) fn obey<P: Publish>(&mut self, command: Command, publisher: &mut P) {
        // Whoever waits for an outcome may have gone.
        match command {
            Command::Refresh { dry_run } => self.feeds.values_mut().for_each(|feed| {
                feed.dry_run = dry_run;
                feed.poll_now();
            }),
            Command::Accept(id) => {
                if let Some(feed) = self.feeds.get_mut(&id) {
                    feed.accept = true;
                    feed.poll_now();
                }
            }
            Command::Hold { hold, done } => drop(done.send(self.hold(hold, publisher))),
            Command::Import { import, done } => drop(done.send(self.import(&import, publisher))),
            Command::Allow { entry, done } => drop(done.send(self.allow(entry, publisher))),
            Command::Disallow { prefix, done } => {
                drop(done.send(self.disallow(prefix, publisher)));
            }
            Command::Enforce { confirm_within, done } => {
                drop(done.send(self.enforce(confirm_within, publisher)));
            }
            Command::Confirm { done } => drop(done.send(self.confirm(publisher))),
            Command::Monitor { done } => drop(done.send(self.monitor(publisher))),
            Command::Republish { done } => drop(done.send(self.republish(publisher))),
            Command::Reload { config, done } => drop(done.send(self.reload(config, publisher))),
        }
        self.show();
    }

    /// Stops all updates of feeds, or lets them go on.
    ///
    /// # Errors
    ///
    /// If that cannot be remembered.
    pub fn hold<P: Publish>(&mut self, hold: bool, publisher: &mut P) -> Outcome {
        if self.known.hold == hold {
            return Ok(());
        }
        let known = Known { hold, ..self.known.clone() };
        self.commit(Arc::clone(&self.config), known, publisher)?;
        tracing::warn!(hold, "an operator changed whether feeds are updated");
        let event = if hold { Event::Held } else { Event::Resumed };
        self.record(&Record::new((self.clock)(), event, self.list.hash()));
        if !hold {
            self.feeds.values_mut().for_each(Feed::poll_now);
        }
        self.saved()
    }

    /// Takes the content of a feed from an operator, vetted like any answer.
    ///
    /// # Errors
    ///
    /// A sentence that says why it was refused.
    pub fn import<P: Publish>(&mut self, import: &Import, publisher: &mut P) -> Outcome {
        let id = &import.feed;
        if !self.config.feeds().contains(id) {
            let feeds: Vec<_> = self.config.feeds().iter().map(ToString::to_string).collect();
            return Err(format!("no source follows {id}; the feeds are {}", feeds.join(", ")));
        }
        let (revision, content) = self.parse(import)?;
        self.vet_as(id, revision.as_ref(), &content, import.accept).map_err(|failure| {
            let hint =
                if failure.can_be_accepted { " (--accept takes it all the same)" } else { "" };
            format!("refused, the list in force stays: {}{hint}", failure.message)
        })?;
        self.step(id, revision, Arc::new(content), Event::Imported, publisher)
            .map_err(|failure| failure.message)?;
        self.offers.remove(id);
        self.saved()
    }

    fn parse(&self, import: &Import) -> Result<(Option<Revision>, Content), String> {
        match (&import.feed, self.config.source_of(&import.feed)) {
            (FeedId::Instance(_), _) => {
                let sets = parse_endpoints(&import.body).map_err(|error| error.to_string())?;
                let revision = import.version.map(Revision::Version);
                Ok((revision, Content::of_sets(sets.into_sets())))
            }
            (FeedId::Source(_), Some(source)) => {
                let (revision, content) = read::import(&source.definition, &import.body)
                    .map_err(|error| error.to_string())?;
                Ok((Some(revision), content))
            }
            (id, None) => Err(format!("there is no source {id}")),
        }
    }

    /// Lets a prefix pass for a while.
    ///
    /// # Errors
    ///
    /// If it cannot be put in force or remembered.
    pub fn allow<P: Publish>(&mut self, entry: Temporary, publisher: &mut P) -> Outcome {
        let message = format!("{} until {}: {}", entry.prefix, entry.until, entry.reason);
        let temporary = temporary::with(&self.known.temporary, entry)?;
        self.change_temporary(temporary, Event::Allowed, message, publisher)?;
        self.saved()
    }

    /// Takes back that a prefix passes for a while.
    ///
    /// # Errors
    ///
    /// If there is no such entry, or the list without it cannot be put in force.
    pub fn disallow<P: Publish>(&mut self, prefix: IpNet, publisher: &mut P) -> Outcome {
        let mut temporary = self.known.temporary.clone();
        temporary.retain(|entry| entry.prefix != prefix);
        if temporary.len() == self.known.temporary.len() {
            return Err(format!("there is no temporary entry {prefix}; see `exogate allow list`"));
        }
        self.change_temporary(temporary, Event::Removed, prefix.to_string(), publisher)?;
        self.saved()
    }

    /// Puts a list without the entries in force whose time is over. If that
    /// fails, it is tried again.
    pub(super) fn expire<P: Publish>(&mut self, publisher: &mut P) {
        if self.expiry.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.end_trial(publisher);
        let now = (self.clock)();
        let (over, live): (Vec<_>, Vec<_>) =
            self.known.temporary.iter().cloned().partition(|entry| entry.is_over(now));
        if !over.is_empty() {
            let texts: Vec<_> =
                over.iter().map(|entry| format!("{}: {}", entry.prefix, entry.reason)).collect();
            let message = texts.join("; ");
            if let Err(error) = self.change_temporary(live, Event::Expired, message, publisher) {
                tracing::error!(error, "temporary entries are over, but still pass");
            }
            self.show();
        }
        self.plan_expiry();
    }

    pub(super) fn plan_expiry(&mut self) {
        let now = (self.clock)();
        let wait = |until: Timestamp| {
            let left = std::time::Duration::try_from(until.duration_since(now)).unwrap_or_default();
            left.clamp(SOONEST_EXPIRY_CHECK, EXPIRY_CHECK)
        };
        let trial = self.known.mode.as_ref().and_then(|order| order.until);
        let ends = self.known.temporary.iter().map(|entry| entry.until).chain(trial);
        let soonest = ends.map(wait).min();
        self.expiry = soonest.and_then(|wait| Instant::now().checked_add(wait));
    }

    fn change_temporary<P: Publish>(
        &mut self,
        temporary: Vec<Temporary>,
        event: Event,
        message: String,
        publisher: &mut P,
    ) -> Outcome {
        let known = Known { temporary, ..self.known.clone() };
        let delta = self.commit(Arc::clone(&self.config), known, publisher)?;
        tracing::warn!(?event, message, "temporary entries have changed");
        let record = Record {
            message: Some(message),
            ..Record::new((self.clock)(), event, self.list.hash())
        };
        self.record(&record.changing(&delta.added, &delta.removed));
        Ok(())
    }

    /// Publishes list and configuration as they are; an operator's word on the mode included.
    fn republish<P: Publish>(&mut self, publisher: &mut P) -> Outcome {
        self.publish(&self.list, &self.config, self.known.deadline(), publisher)
    }

    fn reload<P: Publish>(&mut self, config: Arc<Config>, publisher: &mut P) -> Outcome {
        let mut known = self.known.clone();
        known.follow(&config);
        // What the operator changes takes effect at once.
        let old = Arc::clone(&self.configured);
        let what = |source: &Source| (source.definition.selects(), source.protected);
        let unchanged = |name: &str| {
            let [before, now] = [&old, &config]
                .map(|of| of.sources.iter().find(|source| source.name == name).map(what));
            before.is_some() && before == now
        };
        for held in known.held.values_mut() {
            held.pending.retain(|pending| unchanged(&pending.source));
        }
        known.mode = settled(known.mode, config.mode, (self.clock)());
        let in_mode = self.in_mode(&config, known.mode.as_ref());
        let delta = self.commit(in_mode, known, publisher)?;
        self.configured = Arc::clone(&config);
        if !(delta.added.is_empty() && delta.removed.is_empty()) {
            let record = Record::new((self.clock)(), Event::Configured, self.list.hash());
            self.record(&record.changing(&delta.added, &delta.removed));
        }
        if config.state_directory != old.state_directory {
            tracing::warn!("another state_directory takes effect with the next start");
        }
        self.follow_feeds();
        for (id, feed) in &mut self.feeds {
            let is_new = !old.feeds().contains(id);
            if is_new || config.feed != old.feed || config.source_of(id) != old.source_of(id) {
                feed.poll_now();
            }
        }
        Ok(())
    }

    /// An operator has to know if what was just put in force is not remembered.
    pub(super) fn saved(&self) -> Outcome {
        match &self.problem {
            Some(problem) if self.unsaved => {
                Err(format!("it is in force, but not remembered: {}", problem.message))
            }
            _ => Ok(()),
        }
    }
}

/// Largest body of an import.
pub(crate) const MAX_IMPORT: usize = if MAX_BYTES > crate::source::service_tags::MAX_BYTES {
    MAX_BYTES
} else {
    crate::source::service_tags::MAX_BYTES
};
