//! `exogate events`: what was refused, as it is. Needs root and the agent's binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops at the first thing that goes wrong"
)]
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::mpsc::channel,
    thread::spawn,
    time::Duration,
};

use exogate_tests::{
    agent::Agent,
    lab::{EDGE_INTERFACE, Family, Lab, Peer, edge},
    peer::HTTPS,
    process::{agent_binary, wait},
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_refused_packet_is_told_to_whoever_follows() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    let mut command = lab.edge().command(agent_binary().unwrap());
    command.args(["events", "--follow", "--json", "--config"]).arg(agent.config_file());
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let output = BufReader::new(follower.stdout.take().unwrap());
    let (sender, lines) = channel();
    spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));

    for family in Family::ALL {
        assert!(!lab.connect(Peer::Stranger, family, HTTPS).unwrap().passed());
        let source = Peer::Stranger.address(family).to_string();
        let event = loop {
            let line = lines.recv_timeout(SOON).expect("an event in time");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["source"] == source.as_str() {
                break event;
            }
        };
        assert_eq!(event["event"], "refused");
        assert_eq!((&event["action"], &event["reason"]), (&"drop".into(), &"unlisted".into()));
        assert_eq!(event["destination"], edge(family).to_string());
        assert_eq!((&event["port"], &event["interface"]), (&443.into(), &EDGE_INTERFACE.into()));
    }
    assert!(lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed());
    let past = agent.print(&["events"]).unwrap();
    assert!(past.contains("edge0 drop unlisted 203.0.113.7:"), "{past}");
    assert!(past.contains("-> 198.51.100.10:443 tcp,"), "{past}");
    assert!(!past.contains(&Peer::Exchange.address(Family::V4).to_string()), "{past}");

    agent.terminate().unwrap();
    let status = wait(&mut follower, SOON).unwrap();
    assert_eq!(status.code(), Some(1), "the agent has ended");
}
