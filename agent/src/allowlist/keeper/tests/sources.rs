//! Feeds of single sources.

use super::*;
use crate::source::{Entry, Origin, feed::Content};

fn config(source: &str) -> Config {
    let text = format!("[[guard]]\nport = 443\nsources = [\"x\"]\n[source.x]\n{source}");
    Config::parse("test".as_ref(), &text).unwrap()
}

fn url(rest: &str) -> Config {
    config(&format!("kind = \"url\"\nurl = \"https://lists.example/a\"\ninterval = \"1h\"\n{rest}"))
}

fn file() -> Config {
    config("kind = \"file\"\npath = \"/etc/probes\"")
}

fn list(tag: &str, prefixes: &[&str], valid_for: Option<Duration>) -> super::super::Polled {
    let entry = |prefix: &&str| Entry {
        prefix: prefix.parse().unwrap(),
        origin: Origin::Url { url: "https://lists.example/a".into() },
    };
    Ok(super::super::Collected::New {
        revision: Revision::Tag(tag.to_owned()),
        content: Content::of_entries(prefixes.iter().map(entry).collect()),
        valid_for,
    })
}

fn start(bench: &Bench, config: Config) -> Running {
    Running::start_with(bench, Arc::new(tempfile::tempdir().unwrap()), at_once(config))
}

fn status(running: &Running) -> crate::allowlist::FeedStatus {
    running.status.borrow().feeds[&FeedId::Source("x".to_owned())].clone()
}

const THREE: [&str; 3] = ["40.1.0.0/16", "40.2.0.0/16", "40.3.0.0/16"];

#[tokio::test(start_paused = true)]
async fn a_list_is_applied_remembered_and_vetted() {
    let bench = Bench::default();
    bench.lock().lists.push_back(list("one", &THREE, None));
    let running = start(&bench, url(""));
    assert_eq!(running.status.borrow().list.empty_sources().count(), 1, "the start does not wait");
    running.pass(Duration::from_secs(1)).await;
    assert!(running.passes("40.1.0.1"));
    assert!(running.metric("exogate_source_polls_total{result=\"applied\",source=\"x\"} 1"));

    let running = running.restart_with(&bench, url(""));
    assert!(running.passes("40.1.0.1"));
    assert_eq!(status(&running).provenance.name(), "last_known_good");
    bench.lock().lists.push_back(list("two", &["40.1.0.0/16"], None));
    bench.lock().lists.push_back(list("three", &["10.0.0.0/8"], None));
    bench.lock().lists.push_back(list("four", &[], None));
    running.pass(Duration::from_secs(31)).await;
    assert_eq!(status(&running).problem.unwrap().reason, "removes_too_much");
    running.pass(HOUR).await;
    assert_eq!(status(&running).problem.unwrap().reason, "not_public");
    running.pass(HOUR).await;
    assert_eq!(status(&running).problem.unwrap().reason, "no_prefixes");
    assert!(THREE.iter().all(|prefix| running.passes(prefix.split('/').next().unwrap())));
    let refusals = "exogate_source_refusals_total{reason=\"not_public\",source=\"x\"} 1";
    assert!(running.metric(refusals));
}

#[tokio::test(start_paused = true)]
async fn what_another_definition_brought_goes_with_the_first_answer() {
    let bench = Bench::default();
    bench.lock().lists.push_back(list("one", &THREE, None));
    let running = start(&bench, url(""));
    running.pass(Duration::from_secs(1)).await;
    let config = Arc::new(Config {
        state_directory: running.directory.path().to_owned(),
        ..config("kind = \"url\"\nurl = \"https://lists.example/b\"")
    });
    assert_eq!(running.tell(|done| Command::Reload { config, done }).await, Ok(()));
    running.pass(Duration::from_secs(1)).await;
    assert!(running.passes("40.1.0.1"), "until there is an answer");
    bench.lock().lists.push_back(list("two", &["40.9.0.0/16"], None));
    running.pass(Duration::from_secs(60)).await;
    assert!(running.passes("40.9.0.1") && !running.passes("40.1.0.1"));
}

#[tokio::test(start_paused = true)]
async fn another_token_or_interval_switches_neither_vetting_nor_grace_off() {
    let bench = Bench::default();
    let prefixes: Vec<_> = (1..=20).map(|number| format!("40.{number}.0.0/16")).collect();
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
    bench.lock().lists.push_back(list("one", &prefixes, None));
    bench.lock().lists.push_back(list("two", &prefixes[1..], None));
    let running = start(&bench, url(""));
    running.pass(2 * HOUR).await;
    assert_eq!(status(&running).pending_removals.len(), 1);
    let other = "kind = \"url\"\nurl = \"https://edge:hush@lists.example/a?token=new\"\n\
                 interval = \"2h\"\nca_file = \"/etc/ca.pem\"";
    let directory = running.directory.path().to_owned();
    let config = Arc::new(Config { state_directory: directory, ..config(other) });
    // An answer of nearly nothing is what a wrong token brings.
    bench.lock().lists.push_back(list("three", &["40.99.0.0/16"], None));
    assert_eq!(running.tell(|done| Command::Reload { config, done }).await, Ok(()));
    running.pass(Duration::from_secs(1)).await;
    assert_eq!(status(&running).problem.unwrap().reason, "removes_too_much");
    assert!(prefixes.iter().all(|prefix| running.passes(prefix.split('/').next().unwrap())));
    assert_eq!(status(&running).pending_removals.len(), 1, "its grace goes on");
}

#[tokio::test(start_paused = true)]
async fn the_counters_of_a_feed_that_is_gone_vanish() {
    let bench = Bench::default();
    bench.lock().lists.push_back(list("one", &[], None));
    let running = start(&bench, url(""));
    running.pass(3 * HOUR).await;
    let of_x = |running: &Running| {
        let families = running.registry.gather();
        let text = prometheus::TextEncoder::new().encode_to_string(&families).unwrap();
        ["polls", "failures", "refusals"]
            .map(|what| text.contains(&format!("\nexogate_source_{what}_total{{")))
    };
    assert_eq!(of_x(&running), [true; 3]);
    let directory = running.directory.path().to_owned();
    let config = Arc::new(Config { state_directory: directory, ..at_once(Config::default()) });
    assert_eq!(running.tell(|done| Command::Reload { config, done }).await, Ok(()));
    running.pass(Duration::from_secs(1)).await;
    assert_eq!(of_x(&running), [false; 3]);
    assert!(running.metric("exogate_feed_polls_total{feed=\"Worldwide\",result=\"applied\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn a_file_is_the_operators_word_and_needs_no_grace() {
    let bench = Bench::default();
    bench.lock().lists.push_back(list("one", &THREE, None));
    bench.lock().lists.push_back(list("two", &THREE[..2], None));
    let running = start(&bench, file());
    running.pass(Duration::from_secs(1)).await;
    assert!(running.passes("40.3.0.1"));
    running.pass(Duration::from_secs(3)).await;
    assert!(!running.passes("40.3.0.1") && running.passes("40.2.0.1"));
    // Missing files are looked for as often.
    bench.lock().lists.push_back(list("three", &THREE, None));
    running.pass(Duration::from_secs(3)).await;
    assert!(running.passes("40.3.0.1"));
}

#[tokio::test(start_paused = true)]
async fn no_feed_removes_anything_from_a_protected_source() {
    let bench = Bench::default();
    bench.lock().lists.push_back(list("one", &THREE, None));
    bench.lock().lists.push_back(list("two", &["40.9.0.0/16"], None));
    let running = start(&bench, url("protected = true"));
    running.pass(100 * HOUR).await;
    assert!(running.passes("40.1.0.1") && running.passes("40.9.0.1"));
    assert_eq!(status(&running).pending_removals.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn names_are_asked_for_again_when_their_time_to_live_is_over() {
    let bench = Bench::default();
    bench.lock().lists.push_back(list("one", &["40.1.0.1/32"], Some(Duration::from_secs(90))));
    bench.lock().lists.push_back(list("two", &["40.1.0.2/32"], Some(Duration::from_secs(90))));
    let running = start(&bench, config("kind = \"dns\"\nnames = [\"probe.example\"]"));
    running.pass(Duration::from_secs(1)).await;
    assert!(running.passes("40.1.0.1"));
    running.pass(Duration::from_secs(90)).await;
    assert!(running.passes("40.1.0.2") && running.passes("40.1.0.1"), "the old one for a day");
    assert!(status(&running).problem.is_none());
}
