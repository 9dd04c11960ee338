//! The spool on a cluster of NATS servers.

use std::{
    thread,
    time::{Duration, Instant},
};

use exogate_tests::{
    agent::{Agent, relay::GRAPH},
    lab::{Lab, Peer},
    nats::Cluster,
    notification::Notification,
    pega::{Pega, Received},
    service::EndpointService,
};

use super::SOON;

/// Sends notifications one after the other, each until it is accepted, as Microsoft does:
/// while the servers choose a leader, which takes seconds, the answer is 503.
fn send(lab: &Lab, numbers: std::ops::RangeInclusive<u64>) {
    let begin = Instant::now();
    for number in numbers {
        let sent = Notification::graph(GRAPH, &["one"], number, "state");
        loop {
            let status = sent.answer(lab, Peer::Graph).unwrap().status;
            if status == 202 {
                break;
            }
            assert_eq!(status, 503, "{number}");
            assert!(begin.elapsed() < SOON, "{number} is not accepted in {SOON:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn what_one_host_accepted_is_delivered_by_another_when_it_is_lost() {
    let lab = Lab::new().unwrap();
    let _service = EndpointService::start(&lab).unwrap();
    // The servers live where they are started.
    let mut cluster = lab.edge().run(|| Cluster::start(3)).unwrap();
    let mut pega = Pega::start(&lab, 8080).unwrap();
    pega.stop();
    // Two hosts in turn at one address, each with a state directory of its own.
    let agent = |name: &str| {
        let mut agent = Agent::new(&lab).unwrap();
        agent.add_relay(&[&pega]).unwrap();
        let state = lab.directory().join(name);
        agent.set("state_directory", state.to_str().unwrap()).unwrap();
        agent.set("spool.jetstream.servers", cluster.urls()).unwrap();
        agent
    };
    let (mut first, mut second) = (agent("first"), agent("second"));
    first.start().unwrap();
    send(&lab, 1..=10);
    // One of the servers is lost as well: the one that has most to do.
    let leader = lab.edge().run(|| cluster.wait_until_current("exogate_waiting")).unwrap();
    cluster.kill(leader).unwrap();
    send(&lab, 11..=20);
    first.kill9().unwrap();
    drop(first);

    second.start().unwrap();
    send(&lab, 21..=30);
    pega.resume().unwrap();
    let number = |body: &[u8]| {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        body["value"][0]["resourceData"]["id"].as_u64().unwrap()
    };
    let numbers = |received: &[Received]| {
        let taken = received.iter().filter(|request| request.is_taken());
        let mut numbers: Vec<_> = taken.map(|request| number(&request.body)).collect();
        // What was stored and answered 503 all the same was sent again.
        numbers.dedup();
        numbers
    };
    let all = |received: &[Received]| numbers(received).len() >= 30;
    let received = pega.wait_until("all notifications", SOON * 3, all).unwrap();
    assert_eq!(numbers(&received), (1..=30).collect::<Vec<_>>());
    drop(second);
    lab.edge()
        .run(|| {
            drop(cluster);
            Ok(())
        })
        .unwrap();
}
