//! Keeps the allow-list in step with its feeds.
//!
//! One task owns the list. It polls each feed in use, at most one poll of each at
//! a time, beside which it stays ready for commands. Opening a keeper reads the
//! state directory and nothing else, so that the gate can stand before there is a
//! network.

mod apply;
mod command;
mod failure;
mod feed;
mod mode;
mod poll;

use std::{collections::BTreeMap, future::Future, pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use prometheus::Registry;
use tokio::{
    select,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

pub(crate) use self::command::MAX_IMPORT;
pub use self::command::{Command, Import, Outcome};
use self::{failure::Failure, feed::Feed};
use super::{
    AllowList, Collect, Feeds, History, Known, Metrics, ModeOrder, Offer, Problem, Publish, Record,
    StateDirectory, StateError, Status, mode_in_force, settled,
};
use crate::{
    config::Config,
    random::random,
    source::{
        feed::{self as source_feed, Collected, FeedId},
        microsoft365::RequestId,
    },
};

/// The owner of the allow-list.
pub struct Keeper<C = Feeds> {
    /// What is in force: as configured, in the mode that an operator may have ordered.
    config: Arc<Config>,
    configured: Arc<Config>,
    state: StateDirectory,
    history: History,
    collector: C,
    metrics: Metrics,
    clock: Clock,
    random: fn() -> f64,
    known: Known,
    feeds: BTreeMap<FeedId, Feed>,
    offers: BTreeMap<FeedId, Offer>,
    list: Arc<AllowList>,
    /// What is in force is not what the state directory holds.
    unsaved: bool,
    /// When to look for temporary entries whose time is over.
    expiry: Option<Instant>,
    problem: Option<Problem>,
    status: watch::Sender<Status>,
}

/// Why a keeper cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its state is there and cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A metric could not be registered.
    #[error("registering metrics failed: {0}")]
    Metrics(#[from] prometheus::Error),
}

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
type Polled = Result<Collected, source_feed::Error>;

/// Temporary entries are looked at this often, because clocks are set.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);
const SOONEST_EXPIRY_CHECK: Duration = Duration::from_secs(1);

impl Keeper<Feeds> {
    /// Opens a keeper on the state directory of the configuration. A state that
    /// cannot be used is reported and put aside.
    ///
    /// # Errors
    ///
    /// If the state is there and cannot be read, or metrics of these names are registered already.
    pub fn open(config: Arc<Config>, registry: &Registry) -> Result<Self, OpenError> {
        let metrics = Metrics::register(registry)?;
        let id = RequestId::of_installation(&config.state_directory);
        Ok(Self::with(config, Feeds { id }, metrics, Arc::new(Timestamp::now), random)?)
    }
}

impl<C: Collect> Keeper<C> {
    fn with(
        config: Arc<Config>,
        collector: C,
        metrics: Metrics,
        clock: Clock,
        random: fn() -> f64,
    ) -> Result<Self, StateError> {
        let state = StateDirectory::new(&config.state_directory);
        let history = History::new(&config.state_directory);
        let mut problem = None;
        let mut known = match state.load() {
            Ok(known) => known,
            Err(error @ StateError::Unreadable { .. }) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "starting from the built-in list");
                problem = Some(Problem::new(clock(), "state", &error));
                Known::default()
            }
        };
        known.follow(&config);
        // What is over is published with the first list that has all of it, and
        // told then; until that the agent has to have the list that it starts with.
        let now = clock();
        // What the configuration says by now needs no end any more.
        let order = match known.mode.clone().map(|order| order.in_this_boot(now)) {
            Some(order) if order.is_over(now) => Some(order),
            order => settled(order, config.mode, now),
        };
        let unsaved = order != known.mode;
        known.mode = order;
        let configured = Arc::clone(&config);
        let mode = mode_in_force(known.mode.as_ref(), config.mode, now);
        let config = if mode == config.mode {
            config
        } else {
            tracing::warn!(
                mode = mode.name(),
                "an operator's word goes before the configuration's mode"
            );
            Arc::new(Config { mode, ..Config::clone(&config) })
        };
        let live = known.temporary.iter().filter(|entry| !entry.is_over(now)).cloned().collect();
        let unexpired = Known { temporary: live, ..known.clone() };
        let list = Arc::new(AllowList::build(&config.sources, &unexpired));
        let status = watch::Sender::new(Status {
            list: Arc::clone(&list),
            feeds: BTreeMap::new(),
            offers: BTreeMap::new(),
            temporary: Vec::new(),
            hold: false,
            mode: config.mode,
            configured_mode: configured.mode,
            confirm_by: None,
            problem: None,
        });
        let mut keeper = Self {
            config,
            configured,
            state,
            history,
            collector,
            metrics,
            clock,
            random,
            known,
            feeds: BTreeMap::new(),
            offers: BTreeMap::new(),
            list,
            unsaved,
            expiry: None,
            problem,
            status,
        };
        keeper.follow_feeds();
        keeper.plan_expiry();
        keeper.warn_of_empty_sources();
        if keeper.known.hold {
            tracing::warn!("updates of feeds are on hold; `exogate feed resume` ends that");
        }
        keeper.show();
        Ok(keeper)
    }

    /// The list to start with: the last known good, or the built-in one. The gate
    /// is expected to have it in force when [`Keeper::run`] begins.
    #[must_use]
    pub fn list(&self) -> Arc<AllowList> {
        Arc::clone(&self.list)
    }

    /// The configuration, in the mode that an operator may have ordered.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }

    /// When enforcing ends unless it is confirmed, in nanoseconds since the boot.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        // Of an order that is over, the mode that comes after it has none.
        let is_over = |order: &ModeOrder| order.is_over((self.clock)());
        if self.known.mode.as_ref().is_some_and(is_over) { None } else { self.known.deadline() }
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
            self.expire(&mut publisher);
            self.start_polls(&mut polls);
            let next = self.feeds.values().filter_map(|feed| feed.due).chain(self.expiry).min();
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

    /// Begins and ends feeds, so that there is one for each in use.
    fn follow_feeds(&mut self) {
        let ids = self.config.feeds();
        self.feeds.retain(|id, _| ids.contains(id));
        self.offers.retain(|id, _| ids.contains(id));
        for id in ids {
            if self.feeds.contains_key(&id) {
                continue;
            }
            let source = self.config.source_of(&id);
            let delay = if source.is_some_and(|source| source.definition.is_local()) {
                Duration::ZERO
            } else {
                // Also where nothing is known yet: a fleet may be new as a whole.
                self.config.feed.first_poll_within.mul_f64((self.random)())
            };
            self.feeds.insert(id, Feed::new(delay, (self.clock)()));
        }
    }

    fn record(&self, record: &Record) {
        if let Err(error) = self.history.add(record) {
            self.metrics.history_failed();
            tracing::warn!(%error, event = ?record.event, "the history cannot be written");
        }
    }

    fn show(&self) {
        let feeds = self.feeds.iter().filter_map(|(id, feed)| {
            Some((id.clone(), feed.status(id, self.known.held.get(id)?, self.interval(id))))
        });
        let now = (self.clock)();
        let temporary = self.known.temporary.iter().filter(|entry| !entry.is_over(now));
        let status = Status {
            list: Arc::clone(&self.list),
            feeds: feeds.collect(),
            offers: self.offers.clone(),
            temporary: temporary.cloned().collect(),
            hold: self.known.hold,
            mode: self.config.mode,
            configured_mode: self.configured.mode,
            confirm_by: self.known.mode.as_ref().and_then(|order| order.until),
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
