//! What is in force, and what is remembered of it.

use super::*;

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
