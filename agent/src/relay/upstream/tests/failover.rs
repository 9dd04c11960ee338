//! From one server to the next.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::io::AsyncWriteExt;

use super::*;
use crate::source::fetch::stand_in::read_head;

#[tokio::test]
async fn what_was_not_sent_goes_to_the_next_server() {
    let (dead, alive) = (
        StandIn::start(|_| Reaction::status(200)).await,
        StandIn::start(|_| Reaction::status(200)).await,
    );
    dead.stop().await;
    let pool = pool(&upstream(&[&dead, &alive]));
    for repeat in [Repeat::Unsent, Repeat::Always] {
        assert_eq!(pool.send(post("x"), repeat).await.unwrap().status(), 200);
    }
    assert_eq!(alive.seen().len(), 2);
    let error = pool.send(post("x"), Repeat::Never).await.unwrap_err();
    assert!(matches!(error, SendError::Connect { .. }), "{error}");
    assert!(error.is_unsent());
}

#[tokio::test]
async fn what_may_have_been_sent_is_repeated_only_if_that_is_harmless() {
    let breaks = StandIn::start(|_| Reaction::Break).await;
    let alive = StandIn::start(|_| Reaction::status(200)).await;
    let pool = pool(&upstream(&[&breaks, &alive]));
    for repeat in [Repeat::Never, Repeat::Unsent] {
        let error = pool.send(post("x"), repeat).await.unwrap_err();
        assert!(matches!(error, SendError::Reset { .. }), "{error}");
        assert!(!error.is_unsent());
    }
    assert!(alive.seen().is_empty());
    assert_eq!(pool.send(post("x"), Repeat::Always).await.unwrap().status(), 200);
    assert_eq!(alive.seen().remove(0).body, "x");
}

#[tokio::test]
async fn an_answer_is_not_repeated_whatever_it_says() {
    let failing = StandIn::start(|_| Reaction::status(503)).await;
    let alive = StandIn::start(|_| Reaction::status(200)).await;
    let pool = pool(&upstream(&[&failing, &alive]));
    assert_eq!(pool.send(post("x"), Repeat::Always).await.unwrap().status(), 503);
    assert!(alive.seen().is_empty());
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_request() {
    let server = StandIn::start(|_| Reaction::status(200)).await;
    let pool = pool(&upstream(&[&server]));
    for round in 1..=20 {
        pool.send(post("x"), Repeat::Unsent).await.unwrap();
        assert_eq!(server.connections(), round);
        server.restart().await;
        // The client learns of it when the runtime next looks at its sockets.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_not_waited_for() {
    let server = StandIn::start(|_| Reaction::Hang).await;
    let mut upstream = upstream(&[&server]);
    upstream.response_timeout = Duration::from_millis(50);
    let error = pool(&upstream).send(post("x"), Repeat::Always).await.unwrap_err();
    assert!(matches!(error, SendError::Timeout { .. }), "{error}");
    assert!(!error.is_unsent());
}

#[tokio::test]
async fn what_is_not_http_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"220 mail.example.com ESMTP\r\n\r\n").await.unwrap();
    });
    let mut upstream = upstream(&[]);
    upstream.servers = vec![format!("http://{address}").parse().unwrap()];
    let error = pool(&upstream).send(post("x"), Repeat::Unsent).await.unwrap_err();
    assert!(matches!(error, SendError::Invalid { .. }), "{error}");
}

#[tokio::test]
async fn a_server_gets_no_more_requests_at_once_than_it_may() {
    let server = StandIn::start(|_| Reaction::answer(200, "OK")).await;
    let mut upstream = upstream(&[&server]);
    upstream.connections = 2;
    let pool = pool(&upstream);
    let first = pool.send(post("1"), Repeat::Never).await.unwrap();
    let _second = pool.send(post("2"), Repeat::Never).await.unwrap();
    let mut third = Box::pin(pool.send(post("3"), Repeat::Never));
    assert!(futures_util::poll!(&mut third).is_pending());
    assert_eq!(server.seen().len(), 2, "an answer that is not read yet keeps its place");
    read(first).await;
    third.await.unwrap();
}

#[tokio::test]
async fn waiting_for_a_place_is_part_of_the_time_for_an_answer() {
    let server = StandIn::start(|_| Reaction::answer(200, "OK")).await;
    let mut upstream = upstream(&[&server]);
    (upstream.connections, upstream.response_timeout) = (1, Duration::from_millis(50));
    let pool = pool(&upstream);
    let mut first = pool.send(post("1"), Repeat::Never).await;
    while let Err(SendError::Timeout { .. }) = first {
        // The machine was too busy for 50 ms.
        first = pool.send(post("1"), Repeat::Never).await;
    }
    let second = pool.send(post("2"), Repeat::Never).await;
    assert!(matches!(second, Err(SendError::Busy { .. })), "{second:?}");
    drop(first.unwrap());
}

#[tokio::test]
async fn whoever_waits_for_a_place_goes_elsewhere_when_the_server_is_given_up() {
    let hangs = StandIn::start(|_| Reaction::Hang).await;
    let alive = StandIn::start(|_| Reaction::status(200)).await;
    let mut upstream = upstream(&[&hangs, &alive]);
    upstream.connections = 1;
    upstream.breaker = config::Breaker { failures: 1, pause: PATIENCE };
    let pool = pool(&upstream);
    let (first, second) = tokio::join!(pool.send(post("1"), Repeat::Never), async {
        hangs.saw(1).await;
        let waiting = pool.send(post("2"), Repeat::Never);
        let stopping = hangs.stop();
        tokio::join!(waiting, stopping).0
    });
    assert!(matches!(first, Err(SendError::Reset { .. })), "{first:?}");
    assert_eq!(second.unwrap().status(), 200);
}

#[tokio::test]
async fn round_robin_asks_one_after_the_other() {
    let servers = [
        StandIn::start(|_| Reaction::status(200)).await,
        StandIn::start(|_| Reaction::status(200)).await,
        StandIn::start(|_| Reaction::status(200)).await,
    ];
    let mut upstream = upstream(&servers.each_ref());
    upstream.balance = config::Balance::RoundRobin;
    let pool = pool(&upstream);
    for _ in 0..6 {
        pool.send(post("x"), Repeat::Never).await.unwrap();
    }
    assert_eq!(servers.each_ref().map(|server| server.seen().len()), [2, 2, 2]);
}

#[tokio::test]
async fn no_request_fails_when_one_of_two_servers_dies_under_load() {
    let dies = StandIn::start(|_| Reaction::status(200)).await;
    let stays = StandIn::start(|_| Reaction::status(200)).await;
    let mut upstream = upstream(&[&dies, &stays]);
    upstream.balance = config::Balance::RoundRobin;
    (upstream.connections, upstream.breaker.failures) = (16, 5);
    let pool = pool(&upstream);
    let answered = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..32)
        .map(|_| {
            let (pool, answered) = (Arc::clone(&pool), Arc::clone(&answered));
            tokio::spawn(async move {
                for _ in 0..20 {
                    let response = pool.send(post("x"), Repeat::Always).await.unwrap();
                    assert_eq!(response.status(), 200);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    dies.saw(100).await;
    dies.stop().await;
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(answered.load(Ordering::SeqCst), 640);
}
