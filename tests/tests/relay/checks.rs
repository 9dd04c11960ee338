//! What is refused, and what it is answered.

use exogate_tests::{
    agent::relay::{EWS, GRAPH},
    lab::Peer,
    notification::Notification,
};
use hyper::{body::Bytes, header::HeaderValue};
use toml::{Table, Value};

use super::{SOON, Setting};

fn status(setting: &Setting, sent: &Notification) -> u16 {
    sent.answer(&setting.lab, Peer::Graph).unwrap().status
}

/// A copy with other targets, bodies or fields.
fn changed(of: &Notification, change: impl FnOnce(&mut Notification)) -> Notification {
    let mut other = of.clone();
    change(&mut other);
    other
}

#[test]
fn what_no_route_takes_is_answered_404_and_goes_nowhere() {
    let setting = Setting::started();
    let graph = Notification::graph(GRAPH, &["one"], 1, "state");
    let ews = Notification::ews(EWS, "c3Vic2NyaXB0aW9u", 1).unwrap();
    let at = |of: &Notification, target: &str| changed(of, |of| of.target = target.to_owned());
    for (sent, expected) in [
        (at(&graph, "/"), 404),
        (at(&graph, "/graph"), 404),
        (at(&graph, &format!("{GRAPH}/more")), 404),
        (at(&graph, &GRAPH.to_uppercase()), 404),
        (at(&graph, &format!("/x/..{GRAPH}")), 400),
        (at(&graph, &format!("/{GRAPH}")), 400),
        (at(&graph, "/graph%2f8Jx2mVq0s7"), 400),
        (at(&graph, "/graph\\8Jx2mVq0s7"), 400),
        (at(&graph, &format!("{GRAPH};jsessionid=1")), 400),
        // A SOAP message at the place of a Graph notification, and the reverse.
        (at(&ews, GRAPH), 404),
        (at(&graph, EWS), 404),
        (changed(&ews, |ews| ews.headers.retain(|(name, _)| name != "soapaction")), 404),
    ] {
        assert_eq!(status(&setting, &sent), expected, "{}", sent.target);
    }
    assert!(setting.pega.received().is_empty());
    assert!(setting.metric("exogate_relay_refused_total", &[]) >= 12.0);
    // An escape of what needs none names the same path.
    assert_eq!(status(&setting, &at(&graph, "/%67raph/8Jx2mVq0s7")), 202);
    setting.pega.wait_for(1, SOON).unwrap();
}

#[test]
fn a_notification_without_the_secret_is_answered_202_and_discarded() {
    let mut setting = Setting::new();
    let file = setting.secret("client-state", "the first secret\nthe second secret\n");
    setting.agent.set("route.graph.client_state_file", file).unwrap();
    setting.agent.start().unwrap();
    for (state, number) in
        [("the first secret", 1), ("wrong", 2), ("", 3), ("the second secret", 4)]
    {
        let sent = Notification::graph(GRAPH, &["one"], number, state);
        assert_eq!(status(&setting, &sent), 202, "nobody learns what is checked");
    }
    let received = setting.pega.wait_for(2, SOON).unwrap();
    let text = |place: usize| String::from_utf8(received[place].body.to_vec()).unwrap();
    assert!(text(0).contains("Events/1") && text(1).contains("Events/4"));
    let discarded = [("route", "graph"), ("reason", "client_state")];
    assert_eq!(setting.metric("exogate_relay_discarded_total", &discarded), 2.0);
    assert!(!setting.agent.log().contains("secret"), "{}", setting.agent.log());
}

#[test]
fn of_a_mixed_notification_only_what_passes_is_stored() {
    let mut setting = Setting::new();
    setting.agent.set("route.graph.subscriptions", vec!["mine", "also-mine"]).unwrap();
    setting.agent.start().unwrap();
    let sent = Notification::graph(GRAPH, &["mine", "other", "also-mine"], 1, "state");
    assert_eq!(status(&setting, &sent), 202);
    let received = setting.pega.wait_for(1, SOON).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&received[0].body).unwrap();
    let names: Vec<_> = body["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["subscriptionId"].clone())
        .collect();
    assert_eq!(names, ["mine", "also-mine"]);
}

#[test]
fn ews_needs_its_secrets() {
    let mut setting = Setting::new();
    let key = setting.secret("ews-key", "open sesame\n");
    let caller = setting.secret("caller", "pega\n");
    let mut secret = Table::new();
    secret.insert("name".to_owned(), Value::from("key"));
    secret.insert("file".to_owned(), Value::from(key));
    setting.agent.set("route.ews.query_secret", secret).unwrap();
    setting.agent.set("route.ews.caller_data_file", caller).unwrap();
    setting.agent.start().unwrap();
    let send = |query: &str, caller: Option<&'static str>| {
        let sent = Notification::ews(&format!("{EWS}{query}"), "c3Vi", 1).unwrap();
        let sent = match caller {
            Some(value) => sent.with("callerdata", value),
            None => sent,
        };
        status(&setting, &sent)
    };
    assert_eq!(send("?key=open%20sesame", Some("pega")), 200);
    for (query, caller) in [
        ("?key=open%20sesame", None),
        ("?key=open%20sesame", Some("somebody")),
        ("?key=open", Some("pega")),
        ("", Some("pega")),
    ] {
        assert_eq!(send(query, caller), 404, "{query} {caller:?}");
    }
    assert_eq!(setting.pega.received().len(), 1);
    assert!(!setting.agent.log().contains("sesame"), "{}", setting.agent.log());
}

#[test]
fn what_is_no_notification_is_refused() {
    let setting = Setting::started();
    let graph = Notification::graph(GRAPH, &["one"], 1, "state");
    let with = |body: &str| {
        let body = Bytes::copy_from_slice(body.as_bytes());
        status(&setting, &changed(&graph, |graph| graph.body = body))
    };
    for body in
        ["", "[]", "{", "{\"value\": 1}", "<html>", &format!("{{\"value\":{}", "[".repeat(100_000))]
    {
        let begins: String = body.chars().take(20).collect();
        assert_eq!(with(body), 400, "{begins}");
    }
    assert_eq!(with(&format!("{{\"value\":[],\"x\":\"{}\"}}", "a".repeat(2 << 20))), 413);
    let html = changed(&graph, |graph| graph.headers[0].1 = HeaderValue::from_static("text/html"));
    assert_eq!(status(&setting, &html), 404);
    assert!(setting.pega.received().is_empty());
}
