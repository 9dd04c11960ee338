//! From power-on to login: a machine under qemu, with a Debian kernel and a real systemd,
//! boots with the package installed, while a stranger and a listed sender knock at the
//! guarded port all the time. Needs root, qemu, systemd-nspawn, and the package of
//! `cargo xtask package --development`.
//!
//! The worst case is asked for: a socket listens on the port before anything else has
//! started, the network is configured as early as the service's order allows, and the
//! router sends to the machine before it has an address.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use exogate_tests::{
    guest::{Guest, Kernel},
    lab::{Family, Lab, Peer},
    machine::{Machine, package},
    peer::HTTPS,
    prober::{Knocking, Knocks},
};

/// A guest without acceleration on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the guest says when people could log in.
const LOGIN: &str = "login is possible";
/// Enforcing on the guest's only network card, and never asking a feed.
const CONFIG: &str = "mode = \"enforce\"\ninterfaces = [\"eth0\"]\n\
                      [feed]\nfirst_poll_within = \"1h\"\n";

/// Units of the guest. The kernel answers at a port that a socket unit listens on, whether
/// or not the service behind it takes the connection.
const UNITS: [(&str, &str); 4] = [
    ("early.socket", "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=443\nBacklog=4096\n"),
    ("early.service", "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep infinity\n"),
    (
        "wire.service",
        "[Unit]\nDefaultDependencies=no\nAfter=network-pre.target\nWants=network.target\n\
         Before=network.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/bin/sh -c 'exec ip -batch - < /etc/wire'\n",
    ),
    (
        "login.service",
        "[Unit]\nAfter=network.target early.socket wire.service systemd-user-sessions.service\n\
         Wants=systemd-user-sessions.service\n\
         [Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo login is possible > /dev/console'\n",
    ),
];

#[test]
fn a_stranger_gets_no_answer_between_power_on_and_login() {
    let lab = Lab::new().unwrap();
    let machine = install(&lab);
    let (stranger, listed) = boot(&lab, machine, || wait_for_answers(&lab));
    assert!(stranger.made > 100 && listed.answered > 0);
    assert_eq!(stranger.answered, 0, "the stranger got an answer");
}

/// The control: there is a moment to be seen, and it is seen.
#[test]
fn without_the_service_a_stranger_gets_an_answer() {
    let lab = Lab::new().unwrap();
    let machine = install(&lab);
    machine.check(&["systemctl", "mask", "exogate.service"]).unwrap();
    // By the end connections that nobody takes fill the queue, so no more are waited for.
    let (stranger, _) = boot(&lab, machine, || ());
    assert!(stranger.answered > 0, "nobody could have seen that the machine is open");
}

/// Boots the machine as a guest until people could log in and what is to come `then` is over,
/// and tells what a stranger and a listed sender met with meanwhile.
fn boot(lab: &Lab, mut machine: Machine, then: impl FnOnce()) -> (Knocks, Knocks) {
    machine.shut_down().unwrap();
    lab.replace_edge_by_guest().unwrap();
    let stranger = Knocking::start(lab, Peer::Stranger, HTTPS).unwrap();
    let listed = Knocking::start(lab, Peer::Exchange, HTTPS).unwrap();
    let kernel = Kernel::of_package("linux-image-amd64").unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let system = machine.path("/");
    let begin = Instant::now();
    let target = "machine.target";
    let mut guest = Guest::start_as_edge(lab, &kernel, &system, target, scratch.path()).unwrap();
    guest.wait_for(LOGIN, PATIENCE).unwrap();
    println!("login is possible after {:.1?}", begin.elapsed());
    then();

    let (stranger, listed) = (stranger.stop().unwrap(), listed.stop().unwrap());
    println!("the stranger: {stranger:?}; the listed sender: {listed:?}");
    (stranger, listed)
}

/// Waits until a listed sender gets answers.
fn wait_for_answers(lab: &Lab) {
    let begin = Instant::now();
    for family in Family::ALL {
        while !lab.connect(Peer::Exchange, family, HTTPS).unwrap().passed() {
            assert!(begin.elapsed() < PATIENCE, "a listed sender gets no answer over {family:?}");
            sleep(Duration::from_millis(100));
        }
    }
}

/// A machine with the package on it, and with what the guest does beside it.
fn install(lab: &Lab) -> Machine {
    let machine = Machine::boot(lab).unwrap();
    fs::copy(package().unwrap(), machine.path("/root/exogate.deb")).unwrap();
    machine.check(&["dpkg", "--install", "/root/exogate.deb"]).unwrap();
    fs::write(machine.path("/etc/exogate/exogate.toml"), CONFIG).unwrap();
    fs::write(machine.path("/etc/wire"), Lab::guest_network("eth0")).unwrap();
    // Where this machine is a container, the guest must not take itself for one.
    let _ = fs::remove_file(machine.path("/.dockerenv"));
    let console = machine.path("/etc/systemd/journald.conf.d");
    fs::create_dir_all(&console).unwrap();
    fs::write(console.join("console.conf"), "[Journal]\nForwardToConsole=yes\n").unwrap();
    for (name, text) in UNITS {
        fs::write(machine.path("/etc/systemd/system").join(name), text).unwrap();
    }
    let wanted = ["early.socket", "wire.service", "login.service", "exogate.service"];
    machine.check(&["systemctl", "daemon-reload"]).unwrap();
    machine.check(&[&["systemctl", "add-wants", "machine.target"], &wanted[..]].concat()).unwrap();
    machine
}
