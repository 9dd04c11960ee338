//! How the agent reaches the web service: through a proxy, with an authority of
//! one's own, over one family alone. Needs root and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]

use std::{fs, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab, Peer},
    peer::{HTTPS, Reached},
    proxy::Proxy,
    service::{Certificate, EndpointService, SERVICE_NAME},
    tls::Authority,
};

const SOON: Duration = Duration::from_secs(60);
/// The captured version that the stand-in serves.
const VERSION: &str = "2026052900";

/// Waits until the feed has a problem, and returns its message.
fn problem(agent: &Agent) -> String {
    let failed = |metrics: &exogate_tests::agent::Metrics| {
        metrics.sum("exogate_feed_polls_total", &[("result", "failed")]) > Some(0.0)
    };
    agent.wait_until("the poll fails", SOON, failed).unwrap();
    let status = agent.status_json().unwrap();
    let problem = &status["feeds"][0]["problem"];
    assert_eq!(problem["reason"], "transport", "{status:#}");
    // The gate stands all the same, with what is built in.
    assert_eq!(status["feeds"][0]["provenance"], "embedded", "{status:#}");
    problem["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_proxy_is_asked_for_the_real_name_and_nothing_else() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let proxy = Proxy::start(&lab).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.set("feed.base_url", format!("https://{SERVICE_NAME}")).unwrap();
    agent.set("feed.proxy", Proxy::url()).unwrap();
    agent.start().unwrap();
    agent.wait_for_version("Worldwide", VERSION, SOON).unwrap();
    let tunnels = proxy.tunnels();
    assert!(!tunnels.is_empty());
    assert!(tunnels.iter().all(|target| *target == format!("{SERVICE_NAME}:443")), "{tunnels:?}");
    // All came by way of the router, where the proxy is, and none from the edge host.
    let edge = Family::ALL.map(exogate_tests::lab::edge);
    assert!(service.asked().iter().all(|asked| !edge.contains(&asked.client)));

    proxy.refuse(true);
    agent.print(&["feed", "refresh"]).unwrap();
    let status = agent.status_json().unwrap();
    assert_eq!(status["feeds"][0]["version"], VERSION);
    assert!(status["feeds"][0]["problem"].is_object(), "{status:#}");
    assert_eq!(lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap(), Reached::Refused);
}

#[test]
fn only_the_named_authority_is_trusted() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let other = lab.directory().join("other.pem");
    fs::write(&other, Authority::new().unwrap().pem()).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.set("feed.ca_file", other.to_str().unwrap()).unwrap();
    agent.start().unwrap();
    let message = problem(&agent);
    assert!(message.contains("certificate"), "{message}");
    assert!(service.asked().is_empty(), "{:?}", service.asked());

    // Renewed in place, it is taken with the next poll.
    fs::copy(lab.ca_file(), &other).unwrap();
    agent.print(&["feed", "refresh"]).unwrap();
    agent.wait_for_version("Worldwide", VERSION, SOON).unwrap();
}

#[test]
fn the_systems_authorities_do_not_vouch_for_a_stand_in() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    let feed = agent.settings().get_mut("feed").unwrap().as_table_mut().unwrap();
    feed.remove("ca_file").unwrap();
    agent.start().unwrap();
    agent
        .wait_until("the poll fails", SOON, |metrics| {
            metrics.sum("exogate_feed_polls_total", &[("result", "failed")]) > Some(0.0)
        })
        .unwrap();
    assert!(service.asked().is_empty(), "{:?}", service.asked());
}

#[test]
fn a_certificate_that_is_expired_or_of_another_name_is_refused() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    for (wrong, word) in [(Certificate::Expired, "expired"), (Certificate::WrongName, "name")] {
        service.present(wrong);
        let mut agent = Agent::new(&lab).unwrap();
        agent.start().unwrap();
        let message = problem(&agent);
        assert!(message.contains(word), "{wrong:?}: {message}");
        agent.terminate().unwrap();
    }
    assert!(service.asked().is_empty(), "{:?}", service.asked());
    service.heal();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    agent.wait_for_version("Worldwide", VERSION, SOON).unwrap();
}

#[test]
fn one_family_is_enough() {
    for (only, other) in [(Family::V6, Family::V4), (Family::V4, Family::V6)] {
        let lab = Lab::new().unwrap();
        let service = EndpointService::start(&lab).unwrap();
        lab.forget_family(other).unwrap();
        let mut agent = Agent::new(&lab).unwrap();
        agent.set("feed.base_url", EndpointService::base_url_over(only)).unwrap();
        agent.start().unwrap();
        agent.wait_for_version("Worldwide", VERSION, SOON).unwrap();
        assert!(service.asked().iter().all(|asked| Family::of(asked.client) == only));
        assert_eq!(lab.connect(Peer::Exchange, only, HTTPS).unwrap(), Reached::Refused);
        assert_eq!(lab.connect(Peer::Stranger, only, HTTPS).unwrap(), Reached::TimedOut);
    }
}
