//! Alerts of the relay.

use std::{
    thread,
    time::{Duration, Instant},
};

use exogate_tests::{
    agent::relay::GRAPH,
    lab::Peer,
    nats::Cluster,
    notification::Notification,
    pega::{Mood, Pega},
    tls::Validity,
};
use serde_json::Value;

use super::{PATIENCE, TARGETS, Watched};

#[test]
fn the_alerts_of_the_relay_fire_and_resolve() {
    let mut watched = Watched::new();
    let mut pega = Pega::start(&watched.lab, 8080).unwrap();
    watched.agent.add_relay(&[&pega]).unwrap();
    watched.agent.set("spool.max_size", "1MiB").unwrap();
    watched.agent.set("route.graph.silent_after", "2s").unwrap();
    // Probes would judge the server by how it feels, sooner or later than deliveries do.
    watched.agent.set("upstream.pega.breaker.failures", 1).unwrap();
    watched.start(&TARGETS[..1]);
    let mut number = 0;
    let mut send = |watched: &Watched, size: usize| {
        number += 1;
        let sent = large(number, size);
        sent.answer(&watched.lab, Peer::Graph).unwrap().status
    };

    assert_eq!(send(&watched, 0), 202);
    watched.fires("ExogateSubscriptionsSilent");
    assert_eq!(send(&watched, 0), 202);
    watched.resolves("ExogateSubscriptionsSilent");

    watched.agent.replace_certificate(Validity::Brief).unwrap();
    watched.agent.reload().unwrap();
    watched.fires("ExogateCertificateExpiresSoon");
    watched.fires("ExogateCertificateExpiring");
    watched.agent.spoil_certificate().unwrap();
    watched.agent.reload().unwrap();
    watched.fires("ExogateCertificateNotTaken");
    watched.agent.replace_certificate(Validity::Now).unwrap();
    watched.agent.reload().unwrap();
    watched.resolves("ExogateCertificateExpiresSoon");
    watched.resolves("ExogateCertificateExpiring");
    watched.resolves("ExogateCertificateNotTaken");

    pega.feel(Mood::Answers(400, None));
    assert_eq!(send(&watched, 0), 202);
    watched.fires("ExogateDeadLetters");
    watched.agent.print(&["spool", "purge", "--all"]).unwrap();
    watched.resolves("ExogateDeadLetters");

    pega.stop();
    for _ in 0..8 {
        assert_eq!(send(&watched, 100_000), 202);
    }
    watched.fires("ExogateUpstreamDown");
    watched.fires("ExogateSpoolFilling");
    while send(&watched, 100_000) == 202 {}
    // As long as it goes on.
    let begin = Instant::now();
    while !watched.prometheus().fires("ExogateAnswersFail").unwrap() {
        assert_eq!(send(&watched, 100_000), 503);
        assert!(begin.elapsed() < PATIENCE, "{}", watched.agent.log());
        thread::sleep(Duration::from_millis(500));
    }
    watched.fires("ExogateAnswersFail");
    watched.fires("ExogateSpoolRefuses");
    watched.fires("ExogateDeliveryStuck");
    pega.resume().unwrap();
    pega.feel(Mood::Well);
    for alert in ["AnswersFail", "UpstreamDown", "SpoolFilling", "SpoolRefuses", "DeliveryStuck"] {
        watched.resolves(&format!("Exogate{alert}"));
    }

    // The upstream answers when Graph validates the address.
    pega.feel(Mood::Slow(Duration::from_secs(4)));
    // More than a tenth of all answers so far.
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let validation = Notification::validation(GRAPH, "token");
                let answer = validation.answer(&watched.lab, Peer::Graph).unwrap();
                assert_eq!(answer.status, 200);
            });
        }
    });
    watched.fires("ExogateAnswersSlow");
    watched.fires("ExogateGraphDelays");
    pega.feel(Mood::Well);

    // A restart forgets the last ten minutes. Then there is EWS alone, on a shared spool.
    let graph = watched.agent.settings()["route"].as_table_mut().unwrap().remove("graph").unwrap();
    watched.agent.set("guard", guard(&["exchange-online"])).unwrap();
    watched.agent.set("route.ews.delivery", "store-and-forward").unwrap();
    let mut cluster = watched.lab.edge().run(|| Cluster::start(1)).unwrap();
    watched.agent.set("spool.jetstream.servers", cluster.urls()).unwrap();
    watched.agent.set("spool.jetstream.replicas", 1).unwrap();
    watched.agent.restart().unwrap();
    watched.resolves("ExogateAnswersSlow");
    watched.resolves("ExogateGraphDelays");
    watched.fires("ExogateEwsEnds");
    cluster.kill(0).unwrap();
    watched.fires("ExogateSpoolDisconnected");
    watched.lab.edge().run(|| cluster.restart(0)).unwrap();
    watched.resolves("ExogateSpoolDisconnected");
    watched.agent.set("route.graph", graph).unwrap();
    watched.agent.set("guard", guard(&["exchange-online", "graph-notifications"])).unwrap();
    watched.agent.restart().unwrap();
    watched.resolves("ExogateEwsEnds");
    watched.agent.wait_ready(PATIENCE).unwrap();
}

/// A notification whose body has about this size more than it needs.
fn large(number: u64, size: usize) -> Notification {
    let mut sent = Notification::graph(GRAPH, &["one"], number, "");
    let mut body: Value = serde_json::from_slice(&sent.body).unwrap();
    body["value"][0]["resourceData"]["subject"] = "x".repeat(size).into();
    sent.body = body.to_string().into();
    sent
}

fn guard(sources: &[&str]) -> toml::Value {
    let mut guard = toml::Table::new();
    guard.insert("port".to_owned(), 443.into());
    guard.insert("sources".to_owned(), sources.to_vec().into());
    vec![toml::Value::Table(guard)].into()
}
