//! Stopping: everything that was begun is answered.

use std::time::Duration;

use super::lab::*;
use crate::relay::listen::{Drained, activity::REST};

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn idle_connections_are_closed() {
    let mut lab = Lab::new();
    let running = lab.start();
    let mut client = lab.connect().await;
    client.ask("/").await;
    let mut sleeper = lab.connect().await;
    sleeper.ask("/").await;
    tokio::time::sleep(REST * 2).await;
    client.ask("/").await;
    assert_eq!(wait("the end", running.drain(LONG)).await, Drained { cut: 0 });
    assert_eq!(client.rest().await + &sleeper.rest().await, "");
    lab.ended("served", 2.0).await;
}

#[tokio::test]
async fn a_request_under_way_is_answered_as_the_last_one() {
    let mut lab = Lab::new();
    let running = lab.start();
    let mut client = lab.connect().await;
    client.send(post("/hold", "")).await;
    wait("the request", lab.server.holding.notified()).await;
    let draining = tokio::spawn(running.drain(LONG));
    // Once nobody else is taken, the draining has begun.
    wait("the end of accepting", async {
        while tokio::net::TcpStream::connect(lab.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    lab.server.release.add_permits(1);
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(wait("the end", draining).await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn a_connection_that_was_just_made_brings_its_first_request() {
    let mut lab = Lab::new();
    let running = lab.start();
    let mut client = lab.connect().await;
    lab.until("exogate_relay_tls_handshake_duration_seconds_count", "", 1.0).await;
    let draining = tokio::spawn(running.drain(LONG));
    wait("the end of accepting", async {
        while tokio::net::TcpStream::connect(lab.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    client.send(post("/", "hello")).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 200"));
    assert_eq!(wait("the end", draining).await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn what_waits_in_the_queue_of_an_own_socket_is_served() {
    let mut lab = Lab::new();
    let running = lab.start();
    // The kernel takes the connection. We do not see it before we drain: this test
    // has but one thread, and holds it.
    let tcp = std::net::TcpStream::connect(lab.address).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let tcp = tokio::net::TcpStream::from_std(tcp).unwrap();
    let client = async {
        let connector = tokio_rustls::TlsConnector::from(Options::default().config);
        let name = "edge.example.com".try_into().unwrap();
        Client { stream: connector.connect(name, tcp).await.unwrap() }.ask("/").await
    };
    let (drained, answer) = tokio::join!(biased; running.drain(LONG), client);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(drained, Drained { cut: 0 });
}

#[tokio::test]
async fn what_is_not_done_by_the_deadline_is_cut_and_counted() {
    let mut lab = Lab::new();
    let running = lab.start();
    let mut client = lab.connect().await;
    client.send(post("/hold", "")).await;
    wait("the request", lab.server.holding.notified()).await;
    // Who is in the middle of its handshake, and has no request, ends before, by itself.
    let _stream = lab.tcp().await;
    lab.until("exogate_relay_connections{", "", 2.0).await;
    let drained = wait("the end", running.drain(Duration::from_millis(200))).await;
    assert_eq!(drained, Drained { cut: 1 });
    assert_eq!(client.rest().await, "");
    lab.ended("handshake_timeout", 1.0).await;
}

#[tokio::test]
async fn who_brings_nothing_does_not_hold_up_the_end() {
    let mut lab = Lab::new();
    let running = lab.start();
    let mut silent = lab.connect().await;
    let _stream = lab.tcp().await;
    lab.until("exogate_relay_connections{", "", 2.0).await;
    let an_hour = Duration::from_secs(3600);
    assert_eq!(wait("the end", running.drain(an_hour)).await, Drained { cut: 0 });
    assert_eq!(silent.rest().await, "");
    lab.ended("unused", 1.0).await;
    lab.ended("handshake_timeout", 1.0).await;
}

#[tokio::test]
async fn a_listener_that_is_dropped_leaves_nothing_open() {
    let mut lab = Lab::new();
    let running = lab.start();
    let mut client = lab.connect().await;
    client.ask("/").await;
    drop(running);
    assert_eq!(client.rest().await, "");
    lab.until("exogate_relay_connections{", "", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_request_is_answered() {
    let mut lab = Lab::new();
    let running = lab.start();
    let lab = std::sync::Arc::new(lab);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let lab = std::sync::Arc::clone(&lab);
            tokio::spawn(async move {
                let mut answered = 0;
                // Refused, or reset before its handshake: the client knows.
                while let Ok(tcp) = tokio::net::TcpStream::connect(lab.address).await {
                    let connector = tokio_rustls::TlsConnector::from(Options::default().config);
                    let name = "edge.example.com".try_into().unwrap();
                    let Ok(stream) = connector.connect(name, tcp).await else { break };
                    let answer = Client { stream }.ask("/").await;
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    wait("some load", async {
        while lab.asked().len() < 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(wait("the end", running.drain(LONG)).await, Drained { cut: 0 });
    let mut answered = 0;
    for client in clients {
        answered += wait("a client", client).await.unwrap();
    }
    assert_eq!(answered, lab.asked().len());
}
