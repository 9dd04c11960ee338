//! What each listener lets its clients do.

use std::{net::IpAddr, sync::Arc};

use futures_util::future::BoxFuture;
use prometheus::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Audit, AuditRecord, Control, Health, Recent, Server,
    api::{
        self, ExportFormat, Order,
        relay::{Selection, SpoolAnswer, SpoolOrder, Upstream, UpstreamOrder},
    },
    client,
};
use crate::config;

struct Stub;

fn nothing() -> api::Diff {
    api::Diff { hold: false, feeds: vec![] }
}

impl Control for Stub {
    fn status(&self) -> api::Status {
        panic!("not asked for")
    }

    fn check(&self, _: IpAddr) -> api::Check {
        panic!("not asked for")
    }

    fn diff(&self) -> api::Diff {
        nothing()
    }

    fn history(&self) -> Result<api::History, String> {
        Ok(api::History { records: vec![] })
    }

    fn audit(&self) -> Result<Vec<AuditRecord>, String> {
        Ok(vec![])
    }

    fn temporary(&self) -> Vec<api::Temporary> {
        vec![]
    }

    fn export(&self, format: ExportFormat, sources: &[String]) -> Result<String, String> {
        Ok(format!("{} {sources:?}", format.name()))
    }

    fn events(&self) -> Recent {
        let (sender, coming) = tokio::sync::broadcast::channel(2);
        let refused = |port| api::events::Refused {
            at: "2026-11-23T20:00:00Z".parse().unwrap(),
            interface: "eth0".to_owned(),
            action: "drop".to_owned(),
            reason: "unlisted".to_owned(),
            family: "ipv4".to_owned(),
            source: "203.0.113.7".parse().unwrap(),
            source_port: 1,
            destination: "198.51.100.10".parse().unwrap(),
            port,
            protocol: 6,
            bytes: 60,
            stands_for: 1,
        };
        for port in 2..=4 {
            sender.send(refused(port).into()).unwrap();
        }
        Recent { past: vec![refused(1).into()], coming }
    }

    fn obey(&self, order: Order) -> BoxFuture<'static, Result<api::Obeyed, String>> {
        Box::pin(async move {
            match order {
                Order::Hold => Ok(api::Obeyed {
                    diff: nothing(),
                    temporary: vec![],
                    list: "hash".to_owned(),
                    mode: "monitor".to_owned(),
                    configured_mode: "monitor".to_owned(),
                    confirm_by: None,
                }),
                _ => Err("not this one".to_owned()),
            }
        })
    }

    fn upstream(&self, _: UpstreamOrder) -> BoxFuture<'static, Result<Upstream, String>> {
        Box::pin(async { Err("not this one".to_owned()) })
    }

    fn spool(&self, order: SpoolOrder) -> BoxFuture<'static, Result<SpoolAnswer, String>> {
        Box::pin(async move {
            match order {
                SpoolOrder::Purge { .. } => Ok(SpoolAnswer::Done { count: 7 }),
                _ => Err("not this one".to_owned()),
            }
        })
    }
}

/// A server, its directory and its TCP address.
async fn start(export: bool) -> (config::Admin, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = directory.path().join("c.sock");
    let admin = config::Admin { listen: free, socket, export, group: None };
    let server = Server::bind(&admin).await.unwrap();
    let registry = Registry::new();
    let audit = Audit::open(directory.path(), &registry).unwrap();
    tokio::spawn(server.serve(registry, Health::default(), audit, Arc::new(Stub)));
    (admin, directory)
}

/// The status line and body of an answer over TCP.
async fn over_tcp(admin: &config::Admin, request: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(admin.listen).await.unwrap();
    let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(format!("{request} {head}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn anybody_sees_metrics_and_the_list_only_where_it_is_exported() {
    let (admin, _directory) = start(false).await;
    for path in ["/export", "/v1/diff", "/v1/history", "/v1/allow", "/v1/status"] {
        let (status, _) = over_tcp(&admin, &format!("GET {path}")).await;
        assert!(status.contains("404"), "{path}: {status}");
    }
    assert!(over_tcp(&admin, "POST /v1/order").await.0.contains("405"));
    assert!(over_tcp(&admin, "POST /v1/spool").await.0.contains("405"));
    assert!(over_tcp(&admin, "GET /healthz").await.0.contains("200"));

    let (admin, _directory) = start(true).await;
    let (status, body) = over_tcp(&admin, "GET /export?format=json&source=a&source=b").await;
    assert!(status.contains("200"), "{status}");
    assert_eq!(body, "json [\"a\", \"b\"]");
    assert!(over_tcp(&admin, "GET /export?format=xml").await.0.contains("400"));
    assert!(over_tcp(&admin, "GET /v1/diff").await.0.contains("404"));
    assert!(over_tcp(&admin, "POST /v1/order").await.0.contains("405"));
    assert!(over_tcp(&admin, "POST /v1/spool").await.0.contains("405"));
}

#[tokio::test]
async fn the_control_socket_obeys_or_says_why_not() {
    let (admin, _directory) = start(false).await;
    let obeyed = client::order(&admin.socket, &Order::Hold).await.unwrap();
    assert_eq!(obeyed.list, "hash");
    let error = client::order(&admin.socket, &Order::Resume).await.unwrap_err();
    assert_eq!(error.to_string(), "not this one");
    let page = client::get_text(&admin.socket, "/export").await.unwrap();
    assert_eq!(page, "plain []");
    let history: api::History = client::get(&admin.socket, "/v1/history").await.unwrap();
    assert!(history.records.is_empty());

    let order = SpoolOrder::Purge { selection: Selection::All };
    let answer: SpoolAnswer = client::post(&admin.socket, "/v1/spool", &order).await.unwrap();
    assert!(matches!(answer, SpoolAnswer::Done { count: 7 }));
    let order = SpoolOrder::Replay { selection: Selection::All };
    let refused = client::post::<SpoolAnswer>(&admin.socket, "/v1/spool", &order).await;
    assert_eq!(refused.unwrap_err().to_string(), "not this one");
}

#[tokio::test]
async fn every_order_is_recorded_with_whoever_gave_it_and_without_contents() {
    let (admin, directory) = start(false).await;
    client::order(&admin.socket, &Order::Hold).await.unwrap();
    let import = Order::Import {
        feed: "Worldwide".to_owned(),
        version: None,
        accept: false,
        content: "a secret".to_owned(),
    };
    client::order(&admin.socket, &import).await.unwrap_err();
    let _: api::Diff = client::get(&admin.socket, "/v1/diff").await.unwrap();
    let records = super::audit_records(directory.path()).unwrap();
    let told: Vec<_> =
        records.iter().map(|record| (record.order["order"].clone(), record.outcome)).collect();
    assert_eq!(
        told,
        [("hold".into(), super::Outcome::Done), ("import".into(), super::Outcome::Refused)]
    );
    assert_eq!(records[1].order["content"], serde_json::json!({ "bytes": 8 }));
    assert_eq!(records[1].message.as_deref(), Some("not this one"));
    assert_eq!(records[0].caller.uid, nix::unistd::getuid().as_raw());
    let pid = i32::try_from(std::process::id()).unwrap();
    assert_eq!(records[0].caller.pid, Some(pid));
}

#[tokio::test]
async fn events_come_in_order_and_what_a_slow_reader_missed_is_counted() {
    let (admin, _directory) = start(false).await;
    let mut lines = Vec::new();
    let take = |line: &[u8]| {
        lines.push(serde_json::from_slice::<api::events::Event>(line).unwrap());
        true
    };
    client::follow(&admin.socket, "/v1/events?follow=true", take).await.unwrap();
    let ports: Vec<_> = lines
        .iter()
        .map(|event| match event {
            api::events::Event::Refused(refused) => u64::from(refused.port),
            api::events::Event::Missed { count } => 1000 + count,
        })
        .collect();
    assert_eq!(ports, [1, 1001, 3, 4]);

    let mut count = 0;
    client::follow(&admin.socket, "/v1/events", |_| {
        count += 1;
        true
    })
    .await
    .unwrap();
    assert_eq!(count, 1, "only what has happened already");
    assert!(over_tcp(&admin, "GET /v1/events").await.0.contains("404"));
}

#[test]
fn orders_have_stable_names() {
    for (order, text) in [
        (Order::Refresh { dry_run: true }, r#"{"order":"refresh","dry_run":true}"#),
        (
            Order::Accept { feed: "Worldwide".to_owned() },
            r#"{"order":"accept","feed":"Worldwide"}"#,
        ),
        (
            Order::Allow {
                prefix: "203.0.113.7/32".parse().unwrap(),
                seconds: 7200,
                reason: "x".to_owned(),
            },
            r#"{"order":"allow","prefix":"203.0.113.7/32","seconds":7200,"reason":"x"}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&order).unwrap(), text);
    }
}
