//! Delivery to real servers on loopback.

use hyper::{Method, body::Bytes};

use super::*;
use crate::{
    config,
    relay::{
        deliver::{DeliveryRoute, Verdict, backoff::Backoff},
        upstream::{
            self, Outbound, Pool,
            stand_in::{PATIENCE, Reaction, Seen, StandIn, upstream},
        },
    },
};

/// A route that asks for "taken" as the answer, or takes anything.
fn route(upstream: &config::Upstream, asks: bool) -> Arc<DeliveryRoute> {
    let metrics = upstream::Metrics::register(&Registry::new()).unwrap();
    let answered = |_: &Message, _, body: &Bytes| match &body[..] {
        b"taken" => Verdict::Accepted { remember: None },
        b"unsubscribe" => Verdict::Accepted { remember: Some("unsubscribed".to_owned()) },
        _ => Verdict::Retry("somebody else answers".to_owned()),
    };
    Arc::new(DeliveryRoute {
        pool: Pool::new(upstream, &metrics).unwrap(),
        prepare: Arc::new(|message, id| {
            Ok(Outbound {
                method: Method::POST,
                path_and_query: message.target.parse().map_err(|_| "no path".to_owned())?,
                headers: [("idempotency-key".parse().unwrap(), id.to_string().parse().unwrap())]
                    .into_iter()
                    .collect(),
                body: message.body.clone().into(),
            })
        }),
        answered: asks.then(|| Arc::new(answered) as _),
    })
}

fn message(target: &str) -> Message {
    Message {
        route: "graph".to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        source: None,
        body: "x".into(),
    }
}

/// What an attempt makes of a reaction.
async fn attempt(react: fn(&Seen) -> Reaction, asks: bool) -> Attempt {
    let server = StandIn::start(react).await;
    let mut upstream = upstream(&[&server]);
    upstream.response_timeout = Duration::from_millis(200);
    route(&upstream, asks).attempt(RecordId::new(), message("/in")).await
}

fn result(attempt: Attempt) -> (&'static str, Option<u64>) {
    let Attempt::Failed(failure) = attempt else { panic!("{attempt:?}") };
    let retry_after = failure.retry_after.map(|wait| wait.as_secs());
    (failure.result, retry_after)
}

#[tokio::test]
async fn an_answer_of_2xx_is_a_delivery() {
    for react in [
        |_: &Seen| Reaction::status(202),
        |_: &Seen| Reaction::answer(200, "whatever"),
        // The head says it.
        |_: &Seen| Reaction::HangInBody,
    ] {
        assert_eq!(attempt(react, false).await, delivered());
    }
}

#[tokio::test]
async fn a_route_that_asks_for_an_answer_takes_no_other() {
    assert_eq!(attempt(|_| Reaction::answer(200, "taken"), true).await, delivered());
    assert_eq!(
        attempt(|_| Reaction::answer(200, "unsubscribe"), true).await,
        Attempt::Delivered { remember: Some("unsubscribed".to_owned()) }
    );
    for react in
        [|_: &Seen| Reaction::answer(200, "<html>login</html>"), |_: &Seen| Reaction::HangInBody]
    {
        assert_eq!(result(attempt(react, true).await), ("wrong_answer", None));
    }
}

#[tokio::test]
async fn what_may_go_well_another_time_is_a_failure() {
    for (react, expected) in [
        ((|_| Reaction::status(500)) as fn(&Seen) -> Reaction, ("server_error", None)),
        (|_| Reaction::status(503), ("server_error", None)),
        (|_| Reaction::retry_after(503, "7"), ("server_error", Some(7))),
        (|_| Reaction::retry_after(429, "120"), ("throttled", Some(120))),
        (|_| Reaction::retry_after(429, "Sun, 06 Nov 1994 08:49:37 GMT"), ("throttled", Some(0))),
        (|_| Reaction::status(408), ("timeout", None)),
        (|_| Reaction::Hang, ("timeout", None)),
        (|_| Reaction::Break, ("reset", None)),
    ] {
        assert_eq!(result(attempt(react, false).await), expected);
    }
}

#[tokio::test]
async fn any_other_answer_is_a_refusal() {
    for (react, status) in [
        ((|_| Reaction::status(404)) as fn(&Seen) -> Reaction, 404),
        (|_| Reaction::status(400), 400),
        (|_| Reaction::status(301), 301),
    ] {
        assert_eq!(attempt(react, false).await, Attempt::Refused { status });
    }
}

#[tokio::test]
async fn a_message_that_no_request_can_be_made_of_is_unusable() {
    let server = StandIn::start(|_| Reaction::status(200)).await;
    let route = route(&upstream(&[&server]), false);
    let attempt = route.attempt(RecordId::new(), message("not a path")).await;
    assert_eq!(attempt, Attempt::Unusable { problem: "no path".to_owned() });
}

#[tokio::test]
async fn without_a_server_that_is_well_nothing_is_tried() {
    let server = StandIn::start(|_| Reaction::status(503)).await;
    let mut upstream = upstream(&[&server]);
    upstream.breaker = config::Breaker { failures: 1, pause: PATIENCE };
    let route = route(&upstream, false);
    assert_eq!(
        result(Arc::clone(&route).attempt(RecordId::new(), message("/in")).await).0,
        "server_error"
    );
    assert_eq!(route.attempt(RecordId::new(), message("/in")).await, Attempt::NotTried);
    assert_eq!(server.seen().len(), 1);
}

/// Delivers to real servers, with back-offs of a few milliseconds.
fn run(spool: &Arc<Memory>, upstream: &config::Upstream) -> Running {
    let registry = Registry::new();
    let mut deliverer = Deliverer::new(
        Arc::clone(spool) as Arc<dyn Spool>,
        [(Arc::from("graph"), DeliveryRoute::clone(&route(upstream, true)))].into(),
        Options { retry_for: HOUR, drain: PATIENCE },
        Metrics::register(&registry).unwrap(),
    );
    let (first, longest) = (Duration::from_millis(5), Duration::from_millis(50));
    deliverer.backoff = Backoff { first, longest };
    let stop = CancellationToken::new();
    let task = tokio::spawn(deliverer.run(stop.clone()));
    Running { stop, task, registry }
}

/// Accepts that many records in four lanes; each body is its number.
fn fill(spool: &Memory, records: usize) -> Vec<RecordId> {
    (0..records)
        .map(|number| spool.accept("graph", &[&(number % 4).to_string()], &number.to_string()))
        .collect()
}

/// Whether each record was taken, in the order of its lane and under its own id.
fn check(taken: &[Seen], ids: &[RecordId]) {
    let mut first = Vec::new();
    for seen in taken {
        let number: usize = std::str::from_utf8(&seen.body).unwrap().parse().unwrap();
        assert_eq!(seen.header("idempotency-key"), ids[number].to_string());
        if !first.contains(&number) {
            first.push(number);
        }
    }
    for lane in 0..4 {
        let numbers: Vec<_> = first.iter().copied().filter(|number| number % 4 == lane).collect();
        let expected: Vec<_> = (0..ids.len()).filter(|number| number % 4 == lane).collect();
        assert_eq!(numbers, expected, "lane {lane}");
    }
}

#[tokio::test]
async fn an_upstream_that_fails_in_every_way_and_comes_back_gets_all_in_order() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&taken);
    let mut count = 0_usize;
    let server = StandIn::start(move |seen| {
        count += 1;
        match count % 9 {
            1 => Reaction::status(500),
            2 => Reaction::retry_after(429, "0"),
            3 => Reaction::Break,
            4 => Reaction::answer(200, "wrong"),
            5 => Reaction::HangInBody,
            6 => Reaction::Hang,
            7 => Reaction::status(503),
            _ => {
                log.lock().unwrap().push(seen.clone());
                Reaction::answer(200, "taken")
            }
        }
    })
    .await;
    let mut upstream = upstream(&[&server]);
    upstream.response_timeout = Duration::from_millis(30);
    upstream.breaker = config::Breaker { failures: 3, pause: Duration::from_millis(20) };
    let spool = Memory::new();
    let ids = fill(&spool, 20);
    let running = run(&spool, &upstream);
    timeout(PATIENCE, server.saw(20)).await.unwrap();
    server.stop().await;
    fill(&spool, 20);
    let noticed = async {
        while !running.metrics().contains("result=\"connect\"") {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, noticed).await.unwrap();
    server.restart().await;
    timeout(PATIENCE, spool.emptied()).await.unwrap();
    let taken = taken.lock().unwrap().clone();
    // The second twenty carry the same numbers; they come after the first in each lane.
    let first: Vec<_> = taken
        .iter()
        .filter(|seen| ids.iter().any(|id| id.to_string() == seen.header("idempotency-key")))
        .cloned()
        .collect();
    check(&first, &ids);
    assert!(spool.state().dead.is_empty());
    assert_eq!(spool.state().delivered.len(), 40);
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_is_replaced_by_the_next_without_loss() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let react = |log: Arc<Mutex<Vec<Seen>>>| {
        move |seen: &Seen| {
            log.lock().unwrap().push(seen.clone());
            Reaction::answer(200, "taken")
        }
    };
    let dies = StandIn::start(react(Arc::clone(&taken))).await;
    let stays = StandIn::start(react(Arc::clone(&taken))).await;
    let mut upstream = upstream(&[&dies, &stays]);
    upstream.breaker = config::Breaker { failures: 3, pause: PATIENCE };
    let spool = Memory::new();
    let ids = fill(&spool, 400);
    let running = run(&spool, &upstream);
    timeout(PATIENCE, dies.saw(100)).await.unwrap();
    dies.stop().await;
    timeout(PATIENCE, spool.emptied()).await.unwrap();
    assert!(stays.seen().len() >= 200, "it took over");
    check(&taken.lock().unwrap(), &ids);
    running.stop().await;
}
