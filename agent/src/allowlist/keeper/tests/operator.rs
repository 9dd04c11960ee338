//! What operators order.

use super::*;
use crate::allowlist::Temporary;

const PREFIX: &str = "203.0.113.7/32";
const ADDRESS: &str = "203.0.113.7";

fn other(number: &str) -> Polled {
    capture(number, |text| text.replace("13.107.6.152/31", "13.108.0.0/24"))
}

async fn hold(running: &Running, hold: bool) -> Outcome {
    running.tell(|done| Command::Hold { hold, done }).await
}

async fn allow(running: &Running, hours: u32) -> Outcome {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let entry =
        Temporary::new(PREFIX.parse().unwrap(), HOUR.saturating_mul(hours), "migration", now)
            .unwrap();
    running.tell(|done| Command::Allow { entry, done }).await
}

fn import(body: &str) -> Import {
    let version = Some(version("2026112300"));
    Import { feed: WORLDWIDE, body: body.as_bytes().to_vec(), version, accept: false }
}

#[tokio::test(start_paused = true)]
async fn on_hold_a_new_version_is_offered_and_not_applied() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    let running = Running::start(&bench);
    running.pass(Duration::from_secs(1)).await;
    assert_eq!(hold(&running, true).await, Ok(()));
    bench.answer(other("2026062900"));
    running.pass(HOUR).await;
    assert!(!running.passes("13.108.0.1"));
    assert_eq!(running.feed().revision, applied_version("2026052900"));
    let offer = running.status.borrow().offers[&WORLDWIDE].clone();
    assert_eq!(offer.revision.to_string(), "2026062900");
    let texts: Vec<_> = offer.added.iter().map(|change| change.prefix.to_string()).collect();
    assert_eq!(texts, ["13.108.0.0/24"]);
    assert_eq!(offer.removed.len(), 1);
    assert!(running.metric("exogate_feed_hold 1"));
    assert!(running.metric("exogate_feed_offered_changes{change=\"added\",feed=\"Worldwide\"} 1"));

    // It is remembered, and ends with an order only.
    let running = running.restart(&bench);
    bench.answer(other("2026062900"));
    running.pass(Duration::from_secs(31)).await;
    assert!(running.status.borrow().hold && !running.passes("13.108.0.1"));
    bench.answer(other("2026062900"));
    assert_eq!(hold(&running, false).await, Ok(()));
    running.pass(Duration::from_secs(1)).await;
    assert!(running.passes("13.108.0.1") && running.status.borrow().offers.is_empty());
    assert_eq!(running.events(), [Event::Applied, Event::Held, Event::Resumed, Event::Applied]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_shows_and_changes_nothing() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    let running = Running::start(&bench);
    running.pass(Duration::from_secs(1)).await;
    bench.answer(other("2026062900"));
    running.commands.send(Command::Refresh { dry_run: true }).await.unwrap();
    running.pass(Duration::from_secs(1)).await;
    assert!(!running.passes("13.108.0.1"));
    assert_eq!(running.status.borrow().offers.len(), 1);
    // The next poll is a common one.
    bench.answer(other("2026062900"));
    running.pass(HOUR).await;
    assert!(running.passes("13.108.0.1") && running.status.borrow().offers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refused_version_is_offered_and_told_once() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    let running = Running::start(&bench);
    running.pass(Duration::from_secs(1)).await;
    for _ in 0..3 {
        bench.answer(empty("2026062900"));
    }
    running.pass(3 * HOUR).await;
    let offer = running.status.borrow().offers[&WORLDWIDE].clone();
    assert_eq!((offer.added.len(), offer.removed.len()), (0, 34 + 16));
    assert_eq!(offer.problem.unwrap().reason, "no_prefixes");
    assert_eq!(running.events(), [Event::Applied, Event::Refused]);
    let records = History::new(running.directory.path()).read().unwrap();
    assert_eq!(records[1].from.as_deref(), Some("2026052900"));
    assert_eq!(records[1].to.as_deref(), Some("2026062900"));
    // What an operator accepts goes through a hold, too.
    assert_eq!(hold(&running, true).await, Ok(()));
    bench.answer(empty("2026062900"));
    running.commands.send(Command::Accept(WORLDWIDE)).await.unwrap();
    running.pass(Duration::from_secs(1)).await;
    assert_eq!(running.feed().revision, applied_version("2026062900"));
}

#[tokio::test(start_paused = true)]
async fn a_temporary_entry_passes_until_its_time_is_over() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    let hash = running.hash();
    assert_eq!(allow(&running, 2).await, Ok(()));
    assert!(running.passes(ADDRESS));
    let list = Arc::clone(&running.status.borrow().list);
    let found = list.lookup(ADDRESS.parse().unwrap());
    assert_eq!(found[0].source, "temporary");
    assert!(found[0].entry.origin.to_string().contains("migration"));
    assert!(running.metric("exogate_allowlist_temporary_entries 1"));
    let config = Config::default();
    let policy = list.policy(&config, &[]);
    let temporary = policy.prefixes.iter().find(|prefix| {
        prefix.length == 32 && prefix.address == ADDRESS.parse::<std::net::IpAddr>().unwrap()
    });
    assert!(policy.guards.iter().all(|guard| guard.sources & temporary.unwrap().sources != 0));

    let running = running.restart(&bench);
    assert!(running.passes(ADDRESS), "it survives a restart");
    running.pass(2 * HOUR - Duration::from_secs(5)).await;
    assert!(running.passes(ADDRESS));
    running.pass(Duration::from_secs(6)).await;
    assert!(!running.passes(ADDRESS));
    assert_eq!(running.hash(), hash);
    assert_eq!(bench.lock().published.last(), Some(&hash));
    assert_eq!(running.events(), [Event::Allowed, Event::Expired]);
    assert!(running.metric("exogate_allowlist_temporary_entries 0"));
}

#[tokio::test(start_paused = true)]
async fn a_temporary_entry_can_be_taken_back() {
    let running = Running::start(&Bench::default());
    assert_eq!(allow(&running, 2).await, Ok(()));
    let prefix = PREFIX.parse().unwrap();
    assert_eq!(running.tell(|done| Command::Disallow { prefix, done }).await, Ok(()));
    assert!(!running.passes(ADDRESS));
    let again = running.tell(|done| Command::Disallow { prefix, done }).await;
    assert!(again.unwrap_err().contains("no temporary entry"));
    assert_eq!(running.events(), [Event::Allowed, Event::Removed]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_published_is_tried_again() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    assert_eq!(allow(&running, 1).await, Ok(()));
    bench.lock().publish_fails = true;
    running.pass(HOUR + Duration::from_secs(60)).await;
    assert!(running.passes(ADDRESS));
    bench.lock().publish_fails = false;
    running.pass(Duration::from_secs(31)).await;
    assert!(!running.passes(ADDRESS));
}

#[tokio::test(start_paused = true)]
async fn an_end_while_no_agent_ran_is_over_at_the_next_start() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    assert_eq!(allow(&running, 1).await, Ok(()));
    bench.lock().clock_set_by = jiff::SignedDuration::from_hours(2);
    let running = running.restart(&bench);
    assert!(!running.passes(ADDRESS));
    running.pass(Duration::from_secs(2)).await;
    assert_eq!(running.events(), [Event::Allowed, Event::Expired]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_ends_entries_soon_and_backward_never_sooner() {
    let bench = Bench::default();
    bench.answer(capture("2026052900", |text| text.to_owned()));
    bench.answer(capture("2026062900", |text| text.replace("\"13.107.6.152/31\",", "")));
    let running = Running::start(&bench);
    assert_eq!(allow(&running, 2).await, Ok(()));
    running.pass(Duration::from_secs(3700)).await;
    bench.lock().clock_set_by = jiff::SignedDuration::from_hours(-1000);
    running.pass(3 * HOUR).await;
    assert!(running.passes(ADDRESS) && running.passes("13.107.6.152"));
    bench.lock().clock_set_by = jiff::SignedDuration::from_hours(1000);
    running.pass(Duration::from_secs(31)).await;
    assert!(!running.passes(ADDRESS));
    // Polls go on by a clock that nobody sets.
    running.pass(2 * HOUR).await;
    assert_eq!(bench.times().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_remembered_is_told_to_the_operator() {
    let running = Running::start(&Bench::default());
    std::fs::create_dir_all(running.directory.path().join("state.json.new")).unwrap();
    let error = allow(&running, 1).await.unwrap_err();
    assert!(error.contains("in force, but not remembered"), "{error}");
    assert!(running.passes(ADDRESS));
}

#[tokio::test(start_paused = true)]
async fn a_history_that_cannot_be_written_stops_nothing() {
    let bench = Bench::default();
    bench.answer(other("2026062900"));
    let running = Running::start(&bench);
    std::fs::create_dir_all(running.directory.path().join("history.jsonl")).unwrap();
    running.pass(Duration::from_secs(1)).await;
    assert!(running.passes("13.108.0.1"));
    assert!(running.metric("exogate_allowlist_history_failures_total 1"));
}

#[tokio::test(start_paused = true)]
async fn an_import_is_vetted_like_any_answer() {
    let running = Running::start(&Bench::default());
    let tell = async |import| running.tell(|done| Command::Import { import, done }).await;
    let body = std::fs::read_to_string(CAPTURE).unwrap();
    let hash = running.hash();
    let private = tell(import(&body.replace("13.107.6.152/31", "10.0.0.0/8"))).await;
    assert!(private.unwrap_err().contains("not of the public internet"));
    assert!(tell(import("<html>")).await.unwrap_err().contains("not JSON"));
    assert!(tell(import("[]")).await.unwrap_err().contains("--accept"));
    let feed = FeedId::Source("no".to_owned());
    assert!(tell(Import { feed, ..import("") }).await.unwrap_err().contains("Worldwide"));
    assert_eq!(running.hash(), hash);

    assert_eq!(tell(import(&body.replace("13.107.6.152/31", "13.108.0.0/24"))).await, Ok(()));
    assert!(running.passes("13.108.0.1"));
    assert_eq!(running.feed().revision, applied_version("2026112300"));
    assert_eq!(running.events(), [Event::Imported]);
    assert!(running.directory.path().join("state.json").exists());
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
