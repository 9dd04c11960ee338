//! Again and again, and then no more.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_is_tried_at_growing_distances_until_it_is_too_old() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    let target = Scripted::new(|_, _| (SOON, failed()));
    let running = run(&spool, &target);
    let began = Instant::now();
    spool.emptied().await;
    assert_eq!(deaths(&spool), [Death::Expired { last: "it answered 500".to_owned() }]);
    let times = target.times("x");
    let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0] - SOON).collect();
    for (wait, bound) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        assert!(*wait <= Duration::from_secs(bound) + SOON, "{waits:?}");
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(60) + SOON));
    let last = *times.last().unwrap() - began;
    assert!((DAY - SOON..DAY + SOON).contains(&last), "the last try is at the end: {last:?}");
    let text = running.metrics();
    let retries =
        format!("exogate_delivery_retries_total{{route=\"graph\"}} {}\n", times.len() - 1);
    assert!(text.contains(&retries), "{text}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_is_not_late_when_a_server_that_was_away_is_back() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    let target = Scripted::new(|tries, _| match (tries, failed()) {
        (..50, Attempt::Failed(failure)) => {
            (SOON, Attempt::Failed(Failure { away: true, ..failure }))
        }
        _ => (SOON, delivered()),
    });
    let running = run(&spool, &target);
    spool.emptied().await;
    let times = target.times("x");
    let longest = times.windows(2).map(|pair| pair[1] - pair[0] - SOON).max().unwrap();
    assert!(longest <= Duration::from_secs(4) + SOON, "{longest:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn fewer_go_at_once_when_some_fail() {
    let spool = Memory::new();
    for number in 0..200 {
        spool.accept("graph", &[], &number.to_string());
    }
    let target = Scripted::new(|_, _| (Duration::from_secs(1), failed()));
    let running = run_with(&spool, &target, |deliverer| {
        deliverer.backoff.first = HOUR;
        deliverer.backoff.longest = HOUR;
    });
    sleep(Duration::from_secs(30)).await;
    assert_eq!(target.log.lock().unwrap().most_under_way, 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    let target = Scripted::new(|tries, _| match tries {
        1 => {
            let Attempt::Failed(failure) = failed() else { unreachable!() };
            let retry_after = Some(Duration::from_secs(600));
            (SOON, Attempt::Failed(Failure { retry_after, ..failure }))
        }
        _ => (SOON, delivered()),
    });
    let running = run(&spool, &target);
    spool.emptied().await;
    let times = target.times("x");
    let wait = times[1] - times[0];
    assert!((Duration::from_secs(600)..Duration::from_secs(602)).contains(&wait), "{wait:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_while_no_server_is_well_and_then_one_record_goes_first() {
    let spool = Memory::new();
    for number in 0..20 {
        spool.accept("graph", &[], &number.to_string());
    }
    let target = Scripted::new(|_, _| (Duration::from_secs(1), delivered()));
    target.well.send_replace(false);
    let running = run(&spool, &target);
    sleep(HOUR).await;
    assert!(target.began().is_empty());
    target.well.send_replace(true);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(target.began(), ["0"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(target.began().len(), 3);
    spool.emptied().await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_no_server_could_be_asked_for_are_given_up_in_time_too() {
    let spool = Memory::new();
    for number in 0..200 {
        spool.accept("graph", &["a"], &number.to_string());
    }
    let target = Scripted::new(|_, _| (SOON, delivered()));
    target.well.send_replace(false);
    let running = run(&spool, &target);
    let began = Instant::now();
    spool.emptied().await;
    let took = began.elapsed();
    assert!((DAY - SOON..DAY + Duration::from_secs(1)).contains(&took), "{took:?}");
    let expired = Death::Expired { last: "no server was well".to_owned() };
    assert_eq!(deaths(&spool), vec![expired; 200]);
    assert!(target.began().is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_too_old_when_it_comes_has_five_minutes_all_the_same() {
    let spool = Memory::new();
    spool.state().age = 2 * DAY;
    spool.accept("graph", &["a"], "x");
    let target = Scripted::new(|_, _| (SOON, failed()));
    let running = run(&spool, &target);
    let began = Instant::now();
    spool.emptied().await;
    let took = began.elapsed();
    let five_minutes = Duration::from_secs(300);
    assert!((five_minutes..five_minutes + 2 * SOON).contains(&took), "{took:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_not_tried_after_all_goes_again_when_a_server_is_well() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    let target = Scripted::new(|tries, _| match tries {
        1 => (SOON, Attempt::NotTried),
        _ => (SOON, delivered()),
    });
    let running = run(&spool, &target);
    let began = Instant::now();
    spool.emptied().await;
    assert!(began.elapsed() < Duration::from_secs(1), "that is no failure");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_delivered_at_all_is_a_dead_letter_at_once() {
    let spool = Memory::new();
    spool.accept("removed", &["a"], "no route");
    let torn = spool.accept("graph", &["a"], "torn");
    spool.state().unreadable.insert(torn);
    spool.accept("graph", &["a"], "unusable");
    spool.accept("graph", &["a"], "good");
    let target = Scripted::new(|_, body| match body {
        "unusable" => (SOON, Attempt::Unusable { problem: "no path".to_owned() }),
        _ => (SOON, delivered()),
    });
    let running = run(&spool, &target);
    spool.emptied().await;
    assert_eq!(
        deaths(&spool),
        [
            Death::NoRoute,
            Death::Unreadable { problem: "torn".to_owned() },
            Death::Unreadable { problem: "no path".to_owned() },
        ]
    );
    assert_eq!(spool.state().delivered.len(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_is_not_delivered_again_while_the_spool_cannot_remove_it() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "first");
    spool.accept("graph", &["a"], "second");
    spool.state().failing_ends = 20;
    let target = Scripted::new(|_, _| (SOON, delivered()));
    let running = run(&spool, &target);
    spool.until(|state| state.failing_ends < 15).await;
    assert!(running.metrics().contains("exogate_delivery_unsettled_records 2"));
    spool.emptied().await;
    assert_eq!(target.began(), ["first", "second"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fact_is_remembered_before_its_record_is_removed() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    spool.state().failing_facts = 3;
    let remember = Some("unsubscribed a".to_owned());
    let target =
        Scripted::new(move |_, _| (SOON, Attempt::Delivered { remember: remember.clone() }));
    let running = run(&spool, &target);
    spool.emptied().await;
    assert_eq!(spool.state().facts, ["unsubscribed a"]);
    assert_eq!(target.began().len(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_cannot_be_read_for_a_while_is_asked_again() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    (spool.state().failing_reads, spool.state().failing_next) = (3, 3);
    let target = Scripted::new(|_, _| (SOON, delivered()));
    let running = run(&spool, &target);
    spool.emptied().await;
    assert_eq!(target.began(), ["x"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_another_host_has_delivered_is_forgotten() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    spool.accept("graph", &["a"], "y");
    let target = Scripted::new(|_, _| (SOON, delivered()));
    target.well.send_replace(false);
    let running = run(&spool, &target);
    spool.until(|state| state.handed_over == 2).await;
    spool.state().waiting.remove(0);
    target.well.send_replace(true);
    spool.emptied().await;
    assert_eq!(target.began(), ["y"]);
    running.stop().await;
}
