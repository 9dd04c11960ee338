//! What is accepted, and how it arrives.

use exogate_tests::{
    agent::relay::{EWS, EWS_BEHIND, GRAPH, GRAPH_BEHIND},
    lab::{Family, Peer},
    notification::Notification,
    peer::Reached,
    pega::Mood,
};

use super::{SOON, Setting};

#[test]
fn a_graph_notification_is_accepted_and_arrives_as_it_was_sent() {
    let Setting { agent, pega, lab, .. } = &Setting::started();
    let sent = Notification::graph(&format!("{GRAPH}?tenant=7"), &["one"], 1, "state")
        .with("authorization", "Basic c3RyYW5nZXI=")
        .with("x-forwarded-for", "192.0.2.99")
        .with("client-request-id", "5f3e");
    for family in Family::ALL {
        let answer = sent.send(lab, Peer::Graph, family).unwrap().answer().unwrap();
        assert_eq!(answer.status, 202, "{}", agent.log());
        assert!(answer.body.is_empty());
    }
    let received = pega.wait_for(2, SOON).unwrap();
    for (request, family) in received.iter().zip(Family::ALL) {
        assert_eq!(request.target, format!("{GRAPH_BEHIND}?tenant=7"));
        assert_eq!(request.body, sent.body);
        let field = |name| request.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(field("content-type"), Some("application/json"));
        assert_eq!(field("client-request-id"), Some("5f3e"));
        assert_eq!(field("x-forwarded-for"), Some(&*Peer::Graph.address(family).to_string()));
        assert_eq!(field("x-forwarded-proto"), Some("https"));
        assert_eq!(field("authorization"), None);
        assert!(request.id().is_some());
    }
    assert_ne!(received[0].id(), received[1].id(), "two notifications, not one twice");
}

#[test]
fn graph_validates_an_address_at_the_upstream() {
    let Setting { pega, lab, .. } = &Setting::started();
    let validation = Notification::validation(GRAPH, "Validation-Token-1");
    let answer = validation.answer(lab, Peer::Graph).unwrap();
    assert_eq!((answer.status, &*answer.text()), (200, "Validation-Token-1"));
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    let asked = pega.received();
    assert_eq!(asked[0].target, format!("{GRAPH_BEHIND}?validationToken=Validation-Token-1"));

    // A server that does not know the token does not want the subscription.
    pega.feel(Mood::Html);
    assert_eq!(validation.answer(lab, Peer::Graph).unwrap().status, 502);
}

#[test]
fn the_relay_validates_an_address_by_itself_where_it_is_told_to() {
    let mut setting = Setting::new();
    setting.agent.set("route.graph.handshake", "local").unwrap();
    setting.agent.start().unwrap();
    setting.pega.stop();
    let validation = Notification::validation(GRAPH, "a%20token%3Cb%3E");
    let answer = validation.answer(&setting.lab, Peer::Graph).unwrap();
    assert_eq!((answer.status, &*answer.text()), (200, "a token<b>"));
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
}

#[test]
fn the_answer_of_the_upstream_to_ews_goes_back() {
    let Setting { pega, lab, .. } = &Setting::started();
    let sent = Notification::ews(EWS, "c3Vic2NyaXB0aW9u", 1).unwrap();
    let answer = sent.answer(lab, Peer::Exchange).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("<SubscriptionStatus>OK</SubscriptionStatus>"), "{answer:?}");
    pega.feel(Mood::Unsubscribes);
    let answer = sent.answer(lab, Peer::Exchange).unwrap();
    assert!(answer.text().contains("<SubscriptionStatus>Unsubscribe</SubscriptionStatus>"));
    assert!(answer.body.len() < 1024);
    let received = pega.received();
    assert_eq!(received.len(), 2);
    assert_eq!((&*received[0].target, &received[0].body), (EWS_BEHIND, &sent.body));
    assert_eq!(
        received[0].headers["soapaction"].to_str().unwrap(),
        "http://schemas.microsoft.com/exchange/services/2006/messages/SendNotification"
    );
}

#[test]
fn a_wrong_answer_of_the_upstream_is_no_answer_for_exchange() {
    let Setting { pega, lab, .. } = &Setting::started();
    let sent = Notification::ews(EWS, "c3Vic2NyaXB0aW9u", 1).unwrap();
    for mood in [Mood::Html, Mood::Answers(500, None), Mood::Answers(401, None), Mood::Resets] {
        pega.feel(mood.clone());
        let answer = sent.answer(lab, Peer::Exchange).unwrap();
        assert_eq!(answer.status, 502, "{mood:?}");
        assert!(answer.body.is_empty(), "{mood:?}");
    }
}

#[test]
fn strangers_reach_neither_the_relay_nor_the_server_behind_it() {
    let Setting { agent, pega, lab, .. } = &Setting::started();
    let sent = Notification::graph(GRAPH, &["one"], 1, "state");
    for family in Family::ALL {
        assert_eq!(lab.connect(Peer::Stranger, family, 443).unwrap(), Reached::TimedOut);
    }
    assert_eq!(sent.answer(lab, Peer::Exchange).unwrap().status, 202, "{}", agent.log());
    pega.wait_for(1, SOON).unwrap();
}

#[test]
fn without_a_filter_the_relay_itself_sends_strangers_away() {
    let mut setting = Setting::new();
    setting.agent.set("interfaces", Vec::<String>::new()).unwrap();
    setting.agent.start().unwrap();
    let sent = Notification::graph(GRAPH, &["one"], 1, "state");
    for family in Family::ALL {
        let result = sent.send(&setting.lab, Peer::Stranger, family);
        assert!(!matches!(result, Ok(Reached::Answered(_))), "{result:?}");
        let answer = sent.send(&setting.lab, Peer::Graph, family).unwrap().answer().unwrap();
        assert_eq!(answer.status, 202);
    }
    let unlisted = [("result", "unlisted")];
    assert!(setting.metric("exogate_relay_connections_total", &unlisted) >= 2.0);
    setting.pega.wait_for(2, SOON).unwrap();
}
