//! Connections that change to another protocol, or must not. Both ends are written byte
//! by byte.

use std::io::Read as _;

use exogate_tests::notification::RELAY_NAME;

use super::{
    Setting,
    proxied::{Server, client, post, setting, started, values},
};

/// A request that asks for other protocols.
fn asking(fields: &str) -> String {
    format!(
        "GET /EWS/socket HTTP/1.1\r\nHost: {RELAY_NAME}\r\nConnection: upgrade\r\n{fields}\
         Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
    )
}

/// A relay whose route lets connections change to WebSocket.
fn allowing() -> (Setting, Server) {
    let (mut setting, server) = setting();
    setting.agent.set("route.exchange.upgrades", vec!["websocket".to_owned()]).unwrap();
    setting.agent.start().unwrap();
    (setting, server)
}

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: WebSocket\r\nSec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n";

#[test]
fn a_connection_changes_to_a_protocol_that_the_route_names() {
    let (setting, server) = allowing();
    let mut asks = client(&setting.lab, &[]);
    asks.send(&asking("Upgrade: websocket\r\n"));
    let mut upstream = server.accept();
    let head = upstream.head();
    assert_eq!(values(&head, "upgrade"), ["websocket"]);
    assert_eq!(values(&head, "connection"), ["upgrade"]);
    assert_eq!(values(&head, "sec-websocket-key").len(), 1);
    // What follows at once is not HTTP any more.
    upstream.send(&(SWITCHED.to_owned() + "hello"));
    let head = asks.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(values(&head, "upgrade"), ["WebSocket"]);
    assert_eq!(values(&head, "connection"), ["upgrade"]);
    assert_eq!(values(&head, "sec-websocket-accept").len(), 1);
    assert_eq!(asks.take(5), "hello");
    // Nor is what looks like it.
    let request = post("Content-Length: 0\r\n", "");
    asks.send(&request);
    assert_eq!(upstream.take(request.len()), request);
    upstream.send("welcome");
    assert_eq!(asks.take(7), "welcome");
    // Neither end outlives the other, nor a silence of `idle_timeout`.
    drop(asks);
    upstream.is_closed();
    let ended = [("result", "switched")];
    setting.until("exogate_relay_connections_total", &ended, 1.0);
    let mut asks = client(&setting.lab, &[]);
    asks.send(&asking("Upgrade: websocket\r\n"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(SWITCHED);
    asks.head();
    asks.is_closed();
    upstream.is_closed();
}

#[test]
fn a_server_may_refuse_to_change() {
    let (setting, server) = allowing();
    let mut asks = client(&setting.lab, &[]);
    asks.send(&asking("Upgrade: websocket\r\n"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno");
    let head = asks.head();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(asks.take(2), "no");
    // The connections are what they were.
    asks.send(&post("Content-Length: 0\r\n", ""));
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert!(asks.head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn nothing_else_is_changed_to() {
    let (setting, server) = allowing();
    let refused = [
        asking("Upgrade: h2c\r\n"),
        asking("Upgrade: websocket, h2c\r\n"),
        asking("Upgrade: websocket\r\nUpgrade: h2c\r\n"),
        asking("Upgrade: websocket\r\nUpgrade: websocket\r\n"),
        asking("Upgrade: websocket\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        asking("Upgrade: websocket\r\n").replace("Connection: upgrade", "Connection: keep-alive"),
        post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n", "ab"),
        post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", ""),
    ];
    for request in &refused {
        let mut asks = client(&setting.lab, &[]);
        asks.send(request);
        let head = asks.head();
        assert!(head.get(8..13) == Some(" 403 "), "{request}: {head}");
    }
    server.is_quiet();
}

#[test]
fn a_server_that_changes_unasked_is_not_believed() {
    for asked in ["", "Upgrade: websocket\r\n"] {
        let (setting, server) = allowing();
        let mut asks = client(&setting.lab, &[]);
        asks.send(&asking(asked));
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(&SWITCHED.replace("WebSocket", "other"));
        let head = asks.head();
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        upstream.is_closed();
    }
}

#[test]
fn without_a_word_in_the_route_nothing_changes() {
    let (setting, server) = started();
    let mut asks = client(&setting.lab, &[]);
    asks.send(&asking("Upgrade: websocket\r\n"));
    assert!(asks.head().starts_with("HTTP/1.1 403 "));
    server.is_quiet();
    // TLS ends as it should, too.
    asks.send(&post("Connection: close\r\nContent-Length: 0\r\n", ""));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert!(asks.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(asks.0.read(&mut [0; 1]).unwrap(), 0);
}
