//! Keeps the allow-list in step with the web service.
//!
//! One task owns the list. It polls each instance in use, at most one poll of
//! each at a time, beside which it stays ready for commands. Opening a keeper
//! reads the state directory and nothing else, so that the gate can stand before
//! there is a network.

mod apply;
mod failure;
mod feed;

use std::{collections::BTreeMap, future::Future, pin::pin, sync::Arc};

use jiff::Timestamp;
use prometheus::Registry;
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use self::{failure::Failure, feed::Feed};
use super::{
    AllowList, Collect, Held, Metrics, PollResult, Problem, Publish, StateDirectory, Status,
    WebService, embedded, schedule,
};
use crate::{
    config::Config,
    source::microsoft365::{self, Collected, Instance, RequestId},
};

/// What a keeper can be told.
#[derive(Debug)]
pub enum Command {
    /// Poll every instance now.
    Refresh,
    /// Poll an instance now, and take its answer even if a source loses more
    /// than is believed. An answer that cannot be right is refused all the same.
    Accept(Instance),
    /// Go on with another configuration. Its list and guards are in force when
    /// `done` says so; after an error the old ones are.
    Reload {
        /// The configuration.
        config: Arc<Config>,
        /// The outcome.
        done: oneshot::Sender<Result<(), String>>,
    },
}

/// The owner of the allow-list.
pub struct Keeper<C = WebService> {
    config: Arc<Config>,
    state: StateDirectory,
    collector: C,
    metrics: Metrics,
    clock: Clock,
    random: fn() -> f64,
    /// All that is known, also of instances that are not in use.
    held: BTreeMap<Instance, Held>,
    feeds: BTreeMap<Instance, Feed>,
    list: Arc<AllowList>,
    /// What is in force is not what the state directory holds.
    unsaved: bool,
    problem: Option<Problem>,
    status: watch::Sender<Status>,
}

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
type Polled = Result<Collected, microsoft365::Error>;

impl Keeper<WebService> {
    /// Opens a keeper on the state directory of the configuration. A state that
    /// cannot be used is reported and put aside.
    ///
    /// # Errors
    ///
    /// If metrics of these names are registered already.
    pub fn open(config: Arc<Config>, registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::register(registry)?;
        let id = RequestId::of_installation(&config.state_directory);
        Ok(Self::with(
            config,
            WebService { id },
            metrics,
            Arc::new(Timestamp::now),
            schedule::random,
        ))
    }
}

impl<C: Collect> Keeper<C> {
    fn with(
        config: Arc<Config>,
        collector: C,
        metrics: Metrics,
        clock: Clock,
        random: fn() -> f64,
    ) -> Self {
        let state = StateDirectory::new(&config.state_directory);
        let mut problem = None;
        let mut held = state.load().unwrap_or_else(|error| {
            tracing::error!(%error, "starting from the built-in list");
            problem = Some(Problem::new(clock(), "state", &error));
            BTreeMap::new()
        });
        for instance in config.instances() {
            held.entry(instance).or_insert_with(|| embedded(instance));
        }
        let list = Arc::new(AllowList::build(&config.sources, &held));
        let status = watch::Sender::new(Status {
            list: Arc::clone(&list),
            feeds: BTreeMap::new(),
            problem: None,
        });
        let mut keeper = Self {
            config,
            state,
            collector,
            metrics,
            clock,
            random,
            held,
            feeds: BTreeMap::new(),
            list,
            unsaved: false,
            problem,
            status,
        };
        keeper.follow_instances();
        keeper.warn_of_empty_sources();
        keeper.show();
        keeper
    }

    /// The list to start with: the last known good, or the built-in one. The gate
    /// is expected to have it in force when [`Keeper::run`] begins.
    #[must_use]
    pub fn list(&self) -> Arc<AllowList> {
        Arc::clone(&self.list)
    }

    /// The list in force and how its feeds fare, from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Keeps the list until `shutdown` is done. Polls under way are dropped then.
    pub async fn run<P: Publish>(
        mut self,
        mut publisher: P,
        mut commands: mpsc::Receiver<Command>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = pin!(shutdown);
        let mut polls = JoinSet::new();
        let mut commanded = true;
        loop {
            self.start_polls(&mut polls);
            let next = self.feeds.values().filter_map(|feed| feed.due).min();
            select! {
                biased;
                () = &mut shutdown => return,
                command = commands.recv(), if commanded => match command {
                    Some(command) => self.obey(command, &mut publisher),
                    None => commanded = false,
                },
                Some(polled) = polls.join_next_with_id() => self.finish(polled, &mut publisher),
                () = wait_until(next) => {}
            }
        }
    }

    fn obey<P: Publish>(&mut self, command: Command, publisher: &mut P) {
        match command {
            Command::Refresh => self.feeds.values_mut().for_each(Feed::poll_now),
            Command::Accept(instance) => {
                if let Some(feed) = self.feeds.get_mut(&instance) {
                    feed.accept = true;
                    feed.poll_now();
                }
            }
            Command::Reload { config, done } => {
                let result = self.reload(config, publisher);
                // Whoever asked may have gone.
                let _ = done.send(result);
            }
        }
        self.show();
    }

    fn reload<P: Publish>(&mut self, config: Arc<Config>, publisher: &mut P) -> Result<(), String> {
        let mut held = self.held.clone();
        for instance in config.instances() {
            held.entry(instance).or_insert_with(|| embedded(instance));
        }
        // What the operator changes takes effect at once.
        let old = Arc::clone(&self.config);
        let unchanged = |name: &str| {
            old.sources.iter().any(|source| source.name == name && config.sources.contains(source))
        };
        for held in held.values_mut() {
            held.pending.retain(|pending| unchanged(&pending.source));
        }
        self.commit(Arc::clone(&config), held, publisher)?;
        if config.state_directory != old.state_directory {
            tracing::warn!("another state_directory takes effect with the next start");
        }
        self.follow_instances();
        if config.feed != old.feed {
            self.feeds.values_mut().for_each(Feed::poll_now);
        }
        Ok(())
    }

    /// Begins and ends feeds, so that there is one for each instance in use.
    fn follow_instances(&mut self) {
        let instances = self.config.instances();
        self.feeds.retain(|instance, _| instances.contains(instance));
        for instance in instances {
            if self.feeds.contains_key(&instance) {
                continue;
            }
            let known = self.held.get(&instance).is_some_and(|held| held.version.is_some());
            let delay = if known {
                self.config.feed.first_poll_within.mul_f64((self.random)())
            } else {
                std::time::Duration::ZERO
            };
            self.feeds.insert(instance, Feed::new(delay, (self.clock)()));
        }
    }

    fn start_polls(&mut self, polls: &mut JoinSet<Polled>) {
        let now = Instant::now();
        let mut started = false;
        for (instance, feed) in &mut self.feeds {
            if feed.due.is_none_or(|due| due > now) {
                continue;
            }
            let collector = self.collector.clone();
            let config = self.config.feed.clone();
            let instance = *instance;
            let applied = self.held.get(&instance).and_then(|held| held.version);
            tracing::debug!(%instance, ?applied, "polling the web service");
            let task =
                polls.spawn(async move { collector.collect(config, instance, applied).await });
            feed.started(task.id(), (self.clock)());
            started = true;
        }
        if started {
            self.show();
        }
    }

    fn finish<P: Publish>(&mut self, polled: Result<(Id, Polled), JoinError>, publisher: &mut P) {
        let (id, polled) = match polled {
            Ok((id, polled)) => (id, Ok(polled)),
            Err(error) => (error.id(), Err(error)),
        };
        let found = self.feeds.iter().find(|(_, feed)| feed.polling == Some(id));
        // None if a reload has ended the feed meanwhile.
        let Some(instance) = found.map(|(instance, _)| *instance) else { return };
        let outcome = match polled {
            Ok(Ok(Collected::Unchanged(version))) => {
                let sets = self.held.get(&instance).map(|held| held.sets.clone());
                self.step(instance, version, sets.unwrap_or_default(), publisher)
                    .map(|()| PollResult::Unchanged)
            }
            Ok(Ok(Collected::New(answer))) => {
                let mut sets = answer.sets.into_sets();
                sets.retain(|set| !set.ips.is_empty());
                self.vet(instance, &sets)
                    .and_then(|()| self.step(instance, answer.version, sets, publisher))
                    .map(|()| PollResult::Applied)
            }
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(error) => Err(Failure::new("internal", error.to_string())),
        };
        self.conclude(instance, outcome);
        self.show();
    }

    fn conclude(&mut self, instance: Instance, outcome: Result<PollResult, Failure>) {
        let now = (self.clock)();
        let interval = self.config.feed.interval;
        let Some(feed) = self.feeds.get_mut(&instance) else { return };
        match outcome {
            Ok(result) => {
                self.metrics.polled(instance, result);
                let wait = feed.schedule.after_answer(interval, (self.random)());
                feed.succeeded(now, wait);
            }
            Err(failure) => {
                if failure.refused {
                    self.metrics.refused(instance, failure.reason);
                    self.metrics.polled(instance, PollResult::Refused);
                } else {
                    self.metrics.failed(instance, failure.reason);
                    self.metrics.polled(instance, PollResult::Failed);
                }
                let wait = if failure.published {
                    feed.schedule.after_answer(interval, (self.random)())
                } else {
                    feed.schedule.after_failure(interval, failure.throttled)
                };
                tracing::warn!(%instance, reason = failure.reason, next_in = ?wait,
                    "the list in force stays: {}", failure.message);
                feed.failed(
                    now,
                    wait,
                    Problem {
                        at: now,
                        reason: failure.reason,
                        message: failure.message,
                        can_be_accepted: failure.can_be_accepted,
                    },
                );
            }
        }
    }

    fn show(&self) {
        let feeds = self.feeds.iter().filter_map(|(instance, feed)| {
            Some((*instance, feed.status(*instance, self.held.get(instance)?)))
        });
        let status = Status {
            list: Arc::clone(&self.list),
            feeds: feeds.collect(),
            problem: self.problem.clone(),
        };
        self.metrics.show(&status);
        self.status.send_replace(status);
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
