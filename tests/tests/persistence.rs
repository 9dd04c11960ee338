//! What survives a bad day: a full disk, a kill at each step of an update, and at any
//! other moment of it. Needs root, strace and the agent's binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]
#![allow(clippy::arithmetic_side_effects, reason = "small numbers that are written here")]

use std::{
    env,
    ffi::OsString,
    fs::{self, DirEntry},
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab, Peer},
    peer::{HTTPS, Reached},
    prober::{Plan, Prober},
    process::wait,
    service::{EndpointService, Instance, Publication},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// The captured version that the stand-in starts with.
const FIRST: &str = "2026052900";
/// Asks for many kills instead of a few.
const SOAK: &str = "EXOGATE_SOAK";

/// The latest capture as version `2026060100 + number`, with a prefix of its own for
/// Exchange.
fn version(number: usize) -> (String, Publication) {
    let version = format!("202606{:02}{:02}", 1 + number / 100, number % 100);
    let latest = Publication::latest(Instance::Worldwide).unwrap();
    let edited = latest.edited(&version, |sets| {
        let set = sets.iter_mut().find(|set| set["id"] == 1).unwrap();
        let ips = set.get_mut("ips").and_then(Value::as_array_mut).unwrap();
        ips.push(json!(format!("45.60.{}.0/24", number % 256)));
    });
    (version, edited.unwrap())
}

fn save_failures(agent: &Agent) -> f64 {
    let metrics = agent.metrics().unwrap();
    metrics.sum("exogate_allowlist_save_failures_total", &[]).unwrap()
}

#[test]
fn a_full_disk_stops_no_update_and_is_made_good_later() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let disk = lab.small_disk("disk", 1 << 20).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.set("state_directory", disk.to_str().unwrap()).unwrap();
    agent.start().unwrap();
    agent.wait_for_version("Worldwide", FIRST, SOON).unwrap();
    let before = fs::read(disk.join("state.json")).unwrap();
    assert!(fs::write(disk.join("filler"), vec![0; 2 << 20]).is_err(), "the disk is not full");

    let (next, publication) = version(1);
    service.publish(publication);
    agent.print(&["feed", "refresh"]).unwrap();
    agent.wait_for_version("Worldwide", &next, SOON).unwrap();
    let added = "45.60.1.9".parse().unwrap();
    lab.add_source(Peer::Stranger, added).unwrap();
    assert_eq!(lab.connect_from(Peer::Stranger, added, HTTPS).unwrap(), Reached::Refused);
    assert!(save_failures(&agent) > 0.0, "{}", agent.log());
    assert_eq!(fs::read(disk.join("state.json")).unwrap(), before, "the old state is damaged");

    // Every poll tries again, also where nothing is new.
    fs::remove_file(disk.join("filler")).unwrap();
    let failures = save_failures(&agent);
    agent.print(&["feed", "refresh"]).unwrap();
    assert!((save_failures(&agent) - failures).abs() < 0.5, "{}", agent.log());
    drop(service);
    agent.kill9().unwrap();
    agent.start().unwrap();
    let status = agent.status_json().unwrap();
    assert_eq!(status["feeds"][0]["version"], next, "{status:#}");
    assert_eq!(status["feeds"][0]["provenance"], "last_known_good", "{status:#}");
}

/// The steps of an update that the kernel sees, in order: the system call that a step
/// begins with, the file of the state directory that it is about, and whether the new
/// list is in force and stored when the agent dies there.
const STEPS: [(&str, Option<&str>, bool, bool); 7] = [
    // Before the idle table is written, its readers are waited for.
    ("membarrier", None, false, false),
    ("openat", Some("state.json.new"), true, false),
    ("write", Some("state.json.new"), true, false),
    ("fsync", Some("state.json.new"), true, false),
    ("/^rename", Some("state.json.new"), true, false),
    ("fsync", Some(""), true, true),
    ("openat", Some("history.jsonl"), true, true),
];

#[test]
fn a_kill_before_each_step_of_an_update_is_made_good_by_the_next_start() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    agent.wait_for_version("Worldwide", FIRST, SOON).unwrap();
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    let mut stored = FIRST.to_owned();
    for (number, (call, file, in_force, is_stored)) in (1..).zip(STEPS) {
        let what = format!("before {call} {file:?}");
        let (next, publication) = version(number);
        let added = format!("45.60.{number}.9").parse().unwrap();
        lab.add_source(Peer::Stranger, added).unwrap();

        let file = file.map(|file| agent.state_directory().join(file));
        let mut killer = kill_before(&agent, call, file.as_deref());
        service.publish(publication);
        // It dies of the order, and cannot answer.
        let refresh = agent.cli(&["feed", "refresh"]).unwrap();
        assert_ne!(refresh.code, 0, "{what}: {refresh:?}");
        let status = agent.wait_exit(SOON).unwrap();
        assert_eq!(status.signal(), Some(9), "{what}: {}", agent.log());
        wait(&mut killer, SOON).unwrap();

        // The filter goes on without its agent, with one list or the other.
        let reached = lab.connect_from(Peer::Stranger, added, HTTPS).unwrap();
        assert_eq!(reached.passed(), in_force, "{what}: {}", agent.log());
        let check = agent.json(&["check", "40.96.1.2"]).unwrap();
        assert_eq!(check["answered_by"], "offline", "{what}");
        let expected = if is_stored { &next } else { &stored };
        assert_eq!(check["feeds"][0]["version"], **expected, "{what}: {}", agent.log());

        agent.start().unwrap();
        agent.wait_for_version("Worldwide", &next, SOON).unwrap();
        assert!(lab.connect_from(Peer::Stranger, added, HTTPS).unwrap().passed(), "{what}");
        assert!(!agent.state_directory().join("state.json.damaged").exists(), "{what}");
        stored = next;
    }
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&[Peer::Exchange, Peer::Graph]).unwrap();
}

/// Kills the agent right before a thread of it makes a system call, from now on.
fn kill_before(agent: &Agent, call: &str, path: Option<&Path>) -> Child {
    let pid = agent.pid().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
    strace.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=SIGKILL")]);
    if let Some(path) = path {
        strace.arg("-P").arg(path);
    }
    let killer = strace.stdin(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    let traced = |thread: io::Result<DirEntry>| {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        !status.contains("TracerPid:\t0\n")
    };
    while !fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(traced) {
        assert!(begin.elapsed() < SOON, "strace does not take hold of the agent");
        sleep(Duration::from_millis(5));
    }
    killer
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_state_or_the_new_one() {
    let kills = if env::var_os(SOAK).is_some() { 100 } else { 10 };
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    agent.wait_for_version("Worldwide", FIRST, SOON).unwrap();
    agent.kill9().unwrap();
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    // How long an update takes here, from the start on.
    let (mut stored, publication) = version(0);
    service.publish(publication);
    let begin = Instant::now();
    agent.start().unwrap();
    agent.wait_for_version("Worldwide", &stored, SOON).unwrap();
    let update = begin.elapsed() * 3 / 2;
    agent.kill9().unwrap();
    let mut updates = 0;
    for number in 1..=kills {
        let (next, publication) = version(number);
        service.publish(publication);
        let before = files(&agent.state_directory());
        let begin = Instant::now();
        agent.spawn().unwrap();
        if number % 2 == 0 {
            // Right when the state begins to change.
            while files(&agent.state_directory()) == before && begin.elapsed() < SOON {}
        } else {
            // The moments are spread over the whole update, and differ in each run.
            sleep(update * u32::try_from(number).unwrap() / u32::try_from(kills).unwrap());
            sleep(Duration::from_micros(jitter()));
        }
        let moment = begin.elapsed();
        agent.kill9().unwrap();

        let check = agent.json(&["check", "40.96.1.2"]).unwrap();
        assert_eq!(check["answered_by"], "offline");
        assert_eq!(check["verdicts"][0]["action"], "pass", "{check:#}");
        let found = check["feeds"][0]["version"].as_str().unwrap().to_owned();
        assert!(found == stored || found == next, "{found}, killed after {moment:?}");
        assert!(!agent.state_directory().join("state.json.damaged").exists(), "{moment:?}");
        if found == next {
            updates += 1;
        }
        println!("killed after {moment:?}: {found} is stored, {next} was published");
        stored = found;
    }
    // Otherwise the moments say nothing.
    assert!((1..=kills).contains(&updates), "{updates} of {kills} updates were saved");
    agent.start().unwrap();
    let (last, _) = version(kills);
    agent.wait_for_version("Worldwide", &last, SOON).unwrap();
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&[Peer::Exchange, Peer::Graph]).unwrap();
    assert!(report.datagrams(Peer::Stranger, Family::V4).sent > 100, "{report}");
}

/// The files of a directory with their lengths.
fn files(directory: &Path) -> Vec<(OsString, Option<u64>)> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let length = |entry: &DirEntry| entry.metadata().ok().map(|data| data.len());
    entries.map(|entry| (entry.file_name(), length(&entry))).collect()
}

/// Up to 100 ms that nobody can foresee.
fn jitter() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_micros() % 100_000)
}
