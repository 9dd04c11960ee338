//! Sources other than the web service's, and which guard takes which, with real
//! packets. Needs root and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::{fs, path::Path, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab, Peer},
    peer::{HTTPS, Reached},
    service::{EndpointService, Instance, Publication},
};
use toml::Table;

/// A file is looked at every two seconds, and has to rest.
const SOON: Duration = Duration::from_secs(60);
/// Behind it is what only operators' own senders may reach.
const PARTNERS: u16 = 8443;

/// An agent of which guards and sources are as in `text`, and the rest as the lab
/// needs it.
fn start(lab: &Lab, text: &str) -> Agent {
    let mut agent = Agent::new(lab).unwrap();
    agent.settings().extend(text.parse::<Table>().unwrap());
    agent.set("feed.interval", "1s").unwrap();
    agent.set("feed.removal_grace", "0s").unwrap().set("feed.removal_polls", 0).unwrap();
    agent.start().unwrap();
    agent
}

/// Replaces a file in one step, as the documentation asks for.
fn replace(path: &Path, content: &str) {
    let next = path.with_extension("next");
    fs::write(&next, content).unwrap();
    fs::rename(next, path).unwrap();
}

fn drops(lab: &Lab, peer: Peer, port: u16) {
    for family in Family::ALL {
        assert_eq!(lab.connect(peer, family, port).unwrap(), Reached::TimedOut, "{peer:?}");
    }
}

fn passes(lab: &Lab, peer: Peer, port: u16) {
    for family in Family::ALL {
        assert_eq!(lab.connect(peer, family, port).unwrap(), Reached::Refused, "{peer:?}");
    }
}

fn wait(lab: &Lab, peer: Peer, passes: bool) {
    for family in Family::ALL {
        lab.wait_for_verdict(peer, peer.address(family), HTTPS, passes, SOON).unwrap();
    }
}

/// The latest version without the prefixes of [`Peer::Exchange`] in both families.
fn without_exchange(version: &str) -> Publication {
    let gone = ["40.96.0.0/13", "2603:1026::/36"];
    let latest = Publication::latest(Instance::Worldwide).unwrap();
    let edited = latest.edited(version, |sets| {
        for ips in sets.iter_mut().filter_map(|set| set.get_mut("ips")?.as_array_mut()) {
            ips.retain(|ip| !gone.iter().any(|gone| ip == gone));
        }
    });
    edited.unwrap()
}

#[test]
fn an_address_passes_while_a_file_names_it() {
    let lab = Lab::new().unwrap();
    let _service = EndpointService::start(&lab).unwrap();
    let file = lab.directory().join("probes.txt");
    let others = "# probes\n198.51.100.64/26\n198.51.100.128/26\n198.51.100.192/26\n";
    replace(&file, others);
    let agent = start(
        &lab,
        &format!(
            "[[guard]]\nport = 443\nsources = [\"exchange-online\", \"probes\"]\n\
             [source.probes]\nkind = \"file\"\npath = {file:?}\nallow_private = true"
        ),
    );
    drops(&lab, Peer::Stranger, HTTPS);
    replace(&file, &format!("{others}203.0.113.7\n2001:db8::7 # a probe\n"));
    wait(&lab, Peer::Stranger, true);

    let check = agent.json(&["check", "203.0.113.7"]).unwrap();
    assert_eq!(check["matches"][0]["source"], "probes", "{check:#}");
    assert!(check["matches"][0]["origin"].as_str().unwrap().contains("probes.txt"), "{check:#}");

    replace(&file, others);
    wait(&lab, Peer::Stranger, false);
    passes(&lab, Peer::Exchange, HTTPS);
}

#[test]
fn a_file_that_lost_everything_is_refused_until_somebody_accepts_it() {
    let lab = Lab::new().unwrap();
    let file = lab.directory().join("probes.txt");
    replace(&file, "203.0.113.7\n2001:db8::7\n");
    let agent = start(
        &lab,
        &format!(
            "[[guard]]\nport = 443\nsources = [\"probes\"]\n\
             [source.probes]\nkind = \"file\"\npath = {file:?}\nallow_private = true"
        ),
    );
    wait(&lab, Peer::Stranger, true);
    replace(&file, "# by mistake\n");
    let refused = [("source", "probes"), ("reason", "no_prefixes")];
    agent
        .wait_until("the empty file is refused", SOON, |metrics| {
            metrics.sum("exogate_source_refusals_total", &refused) > Some(0.0)
        })
        .unwrap();
    passes(&lab, Peer::Stranger, HTTPS);
    agent.print(&["feed", "accept", "probes"]).unwrap();
    drops(&lab, Peer::Stranger, HTTPS);
}

#[test]
fn each_guard_takes_the_senders_of_its_own_sources_alone() {
    let lab = Lab::new().unwrap();
    let _service = EndpointService::start(&lab).unwrap();
    let agent = start(
        &lab,
        "[[guard]]\nport = 443\nsources = [\"exchange-online\"]\n\
         [[guard]]\nport = 8443\nsources = [\"pega\"]\n\
         [source.pega]\nkind = \"static\"\nprefixes = [\"203.0.113.0/24\", \"2001:db8::7\"]",
    );
    agent.wait_for_version("Worldwide", "2026052900", SOON).unwrap();
    passes(&lab, Peer::Exchange, HTTPS);
    passes(&lab, Peer::Stranger, PARTNERS);
    drops(&lab, Peer::Exchange, PARTNERS);
    drops(&lab, Peer::Stranger, HTTPS);
    for port in [HTTPS, PARTNERS] {
        drops(&lab, Peer::Graph, port);
    }
}

#[test]
fn no_feed_takes_anything_from_a_protected_source() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    // The same feed behind two sources, of which one is protected.
    let agent = start(
        &lab,
        "[[guard]]\nport = 443\nsources = [\"kept\", \"probes\"]\n\
         [[guard]]\nport = 8443\nsources = [\"followed\"]\n\
         [source.kept]\nkind = \"exchange-online\"\nprotected = true\n\
         [source.followed]\nkind = \"exchange-online\"\n\
         [source.probes]\nkind = \"static\"\nprotected = true\n\
         prefixes = [\"203.0.113.7\", \"2001:db8::7\"]",
    );
    agent.wait_for_version("Worldwide", "2026052900", SOON).unwrap();
    passes(&lab, Peer::Exchange, PARTNERS);
    service.publish(without_exchange("2026060100"));
    agent.wait_for_version("Worldwide", "2026060100", SOON).unwrap();
    drops(&lab, Peer::Exchange, PARTNERS);
    passes(&lab, Peer::Exchange, HTTPS);
    passes(&lab, Peer::Stranger, HTTPS);
}
