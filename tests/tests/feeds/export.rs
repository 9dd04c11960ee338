//! An agent that takes its list from another agent, with nginx as the TLS before it.

use std::net::SocketAddr;

use exogate_tests::{
    agent::{Agent, Metrics},
    lab::{Family, edge},
    peer::HTTPS,
    server::Nginx,
    service::{EndpointService, Instance, Publication},
};
use serde_json::{Value, json};
use toml::Table;

use super::{SOON, lab, poll};

/// The hash of the list in force, as Prometheus sees it.
fn hash(metrics: &Metrics) -> String {
    let info = metrics.samples().iter().find(|s| s.name == "exogate_allowlist_info");
    info.unwrap().labels["hash"].clone()
}

#[test]
fn an_agent_that_follows_another_has_the_same_list() {
    let lab = lab();
    let service = EndpointService::start(&lab).unwrap();
    let mut leader = Agent::new(&lab).unwrap();
    leader.set("admin.export", true).unwrap();
    leader.start().unwrap();
    leader.wait_for_version("Worldwide", "2026052900", SOON).unwrap();

    let before = SocketAddr::new(edge(Family::V4), 8443);
    let location = "location = /export { proxy_pass http://127.0.0.1:9469; }";
    let nginx = Nginx::start(&lab, lab.edge(), &[before], location).unwrap();

    lab.add_tunnel("tun0").unwrap();
    let mut follower = Agent::second(&lab).unwrap();
    let ca = lab.ca_file();
    let source = |name: &str| {
        format!(
            "[source.{name}]\nkind = \"url\"\nurl = \"https://{before}/export?format=json\"\n\
             ca_file = {ca:?}\nexported = [\"{name}\"]\n"
        )
    };
    let settings = source("exchange-online") + &source("graph-notifications");
    follower.settings().extend(settings.parse::<Table>().unwrap());
    follower.set("interfaces", vec!["tun0"]).unwrap();
    follower.start().unwrap();
    poll(&follower);
    let same = |what: &str| {
        let expected = hash(&leader.metrics().unwrap());
        let is_it = |metrics: &Metrics| hash(metrics) == expected;
        follower.wait_until(what, SOON, is_it).unwrap();
        expected
    };
    let first = same("the same hash on both");

    // What is new comes through.
    let latest = Publication::latest(Instance::Worldwide).unwrap();
    let next = latest.edited("2026060100", |sets| {
        let set = sets.iter_mut().find(|set| set["id"] == 1).unwrap();
        set.get_mut("ips").and_then(Value::as_array_mut).unwrap().push(json!("45.60.70.0/24"));
    });
    service.publish(next.unwrap());
    poll(&leader);
    assert_ne!(hash(&leader.metrics().unwrap()), first);
    poll(&follower);
    assert_ne!(same("the new hash on both"), first);
    let check = follower.json(&["check", "45.60.70.80"]).unwrap();
    assert_eq!(check["verdicts"][0]["action"], "pass", "{check:#}");
    assert_eq!(check["verdicts"][0]["port"], HTTPS, "{check:#}");
    assert_eq!(check["matches"][0]["source"], "exchange-online", "{check:#}");

    // What lets pass for a while is the leader's own exception.
    leader.print(&["allow", "203.0.113.7", "--for", "1h", "--reason", "a probe"]).unwrap();
    poll(&follower);
    assert_eq!(follower.json(&["check", "203.0.113.7"]).unwrap()["verdicts"][0]["action"], "drop");

    // Without the leader the list stays.
    let held = hash(&follower.metrics().unwrap());
    leader.terminate().unwrap();
    poll(&follower);
    assert_eq!(hash(&follower.metrics().unwrap()), held);
    assert!(nginx.requests().iter().any(|(status, _)| *status == 502), "{:?}", nginx.requests());
}
