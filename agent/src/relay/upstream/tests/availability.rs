//! The circuit breaker and the probes of a pool.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::*;

#[tokio::test]
async fn a_server_that_fails_in_a_row_is_left_alone_and_then_tried() {
    let server = StandIn::start(|_| Reaction::status(503)).await;
    let mut upstream = upstream(&[&server]);
    upstream.breaker = config::Breaker { failures: 3, pause: Duration::from_millis(50) };
    let pool = pool(&upstream);
    for _ in 0..3 {
        assert_eq!(pool.send(post("x"), Repeat::Never).await.unwrap().status(), 503);
    }
    assert!(!pool.is_available());
    let error = pool.send(post("x"), Repeat::Never).await.unwrap_err();
    assert!(matches!(error, SendError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("503"), "{error}");
    assert_eq!(server.seen().len(), 3, "it was left alone");
    let status = pool.status().remove(0);
    assert!(!status.up && status.last_problem.unwrap().contains("503"));

    server.react(|_| Reaction::status(200));
    timeout(PATIENCE, pool.available()).await.unwrap();
    assert_eq!(pool.send(post("x"), Repeat::Never).await.unwrap().status(), 200);
    assert!(pool.is_available() && pool.status().remove(0).up);
}

#[tokio::test]
async fn one_request_at_a_time_tries_a_server_and_the_others_are_told_how_it_went() {
    let server = StandIn::start(|_| Reaction::status(503)).await;
    let mut upstream = upstream(&[&server]);
    upstream.breaker = config::Breaker { failures: 1, pause: Duration::from_millis(50) };
    let pool = pool(&upstream);
    pool.send(post("x"), Repeat::Never).await.unwrap();
    server.react(|_| Reaction::Late(Duration::from_millis(20), Response::default()));
    pool.available().await;
    let (trial, other, ()) = tokio::join!(
        pool.send(post("trial"), Repeat::Never),
        pool.send(post("other"), Repeat::Never),
        async { timeout(PATIENCE, pool.available()).await.unwrap() },
    );
    trial.unwrap();
    assert!(matches!(other, Err(SendError::Unavailable { .. })), "{other:?}");
    assert!(pool.status().remove(0).up);
}

/// Counts how often a task would be woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn nobody_is_kept_busy_by_a_server_that_is_drained_and_failed() {
    let server = StandIn::start(|_| Reaction::status(503)).await;
    let mut upstream = upstream(&[&server]);
    upstream.breaker = config::Breaker { failures: 1, pause: Duration::from_millis(1) };
    let pool = pool(&upstream);
    pool.send(post("x"), Repeat::Never).await.unwrap();
    pool.set_drained(None, true).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut available = pin!(pool.available());
    for _ in 0..10 {
        assert!(available.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "nothing has changed");
    pool.set_drained(None, false).unwrap();
    timeout(PATIENCE, available).await.unwrap();
}

#[tokio::test]
async fn a_trial_that_is_broken_off_lets_another_one_try() {
    let server = StandIn::start(|_| Reaction::status(503)).await;
    let mut upstream = upstream(&[&server]);
    upstream.breaker = config::Breaker { failures: 1, pause: Duration::from_millis(50) };
    let pool = pool(&upstream);
    pool.send(post("x"), Repeat::Never).await.unwrap();
    server.react(|_| Reaction::Hang);
    pool.available().await;
    {
        let mut trial = Box::pin(pool.send(post("x"), Repeat::Never));
        tokio::select! {
            _ = &mut trial => panic!("it hangs"),
            () = server.saw(2) => {}
        }
        assert!(!pool.is_available());
    }
    timeout(PATIENCE, pool.available()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_late_for_who_has_waited_already_is_left_alone() {
    let server = StandIn::start(|_| Reaction::Hang).await;
    let mut upstream = upstream(&[&server]);
    upstream.breaker = config::Breaker { failures: 1, pause: PATIENCE };
    let pool = pool(&upstream);
    let soon = Instant::now() + Duration::from_millis(50);
    let sent = timeout(PATIENCE, pool.send_by(post("x"), Repeat::Unsent, soon)).await.unwrap();
    assert!(matches!(sent, Err(SendError::Timeout { .. })), "{sent:?}");
    assert!(!pool.is_available());
}

#[tokio::test]
async fn an_error_of_the_application_does_not_open_the_breaker() {
    let server = StandIn::start(|_| Reaction::status(500)).await;
    let mut upstream = upstream(&[&server]);
    upstream.breaker.failures = 1;
    let pool = pool(&upstream);
    for _ in 0..5 {
        assert_eq!(pool.send(post("x"), Repeat::Never).await.unwrap().status(), 500);
    }
}

#[tokio::test]
async fn a_server_that_is_left_alone_is_replaced_by_the_next() {
    let failing = StandIn::start(|_| Reaction::status(503)).await;
    let alive = StandIn::start(|_| Reaction::status(200)).await;
    let mut upstream = upstream(&[&failing, &alive]);
    upstream.breaker = config::Breaker { failures: 1, pause: PATIENCE };
    let pool = pool(&upstream);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(pool.send(post("x"), Repeat::Never).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [503, 200, 200]);
    assert!(pool.is_available());
}

fn probing(server: &StandIn) -> config::Upstream {
    let mut upstream = upstream(&[server]);
    upstream.health = Some(config::HealthCheck {
        path: "/ping".to_owned(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(2),
    });
    upstream
}

#[tokio::test]
async fn a_server_whose_probe_fails_gets_no_requests_until_one_succeeds() {
    let server = StandIn::start(|_| Reaction::status(404)).await;
    let pool = pool(&probing(&server));
    let mut changed = pool.changed.subscribe();
    if pool.is_available() {
        timeout(PATIENCE, changed.changed()).await.unwrap().unwrap();
    }
    let error = pool.send(post("x"), Repeat::Always).await.unwrap_err();
    assert!(matches!(error, SendError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("/ping"), "{error}");
    assert!(server.seen().iter().all(|seen| seen.target == "/ping"));

    server.react(|_| Reaction::status(200));
    timeout(PATIENCE, pool.available()).await.unwrap();
    pool.send(post("x"), Repeat::Never).await.unwrap();
}

#[tokio::test]
async fn a_probe_that_is_not_answered_in_time_has_failed() {
    let server = StandIn::start(|_| Reaction::Hang).await;
    let mut upstream = probing(&server);
    upstream.health.as_mut().unwrap().timeout = Duration::from_millis(20);
    let pool = pool(&upstream);
    let mut changed = pool.changed.subscribe();
    timeout(PATIENCE, changed.changed()).await.unwrap().unwrap();
    assert!(!pool.is_available());
}

#[tokio::test]
async fn probes_end_with_the_pool() {
    let server = StandIn::start(|_| Reaction::status(200)).await;
    let pool = pool(&probing(&server));
    server.saw(2).await;
    let probed = Arc::downgrade(&pool.servers[0]);
    drop(pool);
    let ended = async {
        while probed.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn the_state_of_a_server_can_be_written_down() {
    let server = StandIn::start(|_| Reaction::status(200)).await;
    let status = pool(&upstream(&[&server])).status();
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json[0]["server"], server.address.to_string());
    assert_eq!(json[0]["up"], true);
    assert_eq!(serde_json::from_value::<Vec<super::super::ServerStatus>>(json).unwrap(), status);
}
