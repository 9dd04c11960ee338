//! Enforcing on trial: `exogate enforce`, `confirm` and `monitor`. Needs root and the agent's
//! binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]

use std::time::Duration;

use exogate_tests::{
    agent::{Agent, Metrics},
    lab::{Family, Lab, Peer},
    peer::{HTTPS, Reached},
};

const SOON: Duration = Duration::from_secs(60);

fn start(lab: &Lab, mode: &str) -> Agent {
    let mut agent = Agent::new(lab).unwrap();
    agent.set("mode", mode).unwrap().start().unwrap();
    agent
}

/// Whether a stranger's packets pass.
fn is_open(lab: &Lab) -> bool {
    lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap() != Reached::TimedOut
}

fn wait_until_open(lab: &Lab) {
    let address = Peer::Stranger.address(Family::V4);
    lab.wait_for_verdict(Peer::Stranger, address, HTTPS, true, SOON).unwrap();
}

#[test]
fn enforcing_that_nobody_confirms_ends_by_itself_also_across_a_crash() {
    let lab = Lab::new().unwrap();
    let mut agent = start(&lab, "monitor");
    assert!(is_open(&lab));
    let said = agent.json(&["enforce", "--confirm-within", "8s"]).unwrap();
    assert_eq!((&said["mode"], &said["configured_mode"]), (&"enforce".into(), &"monitor".into()));
    assert!(said["confirm_by"].is_string(), "{said}");
    assert!(!is_open(&lab), "{}", agent.log());
    assert!(agent.print(&["status"]).unwrap().contains("TO BE CONFIRMED until"));

    agent.kill9().unwrap();
    agent.start().unwrap();
    wait_until_open(&lab);
    let status = agent.status_json().unwrap();
    assert_eq!((&status["mode"], status["confirm_by"].is_null()), (&"monitor".into(), true));
    let late = agent.cli(&["confirm"]).unwrap();
    assert!(late.code == 1 && late.stderr.contains("nothing waits"), "{late:?}");
}

#[test]
fn a_trial_ends_in_time_also_without_an_agent() {
    let lab = Lab::new().unwrap();
    let mut agent = start(&lab, "monitor");
    agent.print(&["enforce", "--confirm-within", "20s"]).unwrap();
    agent.kill9().unwrap();
    assert!(!is_open(&lab), "the time is not over");
    wait_until_open(&lab);
    agent.start().unwrap();
    // Before any packet was judged in monitor mode.
    let metrics = agent.metrics().unwrap();
    let passed = metrics.sum("exogate_gate_packets_total", &[("action", "would_drop")]);
    assert!(passed > Some(0.0), "they are counted as what would be dropped: {passed:?}");
    assert!(is_open(&lab));
    assert_eq!(agent.status_json().unwrap()["mode"], "monitor");
}

#[test]
fn what_is_confirmed_has_no_end_also_without_an_agent() {
    let lab = Lab::new().unwrap();
    let mut agent = start(&lab, "monitor");
    let trial = Duration::from_secs(10);
    agent.print(&["enforce", "--confirm-within", "10s"]).unwrap();
    agent.print(&["confirm"]).unwrap();
    agent.kill9().unwrap();
    std::thread::sleep(trial);
    assert!(!is_open(&lab), "what was confirmed has ended");
    agent.start().unwrap();
    assert!(!is_open(&lab), "{}", agent.log());
    assert_eq!(agent.status_json().unwrap()["mode"], "enforce");
}

#[test]
fn an_interface_that_appears_during_a_trial_has_its_end() {
    let lab = Lab::new().unwrap();
    let mut agent = start(&lab, "monitor");
    agent.print(&["enforce", "--confirm-within", "30s"]).unwrap();
    // The filter is made anew, as on an interface that is new.
    agent.kill9().unwrap();
    agent.print(&["detach"]).unwrap();
    agent.start().unwrap();
    agent.kill9().unwrap();
    assert!(!is_open(&lab), "the time is not over");
    wait_until_open(&lab);
}

#[test]
fn what_is_confirmed_stays_across_restarts_and_reloads() {
    let lab = Lab::new().unwrap();
    let mut agent = start(&lab, "monitor");
    agent.print(&["enforce", "--confirm-within", "10m"]).unwrap();
    let said = agent.print(&["confirm"]).unwrap();
    assert!(said.contains("the configuration says mode = \"monitor\""), "{said}");
    agent.restart().unwrap();
    assert!(!is_open(&lab), "{}", agent.log());
    assert_eq!(agent.status_json().unwrap()["mode"], "enforce");
    assert!(agent.print(&["status"]).unwrap().contains("by an operator's order"));

    agent.print(&["monitor"]).unwrap();
    assert!(is_open(&lab), "{}", agent.log());
    let events = agent.json(&["history"]).unwrap();
    let events: Vec<_> =
        events["records"].as_array().unwrap().iter().map(|record| &record["event"]).collect();
    assert_eq!(events, ["enforced", "confirmed", "monitored"]);
}

#[test]
fn a_trial_survives_a_change_of_addresses_and_ends_by_itself() {
    let lab = Lab::new().unwrap();
    let agent = start_on_local_addresses(&lab);
    let said = agent.json(&["enforce", "--confirm-within", "8s"]).unwrap();
    change_addresses(&lab, &agent);
    let status = agent.status_json().unwrap();
    assert_eq!(status["configured_mode"], "monitor");
    assert_eq!(status["confirm_by"], said["confirm_by"]);
    wait_until_open(&lab);
    assert_eq!(agent.status_json().unwrap()["mode"], "monitor");
}

#[test]
fn what_is_confirmed_survives_a_change_of_addresses() {
    let lab = Lab::new().unwrap();
    let mut agent = start_on_local_addresses(&lab);
    agent.print(&["enforce", "--confirm-within", "10m"]).unwrap();
    agent.print(&["confirm"]).unwrap();
    change_addresses(&lab, &agent);
    assert_eq!(agent.status_json().unwrap()["configured_mode"], "monitor");
    // An order that was taken for the configuration would be forgotten here.
    agent.restart().unwrap();
    assert_eq!(agent.status_json().unwrap()["mode"], "enforce");
    assert!(!is_open(&lab), "{}", agent.log());
}

fn start_on_local_addresses(lab: &Lab) -> Agent {
    let mut agent = Agent::new(lab).unwrap();
    agent.set("mode", "monitor").unwrap();
    agent.set("gate.destinations", "local").unwrap().start().unwrap();
    agent
}

/// Adds an address, and waits until the agent guards it.
fn change_addresses(lab: &Lab, agent: &Agent) {
    let published = |metrics: &Metrics| metrics.sum("exogate_gate_publishes_total", &[]);
    let before = published(&agent.metrics().unwrap());
    lab.edge().ip("address add 198.51.100.11/24 dev edge0\n").unwrap();
    agent.wait_until("a publish", SOON, |metrics| published(metrics) > before).unwrap();
}

#[test]
fn a_host_that_enforces_and_begins_to_forward_keeps_its_agent() {
    let lab = Lab::new().unwrap();
    let mut agent = start(&lab, "enforce");
    lab.edge().sysctl(&[("ipv4/ip_forward", "1")]).unwrap();
    agent.kill9().unwrap();
    agent.start().unwrap();
    assert!(!is_open(&lab), "{}", agent.log());
    assert!(agent.log().contains("TRANSIT TRAFFIC IS DROPPED"), "{}", agent.log());
    // An operator's word is enough, with the configuration as it is.
    agent.print(&["monitor"]).unwrap();
    agent.restart().unwrap();
    assert!(is_open(&lab), "{}", agent.log());
    assert_eq!(agent.status_json().unwrap()["mode"], "monitor");
}

#[test]
fn enforcing_is_not_begun_where_transit_traffic_would_be_dropped() {
    let lab = Lab::new().unwrap();
    lab.edge().sysctl(&[("ipv4/ip_forward", "1")]).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    // With nothing pinned, then with a filter in force that drops nothing.
    for mode in ["enforce", "monitor", "enforce"] {
        agent.set("mode", mode).unwrap().spawn().unwrap();
        if mode == "monitor" {
            agent.wait_ready(SOON).unwrap();
            agent.kill9().unwrap();
            continue;
        }
        let status = agent.wait_exit(SOON).unwrap();
        assert_eq!(status.code(), Some(64), "{}", agent.log());
        assert!(is_open(&lab), "{}", agent.log());
    }
    assert!(agent.log().contains("gate.destinations"), "{}", agent.log());
}

#[test]
fn enforcing_is_refused_where_transit_traffic_would_be_dropped() {
    let lab = Lab::new().unwrap();
    let agent = start(&lab, "monitor");
    lab.edge().sysctl(&[("ipv4/ip_forward", "1")]).unwrap();
    let refused = agent.cli(&["enforce", "--confirm-within", "1m"]).unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("gate.destinations"), "{refused:?}");
    assert!(is_open(&lab));
}
