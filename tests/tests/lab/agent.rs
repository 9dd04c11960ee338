//! The handle of the agent, with a script in the agent's place.

use std::{fs, time::Duration};

use exogate_tests::{agent::Agent, lab::Lab};
use toml::Table;

use crate::life::script;

#[test]
fn the_configuration_is_written_with_what_was_set() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.use_binary(script(&lab, "exit 0"));
    agent.set("gate.on_stop", "detach").unwrap().set("mode", "monitor").unwrap();
    agent.spawn().unwrap();
    let written = fs::read_to_string(agent.config_file()).unwrap().parse::<Table>().unwrap();
    assert_eq!(written["mode"].as_str(), Some("monitor"));
    assert_eq!(written["interfaces"][0].as_str(), Some("edge0"));
    assert_eq!(written["gate"]["on_stop"].as_str(), Some("detach"));
    assert!(written["gate"]["pin_directory"].as_str().unwrap().starts_with("/run/exogate-lab/"));
    assert!(agent.set("mode.more", 1).is_err());
}

#[test]
fn an_agent_that_ends_early_is_told_with_its_log() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.use_binary(script(&lab, "echo \"arguments: $*\" >&2; exit 64"));
    let error = agent.start().unwrap_err().to_string();
    assert!(error.contains("exit status: 64"), "{error}");
    assert!(error.contains("arguments: run --config /run/exogate-lab/"), "{error}");
}

#[test]
fn an_agent_that_is_never_ready_is_told_with_its_log() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.use_binary(script(&lab, "echo waiting; exec sleep 1000"));
    agent.spawn().unwrap();
    let error = agent.wait_ready(Duration::from_millis(300)).unwrap_err().to_string();
    assert!(error.contains("not ready") && error.contains("waiting"), "{error}");
}

#[test]
fn signals_reach_the_agent_and_nothing_else() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    let text = "trap 'echo hup' HUP; trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
    agent.use_binary(script(&lab, text));
    agent.spawn().unwrap();
    let says = |agent: &Agent, word: &str| {
        let saw = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            agent.log().contains(word)
        });
        assert!(saw, "{word}: {}", agent.log());
    };
    says(&agent, "up");
    agent.hup().unwrap();
    says(&agent, "hup");
    assert_eq!(agent.terminate().unwrap().code(), Some(7));
    assert!(agent.hup().is_err());
    agent.spawn().unwrap();
    agent.kill9().unwrap();
    assert!(!agent.is_running().unwrap());
}

#[test]
fn a_command_of_the_agent_runs_on_the_edge_host() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.use_binary(script(&lab, "ip -br address show edge0; echo \"$1\" >&2; exit 3"));
    let output = agent.cli(&["check", "40.96.1.2"]).unwrap();
    assert!(output.stdout.contains("198.51.100.10/24"), "{output:?}");
    assert_eq!((output.code, output.stderr.as_str()), (3, "check\n"));
}
