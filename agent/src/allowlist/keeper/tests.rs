use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use hyper::StatusCode;
use proptest::prelude::*;

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
mod operator;
mod real_versions;
mod sources;

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
    publish_fails: bool,
    /// By how much somebody has set the clock.
    clock_set_by: jiff::SignedDuration,
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

    fn publish(&mut self, list: &Arc<AllowList>, _: &Arc<Config>) -> Result<(), String> {
        let mut inner = self.lock();
        if inner.publish_fails {
            return Err("the table is full".to_owned());
        }
        inner.published.push(list.hash().to_owned());
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
            Keeper::with(Arc::new(config), bench.clone(), metrics, Arc::new(clock), || 0.5);
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

#[tokio::test(start_paused = true)]
async fn without_network_the_built_in_list_stands_and_polls_back_off() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    let hash = running.hash();
    running.pass(Duration::from_secs(4 * 3600)).await;
    let minutes: Vec<_> = bench.times().iter().map(|second| second / 60).collect();
    assert_eq!(minutes, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    assert_eq!(running.hash(), hash);
    assert_eq!(running.feed().provenance, Provenance::Embedded { captured: "2026-05-29" });
    assert_eq!(running.feed().problem.unwrap().reason, "timeout");
    assert!(running.metric("exogate_feed_failures_total{feed=\"Worldwide\",reason=\"timeout\"} 9"));
}

#[tokio::test(start_paused = true)]
async fn throttling_waits_an_hour() {
    let bench = Bench::default();
    bench.answer(Err(throttled()));
    bench.answer(Err(throttled()));
    let running = Running::start(&bench);
    running.pass(3 * HOUR).await;
    // And up to a tenth more.
    assert_eq!(bench.times()[..3], [0, 3780, 7560]);
    assert!(
        running.metric("exogate_feed_failures_total{feed=\"Worldwide\",reason=\"throttled\"} 2")
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_applied_remembered_and_then_only_the_version_is_asked() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    let running = Running::start(&bench);
    let embedded = running.hash();
    running.pass(HOUR * 2).await;
    // The same prefixes as built in: there is nothing to publish.
    assert_eq!(running.hash(), embedded);
    assert!(bench.lock().published.is_empty());
    let feed = running.feed();
    assert_eq!(feed.revision, applied_version("2026052900"));
    assert_eq!(feed.provenance.name(), "live");
    assert!(feed.problem.is_none() && feed.next_attempt > feed.last_success);
    assert!(running.metric("exogate_feed_version{feed=\"Worldwide\"} 2026052900"));
    assert!(
        running.metric("exogate_allowlist_prefixes{family=\"ipv6\",source=\"exchange-online\"} 18")
    );
    let applied: Vec<_> = bench.lock().polls.iter().map(|(_, applied)| *applied).collect();
    let known = feed.revision.as_ref().and_then(Revision::version);
    assert_eq!(applied, [None, known, known]);

    // After a restart the version is known, and the first poll takes its time.
    let bench = Bench::default();
    let running = running.restart_with(&bench, Config::default());
    assert_eq!(running.feed().provenance.name(), "last_known_good");
    running.pass(Duration::from_secs(31)).await;
    assert_eq!(bench.times(), [30]);
    assert_eq!(bench.lock().polls[0].1, Some(version("2026052900")));
    assert_eq!(running.feed().provenance.name(), "live");
}

#[tokio::test(start_paused = true)]
async fn a_new_prefix_passes_at_once_and_an_old_one_for_another_day() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    // 13.107.6.152/31 becomes another prefix.
    bench.answer(capture("2026062900", |text| text.replace("13.107.6.152/31", "13.108.0.0/24")));
    let running = Running::start(&bench);
    running.pass(Duration::from_secs(3700)).await;
    let allowed =
        |address: &str| !running.status.borrow().list.lookup(address.parse().unwrap()).is_empty();
    assert!(allowed("13.108.0.1") && allowed("13.107.6.152"));
    assert_eq!(running.feed().pending_removals.len(), 1);
    assert!(running.metric("exogate_allowlist_pending_removals{source=\"exchange-online\"} 1"));
    running.pass(HOUR * 23).await;
    assert!(allowed("13.107.6.152"));
    running.pass(HOUR * 2).await;
    assert!(allowed("13.108.0.1") && !allowed("13.107.6.152"));
    assert_eq!(bench.lock().published.len(), 2);
    assert!(running.metric("exogate_allowlist_pending_removals{source=\"exchange-online\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn pending_removals_survive_a_restart() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    bench.answer(capture("2026062900", |text| text.replace("\"13.107.6.152/31\",", "")));
    let running = Running::start(&bench);
    let hash = running.hash();
    running.pass(Duration::from_secs(3700)).await;
    let running = running.restart(&bench);
    assert_eq!(running.hash(), hash);
    assert_eq!(running.feed().pending_removals[0].entry.prefix.to_string(), "13.107.6.152/31");
}

#[tokio::test(start_paused = true)]
async fn a_refused_answer_leaves_list_and_version_until_an_operator_accepts_it() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    bench.answer(empty("2026062900"));
    let running = Running::start(&bench);
    let hash = running.hash();
    running.pass(Duration::from_secs(3700)).await;
    assert_eq!(running.hash(), hash);
    let feed = running.feed();
    assert_eq!(feed.revision, applied_version("2026052900"));
    let problem = feed.problem.unwrap();
    assert_eq!(problem.reason, "no_prefixes");
    assert!(problem.can_be_accepted && problem.message.contains("exchange-online"));
    assert!(
        running.metric("exogate_feed_refusals_total{feed=\"Worldwide\",reason=\"no_prefixes\"} 1")
    );

    bench.answer(empty("2026062900"));
    running.commands.send(Command::Accept(WORLDWIDE)).await.unwrap();
    running.pass(Duration::from_secs(1)).await;
    let feed = running.feed();
    assert_eq!(feed.revision, applied_version("2026062900"));
    // Even what was accepted goes after the grace period only.
    assert_eq!(running.hash(), hash);
    assert_eq!(feed.pending_removals.len(), 34 + 16);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_right_is_refused_even_if_accepted() {
    let bench = Bench::default();
    // One for the poll at the start, one for that of the operator.
    for _ in 0..2 {
        bench.answer(capture("2026062900", |text| text.replace("13.107.6.152/31", "10.0.0.0/8")));
    }
    let running = Running::start(&bench);
    running.commands.send(Command::Accept(WORLDWIDE)).await.unwrap();
    running.pass(Duration::from_secs(1)).await;
    assert_eq!(running.feed().problem.unwrap().reason, "not_public");
    assert_eq!(running.feed().provenance.name(), "embedded");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_published_is_neither_applied_nor_remembered() {
    let bench = Bench::default();
    bench.lock().publish_fails = true;
    let answer = || capture("2026062900", |text| text.replace("13.107.6.152/31", "13.108.0.0/24"));
    bench.answer(answer());
    bench.answer(answer());
    let running = Running::start(&bench);
    let hash = running.hash();
    running.pass(Duration::from_secs(1)).await;
    assert_eq!(running.hash(), hash);
    assert_eq!(running.feed().revision, None);
    assert_eq!(running.feed().problem.unwrap().reason, "publish");
    assert!(!running.directory.path().join("state.json").exists());

    // The next poll asks for the same version again.
    bench.lock().publish_fails = false;
    running.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.lock().polls[1].1, None);
    assert_eq!(bench.lock().published, [running.hash()]);
    assert!(running.directory.path().join("state.json").exists());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_saved_is_in_force_and_saved_later() {
    let bench = Bench::default();
    bench.answer(capture("2026062900", |text| text.replace("13.107.6.152/31", "13.108.0.0/24")));
    let running = Running::start(&bench);
    // A directory in the place of the file that is written first.
    let obstacle = running.directory.path().join("state.json.new");
    std::fs::create_dir_all(&obstacle).unwrap();
    running.pass(Duration::from_secs(1)).await;
    assert_eq!(running.feed().revision, applied_version("2026062900"));
    assert_eq!(running.status.borrow().problem.as_ref().unwrap().reason, "state");
    assert!(running.metric("exogate_allowlist_save_failures_total 1"));

    std::fs::remove_dir(&obstacle).unwrap();
    running.pass(HOUR).await;
    assert!(running.status.borrow().problem.is_none());
    assert!(running.directory.path().join("state.json").exists());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_state_does_not_stop_the_start() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(directory.path().join("state.json"), "{").unwrap();
    let running = Running::start_in(&Bench::default(), directory);
    assert_eq!(running.status.borrow().problem.as_ref().unwrap().reason, "state");
    assert_eq!(running.feed().provenance.name(), "embedded");
    assert_eq!(running.status.borrow().list.sources()[0].entries.len(), 34);
}

#[tokio::test(start_paused = true)]
async fn a_reload_takes_effect_at_once_or_not_at_all() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    let hash = running.hash();
    let text = "[[guard]]\nport = 443\nsources = [\"exchange-online\", \"pega\"]\n\
                [source.pega]\nkind = \"static\"\nprefixes = [\"198.51.100.0/24\"]\n\
                [feed]\nremoval_polls = 1";
    let config = Arc::new(Config {
        state_directory: running.directory.path().to_owned(),
        ..Config::parse("test".as_ref(), text).unwrap()
    });
    let reload = async || {
        let (done, outcome) = oneshot::channel();
        let config = Arc::clone(&config);
        running.commands.send(Command::Reload { config, done }).await.unwrap();
        outcome.await.unwrap()
    };
    bench.lock().publish_fails = true;
    assert!(reload().await.unwrap_err().contains("the table is full"));
    assert_eq!(running.hash(), hash);

    bench.lock().publish_fails = false;
    assert_eq!(reload().await, Ok(()));
    let status = running.status.borrow().clone();
    let names: Vec<_> = status.list.sources().iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["exchange-online", "pega"]);
    assert_eq!(bench.lock().published, [status.list.hash()]);
    let gone = "exogate_allowlist_prefixes{family=\"ipv4\",source=\"graph-notifications\"} 94";
    assert!(!running.metric(gone));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_polls_now() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    let running = Running::start(&bench);
    running.pass(Duration::from_secs(100)).await;
    running.commands.send(Command::Refresh { dry_run: false }).await.unwrap();
    running.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.times(), [0, 100]);
    assert_eq!(running.bench.lock().answers.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_page_instead_of_an_answer_is_refused_and_asked_for_again_soon() {
    let bench = Bench::default();
    let problem = parse_endpoints(b"<html>").unwrap_err();
    bench.answer(Err(microsoft365::Error::Malformed { url: "https://test".to_owned(), problem }));
    let running = Running::start(&bench);
    running.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.times(), [0, 60]);
    assert!(
        running.metric("exogate_feed_refusals_total{feed=\"Worldwide\",reason=\"not_json\"} 1")
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_changes_waits_for_no_grace_period() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    bench.answer(capture("2026062900", |text| text.replace("\"13.107.6.152/31\",", "")));
    let running = Running::start(&bench);
    running.pass(Duration::from_secs(3700)).await;
    assert_eq!(running.feed().pending_removals.len(), 1);
    let text = "[[guard]]\nport = 443\nsources = [\"exchange-online\"]\n\
                [source.exchange-online]\nkind = \"exchange-online-strict\"";
    let config = Arc::new(Config {
        state_directory: running.directory.path().to_owned(),
        ..Config::parse("test".as_ref(), text).unwrap()
    });
    let (done, outcome) = oneshot::channel();
    running.commands.send(Command::Reload { config, done }).await.unwrap();
    assert_eq!(outcome.await.unwrap(), Ok(()));
    assert!(running.feed().pending_removals.is_empty());
    assert_eq!(running.status.borrow().list.sources()[0].count(), (10, 16));
}

#[tokio::test(start_paused = true)]
async fn another_cloud_begins_with_what_is_documented_and_polls_at_once() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    let running = Running::start(&bench);
    running.pass(Duration::from_secs(1)).await;
    let text = "[[guard]]\nport = 443\nsources = [\"exchange\", \"graph\"]\n\
                [source.exchange]\nkind = \"exchange-online\"\ninstance = \"China\"\n\
                [source.graph]\nkind = \"graph-notifications\"\ninstance = \"China\"";
    let config = Arc::new(Config {
        state_directory: running.directory.path().to_owned(),
        ..Config::parse("test".as_ref(), text).unwrap()
    });
    let sets = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/data/history/china-2023062900-partial.json"
    ));
    let sets = parse_endpoints(&sets.unwrap()).unwrap();
    bench.answer(Err(timeout()));
    bench.answer(Ok(Collected::New(Answer { version: version("2023062900"), sets })));
    let (done, outcome) = oneshot::channel();
    running.commands.send(Command::Reload { config, done }).await.unwrap();
    assert_eq!(outcome.await.unwrap(), Ok(()));
    let list = Arc::clone(&running.status.borrow().list);
    assert_eq!(list.empty_sources().collect::<Vec<_>>(), ["exchange"]);
    assert_eq!(list.sources()[1].count(), (8, 0));

    running.pass(Duration::from_secs(61)).await;
    assert_eq!(bench.times(), [0, 1, 61]);
    let status = running.status.borrow().clone();
    assert_eq!(status.feeds.keys().collect::<Vec<_>>(), [&FeedId::Instance(Instance::China)]);
    assert_eq!(status.list.sources()[0].entries.len(), 32);
    assert_eq!(status.list.sources()[1].entries.len(), 8 + 18);
    // The other cloud is not forgotten, in case the operator comes back to it.
    let state = StateDirectory::new(running.directory.path()).load().unwrap();
    assert_eq!(state.held.len(), 2);
}

/// The largest answer that is accepted, then half of it, and back from disk.
#[tokio::test(start_paused = true)]
async fn the_largest_answer_goes_through_every_step() {
    let hosts: Vec<_> = (0..1000).map(|n| format!("{n}.{}.example", "x".repeat(200))).collect();
    let answer = |number: &str, count: u32| {
        let first = u32::from(std::net::Ipv4Addr::new(40, 0, 0, 0));
        let ips: Vec<_> = (0..count)
            .map(|n| format!("{}/32", std::net::Ipv4Addr::from(first.wrapping_add(n << 1))))
            .collect();
        let exchange = serde_json::json!({ "id": 1, "serviceArea": "Exchange", "tcpPorts": "443",
            "ips": ips, "urls": hosts });
        let graph = serde_json::json!({ "id": 2, "serviceArea": "Common", "tcpPorts": "443",
            "ips": ["50.0.0.0/24"], "urls": ["graph.microsoft.com"] });
        let body = serde_json::json!([exchange, graph]).to_string();
        let sets = parse_endpoints(body.as_bytes()).unwrap();
        Ok(Collected::New(Answer { version: version(number), sets }))
    };
    let bench = Bench::default();
    bench.answer(answer("2026112300", 99_999));
    bench.answer(answer("2026122300", 50_000));
    let running = Running::start(&bench);
    running.pass(HOUR).await;
    let feed = running.feed();
    assert_eq!(feed.revision, applied_version("2026122300"), "{:?}", feed.problem);
    // And what was built in.
    assert_eq!(feed.pending_removals.len(), 49_999 + 34 + 16);
    let hash = running.hash();
    let running = running.restart(&Bench::default());
    assert_eq!(running.feed().provenance.name(), "last_known_good");
    assert_eq!(running.hash(), hash);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever becomes of the bytes of an answer: it is applied and all of it
    /// can be right, or nothing at all has changed.
    #[test]
    fn a_damaged_answer_is_applied_whole_or_changes_nothing(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut body = std::fs::read(CAPTURE).unwrap();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let bench = Bench::default();
            let version = version("2026112300");
            bench.answer(match parse_endpoints(&body) {
                Ok(sets) => Ok(Collected::New(Answer { version, sets })),
                Err(problem) => {
                    Err(microsoft365::Error::Malformed { url: "https://test".to_owned(), problem })
                }
            });
            let running = Running::start(&bench);
            let before = running.hash();
            running.pass(Duration::from_secs(1)).await;
            let feed = running.feed();
            if feed.problem.is_some() {
                assert_eq!((feed.revision, running.hash()), (None, before));
                assert!(!running.directory.path().join("state.json").exists());
            } else {
                assert_eq!(feed.revision, Some(Revision::Version(version)));
                // What was remembered is vetted again when it is read.
                let state = StateDirectory::new(running.directory.path()).load().unwrap();
                let list = AllowList::build(&Config::default().sources, &state);
                assert_eq!(list.hash(), running.hash());
            }
        });
    }
}
