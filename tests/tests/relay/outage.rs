//! The server behind the relay is away, slow or wrong, and nothing is lost.

use std::time::Duration;

use exogate_tests::{
    agent::relay::{EWS, GRAPH},
    lab::Peer,
    load::Load,
    notification::Notification,
    pega::{Mood, Received},
};

use super::{SOON, Setting};

/// A pause that lets a hundred notifications a second through for each sender.
const PACE: Duration = Duration::from_millis(10);

/// The numbers of a subscription's notifications, in the order of their arrival.
fn numbers(received: &[Received], subscription: &str) -> Vec<u64> {
    let number = |request: &Received| {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let item = &body["value"][0];
        (item["subscriptionId"] == subscription)
            .then(|| item["resourceData"]["id"].as_u64().unwrap())
    };
    received.iter().filter(|request| request.is_taken()).filter_map(number).collect()
}

#[test]
fn notifications_are_accepted_while_the_server_is_away_and_arrive_in_order_when_it_is_back() {
    let mut setting = Setting::started();
    setting.pega.stop();
    for number in 1..=20 {
        for subscription in ["one", "two"] {
            let sent = Notification::graph(GRAPH, &[subscription], number, "state");
            assert_eq!(sent.answer(&setting.lab, Peer::Graph).unwrap().status, 202);
        }
    }
    assert_eq!(setting.metric("exogate_spool_records", &[("route", "graph")]), 40.0);
    let status = setting.agent.json(&["spool", "status"]).unwrap();
    assert_eq!(status[0]["name"], "ews");
    assert_eq!(status[1]["waiting"], 40, "{status:#}");

    setting.pega.resume().unwrap();
    let received = setting.pega.wait_for(40, SOON).unwrap();
    for subscription in ["one", "two"] {
        assert_eq!(numbers(&received, subscription), (1..=20).collect::<Vec<_>>());
    }
    let empty = |metrics: &exogate_tests::agent::Metrics| {
        metrics.sum("exogate_spool_records", &[("route", "graph")]) == Some(0.0)
    };
    setting.agent.wait_until("the spool is empty", SOON, empty).unwrap();
}

#[test]
fn whatever_is_wrong_with_the_server_everything_arrives_in_the_end() {
    let setting = &mut Setting::started();
    let load = Load::start(&setting.lab, GRAPH, 8, PACE).unwrap();
    for mood in [
        Mood::Answers(500, None),
        Mood::Answers(503, None),
        Mood::Answers(429, Some(1)),
        Mood::Slow(Duration::from_millis(300)),
        Mood::Resets,
        Mood::Hangs,
        Mood::HangsMidBody,
    ] {
        setting.pega.feel(mood.clone());
        load.wait_for(load.count() + 100, SOON).unwrap();
    }
    setting.pega.stop();
    load.wait_for(load.count() + 100, SOON).unwrap();
    setting.pega.feel(Mood::Well);
    setting.pega.resume().unwrap();
    let report = load.stop().unwrap();
    assert!(report.refused.is_empty() && report.broken == 0, "{:?}", report.refused);
    let slow = report.took.iter().filter(|took| **took > Duration::from_secs(1)).count();
    println!("{} acknowledged, {slow} of them after more than 1 s", report.count());
    // What hung is given up after `response_timeout`.
    let patience = Duration::from_secs(90);
    setting
        .pega
        .wait_until("all of it arrives", patience, |received| {
            report.hold_against(received, GRAPH).is_ok()
        })
        .unwrap_or_else(|_| {
            let wrong = report.hold_against(&setting.pega.received(), GRAPH);
            panic!(
                "{wrong:?}
{}
{}",
                setting.agent.metrics().unwrap(),
                setting.agent.log()
            )
        });
}

#[test]
fn one_that_the_server_refuses_for_good_holds_nobody_up() {
    let setting = &Setting::started();
    setting.pega.feel(Mood::Answers(400, None));
    let sent = |number| Notification::graph(GRAPH, &["one"], number, "state");
    assert_eq!(sent(1).answer(&setting.lab, Peer::Graph).unwrap().status, 202);
    let refused = [("route", "graph"), ("reason", "refused")];
    setting
        .agent
        .wait_until("it is a dead letter", SOON, |metrics| {
            metrics.sum("exogate_delivery_dead_letters_total", &refused) == Some(1.0)
        })
        .unwrap();
    setting.pega.feel(Mood::Well);
    assert_eq!(sent(2).answer(&setting.lab, Peer::Graph).unwrap().status, 202);
    let received = setting.pega.wait_for(1, SOON).unwrap();
    assert_eq!(numbers(&received, "one"), [2]);
}

#[test]
fn exchange_is_answered_at_once_where_its_notifications_are_stored() {
    let mut setting = Setting::new();
    setting.agent.set("route.ews.delivery", "store-and-forward").unwrap();
    setting.agent.start().unwrap();
    let lab = &setting.lab;
    let answer = |subscription: &str, number| {
        let sent = Notification::ews(EWS, subscription, number).unwrap();
        let answer = sent.answer(lab, Peer::Exchange).unwrap();
        assert_eq!(answer.status, 200);
        answer.text()
    };
    setting.pega.feel(Mood::Unsubscribes);
    assert!(answer("c3Vi", 1).contains(">OK<"));
    setting.pega.wait_for(1, SOON).unwrap();
    // Exchange repeats what it thinks was lost; that is not a second notification.
    setting
        .agent
        .wait_until("the answer is remembered", SOON, |metrics| {
            metrics.sum("exogate_spool_records", &[("route", "ews")]) == Some(0.0)
        })
        .unwrap();
    // What the server said is what Exchange hears the next time, and as often as it asks.
    assert!(answer("c3Vi", 2).contains(">Unsubscribe<"));
    assert!(answer("c3Vi", 2).contains(">Unsubscribe<"));
    // Another subscription is not concerned.
    setting.pega.feel(Mood::Well);
    assert!(answer("b3RoZXI=", 1).contains(">OK<"));
    assert!(answer("b3RoZXI=", 1).contains(">OK<"), "a repetition is taken, once");
    setting.pega.wait_for(2, SOON).unwrap();
    let outcome = [("route", "ews"), ("outcome", "duplicate")];
    assert_eq!(setting.metric("exogate_relay_notifications_total", &outcome), 1.0);
    assert_eq!(setting.pega.received().len(), 2);
}

#[test]
fn what_exchange_waits_for_is_not_what_graph_calls_slow() {
    let setting = Setting::started();
    setting.pega.feel(Mood::Slow(Duration::from_millis(3200)));
    let sent = Notification::ews(EWS, "c3Vi", 1).unwrap();
    assert_eq!(sent.answer(&setting.lab, Peer::Exchange).unwrap().status, 200);
    let sent = Notification::graph(GRAPH, &["one"], 1, "state");
    assert_eq!(sent.answer(&setting.lab, Peer::Graph).unwrap().status, 202);
    let over = [("over", "3s")];
    assert_eq!(setting.metric("exogate_relay_slow_answers_ratio", &over), 0.0);
}
