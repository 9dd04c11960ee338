//! Whatever a client does or leaves undone has an end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lab::*;
use crate::relay::listen::activity::REST;

/// So short that a test waits for it, and long enough for a good client.
const SHORT: Duration = Duration::from_millis(300);

const HEAD: &str = "POST /a HTTP/1.1\r\nHost: edge.example.com\r\n";

#[tokio::test]
async fn a_handshake_that_never_comes_ends() {
    let mut lab = Lab::new();
    lab.config.limits.handshake_timeout = SHORT;
    let _running = lab.start();
    let mut stream = lab.tcp().await;
    assert_eq!(wait("the end", stream.read(&mut [0])).await.unwrap_or(0), 0);
    lab.ended("handshake_timeout", 1.0).await;
}

#[tokio::test]
async fn junk_and_plain_http_are_no_tls() {
    let mut lab = Lab::new();
    let _running = lab.start();
    for (count, bytes) in [(1.0, HEAD.as_bytes()), (2.0, &[0xff; 64])] {
        let mut stream = lab.tcp().await;
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = wait("the end", stream.read_to_end(&mut rest)).await;
        lab.ended("tls_failed", count).await;
    }
    let mut stream = lab.tcp().await;
    stream.shutdown().await.unwrap();
    lab.ended("left", 1.0).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_broken_off() {
    let mut lab = Lab::new();
    lab.config.limits.header_timeout = SHORT;
    let _running = lab.start();
    let mut client = lab.connect().await;
    client.send(HEAD).await;
    assert_eq!(client.rest().await, "");
    lab.ended("header_timeout", 1.0).await;
}

#[tokio::test]
async fn a_head_in_drops_gets_no_more_time() {
    let mut lab = Lab::new();
    lab.config.limits.header_timeout = SHORT;
    let _running = lab.start();
    let mut client = lab.connect().await;
    client.send(HEAD).await;
    wait("the end", async {
        // An end of the connection shows in one of the next writes.
        while client.stream.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    })
    .await;
    lab.ended("header_timeout", 1.0).await;
}

#[tokio::test]
async fn the_head_of_a_further_request_has_the_same_limit() {
    let mut lab = Lab::new();
    lab.config.limits.header_timeout = SHORT;
    let _running = lab.start();
    let mut client = lab.connect().await;
    client.ask("/").await;
    client.send("P").await;
    assert_eq!(client.rest().await, "");
    lab.ended("header_timeout", 1.0).await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let mut lab = Lab::new();
    lab.config.limits.idle_timeout = SHORT;
    let _running = lab.start();
    let mut client = lab.connect().await;
    client.ask("/").await;
    client.ask("/").await;
    let end = wait("the end", client.stream.read(&mut [0])).await;
    assert_eq!(end.unwrap(), 0, "TLS says goodbye");
    lab.ended("served", 1.0).await;
}

#[tokio::test]
async fn a_connection_that_slept_takes_requests_again() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let mut client = lab.connect().await;
    for _ in 0..2 {
        assert!(client.ask("/").await.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(REST * 2).await;
    }
    assert!(client.ask("/").await.starts_with("HTTP/1.1 200"));
    assert_eq!(lab.asked().len(), 3);
}

#[tokio::test]
async fn what_came_before_a_connection_slept_is_read_after_it() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let mut client = lab.connect().await;
    let second = post("/second", "hello");
    let (begin, end) = second.split_at(10);
    client.send(post("/first", "hello") + begin).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    tokio::time::sleep(REST * 2).await;
    client.send(end).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    assert_eq!(lab.asked(), ["POST /first hello", "POST /second hello"]);
}

#[tokio::test]
async fn a_connection_that_sleeps_is_closed_in_time() {
    let mut lab = Lab::new();
    lab.config.limits.idle_timeout = REST * 2;
    let _running = lab.start();
    let mut client = lab.connect().await;
    client.ask("/").await;
    assert_eq!(client.rest().await, "");
    lab.ended("served", 1.0).await;
}

#[tokio::test]
async fn a_request_under_way_is_not_idle() {
    let mut lab = Lab::new();
    lab.config.limits.idle_timeout = SHORT;
    lab.config.limits.header_timeout = SHORT;
    let _running = lab.start();
    let mut client = lab.connect().await;
    client.send(post("/hold", "")).await;
    wait("the request", lab.server.holding.notified()).await;
    tokio::time::sleep(SHORT * 3).await;
    lab.server.release.add_permits(1);
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_does_not_end_is_given_up() {
    let mut lab = Lab::new();
    lab.config.limits.body_timeout = SHORT;
    let _running = lab.start();
    for request in [
        format!("{HEAD}Content-Length: 5\r\n\r\nhe"),
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"),
    ] {
        let answer = lab.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_431() {
    let mut lab = Lab::new();
    lab.config.limits.header_bytes = 8 << 10;
    let _running = lab.start();
    let fits = format!("{HEAD}X: {}\r\n\r\n", "x".repeat(8000));
    let large = format!("{HEAD}X: {}\r\n\r\n", "x".repeat(8200));
    let endless = format!("{HEAD}X: {}", "x".repeat(1 << 20));
    let many = format!("{HEAD}{}\r\n", "X: y\r\n".repeat(100));
    let mut client = lab.connect().await;
    client.send(fits).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    for (count, request) in [(1.0, large), (2.0, endless), (3.0, many)] {
        let answer = lab.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{count}: {answer}");
        lab.until("exogate_relay_malformed_requests_total", "head_too_large", count).await;
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    let mut lab = Lab::new();
    lab.config.limits.body_timeout = SHORT;
    let _running = lab.start();
    let mut client = lab.connect().await;
    client.send(post("/big", "")).await;
    lab.ended("not_reading", 1.0).await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_is_served() {
    let mut lab = Lab::new();
    lab.config.limits.body_timeout = SHORT * 3;
    // The answer is handed over long before it is taken.
    lab.config.limits.idle_timeout = SHORT;
    let _running = lab.start();
    let mut client = lab.connect().await;
    client.send(post("/big", "").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    let mut buffer = vec![0; 1 << 20];
    let (mut total, mut pauses) = (0, 0);
    while let Ok(read @ 1..) = wait("the answer", client.stream.read(&mut buffer)).await {
        total += read;
        // Less often than in each read: those are small.
        if total / buffer.len() > pauses {
            pauses += 1;
            tokio::time::sleep(SHORT / 6).await;
        }
    }
    assert!(total > 64 << 20, "{total}");
    lab.ended("served", 1.0).await;
}

#[tokio::test]
async fn beyond_the_limit_connections_wait_for_a_place() {
    let mut lab = Lab::new();
    lab.config.limits.connections = 1;
    let _running = lab.start();
    let mut first = lab.connect().await;
    let waiting = lab.connect();
    let mut waiting = std::pin::pin!(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("two connections at once"),
        // Long enough for a handshake, if there were one.
        () = async { for _ in 0..20 { first.ask("/").await; } } => {}
    }
    drop(first);
    waiting.await.ask("/").await;
}

#[tokio::test]
async fn a_handler_that_panics_costs_one_request() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let answer = lab.exchange(post("/panic", "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    lab.until("exogate_relay_handler_panics_total", "", 1.0).await;
    lab.connect().await.ask("/").await;
    lab.until("exogate_relay_connections{", "", 0.0).await;
}
