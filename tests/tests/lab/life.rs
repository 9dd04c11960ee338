//! A lab leaves nothing behind, however its owner ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    panic::catch_unwind,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use exogate_tests::{
    agent::Agent,
    lab::{Lab, Peer},
    peer::EdgeServer,
    prober::{Plan, Prober},
    process::wait,
    proxy::Proxy,
    service::EndpointService,
};

/// Set in a copy of this executable that makes a lab and waits to be ended.
const HOLD: &str = "EXOGATE_LAB_HOLD";

/// What there is of a lab: namespaces, mounts, files, processes.
fn traces(lab: &str) -> Vec<String> {
    let mut traces = Vec::new();
    for directory in ["/run/netns", "/run/exogate-lab"] {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        traces.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    traces.extend(mounts.lines().map(str::to_owned));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while it is looked at.
        if let Ok(line) = fs::read_to_string(process.path().join("cmdline")) {
            traces.push(line.replace('\0', " "));
        }
    }
    // One lab's name may be how another's begins.
    let marks = [format!("{lab}-"), format!("{lab}/"), format!("{lab} ")];
    traces.retain(|trace| marks.iter().any(|mark| trace.contains(mark)) || trace.ends_with(lab));
    traces
}

fn wait_for_no_traces(lab: &str) {
    let begin = Instant::now();
    while !traces(lab).is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10), "left of {lab}: {:#?}", traces(lab));
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn closing_takes_everything_down() {
    let begin = Instant::now();
    let lab = Lab::new().unwrap();
    println!("a lab is made in {:?}", begin.elapsed());
    let name = lab.name().to_owned();
    let server = EdgeServer::start(&lab).unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let proxy = Proxy::start(&lab).unwrap();
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    assert!(traces(&name).len() >= 7, "{:?}", traces(&name));
    drop((server, service, proxy, prober));
    let begin = Instant::now();
    lab.close().unwrap();
    println!("and taken down in {:?}", begin.elapsed());
    assert_eq!(traces(&name), [""; 0]);
}

#[test]
fn a_lab_in_use_is_not_closed() {
    let lab = Lab::new().unwrap();
    let name = lab.name().to_owned();
    let server = EdgeServer::start(&lab).unwrap();
    assert!(lab.close().unwrap_err().to_string().contains("in use"));
    assert!(!traces(&name).is_empty());
    drop(server);
    assert_eq!(traces(&name), [""; 0]);
}

#[test]
fn a_panic_leaves_nothing() {
    let name = catch_unwind(|| {
        let lab = Lab::new().unwrap();
        let _server = EdgeServer::start(&lab).unwrap();
        let mut agent = Agent::new(&lab).unwrap();
        agent.use_binary(script(&lab, "while :; do sleep 0.1; done"));
        agent.spawn().unwrap();
        std::panic::panic_any(lab.name().to_owned());
    });
    let name = name.map(|()| String::new()).unwrap_err().downcast::<String>().unwrap();
    assert_eq!(traces(&name), [""; 0]);
}

#[test]
fn a_killed_owner_leaves_nothing() {
    an_ended_owner_leaves_nothing("KILL", "life::a_killed_owner_leaves_nothing");
}

#[test]
fn an_interrupted_owner_leaves_nothing() {
    an_ended_owner_leaves_nothing("INT", "life::an_interrupted_owner_leaves_nothing");
}

/// Runs the calling test in a process of its own, and ends that with a signal.
fn an_ended_owner_leaves_nothing(signal: &str, test: &str) {
    if std::env::var_os(HOLD).is_some() {
        return hold();
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let mut names = lines.filter_map(|line| Some(line.unwrap().split_once("lab: ")?.1.to_owned()));
    let name = names.next().expect("the owner tells its lab");
    assert!(traces(&name).len() >= 6, "{:?}", traces(&name));
    let id = owner.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    wait(&mut owner, Duration::from_secs(5)).unwrap();
    wait_for_no_traces(&name);
}

/// Makes a lab with an agent in it and waits for the end.
fn hold() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.use_binary(script(&lab, "while :; do sleep 0.1; done"));
    agent.spawn().unwrap();
    println!("lab: {}", lab.name());
    sleep(Duration::from_secs(60));
}

#[test]
fn what_a_dead_owner_left_is_swept() {
    // As if owner and janitor had been killed together; no process has this number.
    let dead = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let name = format!("exo-{}-0", dead.trim());
    let add = Command::new("ip").args(["netns", "add", &format!("{name}-edge")]).status().unwrap();
    assert!(add.success());
    fs::create_dir_all(Path::new("/run/exogate-lab").join(&name).join("bpf")).unwrap();
    let lab = Lab::new().unwrap();
    assert_eq!(traces(&name), [""; 0]);
    assert!(lab.peer(Peer::Graph).path().exists());
}

/// An executable that stands in for the agent.
pub(crate) fn script(lab: &Lab, text: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = lab.directory().join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}
