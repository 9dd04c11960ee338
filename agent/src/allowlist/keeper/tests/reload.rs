//! Another configuration.

use super::*;

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
