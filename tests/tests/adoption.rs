//! Taking over what an earlier run left: maps that no longer fit, and pins in
//! every state that a crash can leave behind. Needs root and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use exogate_ebpf::abi::ABI_VERSION;
use exogate_tests::{
    agent::{Agent, Metrics},
    lab::{Lab, Peer},
    prober::{Plan, Prober},
};

/// Long enough for a few hundred probes.
const MOMENT: Duration = Duration::from_millis(400);

#[test]
fn maps_that_no_longer_fit_are_replaced_without_a_gap() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    let before = generation(&lab);
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    sleep(MOMENT);
    agent.kill9().unwrap();
    agent.set("gate.capacity", 1_000).unwrap();
    agent.start().unwrap();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&[Peer::Exchange, Peer::Graph]).unwrap();
    let after = generation(&lab);
    assert_ne!(before, after, "the maps were kept although their capacity changed");
    assert!(!before.exists(), "the old generation was left behind");
}

#[test]
fn maps_that_fit_are_kept_with_their_counters() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    let before = generation(&lab);
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    sleep(MOMENT);
    prober.stop().unwrap();
    let dropped = |agent: &Agent| {
        agent.metrics().unwrap().sum("exogate_gate_packets_total", &[("action", "drop")])
    };
    let counted = dropped(&agent);
    assert!(counted > Some(0.0), "the stranger's packets were not counted");
    agent.restart().unwrap();
    assert_eq!(generation(&lab), before);
    assert!(dropped(&agent) >= counted, "the counters began anew");
}

#[test]
fn what_a_crash_left_half_made_is_cleared_away() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    let current = generation(&lab);
    agent.kill9().unwrap();
    let interface = current.parent().unwrap();
    // A generation without any map, one of another ABI, and a program that was
    // pinned as the next one but never ran.
    fs::create_dir(interface.join(format!("abi{ABI_VERSION}-7"))).unwrap();
    fs::create_dir(interface.join("abi0-3")).unwrap();
    fs::rename(current.join("program"), current.join("program-next")).unwrap();

    let prober = Prober::start(&lab, Plan::default()).unwrap();
    sleep(MOMENT);
    agent.start().unwrap();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    report.expect_only(&[Peer::Exchange, Peer::Graph]).unwrap();
    assert_eq!(names(interface).len(), 2, "{:?}", names(interface));
    assert_eq!(names(&generation(&lab)).len(), 6, "{:?}", names(&generation(&lab)));
}

#[test]
fn a_filter_that_somebody_else_removed_is_noticed() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    // A filter that is new, then one that was taken over.
    for restart in [false, true] {
        if restart {
            agent.restart().unwrap();
            agent.restart().unwrap();
        }
        assert_eq!(native(&agent.metrics().unwrap()), Some(1.0));
        fs::remove_file(generation(&lab).parent().unwrap().join("link")).unwrap();
        agent.wait_until("detached", MOMENT * 10, |metrics| native(metrics) == Some(0.0)).unwrap();
    }
}

fn native(metrics: &Metrics) -> Option<f64> {
    metrics.sum("exogate_gate_attached", &[("mode", "native")])
}

/// The only generation of the only interface.
fn generation(lab: &Lab) -> PathBuf {
    let root = lab.pin_directory().join("exogate");
    let interfaces = names(&root);
    assert_eq!(interfaces.len(), 1, "{interfaces:?}");
    let interface = root.join(interfaces.first().unwrap());
    let generations: Vec<_> =
        names(&interface).into_iter().filter(|name| name.starts_with("abi")).collect();
    assert_eq!(generations.len(), 1, "{generations:?}");
    interface.join(generations.first().unwrap())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
