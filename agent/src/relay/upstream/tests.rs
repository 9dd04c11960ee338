//! Tests of the pool, with real servers on loopback.

mod availability;
mod failover;
mod setup;

use std::sync::Arc;

use hyper::{HeaderMap, Method, Response, body::Bytes};
use prometheus::Registry;

use super::{
    Answer, Metrics, Outbound, Pool, Repeat, SendError, after,
    stand_in::{PATIENCE, Reaction, StandIn, upstream},
};
use crate::config;

fn pool(upstream: &config::Upstream) -> Arc<Pool> {
    Pool::new(upstream, &Metrics::register(&Registry::new()).unwrap()).unwrap()
}

fn post(body: &'static str) -> Outbound {
    Outbound {
        method: Method::POST,
        path_and_query: "/in?key=1".parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()).into(),
    }
}

async fn read(response: Response<Answer>) -> String {
    let deadline = after(tokio::time::Instant::now(), PATIENCE);
    let body = response.into_body().read(1024, deadline).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_share_a_connection_that_is_kept_alive() {
    let server = StandIn::start(|_| Reaction::answer(200, "OK")).await;
    let pool = pool(&upstream(&[&server]));
    for _ in 0..5 {
        let response = pool.send(post("x"), Repeat::Never).await.unwrap();
        assert_eq!(read(response).await, "OK");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_was_not_read_of_an_answer_reaches_nobody_else() {
    let server = StandIn::start(|seen| match &*seen.body {
        b"first" => Reaction::answer(200, "for the first"),
        _ => Reaction::answer(200, "for the second"),
    })
    .await;
    let pool = pool(&upstream(&[&server]));
    drop(pool.send(post("first"), Repeat::Never).await.unwrap());
    let response = pool.send(post("second"), Repeat::Never).await.unwrap();
    assert_eq!(read(response).await, "for the second");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_request_arrives_with_what_the_pool_sets_and_without_what_is_not_for_it() {
    let server = StandIn::start(|_| Reaction::status(202)).await;
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "open sesame\n").unwrap();
    let mut upstream = upstream(&[&server]);
    upstream.host = Some("pega.example.com".parse().unwrap());
    upstream.headers = vec![("x-edge".parse().unwrap(), "dmz-1".parse().unwrap())];
    upstream.credentials = Some(config::BasicCredentials {
        username: "Aladdin".to_owned(),
        password_file: password.path().to_owned(),
    });
    let mut request = post("<soap/>");
    for (name, value) in [
        ("authorization", "Bearer stolen"),
        ("host", "edge.example.com"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("x-edge", "forged"),
        ("soapaction", "SendNotification"),
    ] {
        request.headers.insert(name, value.parse().unwrap());
    }
    pool(&upstream).send(request, Repeat::Never).await.unwrap();
    let seen = server.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/in?key=1"));
    assert_eq!(seen.body, "<soap/>");
    // The example of RFC 7617.
    assert_eq!(seen.header("authorization"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(seen.header("host"), "pega.example.com");
    assert_eq!(seen.header("x-edge"), "dmz-1");
    assert_eq!(seen.header("soapaction"), "SendNotification");
    assert_eq!(seen.header("content-length"), "7");
    for name in ["connection", "x-hop", "transfer-encoding"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn the_host_is_that_of_the_server_if_none_is_configured() {
    let server = StandIn::start(|_| Reaction::status(202)).await;
    pool(&upstream(&[&server])).send(post("x"), Repeat::Never).await.unwrap();
    assert_eq!(server.seen().remove(0).header("host"), server.address.to_string());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let elsewhere = StandIn::start(|_| Reaction::status(200)).await;
    let location = elsewhere.uri().to_string();
    let server = StandIn::start(move |_| {
        let response = Response::builder().status(307).header("location", &location);
        Reaction::Answer(response.body(Default::default()).unwrap())
    })
    .await;
    let response = pool(&upstream(&[&server])).send(post("x"), Repeat::Always).await.unwrap();
    assert_eq!(response.status(), 307);
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn fields_that_belong_to_the_connection_do_not_come_back() {
    let server = StandIn::start(|_| {
        let response = Response::builder().header("connection", "x-hop").header("x-hop", "1");
        Reaction::Answer(response.header("x-pega", "1").body(Default::default()).unwrap())
    })
    .await;
    let response = pool(&upstream(&[&server])).send(post("x"), Repeat::Never).await.unwrap();
    assert!(response.headers().contains_key("x-pega"));
    assert!(!response.headers().contains_key("x-hop"));
    assert!(!response.headers().contains_key("connection"));
}

#[tokio::test]
async fn the_body_of_an_answer_is_bounded_in_size_and_time() {
    let server = StandIn::start(|_| Reaction::answer(200, "0123456789")).await;
    let pool = pool(&upstream(&[&server]));
    let soon = || after(tokio::time::Instant::now(), std::time::Duration::from_millis(50));
    let body = pool.send(post("x"), Repeat::Never).await.unwrap().into_body();
    assert!(matches!(body.read(9, soon()).await, Err(super::BodyError::TooLarge(9))));
    server.react(|_| Reaction::HangInBody);
    let body = pool.send(post("x"), Repeat::Never).await.unwrap().into_body();
    assert!(matches!(body.read(1024, soon()).await, Err(super::BodyError::Timeout)));
}

#[tokio::test]
async fn what_became_of_requests_is_counted() {
    let server = StandIn::start(|seen| match &seen.body[..] {
        b"fine" => Reaction::status(404),
        b"broken" => Reaction::status(500),
        _ => Reaction::Break,
    })
    .await;
    let registry = Registry::new();
    let pool = Pool::new(&upstream(&[&server]), &Metrics::register(&registry).unwrap()).unwrap();
    for body in ["fine", "fine", "broken", "reset"] {
        pool.send(post(body), Repeat::Never).await.ok();
    }
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for (result, count) in [("ok", 2), ("server_error", 1), ("reset", 1), ("timeout", 0)] {
        let line = format!(
            "exogate_upstream_requests_total{{result=\"{result}\",server=\"{}\",upstream=\"pega\"}} {count}\n",
            server.address
        );
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(text.contains("exogate_upstream_response_duration_seconds_count{upstream=\"pega\"} 3"));
}

#[tokio::test]
async fn a_drain_waits_for_what_is_under_way_and_refuses_the_rest() {
    let server = StandIn::start(|_| Reaction::answer(200, "OK")).await;
    let pool = pool(&upstream(&[&server]));
    let under_way = pool.send(post("x"), Repeat::Never).await.unwrap();
    let draining = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.drain().await }
    });
    let refused = async {
        while !matches!(pool.send(post("y"), Repeat::Never).await, Err(SendError::Stopping(_))) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(!draining.is_finished(), "an answer is still being read");
    assert_eq!(read(under_way).await, "OK");
    draining.await.unwrap();
}
