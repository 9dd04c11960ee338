//! The whole agent with real packets, on the edge host of a lab. Needs root and the
//! agent's binary.
//!
//! | module | asks |
//! |---|---|
//! | `filtering` | who gets through, in each mode of attachment |
//! | `destinations` | which addresses are guarded, as they come and go |
//! | `interfaces` | which interfaces are filtered, as they come, go and change their names |
//! | `life` | what happens while the agent starts, stops, crashes, changes |
//! | `refresh` | what a new list does, and when |
//! | `bad_answers` | what a list that cannot be right does: nothing |
//! | `bad_input` | what the operator is told who asks for the impossible |
//! | `metrics_page` | whether the documentation has every metric, and Prometheus takes them |
//! | `demonstration` | whether `cargo xtask run` shows what it claims |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first thing that goes wrong"
)]

mod bad_answers;
mod bad_input;
mod demonstration;
mod destinations;
mod filtering;
mod interfaces;
mod life;
mod metrics_page;
mod refresh;

use std::time::Duration;

use exogate_tests::{
    agent::{Agent, Metrics},
    lab::Lab,
    service::{EndpointService, Publication},
};

/// Long enough for a few hundred probes.
const MOMENT: Duration = Duration::from_millis(500);
/// How long anything that must happen may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A lab with an agent and what it asks. The agent polls when a test says so.
struct Scene {
    // Dropped first: the lab lasts as long as anybody uses it.
    agent: Agent,
    service: EndpointService,
    lab: Lab,
    polls: u32,
}

impl Scene {
    /// An agent that does not run yet.
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let service = EndpointService::start(&lab).unwrap();
        let agent = Agent::new(&lab).unwrap();
        Self { agent, service, lab, polls: 0 }
    }

    /// A running agent that has the latest list.
    fn started() -> Self {
        let mut scene = Self::new();
        scene.agent.start().unwrap();
        scene.wait_for_version("2026052900");
        scene
    }

    /// Publishes a true version of the worldwide instance.
    fn publish(&self, version: &str) {
        self.service.publish(Publication::worldwide(version).unwrap());
    }

    /// Has the agent poll, and waits for the outcome.
    fn poll(&mut self) -> Metrics {
        let polls = |metrics: &Metrics| metrics.sum("exogate_feed_polls_total", &[]).unwrap_or(0.0);
        let before = polls(&self.agent.metrics().unwrap());
        // Another configuration of the feed is a reason to poll.
        self.polls += 1;
        self.agent.set("feed.interval", format!("{}s", 3600 + self.polls)).unwrap();
        self.agent.reload().unwrap();
        self.agent.wait_until("a poll", PATIENCE, |metrics| polls(metrics) > before).unwrap();
        // That scrape may have read some metrics just before the outcome was counted.
        self.agent.metrics().unwrap()
    }

    fn wait_for_version(&self, version: &str) -> Metrics {
        let number: f64 = version.parse().unwrap();
        let holds = |metrics: &Metrics| metrics.sum("exogate_feed_version", &[]) == Some(number);
        self.agent.wait_until("a version in force", PATIENCE, holds).unwrap()
    }
}

/// Everything below a lab's BPF file system.
fn pins(lab: &Lab) -> Vec<String> {
    let mut command = std::process::Command::new("find");
    // The kernel itself puts two files there.
    command.arg(lab.pin_directory()).args(["-mindepth", "1", "-not", "-name", "*.debug"]);
    let found = exogate_tests::process::check(&mut command, "").unwrap();
    let mut pins: Vec<_> = found.lines().map(str::to_owned).collect();
    pins.sort();
    pins
}

/// The hash of the list in force.
fn list_hash(metrics: &Metrics) -> String {
    let mut info = metrics.samples().iter().filter(|s| s.name == "exogate_allowlist_info");
    let hash = info.next().unwrap().labels["hash"].clone();
    assert_eq!(info.next(), None);
    hash
}

/// A metric's value, where a series that does not exist yet counts as 0.
fn count(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    metrics.sum(name, labels).unwrap_or(0.0)
}
