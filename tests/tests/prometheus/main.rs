//! What operators watch: rules and dashboard, held against a real Prometheus that scrapes
//! a live agent. Needs root, the agent's binary and Prometheus.
//!
//! | module | asks |
//! |---|---|
//! | `rules` | whether Prometheus takes the rules, and the page has every alert |
//! | `gate`, `feeds`, `relay` | whether each alert fires when its cause is there, and resolves |
//! | `dashboard` | whether every panel shows something |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first thing that goes wrong"
)]

mod dashboard;
mod feeds;
mod gate;
mod relay;
mod rules;

use std::time::Duration;

use exogate_tests::{
    agent::Agent,
    lab::Lab,
    server::Prometheus,
    service::{EndpointService, Publication},
};

/// How long an alert may take to fire or to resolve, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The admin address of the first agent of a lab, and of the second.
const TARGETS: [&str; 2] = ["127.0.0.1:9469", "127.0.0.1:9470"];

/// An agent that Prometheus watches.
struct Watched {
    // Dropped first: the lab lasts as long as anybody uses it.
    prometheus: Option<Prometheus>,
    agent: Agent,
    service: EndpointService,
    lab: Lab,
}

impl Watched {
    /// An agent that does not run yet.
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let service = EndpointService::start(&lab).unwrap();
        let mut agent = Agent::new(&lab).unwrap();
        agent.set("privileges", "keep").unwrap();
        Self { prometheus: None, agent, service, lab }
    }

    /// Starts the agent and Prometheus, and waits until nothing is amiss.
    fn start(&mut self, targets: &[&str]) {
        self.agent.start().unwrap();
        self.watch(targets);
    }

    fn watch(&mut self, targets: &[&str]) {
        self.prometheus = Some(Prometheus::start(&self.lab, targets).unwrap());
        let begin = std::time::Instant::now();
        let all = format!("sum(up{{job=\"exogate\"}}) == {}", targets.len());
        let known = "exogate:feed_age:seconds and exogate:refused_packets:rate5m";
        while self.prometheus().query(&all).unwrap().is_empty()
            || self.prometheus().query("exogate:feed_age:seconds").unwrap().is_empty()
            || self.prometheus().query("exogate:refused_packets:rate5m").unwrap().is_empty()
        {
            assert!(begin.elapsed() < PATIENCE, "no {known}\n{}", self.agent.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        // Long enough for whatever would fire without a cause.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(self.prometheus().firing().unwrap(), Vec::<serde_json::Value>::new());
    }

    fn prometheus(&self) -> &Prometheus {
        self.prometheus.as_ref().unwrap()
    }

    /// Waits until the alert fires, in words that make sense.
    fn fires(&self, name: &str) {
        let firing = self.prometheus().wait_for(name, true, PATIENCE);
        let firing = firing.unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.log()));
        let words = serde_json::to_string(&firing[0]["annotations"]).unwrap();
        for odd in ["error", "no value", "%!"] {
            assert!(!words.contains(odd), "{words}");
        }
    }

    fn resolves(&self, name: &str) {
        let resolved = self.prometheus().wait_for(name, false, PATIENCE);
        resolved.unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.log()));
    }

    fn publish(&self, version: &str) {
        self.service.publish(Publication::worldwide(version).unwrap());
    }
}
