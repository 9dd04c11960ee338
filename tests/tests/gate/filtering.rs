//! Who gets through, in each mode of attachment and over both families.

use exogate_tests::{
    lab::{EDGE_INTERFACE, Family, Peer},
    peer::{EdgeServer, HTTPS, Reached},
};

use super::{Scene, count};

#[test]
fn in_native_mode_listed_senders_reach_the_server_and_strangers_do_not() {
    judge("native");
}

#[test]
fn in_generic_mode_listed_senders_reach_the_server_and_strangers_do_not() {
    judge("generic");
}

fn judge(mode: &str) {
    let mut scene = Scene::new();
    scene.agent.set("gate.attach", mode).unwrap();
    scene.agent.start().unwrap();
    let metrics = scene.wait_for_version("2026052900");
    let attached = [("interface", EDGE_INTERFACE), ("mode", mode)];
    assert_eq!(metrics.sum("exogate_gate_attached", &attached), Some(1.0));
    assert_eq!(metrics.sum("exogate_gate_attached", &[]), Some(1.0));

    let Scene { lab, agent, .. } = &scene;
    let server = EdgeServer::start(lab).unwrap();
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

    let metrics = agent.metrics().unwrap();
    for family in ["ipv4", "ipv6"] {
        let packets = |action, reason| {
            let labels = [("action", action), ("reason", reason), ("family", family)];
            count(&metrics, "exogate_gate_packets_total", &labels)
        };
        // A SYN, and its repetition after a second.
        let dropped = packets("drop", "unlisted");
        assert!((1.0..=4.0).contains(&dropped), "{family}: {dropped}");
        assert!(packets("pass", "allowed") > 10.0, "{family}: {metrics}");
        assert_eq!(packets("would_drop", "unlisted"), 0.0, "{family}");
    }
}

#[test]
fn an_unlisted_address_is_explained_by_the_agent_that_dropped_it() {
    let Scene { lab, agent, service: _service, .. } = &Scene::started();
    assert_eq!(lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap(), Reached::TimedOut);
    let check = |address: &str| {
        let output = agent.cli(&["check", "--json", address]).unwrap();
        assert_eq!(output.code, 0, "{output:?}");
        serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap()
    };
    let stranger = check("203.0.113.7");
    assert_eq!(stranger["answered_by"], "agent");
    assert_eq!(stranger["verdicts"][0]["action"], "drop");
    assert_eq!(stranger["verdicts"][0]["reason"], "unlisted");
    assert_eq!(stranger["blocked"]["port"], 443);
    let exchange = check("40.96.1.2");
    assert_eq!(exchange["verdicts"][0]["action"], "pass");
    assert_eq!(exchange["matches"][0]["prefix"], "40.96.0.0/13");
    assert_eq!(exchange["matches"][0]["source"], "exchange-online");
    assert!(exchange["blocked"].is_null());
}
