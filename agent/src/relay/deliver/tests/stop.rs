//! Starting, pausing and stopping.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_under_way_and_begins_nothing() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "first");
    spool.accept("graph", &["a"], "second");
    let target = Scripted::new(|_, _| (Duration::from_secs(20), delivered()));
    let running = run(&spool, &target);
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    running.stop().await;
    assert_eq!(began.elapsed().as_secs(), 19);
    assert_eq!(target.began(), ["first"]);
    assert_eq!(spool.state().delivered.len(), 1);
    assert_eq!(spool.state().waiting.len(), 1, "the second is still there");
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    let target = Scripted::new(|_, _| (HOUR, delivered()));
    let running = run(&spool, &target);
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    running.stop().await;
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(spool.state().waiting.len(), 1, "it comes again after the next start");
}

#[tokio::test(start_paused = true)]
async fn a_stop_goes_on_trying_to_write_down_what_was_delivered() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    spool.state().failing_ends = 4;
    let target = Scripted::new(|_, _| (SOON, delivered()));
    let running = run(&spool, &target);
    spool.until(|state| state.handed_over == 1).await;
    sleep(2 * SOON).await;
    running.stop().await;
    assert!(spool.state().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_comes_first() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "old");
    let spool = spool.restarted();
    spool.accept("graph", &["a"], "new");
    let target = Scripted::new(|_, _| (SOON, delivered()));
    let running = run(&spool, &target);
    spool.emptied().await;
    assert_eq!(target.began(), ["old", "new"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_while_another_host_delivers() {
    let spool = Memory::new();
    spool.accept("graph", &["a"], "x");
    spool.state().elsewhere = true;
    let target = Scripted::new(|_, _| (SOON, delivered()));
    let running = run(&spool, &target);
    sleep(HOUR).await;
    assert!(target.began().is_empty());
    assert_eq!(spool.state().handed_over, 0);
    spool.state().elsewhere = false;
    spool.emptied().await;
    running.stop().await;
}
