//! How long senders wait, whatever hangs behind the relay. The clock is tokio's, which
//! goes on only when nothing else can happen.

use std::{future::pending, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use prometheus::Registry;
use tokio::{
    io::{AsyncWriteExt, duplex},
    sync::mpsc,
};

use super::*;
use crate::{
    config::{Delivery, Ews, Graph, Handshake, PathRule, Relay, Route, RouteKind},
    relay::{
        spool::{
            Appended, DeadLetter, Death, Depth, Entry, Message, NewRecord, Pending, RecordId,
            Selection, Spool,
        },
        upstream::{
            self,
            stand_in::{Reaction, StandIn, upstream},
        },
    },
};

const GRAPH: &str = "/graph";
const EWS: &str = "/ews";
const ACTION: &str =
    "http://schemas.microsoft.com/exchange/services/2006/messages/SendNotification";
const ITEM: &str = r#"{"value":[{"subscriptionId":"7f105c7d-2dc5-4530-97cd-4e7ae6534c07"}]}"#;

/// A store that never ends what it begins, but for knowing what it remembers.
struct Hangs {
    remembers: bool,
}

impl Spool for Hangs {
    fn append(&self, _: NewRecord) -> Pending<'_, Appended> {
        Box::pin(pending())
    }

    fn next(&self) -> Pending<'_, Entry> {
        Box::pin(pending())
    }

    fn read(&self, _: RecordId) -> Pending<'_, Message> {
        Box::pin(pending())
    }

    fn delivered(&self, _: &Entry) -> Pending<'_, ()> {
        Box::pin(pending())
    }

    fn bury(&self, _: &Entry, _: Death) -> Pending<'_, ()> {
        Box::pin(pending())
    }

    fn remember(&self, _: String) -> Pending<'_, ()> {
        Box::pin(pending())
    }

    fn remembers(&self, _: String) -> Pending<'_, bool> {
        if self.remembers { Box::pin(async { Ok(false) }) } else { Box::pin(pending()) }
    }

    fn dead(&self, _: Selection, _: Option<RecordId>, _: usize) -> Pending<'_, Vec<DeadLetter>> {
        Box::pin(pending())
    }

    fn replay(&self, _: Selection) -> Pending<'_, u64> {
        Box::pin(pending())
    }

    fn purge(&self, _: Selection) -> Pending<'_, u64> {
        Box::pin(pending())
    }

    fn depth(&self) -> Vec<(String, Depth)> {
        Vec::new()
    }

    fn taken(&self) -> u64 {
        0
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(pending())
    }
}

/// A receiver with two routes, to a server and a store that may both hang.
fn receiver(server: &StandIn, delivery: Delivery, spool: Hangs) -> Arc<Receiver> {
    let registry = Registry::new();
    let mut upstream = upstream(&[server]);
    // Exchange waits for 60 s; this is what it gets of that.
    (upstream.connect_timeout, upstream.response_timeout) =
        (Duration::from_secs(60), Duration::from_secs(25));
    let pool = Pool::new(&upstream, &upstream::Metrics::register(&registry).unwrap()).unwrap();
    let metrics = Metrics::register(&registry).unwrap();
    let memory = Memory::new(1 << 20, &registry).unwrap();
    let spool = OpenSpool::opened(Arc::new(spool));
    let graph = Graph {
        handshake: Handshake::Upstream,
        client_state_file: None,
        tenants: Vec::new(),
        subscriptions: Vec::new(),
        tokens: None,
    };
    let ews =
        Ews { delivery, caller_data_file: None, query_secret: None, subscriptions: Vec::new() };
    let graph_checks = graph_protocol::Checks::load(&graph, &config::Feed::default()).unwrap();
    let kinds = [
        Kind::Graph { checks: graph_checks, handshake: graph.handshake },
        Kind::Ews { checks: ews_protocol::Checks::load(&ews).unwrap(), delivery },
    ];
    let places = [(GRAPH, RouteKind::Graph(graph)), (EWS, RouteKind::Ews(ews))];
    let routes = places.map(|(path, kind)| Route {
        name: path.trim_start_matches('/').to_owned(),
        host: None,
        path: PathRule::Exact(path.to_owned()),
        upstream: 0,
        upstream_path: None,
        body_bytes: 1 << 20,
        keep_credentials: false,
        silent_after: None,
        kind,
    });
    let rooms = routes.iter().zip(kinds).map(|(route, kind)| Room {
        route: route.clone(),
        kind,
        pool: Arc::clone(&pool),
        spool: spool.clone(),
        memory: memory.clone(),
        metrics: metrics.of(&route.name),
        silence: Arc::new(Silence::new(None)),
        endpoint: None,
    });
    Arc::new(Receiver {
        rooms: rooms.collect(),
        routes: Routes::new(&Relay { routes: routes.to_vec(), ..Relay::default() }),
        unrouted: metrics.unrouted,
        passthroughs: None,
        access_log: false,
    })
}

/// A request of HTTP/1.1 as the relay's own server reads it; its connection stays.
async fn request(bytes: String) -> Request<RequestBody> {
    let (mut client, server) = duplex(64 << 10);
    let (read, mut requests) = mpsc::channel(1);
    tokio::spawn(async move {
        client.write_all(bytes.as_bytes()).await.unwrap();
        let service = service_fn(async |request| {
            read.send(request).await.unwrap();
            pending::<hyper::Result<Response<Body>>>().await
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        serving.await.ok();
        drop(client);
    });
    requests.recv().await.unwrap().map(RequestBody::of)
}

fn post(target: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: relay\r\nContent-Length: {length}\r\n{fields}\r\n\r\n{body}"
    )
}

fn graph(body: &str) -> String {
    post(GRAPH, "Content-Type: application/json", body)
}

fn handshake() -> String {
    post(&format!("{GRAPH}?validationToken=token"), "Content-Type: text/plain", "")
}

fn ews() -> String {
    let body = "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
        <SendNotification xmlns=\"http://schemas.microsoft.com/exchange/services/2006/messages\" \
        xmlns:t=\"http://schemas.microsoft.com/exchange/services/2006/types\"><ResponseMessages>\
        <SendNotificationResponseMessage ResponseClass=\"Success\">\
        <ResponseCode>NoError</ResponseCode><Notification><t:SubscriptionId>one</t:SubscriptionId>\
        <t:PreviousWatermark>w</t:PreviousWatermark><t:MoreEvents>false</t:MoreEvents>\
        <t:StatusEvent><t:Watermark>x</t:Watermark></t:StatusEvent></Notification>\
        </SendNotificationResponseMessage></ResponseMessages></SendNotification></s:Body>\
        </s:Envelope>";
    post(EWS, &format!("Content-Type: text/xml\r\nSOAPAction: {ACTION}"), body)
}

/// The status of the answer, and when it was there.
async fn answer(receiver: Arc<Receiver>, bytes: String) -> (u16, Duration) {
    let peer = Peer {
        source: ([192, 0, 2, 1], 5000).into(),
        proxy: None,
        server_name: None,
        listener: "test".into(),
        attached: Arc::default(),
    };
    let request = request(bytes).await;
    let begin = Instant::now();
    let status = receiver.handle(request, Arc::new(peer)).await.status().as_u16();
    // What a timer rounds is no matter.
    let hundredths = (begin.elapsed().as_secs_f64() * 100.0).floor();
    (status, Duration::from_secs_f64(hundredths / 100.0))
}

#[tokio::test(start_paused = true)]
async fn graph_is_answered_in_time_although_the_store_hangs() {
    let server = StandIn::start(|_| Reaction::status(200)).await;
    let receiver = receiver(&server, Delivery::PassThrough, Hangs { remembers: true });
    let limit = Duration::from_millis(2500);
    assert_eq!(answer(Arc::clone(&receiver), graph(ITEM)).await, (503, limit));
    // Nor does it matter who is slow: what is not stored by then is not accepted.
    let unfinished = graph(ITEM).replace(ITEM, ITEM.split_at(20).0);
    assert_eq!(answer(receiver, unfinished).await, (503, limit));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_answered_in_time_although_the_upstream_hangs() {
    let server = StandIn::start(|_| Reaction::Hang).await;
    let receiver = receiver(&server, Delivery::PassThrough, Hangs { remembers: true });
    assert_eq!(answer(receiver, handshake()).await, (504, Duration::from_secs(8)));
}

#[tokio::test(start_paused = true)]
async fn exchange_is_answered_in_time_although_the_store_hangs() {
    let server = StandIn::start(|_| Reaction::status(200)).await;
    for remembers in [false, true] {
        let receiver = receiver(&server, Delivery::StoreAndForward, Hangs { remembers });
        let limit = Duration::from_secs(10);
        assert_eq!(answer(receiver, ews()).await, (503, limit), "remembers: {remembers}");
    }
}

#[tokio::test(start_paused = true)]
async fn exchange_is_answered_in_time_although_the_upstream_hangs() {
    for react in [|_: &_| Reaction::Hang, |_: &_| Reaction::HangInBody] {
        let server = StandIn::start(react).await;
        let receiver = receiver(&server, Delivery::PassThrough, Hangs { remembers: true });
        assert_eq!(answer(receiver, ews()).await, (504, Duration::from_secs(25)));
    }
}
