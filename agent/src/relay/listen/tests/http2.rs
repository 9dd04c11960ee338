//! HTTP/2, from good clients and from hostile ones.

use std::{sync::Arc, time::Duration};

use h2::{Reason, client::SendRequest};
use hyper::{Request, body::Bytes};

use super::lab::*;
use crate::relay::listen::Drained;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET https://a/`, compressed.
const GET: &[u8] = &[0x82, 0x87, 0x84, 0x41, 1, b'a'];

async fn raw(lab: &Lab) -> Client {
    let config = client_config(&[b"h2"], None);
    let mut client = lab.connect_as(&Options { config, ..Options::default() }).await.unwrap();
    client.send([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await;
    client
}

/// A good client, and the task that keeps its connection.
async fn good(lab: &Lab) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let config = client_config(&[b"h2", b"http/1.1"], None);
    let client = lab.connect_as(&Options { config, ..Options::default() }).await.unwrap();
    let (sender, connection) = h2::client::handshake(client.stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(path: &str) -> Request<()> {
    Request::post(format!("https://edge.example.com{path}")).body(()).unwrap()
}

/// A request and the status of its answer.
async fn ask(sender: &mut SendRequest<Bytes>, request: Request<()>) -> Result<u16, h2::Error> {
    let mut ready = wait("a stream", sender.clone().ready()).await?;
    let (response, mut body) = ready.send_request(request, false)?;
    body.send_data(Bytes::from_static(b"hello"), true)?;
    Ok(wait("an answer", response).await?.status().as_u16())
}

#[tokio::test]
async fn requests_are_served_side_by_side() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let (mut sender, _connection) = good(&lab).await;
    let (held, _) = sender.send_request(request("/hold"), true).unwrap();
    wait("the request", lab.server.holding.notified()).await;
    assert_eq!(ask(&mut sender, request("/")).await.unwrap(), 200);
    lab.server.release.add_permits(1);
    assert_eq!(wait("the answer", held).await.unwrap().status(), 200);
}

#[tokio::test]
async fn where_it_is_not_offered_http_1_is_spoken() {
    let mut lab = Lab::new();
    lab.config.http2 = false;
    let _running = lab.start();
    let config = client_config(&[b"h2", b"http/1.1"], None);
    let client = lab.connect_as(&Options { config, ..Options::default() }).await.unwrap();
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn another_host_than_the_authority_is_refused() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let (mut sender, _connection) = good(&lab).await;
    for (host, status) in [("edge.example.com", 200), ("EDGE.example.com:443", 200), ("evil", 400)]
    {
        let mut request = request("/");
        request.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(ask(&mut sender, request).await.unwrap(), status, "{host}");
    }
}

#[tokio::test]
async fn a_length_that_is_not_that_of_the_body_breaks_the_request_off() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let (mut sender, _connection) = good(&lab).await;
    let mut request = request("/");
    request.headers_mut().insert("content-length", "7".parse().unwrap());
    assert!(matches!(ask(&mut sender, request).await, Err(_) | Ok(400)));
    assert!(lab.asked().is_empty());
}

#[tokio::test]
async fn a_panic_costs_one_stream() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let (mut sender, _connection) = good(&lab).await;
    assert_eq!(ask(&mut sender, request("/panic")).await.unwrap(), 500);
    assert_eq!(ask(&mut sender, request("/")).await.unwrap(), 200);
}

#[tokio::test]
async fn a_body_that_does_not_end_is_given_up() {
    let mut lab = Lab::new();
    lab.config.limits.body_timeout = Duration::from_millis(200);
    let _running = lab.start();
    let (mut sender, _connection) = good(&lab).await;
    let (response, _body) = sender.send_request(request("/"), false).unwrap();
    assert_eq!(wait("an answer", response).await.unwrap().status(), 408);
}

#[tokio::test]
async fn a_connection_without_a_request_is_told_to_go() {
    let mut lab = Lab::new();
    lab.config.limits.idle_timeout = Duration::from_millis(200);
    let _running = lab.start();
    let (mut sender, connection) = good(&lab).await;
    ask(&mut sender, request("/")).await.unwrap();
    wait("the end", connection).await.unwrap().unwrap();
    lab.ended("served", 1.0).await;
}

#[tokio::test]
async fn draining_answers_what_is_under_way() {
    let mut lab = Lab::new();
    let running = lab.start();
    let (mut sender, connection) = good(&lab).await;
    let (held, _) = sender.send_request(request("/hold"), true).unwrap();
    wait("the request", lab.server.holding.notified()).await;
    let draining = tokio::spawn(running.drain(Duration::from_secs(20)));
    // Told to go, a client opens no more streams.
    wait("the farewell", async { while ask(&mut sender, request("/")).await.is_ok() {} }).await;
    lab.server.release.add_permits(1);
    assert_eq!(wait("the answer", held).await.unwrap().status(), 200);
    assert_eq!(wait("the end", draining).await.unwrap(), Drained { cut: 0 });
    wait("the end", connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_harm_nobody_else() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let (mut sender, _connection) = good(&lab).await;
    let mut client = raw(&lab).await;
    let flood: Vec<u8> = (0..10_000)
        .map(|index| index * 2 + 1)
        .flat_map(|stream| {
            let cancel = u32::from(Reason::CANCEL).to_be_bytes();
            [frame(HEADERS, 5, stream, GET), frame(RST_STREAM, 0, stream, &cancel)].concat()
        })
        .collect();
    client.send(flood).await;
    let rest = client.rest().await;
    assert!(rest.contains("too_many_resets"), "{rest:?}");
    lab.ended("protocol_error", 1.0).await;
    assert_eq!(ask(&mut sender, request("/")).await.unwrap(), 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let mut lab = Lab::new();
    lab.config.limits.header_bytes = 8 << 10;
    let _running = lab.start();
    let (mut sender, _connection) = good(&lab).await;
    let mut request = request("/");
    request.headers_mut().insert("x", "x".repeat(10_000).parse().unwrap());
    assert!(matches!(ask(&mut sender, request).await, Err(_) | Ok(431)));
    assert!(lab.asked().is_empty());
}

#[tokio::test]
async fn a_head_that_never_ends_is_broken_off() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let mut client = raw(&lab).await;
    client.send(frame(HEADERS, 1, 1, GET)).await;
    for _ in 0..10_000 {
        client.send(frame(CONTINUATION, 0, 1, b"")).await;
        // Literal field without indexing: "x: y".
        client.send(frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y'])).await;
    }
    client.rest().await;
    lab.ended("protocol_error", 1.0).await;
}

#[tokio::test]
async fn floods_without_a_request_end_and_harm_nobody_else() {
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, b"")] {
        let mut lab = Lab::new();
        lab.config.limits.header_timeout = Duration::from_secs(1);
        let _running = lab.start();
        let lab = Arc::new(lab);
        let mut hostile = raw(&lab).await;
        let flood = frame(kind, 0, 0, payload).repeat(100);
        let flooding = tokio::spawn(async move {
            while tokio::io::AsyncWriteExt::write_all(&mut hostile.stream, &flood).await.is_ok() {}
        });
        for _ in 0..10 {
            assert!(lab.connect().await.ask("/").await.starts_with("HTTP/1.1 200"));
        }
        wait("the end of the flood", flooding).await.unwrap();
        lab.ended("header_timeout", 1.0).await;
    }
}
