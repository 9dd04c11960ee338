//! The list for others, judged by those who read it: nft, ipset, another source,
//! and the answers of `exogate check`. Needs root, nft, ipset and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::arithmetic_side_effects, reason = "small numbers that are written here")]
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]

use std::{collections::BTreeSet, fs, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab, Peer},
    peer::{HTTPS, Reached},
    process::{check, run},
    service::EndpointService,
};
use serde_json::Value;
use toml::Table;

const SOON: Duration = Duration::from_secs(60);
/// The captured version that the stand-in serves.
const VERSION: &str = "2026052900";
const FORMATS: [&str; 4] = ["plain", "nft", "ipset", "json"];

fn start(lab: &Lab, settings: &str) -> (EndpointService, Agent) {
    let service = EndpointService::start(lab).unwrap();
    let mut agent = Agent::new(lab).unwrap();
    agent.settings().extend(settings.parse::<Table>().unwrap());
    agent.start().unwrap();
    agent.wait_for_version("Worldwide", VERSION, SOON).unwrap();
    (service, agent)
}

fn export(agent: &Agent, format: &str) -> String {
    agent.print(&["export", "--format", format]).unwrap()
}

/// Whether a command on the edge host succeeds.
fn succeeds(lab: &Lab, program: &str, arguments: &[&str]) -> bool {
    run(lab.edge().command(program).args(arguments), SOON).unwrap().code == 0
}

#[test]
fn nft_takes_the_sets_and_finds_the_members() {
    let lab = Lab::new().unwrap();
    let (_service, agent) = start(&lab, "");
    let rules = export(&agent, "nft");
    check(lab.edge().command("nft").args(["--check", "--file", "-"]), &rules).unwrap();
    // Once more, to see that it replaces what is there.
    for _ in 0..2 {
        check(lab.edge().command("nft").args(["--file", "-"]), &rules).unwrap();
    }
    let has = |set: &str, address: &str| {
        let element = format!("{{ {address} }}");
        succeeds(&lab, "nft", &["get", "element", "inet", "exogate", set, &element])
    };
    assert!(has("exchange_online_v4", "40.96.1.2"));
    assert!(has("exchange_online_v6", "2603:1026:206:1::5"));
    assert!(has("graph_notifications_v4", "52.159.23.209"));
    assert!(!has("exchange_online_v4", "203.0.113.7"));
    assert!(!has("exchange_online_v6", "2001:db8::7"));
}

#[test]
fn ipset_takes_the_sets_and_finds_the_members() {
    let lab = Lab::new().unwrap();
    let (_service, agent) = start(&lab, "");
    let sets = export(&agent, "ipset");
    for _ in 0..2 {
        check(lab.edge().command("ipset").arg("restore"), &sets).unwrap();
    }
    let has = |set: &str, address: &str| succeeds(&lab, "ipset", &["test", set, address]);
    assert!(has("exogate-exchange-online-v4", "40.96.1.2"));
    assert!(has("exogate-exchange-online-v6", "2603:1026:206:1::5"));
    assert!(has("exogate-graph-notifications-v4", "52.159.23.209"));
    assert!(!has("exogate-exchange-online-v4", "203.0.113.7"));
    let names = check(lab.edge().command("ipset").args(["list", "-name"]), "").unwrap();
    assert_eq!(names.lines().count(), 4, "{names}");
}

/// A source whose name is none in nft, with so many prefixes.
fn offices(count: usize) -> Table {
    let prefix = |number: usize| format!("\"198.{}.{}.0/24\"", 100 + number / 256, number % 256);
    let prefixes: Vec<_> = (0..count).map(prefix).collect();
    let settings = format!(
        "[[guard]]\nport = 443\nsources = [\"24-offices\"]\n[source.24-offices]\n\
         kind = \"static\"\nprefixes = [{}]",
        prefixes.join(", ")
    );
    settings.parse().unwrap()
}

#[test]
fn sets_take_a_list_that_has_grown_and_any_name() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.settings().extend(offices(1_100));
    agent.start().unwrap();
    for count in [1_100, 1_500, 10] {
        agent.settings().extend(offices(count));
        agent.restart().unwrap();
        check(lab.edge().command("ipset").arg("restore"), &export(&agent, "ipset")).unwrap();
        check(lab.edge().command("nft").args(["--file", "-"]), &export(&agent, "nft")).unwrap();
    }
    assert!(succeeds(&lab, "ipset", &["test", "exogate-24-offices-v4", "198.100.9.1"]));
    assert!(!succeeds(&lab, "ipset", &["test", "exogate-24-offices-v4", "198.100.10.1"]));
    let set = ["inet", "exogate", "source_24_offices_v4", "{ 198.100.9.1 }"];
    assert!(succeeds(&lab, "nft", &[&["get", "element"], &set[..]].concat()));
}

#[test]
fn a_plain_export_is_a_file_source_with_the_same_prefixes() {
    let lab = Lab::new().unwrap();
    let (_service, mut agent) = start(&lab, "");
    let plain = export(&agent, "plain");
    assert!(plain.lines().count() > 100, "{plain}");
    let file = lab.directory().join("copy.txt");
    fs::write(&file, &plain).unwrap();
    let settings = format!(
        "[[guard]]\nport = 443\nsources = [\"exchange-online\", \"graph-notifications\", \
         \"copy\"]\n[source.copy]\nkind = \"file\"\npath = {file:?}"
    );
    agent.settings().extend(settings.parse::<Table>().unwrap());
    agent.restart().unwrap();
    agent.print(&["feed", "refresh"]).unwrap();
    assert_eq!(agent.print(&["export", "--source", "copy"]).unwrap(), plain);
    assert_eq!(export(&agent, "plain"), plain, "the whole list has each prefix once");
}

#[test]
fn an_export_is_the_same_without_the_agent() {
    let lab = Lab::new().unwrap();
    let (_service, mut agent) = start(&lab, "");
    let status = agent.status_json().unwrap();
    let json: Value = serde_json::from_str(&export(&agent, "json")).unwrap();
    assert_eq!(json["hash"], status["list"]["hash"]);
    let prefixes: BTreeSet<_> = json["sources"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|source| source["prefixes"].as_array().unwrap())
        .map(|prefix| prefix["prefix"].as_str().unwrap().to_owned())
        .collect();
    let plain = export(&agent, "plain");
    assert_eq!(prefixes, plain.lines().map(str::to_owned).collect());

    let running = FORMATS.map(|format| export(&agent, format));
    agent.terminate().unwrap();
    assert_eq!(FORMATS.map(|format| export(&agent, format)), running);
}

#[test]
fn check_says_why_an_address_passes_with_and_without_the_agent() {
    let lab = Lab::new().unwrap();
    let (_service, mut agent) = start(&lab, "");
    let explain = |agent: &Agent, answered_by: &str| {
        let check = agent.json(&["check", "40.96.1.2"]).unwrap();
        assert_eq!(check["answered_by"], answered_by);
        assert_eq!(check["matches"][0]["source"], "exchange-online", "{check:#}");
        assert_eq!(check["matches"][0]["prefix"], "40.96.0.0/13", "{check:#}");
        let origin = check["matches"][0]["origin"].as_str().unwrap();
        for part in ["endpoint set 1", "Exchange", "outlook.office.com"] {
            assert!(origin.contains(part), "{origin}");
        }
        assert_eq!(check["feeds"][0]["version"], VERSION, "{check:#}");
        check["verdicts"].clone()
    };
    let verdicts = explain(&agent, "agent");
    let all = verdicts.as_array().unwrap();
    assert!(all.iter().all(|verdict| verdict["action"] == "pass"), "{verdicts:#}");
    agent.terminate().unwrap();
    assert_eq!(explain(&agent, "offline"), verdicts);
}

#[test]
fn what_check_says_to_add_lets_a_refused_address_pass() {
    let lab = Lab::new().unwrap();
    let (_service, mut agent) =
        start(&lab, "[[guard]]\nport = 443\nsources = [\"exchange-online\"]");
    let refused = Peer::Graph.address(Family::V6);
    assert_eq!(lab.connect(Peer::Graph, Family::V6, HTTPS).unwrap(), Reached::TimedOut);
    let check = agent.json(&["check", &refused.to_string()]).unwrap();
    assert_eq!(check["verdicts"][0]["action"], "drop", "{check:#}");
    let left_out = &check["left_out"][0];
    assert_eq!(left_out["prefix"], "2603:1026:3000::/48", "{check:#}");
    assert_eq!(left_out["set"], 56, "{check:#}");
    assert_eq!(left_out["suggestion"], "add \"graph-notifications\" to the guard");
    // The packets that were refused are part of the answer.
    assert_eq!(check["blocked"]["port"], 443, "{check:#}");
    assert!(check["blocked"]["packets"].as_u64() > Some(0), "{check:#}");

    let advice = "[[guard]]\nport = 443\nsources = [\"exchange-online\", \"graph-notifications\"]";
    agent.settings().extend(advice.parse::<Table>().unwrap());
    agent.reload().unwrap();
    lab.wait_for_verdict(Peer::Graph, refused, HTTPS, true, SOON).unwrap();

    let unknown = agent.json(&["check", "203.0.113.7"]).unwrap();
    assert_eq!(unknown["left_out"], Value::Array(Vec::new()));
}
