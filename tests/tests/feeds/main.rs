//! The feeds of single sources end to end: lists from a real web server, names from a
//! real DNS server, another agent's export, and all that can be wrong with them. Needs
//! root, nginx, unbound and the agent's binary.
//!
//! | module | asks |
//! |---|---|
//! | `url` | whether a list is followed, and read only when it is another |
//! | `dns` | whether names are followed, and what becomes of one that vanishes |
//! | `bad_lists` | what a list that cannot be had or be right does: nothing |
//! | `export` | whether an agent that follows another has the same list |
//! | `secret` | whether a secret in a URL shows anywhere |

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first thing that goes wrong"
)]

mod bad_lists;
mod dns;
mod export;
mod secret;
mod url;

use std::{net::IpAddr, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{Lab, Peer},
    peer::{HTTPS, Reached},
};
use serde_json::Value;
use toml::Table;

const SOON: Duration = Duration::from_secs(60);

/// Addresses of senders that no list of Microsoft's has, and that are public.
const PARTNERS: [&str; 4] = ["45.60.70.80", "45.60.71.80", "2a02:26f0:7::80", "2a02:26f0:8::80"];

/// An address of the router for a real server.
fn server(text: &str, lab: &Lab) -> IpAddr {
    let address: IpAddr = text.parse().unwrap();
    let (length, flags) = if address.is_ipv4() { (32, "") } else { (128, "nodad") };
    lab.wan().ip(&format!("address add {address}/{length} dev lo {flags}\n")).unwrap();
    address
}

/// A lab whose stranger sends from [`PARTNERS`].
fn lab() -> Lab {
    let lab = Lab::new().unwrap();
    for partner in PARTNERS {
        lab.add_source(Peer::Stranger, partner.parse().unwrap()).unwrap();
    }
    lab
}

/// An agent that follows one source, as in `source`, and polls when it is told.
fn follow(lab: &Lab, source: &str) -> Agent {
    let mut agent = Agent::new(lab).unwrap();
    let text =
        format!("[[guard]]\nport = 443\nsources = [\"partners\"]\n[source.partners]\n{source}");
    agent.settings().extend(text.parse::<Table>().unwrap());
    agent.set("feed.removal_grace", "0s").unwrap().set("feed.removal_polls", 0).unwrap();
    agent.set("feed.timeout", "2s").unwrap();
    agent
}

/// Polls, and waits for the outcome.
fn poll(agent: &Agent) {
    agent.print(&["feed", "refresh"]).unwrap();
}

/// Which of [`PARTNERS`] pass.
fn passing(lab: &Lab) -> Vec<&'static str> {
    let passes = |partner: &&str| {
        let reached = lab.connect_from(Peer::Stranger, partner.parse().unwrap(), HTTPS).unwrap();
        reached == Reached::Refused
    };
    PARTNERS.into_iter().filter(passes).collect()
}

fn wait(lab: &Lab, partner: &str, passes: bool, patience: Duration) {
    let address = partner.parse().unwrap();
    lab.wait_for_verdict(Peer::Stranger, address, HTTPS, passes, patience).unwrap();
}

/// The feed of a source, as `exogate status --json` has it.
fn feed(agent: &Agent, name: &str) -> Value {
    let status = agent.status_json().unwrap();
    let feeds = status["feeds"].as_array().unwrap();
    feeds.iter().find(|feed| feed["feed"] == name).unwrap().clone()
}
