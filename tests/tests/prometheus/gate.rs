//! Alerts of the gate.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use exogate_tests::{
    lab::{EDGE_INTERFACE, Family, Peer, edge},
    process::check,
};

use super::{TARGETS, Watched};

#[test]
fn the_alerts_of_the_gate_fire_and_resolve() {
    let mut watched = Watched::new();
    watched.start(&TARGETS[..1]);

    // Somebody removes the filter.
    let mut find = Command::new("find");
    find.arg(watched.lab.pin_directory()).args(["-name", "link"]);
    let link = check(&mut find, "").unwrap();
    fs::remove_file(link.trim()).unwrap();
    watched.fires("ExogateInterfaceOpen");
    watched.agent.restart().unwrap();
    watched.resolves("ExogateInterfaceOpen");

    // The interface goes away.
    watched.lab.remove_edge_interface().unwrap();
    watched.fires("ExogateInterfaceAbsent");
    watched.lab.add_edge_interface().unwrap();
    watched.resolves("ExogateInterfaceAbsent");

    // The driver cannot.
    attach_anew(&mut watched, "generic");
    watched.fires("ExogateGenericMode");
    attach_anew(&mut watched, "native");
    watched.resolves("ExogateGenericMode");

    // An operator stops all dropping.
    watched.agent.print(&["monitor"]).unwrap();
    watched.fires("ExogateMonitoring");
    watched.agent.print(&["enforce"]).unwrap();
    watched.resolves("ExogateMonitoring");

    // A stranger sends more than ever.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (lab, stop) = (&watched.lab, &stop);
        let flood = scope.spawn(move || lab.peer(Peer::Stranger).run(|| flood(stop)).unwrap());
        watched.fires("ExogateRefusedPacketsJump");
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
    watched.resolves("ExogateRefusedPacketsJump");

    watched.agent.kill9().unwrap();
    watched.fires("ExogateDown");
    watched.agent.start().unwrap();
    watched.resolves("ExogateDown");
}

fn attach_anew(watched: &mut Watched, mode: &str) {
    watched.agent.terminate().unwrap();
    assert_eq!(watched.agent.cli(&["detach"]).unwrap().code, 0);
    watched.agent.set("gate.attach", mode).unwrap();
    watched.agent.start().unwrap();
    let status = watched.agent.status_json().unwrap();
    assert_eq!(status["interfaces"][0]["name"], EDGE_INTERFACE);
    assert_eq!(status["interfaces"][0]["attached"], mode);
}

/// Two hundred datagrams a second, at most for two minutes.
fn flood(stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let to = SocketAddr::new(edge(Family::V4), 443);
    for _ in 0..2400 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for _ in 0..10 {
            // Nobody has to get it.
            let _ = socket.send_to(b"?", to);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
