//! What operators do by hand: temporary entries, imports, holding updates back,
//! accepting what was refused. Needs root and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, chown},
    time::{Duration, Instant},
};

use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab, Peer},
    peer::{HTTPS, Reached},
    service::{EndpointService, Instance, Publication},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// The captured version that the stand-in starts with.
const FIRST: &str = "2026052900";
/// A later one.
const NEXT: &str = "2026060100";
/// What the later version adds, and a sender in it.
const ADDED: &str = "45.60.70.0/24";

fn newcomer(lab: &Lab) -> IpAddr {
    let address = "45.60.70.80".parse().unwrap();
    lab.add_source(Peer::Stranger, address).unwrap();
    address
}

/// The latest version, with one more prefix for Exchange.
fn with_addition() -> Publication {
    edited(|set, ips| {
        if set == 1 {
            ips.push(json!(ADDED));
        }
    })
}

/// The latest version with its sets edited, by number.
fn edited(mut edit: impl FnMut(u64, &mut Vec<Value>)) -> Publication {
    let latest = Publication::latest(Instance::Worldwide).unwrap();
    let edited = latest.edited(NEXT, |sets| {
        for set in sets {
            let id = set["id"].as_u64().unwrap();
            if let Some(ips) = set.get_mut("ips").and_then(Value::as_array_mut) {
                edit(id, ips);
            }
        }
    });
    edited.unwrap()
}

fn start(lab: &Lab) -> Agent {
    let mut agent = Agent::new(lab).unwrap();
    agent.set("feed.removal_grace", "0s").unwrap().set("feed.removal_polls", 0).unwrap();
    agent.start().unwrap();
    agent
}

fn hash(agent: &Agent) -> Value {
    agent.status_json().unwrap()["list"]["hash"].clone()
}

/// The events of the history, oldest first, with the versions that they are about.
fn history(agent: &Agent) -> Vec<(String, Value)> {
    let history = agent.json(&["history"]).unwrap();
    let records = history["records"].as_array().unwrap().iter();
    let event = |record: &Value| record["event"].as_str().unwrap().to_owned();
    records.map(|record| (event(record), record["to"].clone())).collect()
}

fn happened(agent: &Agent, event: &str, version: &Value) -> bool {
    history(agent).contains(&(event.to_owned(), version.clone()))
}

fn stranger(lab: &Lab) -> Reached<()> {
    lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap()
}

fn from(lab: &Lab, address: IpAddr) -> Reached<()> {
    lab.connect_from(Peer::Stranger, address, HTTPS).unwrap()
}

#[test]
fn a_temporary_entry_outlives_a_crash_and_ends_by_itself() {
    let lab = Lab::new().unwrap();
    let mut agent = start(&lab);
    let address = Peer::Stranger.address(Family::V4);
    assert_eq!(stranger(&lab), Reached::TimedOut);

    let begin = Instant::now();
    agent.print(&["allow", "203.0.113.7", "--for", "20s", "--reason", "a probe"]).unwrap();
    assert_eq!(stranger(&lab), Reached::Refused, "{}", agent.log());
    let listed = agent.json(&["allow", "list"]).unwrap();
    assert_eq!(listed[0]["prefix"], "203.0.113.7/32");
    assert_eq!(listed[0]["reason"], "a probe");

    agent.kill9().unwrap();
    assert_eq!(agent.json(&["allow", "list"]).unwrap(), listed, "without an agent");
    agent.start().unwrap();
    assert_eq!(agent.json(&["allow", "list"]).unwrap(), listed, "after the crash");
    assert_eq!(stranger(&lab), Reached::Refused, "{}", agent.log());
    assert!(begin.elapsed() < Duration::from_secs(20), "the machine is too slow for this test");

    lab.wait_for_verdict(Peer::Stranger, address, HTTPS, false, SOON).unwrap();
    assert!(begin.elapsed() > Duration::from_secs(20), "it ended before its time");
    assert_eq!(agent.json(&["allow", "list"]).unwrap(), json!([]));
    for event in ["allowed", "expired"] {
        assert!(happened(&agent, event, &Value::Null), "{event}: {:?}", history(&agent));
    }
}

#[test]
fn an_entry_whose_time_ends_without_an_agent_ends_with_the_next_start() {
    let lab = Lab::new().unwrap();
    let mut agent = start(&lab);
    let address = Peer::Stranger.address(Family::V4);
    agent.print(&["allow", "203.0.113.7", "--for", "1s", "--reason", "a probe"]).unwrap();
    agent.kill9().unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    // Nobody is there to take it back.
    assert_eq!(stranger(&lab), Reached::Refused);
    agent.start().unwrap();
    lab.wait_for_verdict(Peer::Stranger, address, HTTPS, false, SOON).unwrap();
}

#[test]
fn a_temporary_entry_can_be_taken_back() {
    let lab = Lab::new().unwrap();
    let agent = start(&lab);
    let before = hash(&agent);
    agent.print(&["allow", "203.0.113.0/24", "--for", "1h", "--reason", "a partner"]).unwrap();
    assert_eq!(stranger(&lab), Reached::Refused);
    assert_ne!(hash(&agent), before);
    agent.print(&["allow", "remove", "203.0.113.0/24"]).unwrap();
    assert_eq!(stranger(&lab), Reached::TimedOut);
    assert_eq!(hash(&agent), before);
    let again = agent.cli(&["allow", "remove", "203.0.113.0/24"]).unwrap();
    assert!(again.code == 1 && again.stderr.contains("no temporary entry"), "{again:?}");
    assert!(happened(&agent, "removed", &Value::Null), "{:?}", history(&agent));
}

#[test]
fn every_command_speaks_json() {
    let lab = Lab::new().unwrap();
    let _service = EndpointService::start(&lab).unwrap();
    let mut agent = start(&lab);
    agent.wait_for_version("Worldwide", FIRST, SOON).unwrap();
    let file = lab.directory().join("worldwide.json");
    fs::write(&file, with_addition().sets()).unwrap();
    for (command, field) in [
        (&["status"][..], "feeds"),
        (&["check", "203.0.113.7"], "verdicts"),
        (&["diff"], "feeds"),
        (&["history"], "records"),
        (&["export"], "sources"),
        (&["config", "check"], "guards"),
        (&["feed", "refresh"], "diff"),
        (&["feed", "refresh", "--dry-run"], "diff"),
        (&["feed", "hold"], "diff"),
        (&["feed", "resume"], "diff"),
        (&["feed", "accept", "Worldwide"], "diff"),
        (&["feed", "import", file.to_str().unwrap(), "--version", NEXT], "list"),
    ] {
        let answer = agent.json(command).unwrap();
        assert!(!answer[field].is_null(), "{command:?}: {answer:#}");
    }
    for command in
        [&["allow", "203.0.113.7", "--for", "1h", "--reason", "a probe"][..], &["allow", "list"]]
    {
        assert_eq!(agent.json(command).unwrap()[0]["prefix"], "203.0.113.7/32", "{command:?}");
    }
    assert_eq!(agent.json(&["allow", "remove", "203.0.113.7"]).unwrap(), json!([]));
    agent.terminate().unwrap();
    assert_eq!(agent.json(&["detach"]).unwrap()["detached"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_imported_is_in_force_at_once_and_vetted() {
    let lab = Lab::new().unwrap();
    let agent = start(&lab);
    let newcomer = newcomer(&lab);
    assert_eq!(from(&lab, newcomer), Reached::TimedOut);
    let file = lab.directory().join("worldwide.json");
    fs::write(&file, with_addition().sets()).unwrap();
    let path = file.to_str().unwrap();
    agent.print(&["feed", "import", path, "--version", NEXT]).unwrap();
    assert_eq!(from(&lab, newcomer), Reached::Refused, "{}", agent.log());
    agent.wait_for_version("Worldwide", NEXT, SOON).unwrap();
    assert!(happened(&agent, "imported", &json!(NEXT)), "{:?}", history(&agent));

    let before = hash(&agent);
    for wrong in ["<html>", "[]", "[{\"id\": 1, \"ips\": [\"0.0.0.0/0\"]}]"] {
        fs::write(&file, wrong).unwrap();
        let refused = agent.cli(&["feed", "import", path]).unwrap();
        assert!(refused.code == 1 && !refused.stderr.is_empty(), "{wrong}: {refused:?}");
        assert_eq!(hash(&agent), before, "{wrong}");
    }
}

#[test]
fn what_is_imported_without_an_agent_is_in_force_with_the_next_start() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    let file = lab.directory().join("worldwide.json");
    fs::write(&file, with_addition().sets()).unwrap();
    let path = file.to_str().unwrap();
    let stored = agent.json(&["feed", "import", path, "--version", NEXT]).unwrap();
    assert_eq!(stored["stored"], true, "{stored:#}");
    agent.start().unwrap();
    assert_eq!(from(&lab, newcomer(&lab)), Reached::Refused, "{}", agent.log());
    let status = agent.status_json().unwrap();
    assert_eq!(status["feeds"][0]["version"], NEXT, "{status:#}");
    assert_eq!(status["feeds"][0]["provenance"], "last_known_good", "{status:#}");
    assert_eq!(status["list"]["hash"], stored["list"]);
}

#[test]
fn what_root_imports_without_an_agent_belongs_to_the_agents_user() {
    /// Of a user and a group that need not exist.
    const OWNER: (u32, u32) = (64_001, 64_002);
    let lab = Lab::new().unwrap();
    let agent = Agent::new(&lab).unwrap();
    let state = agent.state_directory();
    fs::create_dir_all(&state).unwrap();
    chown(&state, Some(OWNER.0), Some(OWNER.1)).unwrap();
    let file = lab.directory().join("worldwide.json");
    fs::write(&file, with_addition().sets()).unwrap();
    agent.print(&["feed", "import", file.to_str().unwrap(), "--version", NEXT]).unwrap();

    let files = fs::read_dir(&state).unwrap().map(|file| {
        let file = file.unwrap();
        let made = file.metadata().unwrap();
        (file.file_name().into_string().unwrap(), (made.uid(), made.gid()), made.mode() & 0o777)
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    let expected = ["client-request-id", "history.jsonl", "state.json"]
        .map(|name| (name.to_owned(), OWNER, 0o600));
    assert_eq!(files, expected);
}

#[test]
fn nothing_changes_in_a_dry_run_or_on_hold_and_the_rest_is_shown() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let mut agent = start(&lab);
    agent.wait_for_version("Worldwide", FIRST, SOON).unwrap();
    let (before, newcomer) = (hash(&agent), newcomer(&lab));
    service.publish(with_addition());

    let dry = agent.json(&["feed", "refresh", "--dry-run"]).unwrap();
    let diff = agent.json(&["diff"]).unwrap();
    assert_eq!(dry["diff"], diff);
    assert_eq!(diff["feeds"][0]["running"], FIRST, "{diff:#}");
    assert_eq!(diff["feeds"][0]["offered"], NEXT, "{diff:#}");
    assert_eq!(
        diff["feeds"][0]["added"],
        json!([{ "source": "exchange-online", "prefix": ADDED }])
    );
    assert_eq!(hash(&agent), before);

    agent.print(&["feed", "hold"]).unwrap();
    agent.print(&["feed", "refresh"]).unwrap();
    assert_eq!((hash(&agent), from(&lab, newcomer)), (before.clone(), Reached::TimedOut));
    // It is an operator's word, and no crash takes it back.
    agent.kill9().unwrap();
    agent.start().unwrap();
    agent.print(&["feed", "refresh"]).unwrap();
    assert_eq!((hash(&agent), from(&lab, newcomer)), (before.clone(), Reached::TimedOut));

    agent.print(&["feed", "resume"]).unwrap();
    agent.wait_for_version("Worldwide", NEXT, SOON).unwrap();
    assert_eq!(from(&lab, newcomer), Reached::Refused, "{}", agent.log());
    assert_ne!(hash(&agent), before);
    let events = history(&agent);
    let events: Vec<_> = events.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(events, ["applied", "held", "resumed", "applied"]);
}

#[test]
fn a_refused_version_is_in_force_once_an_operator_accepts_it() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let agent = start(&lab);
    agent.wait_for_version("Worldwide", FIRST, SOON).unwrap();
    let before = hash(&agent);
    // Of Exchange's sets only one prefix is left.
    service.publish(edited(|set, ips| {
        if set < 10 {
            ips.retain(|ip| ip == "40.96.0.0/13");
        }
    }));
    agent.print(&["feed", "refresh"]).unwrap();
    let diff = agent.json(&["diff"]).unwrap();
    let feed = &diff["feeds"][0];
    assert_eq!(feed["problem"]["reason"], "removes_too_much", "{diff:#}");
    assert_eq!(feed["problem"]["can_be_accepted"], true, "{diff:#}");
    assert!(feed["removed"].as_array().unwrap().len() > 20, "{diff:#}");
    assert_eq!(hash(&agent), before);
    assert_eq!(lab.connect(Peer::Exchange, Family::V6, HTTPS).unwrap(), Reached::Refused);

    agent.print(&["feed", "accept", "Worldwide"]).unwrap();
    assert_ne!(hash(&agent), before);
    assert_eq!(lab.connect(Peer::Exchange, Family::V6, HTTPS).unwrap(), Reached::TimedOut);
    assert_eq!(lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap(), Reached::Refused);
    for event in ["refused", "applied"] {
        assert!(happened(&agent, event, &json!(NEXT)), "{event}: {:?}", history(&agent));
    }
}
