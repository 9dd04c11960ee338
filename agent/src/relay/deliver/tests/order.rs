//! Who goes when.

use proptest::prelude::*;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_holds_up_its_lanes_and_no_other() {
    let spool = Memory::new();
    for (lanes, body) in [
        (&["a"][..], "a1"),
        (&["b"], "b1"),
        (&["a", "b"], "ab"),
        (&["c"], "c1"),
        (&["b"], "b2"),
        (&[], "free"),
    ] {
        spool.accept("graph", lanes, body);
    }
    let target = Scripted::new(|tries, body| match body {
        "a1" if tries <= 3 => (SOON, failed()),
        _ => (SOON, delivered()),
    });
    let running = run(&spool, &target);
    spool.emptied().await;
    let began = target.began();
    assert_eq!(began[began.len() - 3..], ["a1", "ab", "b2"], "{began:?}");
    let mut others = began[..began.len() - 3].to_vec();
    others.sort();
    assert_eq!(others, ["a1", "a1", "a1", "b1", "c1", "free"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_makes_room_for_the_next_in_its_lane() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "bad");
    spool.accept("graph", &["a"], "good");
    let target = Scripted::new(|_, body| match body {
        "bad" => (SOON, Attempt::Refused { status: 404 }),
        _ => (SOON, delivered()),
    });
    let running = run(&spool, &target);
    spool.emptied().await;
    assert_eq!(deaths(&spool), [Death::Refused { status: 404 }]);
    assert_eq!(target.began(), ["bad", "good"]);
    let text = running.metrics();
    assert!(
        text.contains("exogate_delivery_dead_letters_total{reason=\"refused\",route=\"graph\"} 1")
    );
    assert!(
        text.contains("exogate_delivery_attempts_total{result=\"delivered\",route=\"graph\"} 1")
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_grows_with_what_goes_well_up_to_the_limit() {
    let spool = Memory::new();
    for number in 0..100 {
        spool.accept("graph", &[], &number.to_string());
    }
    let mut target = Scripted::new(|_, _| (Duration::from_secs(1), delivered()));
    Arc::get_mut(&mut target).unwrap().width = 8;
    let began = Instant::now();
    let running = run(&spool, &target);
    spool.emptied().await;
    {
        let log = target.log.lock().unwrap();
        assert_eq!(log.most_under_way, 8);
        let in_second = |second| {
            let at = began + Duration::from_secs(second);
            log.began
                .iter()
                .filter(move |(_, time)| (at..at + Duration::from_millis(900)).contains(time))
        };
        assert_eq!([0, 1, 2, 3, 4].map(|second| in_second(second).count()), [1, 2, 4, 8, 8]);
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_window_is_no_obstacle_for_what_is_in_it() {
    let spool = Memory::new();
    for number in 0..50 {
        spool.accept("graph", &["stuck"], &format!("stuck{number}"));
        spool.accept("graph", &[&number.to_string()], "free");
    }
    let target = Scripted::new(|_, body| match body {
        "free" => (SOON, delivered()),
        _ => (SOON, failed()),
    });
    let running = run_with(&spool, &target, |deliverer| deliverer.window = 60);
    // 50 wait behind the first one and hold places; the others flow through the rest.
    spool.until(|state| state.delivered.len() == 50).await;
    assert!(spool.state().handed_over <= 50 + 60);
    let read: Vec<_> = spool.state().reads.values().copied().collect();
    assert_eq!(read.len(), 51, "a message is read when its turn has come");
    running.stop().await;
}

/// What happens to a record in the randomised schedule.
#[derive(Clone, Debug)]
struct Plan {
    lanes: Vec<u8>,
    failures: usize,
    refused: bool,
    took: u64,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan =
        (prop::collection::vec(0_u8..5, 0..4), 0_usize..4, prop::bool::weighted(0.1), 0_u64..3000)
            .prop_map(|(lanes, failures, refused, took)| Plan { lanes, failures, refused, took });
    prop::collection::vec(plan, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever fails, for as long as it does: nobody overtakes in a lane, and
    /// everybody is delivered, or refused; also if the process ends in between.
    #[test]
    fn lanes_stay_in_order_and_nothing_is_lost(
        plans in plans(),
        outages in prop::collection::vec(1_u64..20_000, 0..4),
        failing_ends in 0_usize..10,
        failing_reads in 0_usize..5,
        ends_after in prop::option::of(0_u64..20_000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut spool = Memory::new();
            for (number, plan) in plans.iter().enumerate() {
                let lanes: Vec<_> = plan.lanes.iter().map(ToString::to_string).collect();
                let lanes: Vec<_> = lanes.iter().map(String::as_str).collect();
                spool.accept("graph", &lanes, &number.to_string());
            }
            spool.state().failing_ends = failing_ends;
            spool.state().failing_reads = failing_reads;
            let script = plans.clone();
            let ended = Arc::new(Mutex::new(Vec::<(usize, bool)>::new()));
            let log = Arc::clone(&ended);
            let target = Scripted::new(move |tries, body| {
                let number: usize = body.parse().unwrap();
                let plan = &script[number];
                for (earlier, other) in script.iter().enumerate().take(number) {
                    let shares = other.lanes.iter().any(|lane| plan.lanes.contains(lane));
                    let is_over = log.lock().unwrap().iter().any(|(each, _)| *each == earlier);
                    assert!(!shares || is_over, "{number} overtook {earlier}");
                }
                let attempt = match plan {
                    _ if tries <= plan.failures => failed(),
                    Plan { refused: true, .. } => Attempt::Refused { status: 400 },
                    _ => delivered(),
                };
                if tries > plan.failures {
                    log.lock().unwrap().push((number, plan.refused));
                }
                (Duration::from_millis(plan.took), attempt)
            });
            let outage = tokio::spawn({
                let target = Arc::clone(&target);
                async move {
                    for length in outages {
                        sleep(Duration::from_millis(length)).await;
                        target.well.send_modify(|well| *well = !*well);
                    }
                    target.well.send_replace(true);
                }
            });
            let mut running = run(&spool, &target);
            if let Some(time) = ends_after {
                sleep(Duration::from_millis(time)).await;
                running.task.abort();
                running.task.await.ok();
                spool = spool.restarted();
                running = run(&spool, &target);
            }
            timeout(HOUR, spool.emptied()).await.expect("something is stuck");
            running.stop().await;
            outage.await.unwrap();
            let refused = plans.iter().filter(|plan| plan.refused).count();
            let state = spool.state();
            assert_eq!(state.dead.len(), refused);
            assert_eq!(state.delivered.len().saturating_add(refused), plans.len());
            // In one process nothing is delivered twice; after a crash, with the same id.
            if ends_after.is_none() {
                assert_eq!(ended.lock().unwrap().len(), plans.len(), "something went twice");
            }
        });
    }
}
