//! The loop that decides which record goes when.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Deliverer,
    lanes::{Key, Lanes},
    target::{Failure, Target},
    task::{Ended, Ending, Task},
};
use crate::{
    random::random,
    relay::{
        spool::{Death, Entry, Error},
        upstream::after,
    },
};

/// A record that is too old already when it comes, because the host was off or it
/// is replayed, is tried for so long all the same.
const GRACE: Duration = Duration::from_secs(300);

/// How often a spool is asked again whether this host delivers.
const RECHECK: Duration = Duration::from_secs(1);

/// A record that reached no server is treated as if it had failed so often before,
/// at the most: the pool sees to it that a server that is away is not asked too
/// often, and the record shall not be late when it is back.
const AWAY: u32 = 2;

/// Records of no route that are buried at once.
const BURIALS: usize = 8;

/// The state of the loop.
pub(super) struct Run {
    deliverer: Deliverer,
    lanes: Lanes,
    records: HashMap<Key, Record>,
    /// One for each pool, and at 0 one for records without a route.
    queues: Vec<Queue>,
    routes: HashMap<Arc<str>, (usize, Arc<dyn Target>)>,
    next_key: Key,
    /// When records that wait for another try, or for the spool, come back.
    timers: BinaryHeap<Reverse<(Instant, Key)>>,
    tasks: JoinSet<Ended>,
    running: HashMap<Id, Key>,
    /// Queues that wait for their pool.
    waits: FuturesUnordered<BoxFuture<'static, usize>>,
    /// Whether the spool may have more.
    open: bool,
    /// When the spool may be asked for more again.
    ask_at: Option<Instant>,
    unsettled: usize,
}

struct Record {
    entry: Arc<Entry>,
    queue: usize,
    deadline: Instant,
    failures: u32,
    /// What went wrong last.
    last: Option<String>,
    /// What was decided, if only the spool has to learn of it.
    ending: Option<Ending>,
}

/// Records whose turn has come, and that go the same way.
struct Queue {
    /// Of its pool, which its targets share; of none if records have no route.
    pool: Option<Arc<dyn Target>>,
    /// The oldest goes first.
    ready: BTreeSet<Key>,
    under_way: usize,
    /// How many may be under way: one when the pool comes back, one more for each
    /// that goes well, half as many when one fails.
    limit: usize,
    width: usize,
    waits: bool,
}

impl Queue {
    fn new(pool: Option<Arc<dyn Target>>) -> Self {
        let width = pool.as_ref().map_or(BURIALS, |pool| pool.width().max(1));
        let limit = if pool.is_some() { 1 } else { width };
        Self { pool, ready: BTreeSet::new(), under_way: 0, limit, width, waits: false }
    }
}

impl Run {
    pub(super) fn new(deliverer: Deliverer) -> Self {
        let mut queues = vec![Queue::new(None)];
        let mut groups = HashMap::new();
        let mut routes = HashMap::new();
        for (name, target) in &deliverer.targets {
            let queue = *groups.entry(target.group()).or_insert_with(|| {
                queues.push(Queue::new(Some(Arc::clone(target))));
                queues.len().saturating_sub(1)
            });
            routes.insert(Arc::clone(name), (queue, Arc::clone(target)));
        }
        Self {
            deliverer,
            lanes: Lanes::default(),
            records: HashMap::new(),
            queues,
            routes,
            next_key: 0,
            timers: BinaryHeap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            waits: FuturesUnordered::new(),
            open: true,
            ask_at: None,
            unsettled: 0,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let spool = Arc::clone(&self.deliverer.spool);
        let mut next = spool.next();
        let mut end = None;
        loop {
            let stopping = end.is_some();
            let delivers = !stopping && spool.delivers();
            if delivers {
                self.start();
            }
            if stopping && self.tasks.is_empty() && self.unsettled == 0 {
                break;
            }
            let metrics = &self.deliverer.metrics;
            metrics.window.set(i64::try_from(self.records.len()).unwrap_or(i64::MAX));
            metrics.unsettled.set(i64::try_from(self.unsettled).unwrap_or(i64::MAX));
            let wake = self.wake(delivers, stopping);
            let takes = delivers
                && self.open
                && self.ask_at.is_none()
                && self.records.len() < self.deliverer.window;
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    end = Some(after(Instant::now(), self.deliverer.options.drain));
                }
                () = sleep_until(end.unwrap_or_else(Instant::now)), if stopping => break,
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.ended(ended);
                }
                Some(queue) = self.waits.next(), if !self.waits.is_empty() => {
                    if let Some(queue) = self.queues.get_mut(queue) {
                        queue.waits = false;
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    self.woken();
                }
                entry = &mut next, if takes => {
                    next = spool.next();
                    self.take(entry);
                }
            }
        }
        if !self.tasks.is_empty() || self.unsettled > 0 {
            let (under_way, unsettled) = (self.tasks.len(), self.unsettled);
            tracing::warn!(under_way, unsettled, "stopped; these records will be sent again");
        }
    }

    /// When something has to be done without any event.
    fn wake(&self, delivers: bool, stopping: bool) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        if stopping {
            return timer;
        }
        let recheck = (!delivers).then(|| after(Instant::now(), RECHECK));
        // What waits for a pool is given up in time.
        let waiting = self
            .queues
            .iter()
            .filter(|queue| delivers && queue.waits && queue.under_way < queue.limit);
        let oldest = waiting.filter_map(|queue| self.records.get(queue.ready.first()?));
        let expiry = oldest.map(|record| record.deadline).min();
        [timer, recheck, expiry, self.ask_at].into_iter().flatten().min()
    }

    fn woken(&mut self) {
        let now = Instant::now();
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = None;
        }
        while let Some(Reverse((at, key))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let Some(record) = self.records.get_mut(&key) else { continue };
            match record.ending.take() {
                None => self.ready(key),
                Some(ending) => {
                    let task = self.deliverer.task(record);
                    let handle = self.tasks.spawn(task.settle_again(ending.clone()));
                    record.ending = Some(ending);
                    self.running.insert(handle.id(), key);
                }
            }
        }
    }

    /// Takes a record into the window.
    fn take(&mut self, entry: Result<Entry, Error>) {
        let entry = match entry {
            Ok(entry) => Arc::new(entry),
            Err(Error::Closed) => {
                self.open = false;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the spool does not say what comes next");
                self.ask_at = Some(after(Instant::now(), self.deliverer.backoff.first));
                return;
            }
        };
        let key = self.next_key;
        self.next_key = self.next_key.saturating_add(1);
        let age = Timestamp::now().duration_since(entry.accepted);
        let age = Duration::try_from(age).unwrap_or(Duration::ZERO);
        let retry_for = self.deliverer.options.retry_for;
        let left = retry_for.saturating_sub(age).max(GRACE.min(retry_for));
        let queue = self.routes.get(&entry.route).map_or(0, |(queue, _)| *queue);
        let its_turn = self.lanes.join(key, &entry.lanes);
        let deadline = after(Instant::now(), left);
        let record = Record { entry, queue, deadline, failures: 0, last: None, ending: None };
        self.records.insert(key, record);
        if its_turn {
            self.ready(key);
        }
    }

    fn ready(&mut self, key: Key) {
        let Some(record) = self.records.get(&key) else { return };
        if let Some(queue) = self.queues.get_mut(record.queue) {
            queue.ready.insert(key);
        }
    }

    /// Starts all that may be under way now.
    fn start(&mut self) {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            while queue.under_way < queue.limit
                && let Some(key) = queue.ready.first().copied()
            {
                let Some(record) = self.records.get(&key) else {
                    queue.ready.pop_first();
                    continue;
                };
                let task = self.deliverer.task(record);
                let handle = match (&queue.pool, self.routes.get(&record.entry.route)) {
                    (Some(pool), _) if !pool.is_available() => {
                        queue.limit = 1;
                        if record.deadline <= Instant::now() {
                            let last = record.last.clone();
                            let last = last.unwrap_or_else(|| "no server was well".to_owned());
                            self.tasks.spawn(task.bury(Death::Expired { last }))
                        } else {
                            if !mem::replace(&mut queue.waits, true) {
                                let available = Arc::clone(pool).available();
                                self.waits.push(Box::pin(async move {
                                    available.await;
                                    index
                                }));
                            }
                            break;
                        }
                    }
                    (Some(_), Some((_, target))) => {
                        self.tasks.spawn(task.deliver(Arc::clone(target)))
                    }
                    _ => self.tasks.spawn(task.bury(Death::NoRoute)),
                };
                self.running.insert(handle.id(), key);
                queue.ready.pop_first();
                queue.under_way = queue.under_way.saturating_add(1);
            }
        }
    }

    /// Takes note of how a task ended.
    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, ended),
            Err(error) => {
                tracing::error!(%error, "a delivery ended without a result");
                let problem = "it ended without a result".to_owned();
                let failure =
                    Failure { result: "internal", problem, retry_after: None, away: false };
                (error.id(), Ended::Failed(failure))
            }
        };
        let Some(key) = self.running.remove(&id) else { return };
        let Some(record) = self.records.get_mut(&key) else { return };
        let Some(queue) = self.queues.get_mut(record.queue) else { return };
        if record.ending.is_some() {
            return self.settled_again(key, matches!(ended, Ended::Settled { .. }));
        }
        queue.under_way = queue.under_way.saturating_sub(1);
        match ended {
            Ended::Settled { well } | Ended::Unsettled { well, .. } => {
                if well {
                    queue.limit = queue.limit.saturating_add(1).min(queue.width);
                }
                let turns = self.lanes.leave(key, &record.entry.lanes);
                if let Ended::Unsettled { ending, .. } = ended {
                    record.ending = Some(ending);
                    record.failures = 0;
                    self.unsettled = self.unsettled.saturating_add(1);
                    self.later(key, None);
                } else {
                    self.records.remove(&key);
                }
                for key in turns {
                    self.ready(key);
                }
            }
            Ended::NotTried => {
                // Whatever is_available() said: the pool knows better now.
                queue.limit = 1;
                self.ready(key);
            }
            Ended::Failed(failure) => {
                queue.limit = queue.limit.div_euclid(2).max(1);
                let route = &*record.entry.route;
                self.deliverer.metrics.retries.with_label_values(&[route]).inc();
                let (id, problem) = (record.entry.id, &failure.problem);
                tracing::debug!(%id, route, problem, "a record will be tried again");
                record.last = Some(failure.problem);
                if failure.away {
                    record.failures = record.failures.min(AWAY);
                }
                self.later(key, failure.retry_after);
            }
        }
    }

    /// Another try to write down what was decided has ended.
    fn settled_again(&mut self, key: Key, settled: bool) {
        if settled {
            self.records.remove(&key);
            self.unsettled = self.unsettled.saturating_sub(1);
        } else {
            self.later(key, None);
        }
    }

    /// Lets a record come back after another failure; at its deadline at the
    /// latest, for a last try.
    fn later(&mut self, key: Key, asked: Option<Duration>) {
        let Some(record) = self.records.get_mut(&key) else { return };
        record.failures = record.failures.saturating_add(1);
        let now = Instant::now();
        let wait = self.deliverer.backoff.wait(record.failures, asked, random());
        let mut at = after(now, wait);
        if record.ending.is_none() && record.deadline > now {
            at = at.min(record.deadline);
        }
        self.timers.push(Reverse((at, key)));
    }
}

impl Deliverer {
    fn task(&self, record: &Record) -> Task {
        Task {
            spool: Arc::clone(&self.spool),
            metrics: self.metrics.clone(),
            entry: Arc::clone(&record.entry),
            deadline: record.deadline,
        }
    }
}
