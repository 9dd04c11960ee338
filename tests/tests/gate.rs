//! The gate, with real packets: who reaches the edge host while the agent starts,
//! runs, crashes, restarts and stops. Needs root and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::{thread::sleep, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab, Peer},
    peer::{EdgeServer, HTTPS, Reached},
    prober::{Plan, Prober},
    service::{EndpointService, On},
};

/// Long enough for a few hundred probes.
const MOMENT: Duration = Duration::from_millis(500);

fn lab() -> (Lab, EndpointService, Agent) {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    (lab, service, agent)
}

#[test]
fn listed_senders_reach_the_server_and_strangers_do_not() {
    let (lab, service, agent) = lab();
    let server = EdgeServer::start(&lab).unwrap();
    service.wait_for(On::Endpoints, 1, MOMENT * 20).unwrap();
    for family in Family::ALL {
        for listed in [Peer::Exchange, Peer::Graph] {
            let answer = lab.https(listed, family, "/").unwrap().answer().unwrap();
            assert_eq!(answer.text(), listed.address(family).to_string(), "{}", agent.log());
        }
        assert_eq!(lab.connect(Peer::Stranger, family, HTTPS).unwrap(), Reached::TimedOut);
        // Other ports are not guarded.
        assert_eq!(lab.connect(Peer::Stranger, family, 80).unwrap(), Reached::Refused);
    }
    assert_eq!(server.connections().len(), 4);
}

#[test]
fn no_verdict_is_wrong_while_the_agent_dies_and_comes_back() {
    let (lab, _service, mut agent) = lab();
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    sleep(MOMENT);
    agent.kill9().unwrap();
    sleep(MOMENT);
    agent.start().unwrap();
    sleep(MOMENT);
    agent.restart().unwrap();
    sleep(MOMENT);
    agent.terminate().unwrap();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&[Peer::Exchange, Peer::Graph]).unwrap();
}

#[test]
fn the_handle_reads_what_the_agent_tells() {
    let (lab, _service, mut agent) = lab();
    assert!(!agent.metrics().unwrap().samples().is_empty());
    assert!(agent.status_json().unwrap().is_object());
    let check = agent.cli(&["check", "40.96.1.2"]).unwrap();
    assert_eq!(check.code, 0, "{check:?}");
    assert!(agent.terminate().unwrap().success(), "{}", agent.log());
    drop(lab);
}

#[test]
fn detaching_lets_everybody_in_again() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.set("gate.on_stop", "detach").unwrap();
    agent.start().unwrap();
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    sleep(MOMENT);
    agent.terminate().unwrap();
    let open = prober.elapsed();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    for family in Family::ALL {
        let stranger = report.datagrams(Peer::Stranger, family);
        assert!(stranger.first.unwrap() > MOMENT && stranger.last.unwrap() > open, "{report}");
        assert_eq!(stranger.gaps.len(), 1, "{report}");
    }
}
