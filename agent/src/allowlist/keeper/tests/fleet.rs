//! A thousand agents that have everything in common: their start, their outages, and a
//! service that is meant to notice neither.

use super::*;
use crate::allowlist::{Collect, Unpublished};

const AGENTS: usize = 1000;
/// More requests in a second are a step: a thousand in a minute are 17 on average.
const STEP: usize = 50;
/// And when polls have spread over the hour, which are one in four seconds.
const SETTLED: usize = 12;

/// When the service fails, and how.
type BadTime = (std::ops::Range<Duration>, fn() -> microsoft365::Error);

/// The service of a whole fleet. It counts, and it has good and bad times.
#[derive(Clone)]
struct Service {
    begin: Instant,
    seconds: Arc<Mutex<Vec<usize>>>,
    bad: Option<BadTime>,
}

impl Collect for Service {
    async fn collect(&self, ask: Ask) -> super::super::Polled {
        let at = self.begin.elapsed();
        let mut seconds = self.seconds.lock().unwrap();
        let second = usize::try_from(at.as_secs()).unwrap();
        let length = seconds.len().max(second.saturating_add(1));
        seconds.resize(length, 0);
        seconds[second] = seconds[second].saturating_add(1);
        drop(seconds);
        if let Some((_, error)) = self.bad.as_ref().filter(|(bad, _)| bad.contains(&at)) {
            return Err(error().into());
        }
        let version = version("2026052900");
        let revision = Revision::Version(version);
        if ask.applied == Some(revision.clone()) {
            return Ok(super::super::Collected::Unchanged { revision, valid_for: None });
        }
        let content = ask.content.as_ref().clone();
        Ok(super::super::Collected::New { revision, content, valid_for: None })
    }
}

/// Requests by second, of agents that start together, each with its own directory,
/// keeper and chance, as `Keeper::open` makes them.
async fn requests(time: Duration, bad: Option<BadTime>) -> Vec<usize> {
    let directory = tempfile::tempdir().unwrap();
    let service = Service { begin: Instant::now(), seconds: Arc::default(), bad };
    let mut agents = JoinSet::new();
    let mut commands = Vec::new();
    for number in 0..AGENTS {
        let config = Config {
            state_directory: directory.path().join(number.to_string()),
            ..Config::default()
        };
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let begin = service.begin;
        let clock = move || {
            Timestamp::from_second(1_800_000_000).unwrap().checked_add(begin.elapsed()).unwrap()
        };
        let keeper =
            Keeper::with(Arc::new(config), service.clone(), metrics, Arc::new(clock), random)
                .unwrap();
        let (sender, receiver) = mpsc::channel(1);
        commands.push(sender);
        agents.spawn(keeper.run(Unpublished, receiver, tokio::time::sleep(time)));
    }
    while agents.join_next().await.is_some() {}
    service.seconds.lock().unwrap().clone()
}

fn busiest(seconds: &[usize]) -> usize {
    seconds.iter().copied().max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_starts_together_does_not_ask_together() {
    let seconds = requests(4 * HOUR, None).await;
    assert_eq!(seconds[..61].iter().sum::<usize>(), AGENTS, "each asks within the first minute");
    assert!(seconds[..60].iter().filter(|asked| **asked > 0).count() > 55, "{:?}", &seconds[..60]);
    println!(
        "busiest second: {} at first, {} later",
        busiest(&seconds),
        busiest(&seconds[10_800..])
    );
    assert!(busiest(&seconds) <= STEP);
    assert!(busiest(&seconds[10_800..]) <= SETTLED, "three hours later");
}

#[tokio::test(start_paused = true)]
async fn nor_does_a_fleet_that_starts_together_while_the_service_is_down() {
    let outage = Duration::ZERO..2 * HOUR;
    let seconds = requests(4 * HOUR, Some((outage, timeout))).await;
    println!(
        "busiest second: {}, after the outage {}",
        busiest(&seconds),
        busiest(&seconds[7200..])
    );
    assert!(busiest(&seconds) <= STEP);
    assert!(busiest(&seconds[7200..]) <= SETTLED, "the retries have spread by then");
}

#[tokio::test(start_paused = true)]
async fn nor_does_one_that_an_outage_met_when_it_had_spread() {
    let outage = 3 * HOUR..5 * HOUR;
    let seconds = requests(7 * HOUR, Some((outage, timeout))).await;
    println!("busiest second: {}", busiest(&seconds[10_800..]));
    assert!(busiest(&seconds[10_800..]) <= SETTLED);
}

#[tokio::test(start_paused = true)]
async fn nor_does_one_that_was_told_to_wait_an_hour() {
    let limited = Duration::ZERO..HOUR;
    let seconds = requests(3 * HOUR, Some((limited, throttled))).await;
    println!("busiest second: {}", busiest(&seconds));
    assert_eq!(seconds[61..3600].iter().sum::<usize>(), 0, "an hour is an hour");
    assert!(busiest(&seconds) <= STEP);
    assert!(busiest(&seconds[3600..]) <= STEP / 2);
}
