//! The way out without exogate, as the README has it: removing the pins removes the filter.
//! Needs root and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::path::Path;

use exogate_tests::{
    agent::Agent,
    lab::{EDGE_INTERFACE, Family, Lab, Peer},
    peer::HTTPS,
    process::check,
};

/// An agent that was killed, and the pins that it left.
fn left_behind(lab: &Lab) -> (Agent, std::path::PathBuf) {
    let mut agent = Agent::new(lab).unwrap();
    agent.start().unwrap();
    agent.kill9().unwrap();
    assert!(!is_open(lab), "the filter stays");
    let pins = lab.pin_directory().join("exogate");
    (agent, pins)
}

fn is_open(lab: &Lab) -> bool {
    lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed()
}

fn shell(lab: &Lab, script: &str) -> bool {
    lab.edge().command("sh").args(["-c", script]).status().unwrap().success()
}

fn has_program(lab: &Lab) -> bool {
    let mut show = lab.edge().command("ip");
    check(show.args(["link", "show", "dev", EDGE_INTERFACE]), "").unwrap().contains("xdp")
}

fn remove(lab: &Lab, what: &Path) {
    assert!(shell(lab, &format!("rm -r {}", what.display())), "rm -r {}", what.display());
}

#[test]
fn removing_all_pins_removes_the_filter() {
    let lab = Lab::new().unwrap();
    let (mut agent, pins) = left_behind(&lab);
    remove(&lab, &pins);
    assert!(is_open(&lab) && !has_program(&lab));
    // And nothing is in the way of the next start.
    agent.start().unwrap();
    assert!(!is_open(&lab));
}

#[test]
fn removing_the_link_of_one_interface_is_enough() {
    let lab = Lab::new().unwrap();
    let (mut agent, pins) = left_behind(&lab);
    assert!(shell(&lab, &format!("rm {}/if*/link", pins.display())));
    assert!(is_open(&lab) && !has_program(&lab));
    agent.start().unwrap();
    assert!(!is_open(&lab));
}

#[test]
fn ip_link_cannot_remove_a_pinned_filter_and_says_so() {
    let lab = Lab::new().unwrap();
    let (_agent, pins) = left_behind(&lab);
    let off = format!("ip link set dev {EDGE_INTERFACE} xdp off 2>/dev/null");
    assert!(!shell(&lab, &off), "the kernel protects what is attached by a link");
    assert!(has_program(&lab) && !is_open(&lab));
    remove(&lab, &pins);
    assert!(shell(&lab, &off) && is_open(&lab));
}
