//! A keeper on virtual time, with a service and a gate that do as they are told.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use hyper::StatusCode;
use tokio::sync::oneshot;

use super::*;
use crate::{
    allowlist::{Ask, Event, Provenance},
    source::{
        feed::Revision,
        fetch,
        microsoft365::{self, Answer, Collected, Instance, Version, parse_endpoints},
    },
};

mod fleet;
mod instance;
mod mode;
mod operator;
mod real_versions;
mod reload;
mod sources;
mod state;

const WORLDWIDE: FeedId = FeedId::Instance(Instance::Worldwide);

/// How an instance of the web service answers.
type Polled = Result<Collected, microsoft365::Error>;

const CAPTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/data/worldwide/worldwide-captured-2026-05-29.json"
);
const HOUR: Duration = Duration::from_secs(3600);

/// A service and a gate in one: answers in order, and what was asked and
/// published.
#[derive(Clone, Default)]
struct Bench(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    answers: VecDeque<Polled>,
    /// What feeds of sources answer.
    lists: VecDeque<super::Polled>,
    /// When, and for which applied version.
    polls: Vec<(Duration, Option<Version>)>,
    begin: Option<Instant>,
    published: Vec<String>,
    /// The modes that lists were published in.
    modes: Vec<crate::config::Mode>,
    publish_fails: bool,
    /// By how much somebody has set the clock.
    clock_set_by: jiff::SignedDuration,
    deadlines: Vec<Option<u64>>,
}

impl Bench {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn answer(&self, answer: Polled) {
        self.lock().answers.push_back(answer);
    }

    fn times(&self) -> Vec<u64> {
        self.lock().polls.iter().map(|(at, _)| at.as_secs()).collect()
    }
}

impl Collect for Bench {
    async fn collect(&self, ask: Ask) -> super::Polled {
        let mut inner = self.lock();
        if let FeedId::Source(_) = ask.id {
            return inner.lists.pop_front().unwrap_or_else(|| Err(timeout().into()));
        }
        let applied = ask.applied.as_ref().and_then(Revision::version);
        let begin = inner.begin.unwrap();
        inner.polls.push((begin.elapsed(), applied));
        let answer = inner.answers.pop_front();
        let answer =
            answer.unwrap_or_else(|| applied.map(Collected::Unchanged).ok_or_else(timeout));
        Ok(answer?.into())
    }
}

impl Publish for Bench {
    type Error = String;

    fn publish(
        &mut self,
        list: &Arc<AllowList>,
        config: &Arc<Config>,
        deadline: Option<u64>,
    ) -> Result<(), String> {
        let mut inner = self.lock();
        if inner.publish_fails {
            return Err("the table is full".to_owned());
        }
        inner.published.push(list.hash().to_owned());
        inner.modes.push(config.mode);
        inner.deadlines.push(deadline);
        Ok(())
    }
}

fn timeout() -> microsoft365::Error {
    fetch::Error::Timeout { url: "https://test".to_owned(), after: Duration::from_secs(20) }.into()
}

fn throttled() -> microsoft365::Error {
    let url = "https://test".to_owned();
    let status = StatusCode::TOO_MANY_REQUESTS;
    fetch::Error::Status { url, status, retry_after: None }.into()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn applied_version(text: &str) -> Option<Revision> {
    Some(Revision::Version(version(text)))
}

fn capture(number: &str, edit: impl Fn(&str) -> String) -> Polled {
    let text = edit(&std::fs::read_to_string(CAPTURE).unwrap());
    let sets = parse_endpoints(text.as_bytes()).unwrap();
    Ok(Collected::New(Answer { version: version(number), sets }))
}

fn empty(number: &str) -> Polled {
    let sets = parse_endpoints(b"[]").unwrap();
    Ok(Collected::New(Answer { version: version(number), sets }))
}

struct Running {
    bench: Bench,
    status: watch::Receiver<Status>,
    commands: mpsc::Sender<Command>,
    registry: Registry,
    task: tokio::task::JoinHandle<()>,
    directory: Arc<tempfile::TempDir>,
}

/// Polls begin at once.
fn at_once(mut config: Config) -> Config {
    config.feed.first_poll_within = Duration::ZERO;
    config
}

impl Running {
    fn start(bench: &Bench) -> Self {
        Self::start_in(bench, Arc::new(tempfile::tempdir().unwrap()))
    }

    fn start_in(bench: &Bench, directory: Arc<tempfile::TempDir>) -> Self {
        Self::start_with(bench, directory, at_once(Config::default()))
    }

    fn start_with(bench: &Bench, directory: Arc<tempfile::TempDir>, config: Config) -> Self {
        let config = Config { state_directory: directory.path().to_owned(), ..config };
        let begin = Instant::now();
        bench.lock().begin = Some(begin);
        let inner = Arc::clone(&bench.0);
        let clock = move || {
            let now = Timestamp::from_second(1_800_000_000).unwrap();
            let now = now.checked_add(begin.elapsed()).unwrap();
            now.checked_add(inner.lock().unwrap().clock_set_by).unwrap()
        };
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let keeper =
            Keeper::with(Arc::new(config), bench.clone(), metrics, Arc::new(clock), || 0.5)
                .unwrap();
        let status = keeper.status();
        let (commands, receiver) = mpsc::channel(4);
        let task = tokio::spawn(keeper.run(bench.clone(), receiver, std::future::pending()));
        Self { bench: bench.clone(), status, commands, registry, task, directory }
    }

    /// Lets time pass; it is paused otherwise.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time.saturating_add(Duration::from_millis(1))).await;
    }

    fn hash(&self) -> String {
        self.status.borrow().list.hash().to_owned()
    }

    fn feed(&self) -> super::super::FeedStatus {
        self.status.borrow().feeds[&WORLDWIDE].clone()
    }

    fn metric(&self, line: &str) -> bool {
        let text =
            prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.lines().any(|other| other == line)
    }

    fn restart(self, bench: &Bench) -> Self {
        self.task.abort();
        Self::start_in(bench, self.directory)
    }

    fn restart_with(self, bench: &Bench, config: Config) -> Self {
        self.task.abort();
        Self::start_with(bench, self.directory, config)
    }

    /// Tells the keeper something and waits for the outcome.
    async fn tell(&self, order: impl FnOnce(oneshot::Sender<Outcome>) -> Command) -> Outcome {
        let (done, outcome) = oneshot::channel();
        self.commands.send(order(done)).await.unwrap();
        outcome.await.unwrap()
    }

    fn passes(&self, address: &str) -> bool {
        !self.status.borrow().list.lookup(address.parse().unwrap()).is_empty()
    }

    fn events(&self) -> Vec<Event> {
        let records = History::new(self.directory.path()).read().unwrap();
        records.into_iter().map(|record| record.event).collect()
    }
}
