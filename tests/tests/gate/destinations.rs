//! What is guarded where `gate.destinations` is `"local"`: the addresses that the host has now.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use exogate_tests::{
    lab::{Family, Peer, edge},
    peer::HTTPS,
    process::agent_binary,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PATIENCE, Scene};

/// Gives the edge host its address of IPv4, or takes it.
fn address(scene: &Scene, is_there: bool) {
    let address = edge(Family::V4);
    let commands = match is_there {
        true => format!("address add {address}/24 dev edge0\nroute add default via 198.51.100.1\n"),
        false => format!("address delete {address}/24 dev edge0\n"),
    };
    scene.lab.edge().ip(&commands).unwrap();
}

/// Waits until the edge host's address of IPv4 is guarded.
fn wait_until_guarded(scene: &Scene) {
    let stranger = Peer::Stranger.address(Family::V4);
    scene.lab.wait_for_verdict(Peer::Stranger, stranger, HTTPS, false, PATIENCE).unwrap();
    // It was the filter: the address answers others.
    assert!(scene.lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed());
}

#[test]
fn an_address_that_comes_after_the_start_is_guarded() {
    let mut scene = Scene::new();
    // As a host boots: the filter is there before the first address is.
    address(&scene, false);
    scene.agent.set("gate.destinations", "local").unwrap();
    scene.agent.start().unwrap();
    address(&scene, true);
    wait_until_guarded(&scene);
}

#[test]
fn an_address_that_comes_at_any_moment_of_the_start_is_guarded() {
    let mut scene = Scene::new();
    scene.agent.set("gate.destinations", "local").unwrap();
    let directory = scene.lab.directory();
    let (script, calls) = (directory.join("stopped"), directory.join("calls"));
    scene.agent.use_binary(&script);
    // To ask the kernel for addresses, or to be told of them, begins with a socket.
    for moment in 1..=3 {
        stop_at_socket(moment, &script, &calls);
        address(&scene, false);
        scene.agent.spawn().unwrap();
        let told = || fs::read_to_string(&calls).unwrap_or_default();
        wait(&scene, || told().contains("stopped by"));
        address(&scene, true);
        // Other threads stop too. More signals than that would disturb the kernel's verifier.
        let agent = Pid::from_raw(i32::try_from(scene.agent.pid().unwrap()).unwrap());
        let mut continued = 0;
        wait(&scene, || {
            if told().matches("--- SIGSTOP").count() > continued {
                kill(agent, Signal::SIGCONT).unwrap();
                continued += 1;
            }
            scene.agent.get("/readyz").is_ok_and(|ready| ready.status == 200)
        });
        wait_until_guarded(&scene);
        scene.agent.kill9().unwrap();
    }
}

/// A program that is the agent, whose threads stop when they have made so many sockets.
fn stop_at_socket(number: u32, script: &Path, calls: &Path) {
    let agent = agent_binary().unwrap();
    let text = format!(
        "#!/bin/sh\nexec strace -D -f -qq -o {calls:?} -e trace=socket \
         -e inject=socket:signal=SIGSTOP:when={number} {agent:?} \"$@\"\n"
    );
    fs::write(script, text).unwrap();
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    // What the last agent has left.
    if calls.exists() {
        fs::remove_file(calls).unwrap();
    }
}

fn wait(scene: &Scene, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{}", scene.agent.log());
        sleep(Duration::from_millis(20));
    }
}
