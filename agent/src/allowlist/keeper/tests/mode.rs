//! Monitor or enforce, by an operator's word.

use super::*;
use crate::{boot, config::Mode};

const TEN_MINUTES: Duration = Duration::from_secs(600);

async fn enforce(running: &Running, confirm_within: Option<Duration>) -> Outcome {
    running.tell(|done| Command::Enforce { confirm_within, done }).await
}

async fn confirm(running: &Running) -> Outcome {
    running.tell(|done| Command::Confirm { done }).await
}

async fn monitor(running: &Running) -> Outcome {
    running.tell(|done| Command::Monitor { done }).await
}

fn mode(running: &Running) -> (Mode, bool) {
    let status = running.status.borrow();
    (status.mode, status.confirm_by.is_some())
}

/// The modes that were published.
fn published(running: &Running) -> Vec<Mode> {
    running.bench.lock().modes.clone()
}

/// The deadlines that were published.
fn deadlines(running: &Running) -> Vec<Option<u64>> {
    running.bench.lock().deadlines.clone()
}

fn enforcing() -> Config {
    at_once(Config { mode: Mode::Enforce, ..Config::default() })
}

#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_in_time_goes_back() {
    let running = Running::start(&Bench::default());
    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    assert_eq!(mode(&running), (Mode::Enforce, true));
    assert!(running.metric("exogate_mode{mode=\"enforce\"} 1"));
    running.pass(TEN_MINUTES - Duration::from_secs(1)).await;
    assert_eq!(mode(&running), (Mode::Enforce, true));
    running.pass(Duration::from_secs(2)).await;
    assert_eq!(mode(&running), (Mode::Monitor, false));
    assert_eq!(published(&running), [Mode::Enforce, Mode::Monitor]);
    assert_eq!(running.events(), [Event::Enforced, Event::Reverted]);
    assert!(running.metric("exogate_mode{mode=\"enforce\"} 0"));
    assert!(confirm(&running).await.unwrap_err().contains("nothing waits"));
}

#[tokio::test(start_paused = true)]
async fn the_table_of_a_trial_has_its_deadline_until_it_is_confirmed() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    let first = deadlines(&running).pop().flatten().unwrap();
    let wait = Duration::from_nanos(first.saturating_sub(boot::now()));
    assert!(wait <= TEN_MINUTES && wait > TEN_MINUTES / 2, "{wait:?}");
    assert_eq!(running.tell(|done| Command::Republish { done }).await, Ok(()));
    assert_eq!(deadlines(&running).pop(), Some(Some(first)));

    let running = running.restart(&bench);
    assert_eq!(running.tell(|done| Command::Republish { done }).await, Ok(()));
    assert_eq!(deadlines(&running).pop(), Some(Some(first)), "after a restart too");
    // Once more means from now on.
    assert_eq!(enforce(&running, Some(2 * TEN_MINUTES)).await, Ok(()));
    let second = deadlines(&running).pop().flatten().unwrap();
    assert!(second > first);
    assert_eq!(confirm(&running).await, Ok(()));
    assert_eq!(deadlines(&running).pop(), Some(None));
}

#[tokio::test(start_paused = true)]
async fn a_trial_of_what_is_configured_by_now_has_no_end() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    let running = running.restart_with(&bench, enforcing());
    assert_eq!(mode(&running), (Mode::Enforce, false));
    assert_eq!(running.tell(|done| Command::Republish { done }).await, Ok(()));
    assert_eq!(deadlines(&running).pop(), Some(None));
    running.pass(TEN_MINUTES + Duration::from_secs(1)).await;
    assert_eq!(mode(&running), (Mode::Enforce, false));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_once_more_leaves_an_operators_order_as_it_is() {
    let running = Running::start(&Bench::default());
    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    assert_eq!(running.tell(|done| Command::Republish { done }).await, Ok(()));
    assert_eq!(published(&running), [Mode::Enforce, Mode::Enforce], "also without a change");
    assert_eq!(mode(&running), (Mode::Enforce, true));
    running.pass(TEN_MINUTES + Duration::from_secs(1)).await;
    assert_eq!(mode(&running), (Mode::Monitor, false));
    assert_eq!(running.events(), [Event::Enforced, Event::Reverted]);
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_stays_until_the_configuration_says_the_same() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    assert_eq!(confirm(&running).await, Ok(()));
    running.pass(HOUR).await;
    assert_eq!(mode(&running), (Mode::Enforce, false));
    assert!(enforce(&running, None).await.unwrap_err().contains("already"));

    let running = running.restart(&bench);
    assert_eq!(mode(&running), (Mode::Enforce, false));
    let running = running.restart_with(&bench, enforcing());
    let directory = running.directory.path().to_owned();
    let config = Arc::new(Config { state_directory: directory.clone(), ..enforcing() });
    let reload = |config| |done| Command::Reload { config, done };
    assert_eq!(running.tell(reload(config)).await, Ok(()));
    let config = Config { mode: Mode::Monitor, state_directory: directory, ..enforcing() };
    assert_eq!(running.tell(reload(Arc::new(config))).await, Ok(()));
    assert_eq!(mode(&running), (Mode::Monitor, false), "the order is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_trial_survives_a_restart_and_ends_also_without_an_agent() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    let running = running.restart(&bench);
    assert_eq!(mode(&running), (Mode::Enforce, true));
    running.pass(TEN_MINUTES + Duration::from_secs(1)).await;
    assert_eq!(mode(&running), (Mode::Monitor, false));

    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    // The clock of the bench begins anew with a restart.
    bench.lock().clock_set_by = jiff::SignedDuration::from_hours(1);
    let running = running.restart(&bench);
    assert_eq!(mode(&running).0, Mode::Monitor, "from the first moment");
    running.pass(Duration::from_secs(2)).await;
    assert_eq!(mode(&running), (Mode::Monitor, false));
    let events = [Event::Enforced, Event::Reverted, Event::Enforced, Event::Reverted];
    assert_eq!(running.events(), events);
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_stop_the_dropping_and_try_it_again() {
    let bench = Bench::default();
    let running = Running::start_with(&bench, Arc::new(tempfile::tempdir().unwrap()), enforcing());
    assert_eq!(monitor(&running).await, Ok(()));
    assert_eq!(mode(&running), (Mode::Monitor, false));
    assert!(monitor(&running).await.is_err());
    let running = running.restart_with(&bench, enforcing());
    assert_eq!(mode(&running), (Mode::Monitor, false), "a restart does not lock anybody out");

    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    running.pass(TEN_MINUTES + Duration::from_secs(1)).await;
    assert_eq!(mode(&running), (Mode::Monitor, false), "that is the mode before");
    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    assert_eq!(confirm(&running).await, Ok(()));
    running.pass(HOUR).await;
    assert_eq!(mode(&running), (Mode::Enforce, false));
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_cannot_be_put_in_force_changes_nothing() {
    let bench = Bench::default();
    let running = Running::start(&bench);
    bench.lock().publish_fails = true;
    assert!(enforce(&running, Some(TEN_MINUTES)).await.is_err());
    assert_eq!(mode(&running), (Mode::Monitor, false));
    bench.lock().publish_fails = false;
    for wrong in [Duration::ZERO, Duration::from_secs(8 * 86_400)] {
        assert!(enforce(&running, Some(wrong)).await.is_err());
    }
    assert_eq!(enforce(&running, Some(TEN_MINUTES)).await, Ok(()));
    bench.lock().publish_fails = true;
    running.pass(TEN_MINUTES + Duration::from_secs(1)).await;
    assert_eq!(mode(&running), (Mode::Enforce, true), "it is tried again");
    bench.lock().publish_fails = false;
    running.pass(Duration::from_secs(31)).await;
    assert_eq!(mode(&running), (Mode::Monitor, false));
}
