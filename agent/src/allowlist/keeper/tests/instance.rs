//! The feed of an instance of the web service.

use proptest::prelude::*;

use super::*;

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
