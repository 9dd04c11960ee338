//! A spool that several edge hosts share, on real NATS servers that are killed,
//! stopped and started again. Needs `nats-server`, but not root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::expect_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::panic, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::indexing_slicing, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::arithmetic_side_effects, reason = "small numbers that are written here")]

mod hosts;
mod opening;
mod servers;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use exogate::{
    config,
    relay::spool::{
        Appended, Entry, Error, Message, NewRecord, Pending, RecordId, Spool,
        jetstream::{JetstreamSpool, Metrics},
    },
};
use exogate_tests::nats::Cluster;
use tokio::{task::JoinHandle, time::timeout};

/// The longest that anything may take here.
const PATIENCE: Duration = Duration::from_secs(90);
/// The longest that an append may take, whatever happens.
const BOUND: Duration = Duration::from_secs(5);
/// The stream that appends go to.
const WAITING: &str = "exogate_waiting";

fn jetstream(cluster: &Cluster) -> config::Jetstream {
    config::Jetstream {
        servers: cluster.urls(),
        prefix: "exogate".to_owned(),
        replicas: 3,
        credentials_file: None,
        ca_file: None,
        client_certificate: None,
    }
}

fn spool() -> config::Spool {
    config::Spool { max_bytes: 64 << 20, ..config::Spool::default() }
}

async fn try_open(
    spool: &config::Spool,
    jetstream: &config::Jetstream,
) -> Result<Arc<JetstreamSpool>, Error> {
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    within(JetstreamSpool::open(spool, jetstream, metrics)).await.map(Arc::new)
}

/// An edge host's spool. Servers that have just found each other refuse for a moment;
/// the relay tries again then, too.
async fn open(cluster: &Cluster) -> Arc<JetstreamSpool> {
    open_at_last(&jetstream(cluster)).await
}

async fn open_at_last(jetstream: &config::Jetstream) -> Arc<JetstreamSpool> {
    // In a box: it is large, and tests hold several of them.
    let opened = Box::pin(async {
        loop {
            match try_open(&spool(), jetstream).await {
                Ok(spool) => return spool,
                Err(error) => eprintln!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    within(opened).await
}

/// What the future gives, or a test that ends.
async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("nothing happened in time")
}

/// Asks again while servers choose a leader, as those who deliver do.
async fn persist<'a, T>(mut ask: impl FnMut() -> Pending<'a, T>) -> T {
    within(async {
        loop {
            match ask().await {
                Err(Error::Failed(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                other => return other.unwrap(),
            }
        }
    })
    .await
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

fn record(lane: &str, body: String) -> NewRecord {
    NewRecord {
        message: Message {
            route: "graph".to_owned(),
            target: "/notify".to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            source: None,
            body: body.into(),
        },
        lanes: vec![lane.to_owned()],
        once: None,
    }
}

/// One append, which may fail, but not take for ever.
async fn append(spool: &dyn Spool, number: u64) -> Result<RecordId, Error> {
    let lane = format!("lane {}", number % 3);
    let appended = timeout(BOUND, spool.append(record(&lane, format!("body {number}"))));
    match appended.await.expect("an append took longer than its bound")? {
        Appended::Stored(id) => Ok(id),
        Appended::Duplicate => panic!("a new record was called a duplicate"),
    }
}

/// Senders that never stop, and what they were told is stored.
struct Senders {
    stored: Arc<Mutex<Vec<RecordId>>>,
    failed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Senders {
    fn start(spools: &[Arc<JetstreamSpool>]) -> Self {
        let stored = Arc::new(Mutex::new(Vec::new()));
        let failed = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let number = Arc::new(AtomicU64::new(0));
        let task = |spool: Arc<JetstreamSpool>| {
            let (stored, failed) = (Arc::clone(&stored), Arc::clone(&failed));
            let (stop, number) = (Arc::clone(&stop), Arc::clone(&number));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    match append(&*spool, number).await {
                        Ok(id) => stored.lock().unwrap().push(id),
                        Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        };
        let tasks = spools.iter().chain(spools).map(|spool| task(Arc::clone(spool))).collect();
        Self { stored, failed, stop, tasks }
    }

    fn count(&self) -> usize {
        self.stored.lock().unwrap().len()
    }

    /// Waits until so many more are stored.
    async fn more(&self, count: usize) {
        let goal = self.count() + count;
        until("more records", || self.count() >= goal).await;
    }

    async fn stop(self) -> BTreeSet<RecordId> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            within(task).await.unwrap();
        }
        let failed = self.failed.load(Ordering::Relaxed);
        let stored: BTreeSet<_> = self.stored.lock().unwrap().iter().copied().collect();
        eprintln!("{} appends stored, {failed} refused or unknown", stored.len());
        stored
    }
}

/// Delivers until all of `expected` have come; all that came, in order.
async fn deliver_all(spool: &dyn Spool, expected: &BTreeSet<RecordId>) -> Vec<Entry> {
    let mut missing = expected.clone();
    let mut delivered = Vec::new();
    while !missing.is_empty() {
        let Ok(entry) = timeout(PATIENCE, spool.next()).await else {
            panic!(
                "{} of {} records did not come; in the spool: {:?}; missing: {missing:?}; \
                 expected: {expected:?}",
                missing.len(),
                expected.len(),
                spool.depth()
            );
        };
        let entry = entry.unwrap();
        let message = persist(|| spool.read(entry.id)).await;
        assert!(message.body.starts_with(b"body "), "{message:?}");
        persist(|| spool.delivered(&entry)).await;
        missing.remove(&entry.id);
        delivered.push(entry);
    }
    assert!(delivered.is_sorted_by_key(|entry| entry.sequence), "not in order");
    delivered
}
