//! `exogate top` on a real terminal. Needs root and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::time::Duration;

use exogate_tests::{
    agent::{Agent, relay::GRAPH},
    lab::{Lab, Peer},
    notification::Notification,
    peer::HTTPS,
    pega::Pega,
};

const SOON: Duration = Duration::from_secs(30);

/// Whether a line of the screen has all of this.
fn line_with(text: &str, parts: &[&str]) -> bool {
    text.lines().any(|line| parts.iter().all(|part| line.contains(part)))
}

#[test]
fn the_terminal_shows_rates_refused_sources_feeds_and_the_spool() {
    let lab = Lab::new().unwrap();
    let pega = Pega::start(&lab, 8080).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.add_relay(&[&pega]).unwrap().start().unwrap();
    // A neighbour of 52.159.23.209/32, which is on the list.
    let neighbour = "52.159.23.210".parse().unwrap();
    lab.add_source(Peer::Stranger, neighbour).unwrap();

    let mut terminal = agent.top().unwrap();
    let text = terminal.wait_until("the view", SOON, |text| text.contains("q quits")).unwrap();
    assert!(terminal.is_full_screen());
    assert!(line_with(&text, &["exogate", "enforce", "on edge0 (native)"]), "{text}");
    assert!(line_with(&text, &["graph", "0 waiting", "0 dead", "p50 -"]), "{text}");
    assert!(line_with(&text, &["Worldwide", "unknown version", "embedded"]), "{text}");

    let mut sent = 0;
    let has_graph = |text: &str| {
        let refused = |line: &&str| line.contains("drop") && line.contains("unlisted");
        text.lines().find(refused).is_some_and(|line| line.contains(['▁', '▄', '█']))
    };
    let text = terminal
        .wait_until("a graph of drops", SOON, |text| {
            if sent < 20 {
                let _ = lab.connect_from(Peer::Stranger, neighbour, HTTPS);
                sent += 1;
            }
            has_graph(text)
        })
        .unwrap();
    assert!(line_with(&text, &["52.159.23.210", "443", "52.159.23.209/32"]), "{text}");

    let notification = Notification::graph(GRAPH, &["subscription"], 1, "");
    assert_eq!(notification.answer(&lab, Peer::Graph).unwrap().status, 202);
    let is_answered = |text: &str| {
        let line = text.lines().find(|line| line.contains("waiting") && line.contains("graph"));
        line.is_some_and(|line| line.contains(" ms") && line.contains("0 of 1 silent"))
    };
    terminal.wait_until("how long the answer took", SOON, is_answered).unwrap();
    agent.print(&["feed", "hold"]).unwrap();
    terminal.wait_until("the hold", SOON, |text| text.contains("UPDATES ON HOLD")).unwrap();

    agent.kill9().unwrap();
    terminal.wait_until("it is told", SOON, |text| text.contains("OLD: no agent")).unwrap();
    agent.start().unwrap();
    terminal.wait_until("it is back", SOON, |text| !text.contains("OLD:")).unwrap();

    terminal.press("q").unwrap();
    assert!(terminal.wait_exit(SOON).unwrap().success());
    assert!(!terminal.is_full_screen(), "the terminal is as it was");
}

#[test]
fn without_a_terminal_or_an_agent_it_says_what_to_do() {
    let lab = Lab::new().unwrap();
    let agent = Agent::new(&lab).unwrap();
    let refused = agent.cli(&["top"]).unwrap();
    assert!(refused.code == 64 && refused.stderr.contains("exogate status"), "{refused:?}");
    let mut terminal = agent.top().unwrap();
    assert_eq!(terminal.wait_exit(SOON).unwrap().code(), Some(1));
    let text = terminal.text();
    assert!(text.contains("no agent is running"), "{text}");
}
