//! The package on a machine with a real systemd: installed, started, reloaded, killed,
//! hung, upgraded, removed and purged, with senders that try all the while. Needs root,
//! systemd-nspawn, and the package of `cargo xtask package --development`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread::{scope, sleep},
    time::Duration,
};

use anyhow::Result;
use exogate_tests::{
    http::Get,
    lab::{EDGE_INTERFACE, Family, Lab, Peer, edge},
    machine::{Machine, newer_package, newer_rpm_package, package, rpm_package},
    peer::{EDGE_NAME, HTTPS, Reached},
    prober::{Plan, Prober},
    tls::Validity,
};
use rustls::pki_types::ServerName;

/// Long enough for a thousand probes.
const MOMENT: Duration = Duration::from_millis(500);
/// The longest that a request may wait for an agent that starts, on a busy machine.
const ANSWER: Duration = Duration::from_secs(90);
const LISTED: [Peer; 2] = [Peer::Exchange, Peer::Graph];
/// Enforcing on the edge host's interface, and never asking a feed.
const CONFIG: &str = "mode = \"enforce\"\ninterfaces = [\"edge0\"]\n\
                      [feed]\nfirst_poll_within = \"1h\"\n";
/// A relay whose port systemd opens.
const RELAY: &str = "
    [[listener]]
    systemd_socket = \"https\"
    certificates = [{ chain = \"/etc/exogate/chain.pem\", key = \"/etc/exogate/key.pem\" }]
    [upstream.pega]
    servers = [\"https://127.0.0.1:9\"]
    [route.graph]
    kind = \"graph\"
    path = \"/graph/8Jx2mVq0s7\"
    upstream = \"pega\"
    upstream_path = \"/graph\"
";
const UNIT: &str = "exogate.service";

/// A machine on which the package is installed and enforces.
struct Scene {
    // Dropped first: the lab lasts as long as anybody uses it.
    machine: Machine,
    lab: Lab,
}

impl Scene {
    /// A machine without the package.
    fn booted() -> Self {
        let lab = Lab::new().unwrap();
        let machine = Machine::boot(&lab).unwrap();
        Self { machine, lab }
    }

    /// A machine with the package as it comes.
    fn installed() -> (Self, String) {
        let scene = Self::booted();
        let said = scene.install(&package().unwrap());
        (scene, said)
    }

    fn enforcing() -> Self {
        let (scene, _) = Self::installed();
        scene.configure(CONFIG);
        scene.machine.check(&["systemctl", "restart", UNIT]).unwrap();
        assert!(scene.is_filtered());
        scene
    }

    fn install(&self, package: &Path) -> String {
        fs::copy(package, self.machine.path("/root/exogate.deb")).unwrap();
        self.machine.check(&["dpkg", "--install", "/root/exogate.deb"]).unwrap()
    }

    fn configure(&self, text: &str) {
        fs::write(self.machine.path("/etc/exogate/exogate.toml"), text).unwrap();
    }

    fn is_filtered(&self) -> bool {
        !self.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed()
            && self.lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed()
    }

    fn main_pid(&self) -> u32 {
        self.machine.property(UNIT, "MainPID").unwrap().parse().unwrap()
    }

    fn is_active(&self) -> bool {
        self.machine.property(UNIT, "ActiveState").unwrap() == "active"
    }

    /// The sets of effective and permitted capabilities of each thread, each once.
    fn capabilities(&self) -> Vec<String> {
        let pid = self.main_pid();
        let script = format!("cat /proc/{pid}/task/*/status");
        let status = self.machine.check(&["sh", "-c", &script]).unwrap();
        let is_set = |line: &&str| {
            ["CapEff:", "CapPrm:", "CapAmb:", "CapInh:"].iter().any(|name| line.starts_with(name))
        };
        let mut sets: Vec<_> = status.lines().filter(is_set).map(str::to_owned).collect();
        sets.sort_unstable();
        sets.dedup();
        sets
    }
}

/// What tells one release from another.
#[derive(Debug, PartialEq)]
struct Release {
    /// What the program says of itself.
    version: String,
    /// The versions of the maps that are pinned.
    maps: Vec<String>,
}

impl Release {
    fn installed(scene: &Scene) -> Self {
        let version = scene.machine.check(&["exogate", "--version"]).unwrap();
        let query = ["dpkg-query", "--show", "-f", "exogate ${Version}", "exogate"];
        let package = scene.machine.check(&query).unwrap();
        assert!(package.starts_with(&format!("{}-", version.trim())), "{package} {version}");
        let pins = ["find", "/sys/fs/bpf/exogate", "-name", "abi*", "-printf", "%f\n"];
        let pins = scene.machine.check(&pins).unwrap();
        let maps = pins.lines().filter_map(|name| name.split('-').next());
        Self { version, maps: maps.map(str::to_owned).collect() }
    }
}

#[test]
fn an_installed_service_waits_for_an_interface_and_then_filters_without_capabilities() {
    let scene = Scene::booted();
    let Scene { machine, lab } = &scene;
    let prober = Prober::start(lab, Plan::dense()).unwrap();
    let said = scene.install(&package().unwrap());
    assert!(said.contains("interfaces = [\"eth0\"]"), "{said}");
    assert!(scene.is_active(), "{}", machine.journal());
    assert_eq!(machine.check(&["systemctl", "is-enabled", UNIT]).unwrap(), "enabled\n");
    let status = machine.property(UNIT, "StatusText").unwrap();
    assert_eq!(status, "monitor: no interface is named in the configuration");
    assert!(machine.journal().contains("interfaces = [\"eth0\"]"), "{}", machine.journal());

    scene.configure(CONFIG);
    machine.check(&["systemctl", "restart", UNIT]).unwrap();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    println!("{report}");
    // Never a moment of nothing for anybody who is listed, nor a second one for a stranger.
    report.expect_shut_once(&LISTED).unwrap();
    assert!(scene.is_filtered(), "{}", machine.journal());
    assert_eq!(machine.property(UNIT, "StatusText").unwrap(), "enforce: filter on edge0");
    let none = ["CapAmb:", "CapEff:", "CapInh:", "CapPrm:"].map(|set| format!("{set}\t{:016x}", 0));
    assert_eq!(scene.capabilities(), none);
    let user = machine.check(&["ps", "-o", "user=", "-p", &scene.main_pid().to_string()]).unwrap();
    assert_eq!(user.trim(), "exogate");
    // Its own command line finds it, and publishing works without capabilities.
    machine.check(&["exogate", "allow", "203.0.113.7", "--for", "1m", "--reason", "test"]).unwrap();
    assert!(lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
}

#[test]
fn members_of_the_operators_group_use_the_control_socket_and_others_do_not() {
    let (scene, _) = Scene::installed();
    let Scene { machine, .. } = &scene;
    scene.configure(&format!("{CONFIG}[admin]\ngroup = \"exogate-operator\"\n"));
    machine.check(&["systemctl", "restart", UNIT]).unwrap();
    machine.check(&["useradd", "--groups", "exogate-operator", "alice"]).unwrap();
    machine.check(&["useradd", "bob"]).unwrap();
    let hold = |user: &str| {
        let run = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"];
        machine.run(&[&run[..], &["exogate", "feed", "hold"]].concat()).unwrap()
    };
    assert_eq!(hold("alice").code, 0, "{}", machine.journal());
    assert_eq!(hold("bob").code, 1);
    let audit = machine.check(&["exogate", "audit"]).unwrap();
    assert!(audit.contains("alice done {\"order\":\"hold\"}"), "{audit}");
    assert!(machine.journal().contains("an order on the control socket"));
}

#[test]
fn no_verdict_is_wrong_while_the_service_reloads_restarts_dies_and_stops() {
    let scene = Scene::enforcing();
    let Scene { machine, lab } = &scene;
    let prober = Prober::start(lab, Plan::dense()).unwrap();
    sleep(MOMENT);

    let pid = scene.main_pid();
    machine.check(&["systemctl", "reload", UNIT]).unwrap();
    machine
        .wait_until("the reload is over", || machine.journal().contains("configuration in force"))
        .unwrap();
    scene.configure("mode = \"sometimes\"\n");
    assert_ne!(machine.run(&["systemctl", "reload", UNIT]).unwrap().code, 0);
    // A file that is gone is no configuration with the defaults.
    machine.check(&["mv", "/etc/exogate/exogate.toml", "/etc/exogate/away"]).unwrap();
    assert_ne!(machine.run(&["systemctl", "reload", UNIT]).unwrap().code, 0);
    machine.check(&["systemctl", "kill", "--kill-whom=main", "--signal=HUP", UNIT]).unwrap();
    machine
        .wait_until("the reload is refused", || machine.journal().contains("reload refused"))
        .unwrap();
    scene.configure(CONFIG);
    assert!(scene.is_active());
    assert_eq!(scene.main_pid(), pid);

    machine.check(&["systemctl", "restart", UNIT]).unwrap();
    assert_ne!(scene.main_pid(), pid);
    sleep(MOMENT);

    let pid = scene.main_pid();
    machine.check(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT]).unwrap();
    machine
        .wait_until("systemd starts it again", || scene.is_active() && scene.main_pid() != pid)
        .unwrap();
    sleep(MOMENT);

    machine.check(&["systemctl", "stop", UNIT]).unwrap();
    sleep(MOMENT);
    machine.check(&["systemctl", "start", UNIT]).unwrap();
    sleep(MOMENT);

    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&LISTED).unwrap();
}

#[test]
fn a_service_that_hangs_or_lost_its_filter_is_started_again() {
    let scene = Scene::enforcing();
    let Scene { machine, lab } = &scene;
    fs::create_dir_all(machine.path("/etc/systemd/system/exogate.service.d")).unwrap();
    let quick = "[Service]\nWatchdogSec=3\n";
    fs::write(machine.path("/etc/systemd/system/exogate.service.d/quick.conf"), quick).unwrap();
    machine.check(&["systemctl", "daemon-reload"]).unwrap();
    machine.check(&["systemctl", "restart", UNIT]).unwrap();

    let pid = scene.main_pid();
    // Fed: it lives for longer than the watchdog waits.
    sleep(Duration::from_secs(5));
    assert_eq!(scene.main_pid(), pid, "{}", machine.journal());
    let prober = Prober::start(lab, Plan::dense()).unwrap();
    sleep(MOMENT);
    machine.check(&["systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNIT]).unwrap();
    let again = |before: u32| scene.is_active() && ![0, before].contains(&scene.main_pid());
    machine.wait_until("a hung agent is started again", || again(pid)).unwrap();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&LISTED).unwrap();

    let pid = scene.main_pid();
    machine.check(&["sh", "-c", "rm -r /sys/fs/bpf/exogate/*"]).unwrap();
    machine.wait_until("an agent without its filter is started again", || again(pid)).unwrap();
    assert!(scene.is_filtered());
}

#[test]
fn an_interface_that_is_late_holds_nothing_up_and_one_that_comes_back_is_filtered() {
    let (scene, _) = Scene::installed();
    let Scene { machine, lab } = &scene;
    lab.remove_edge_interface().unwrap();
    scene.configure(CONFIG);
    machine.check(&["systemctl", "restart", UNIT]).unwrap();
    let status = machine.property(UNIT, "StatusText").unwrap();
    assert!(status.ends_with("waiting for interface edge0"), "{status}");
    lab.add_edge_interface().unwrap();
    let filtered = || machine.property(UNIT, "StatusText").unwrap() == "enforce: filter on edge0";
    machine.wait_until("it is filtered", filtered).unwrap();
    assert!(scene.is_filtered());

    // The right to attach is given up by now: the service manager starts the agent anew.
    let pid = scene.main_pid();
    lab.remove_edge_interface().unwrap();
    lab.add_edge_interface().unwrap();
    machine
        .wait_until("it is started again", || {
            scene.is_active() && ![0, pid].contains(&scene.main_pid()) && filtered()
        })
        .unwrap();
    assert!(scene.is_filtered());
}

#[test]
fn the_relays_port_comes_from_systemd_and_outlives_the_agent() {
    let (scene, _) = Scene::installed();
    let Scene { machine, lab } = &scene;
    let (chain, key) = lab.authority().issue_pem(&[EDGE_NAME], Validity::Now).unwrap();
    fs::write(machine.path("/etc/exogate/chain.pem"), chain).unwrap();
    fs::write(machine.path("/etc/exogate/key.pem"), key).unwrap();
    machine.check(&["chown", "root:exogate", "/etc/exogate/key.pem"]).unwrap();
    machine.check(&["chmod", "0640", "/etc/exogate/key.pem"]).unwrap();
    scene.configure(&format!("{CONFIG}{RELAY}"));
    machine.check(&["systemctl", "stop", UNIT]).unwrap();
    machine.check(&["systemctl", "enable", "exogate.socket"]).unwrap();
    machine.check(&["systemctl", "start", "exogate.socket", UNIT]).unwrap();
    let status = |what: &str| {
        let reached = lab.https(Peer::Exchange, Family::V4, "/nowhere").unwrap();
        reached.answer().unwrap_or_else(|| panic!("{what}\n{}", machine.journal())).status
    };
    assert_eq!(status("no answer"), 404);
    machine.check(&["systemctl", "stop", UNIT]).unwrap();
    // Who connects now waits, and starts it.
    assert_eq!(ask_patiently(lab, Family::V4).unwrap(), Reached::Answered(404));
    assert!(scene.is_active());

    // Nobody who comes while it restarts is turned away, or loses a request.
    let stop = AtomicBool::new(false);
    scope(|threads| {
        let senders = [Family::V4, Family::V6, Family::V4, Family::V6].map(|family| {
            let stop = &stop;
            threads.spawn(move || {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    let reached = ask_patiently(lab, family).unwrap();
                    assert_eq!(reached, Reached::Answered(404), "after {answered} answers");
                    answered += 1;
                }
                answered
            })
        });
        let restarts = (0..3).try_for_each(|_| {
            machine.check(&["systemctl", "restart", UNIT])?;
            sleep(MOMENT);
            anyhow::Ok(())
        });
        // Also if one failed, because the senders are waited for.
        stop.store(true, Ordering::Relaxed);
        restarts.unwrap();
        let answered: Vec<u32> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        println!("answers of each sender: {answered:?}");
        assert!(answered.iter().all(|count| *count > 3), "{answered:?}");
    });
}

/// The status of an answer of the relay, which may come as late as an agent that starts.
fn ask_patiently(lab: &Lab, family: Family) -> Result<Reached<u16>> {
    let get = Get {
        source: Some(Peer::Exchange.address(family)),
        target: SocketAddr::new(edge(family), HTTPS),
        tls: Some((lab.authority().client()?, ServerName::try_from(EDGE_NAME)?)),
        path: "/nowhere".to_owned(),
        patience: ANSWER,
    };
    Ok(match lab.peer(Peer::Exchange).run_async(ANSWER, || get.send())? {
        Reached::Answered(answer) => Reached::Answered(answer.status),
        Reached::Refused => Reached::Refused,
        Reached::TimedOut => Reached::TimedOut,
    })
}

#[test]
fn the_filter_stands_before_the_network_when_the_machine_boots() {
    let mut scene = Scene::enforcing();
    let Scene { machine, lab } = &mut scene;
    // The machine boots into a target of its own; others want the service by being enabled.
    machine.check(&["systemctl", "add-wants", "machine.target", UNIT]).unwrap();
    machine.reboot().unwrap();
    let since_boot = |unit: &str| -> u64 {
        machine.property(unit, "ActiveEnterTimestampMonotonic").unwrap().parse().unwrap()
    };
    let booted = || machine.property("network-pre.target", "ActiveState").unwrap() == "active";
    machine.wait_until("the network may be configured", booted).unwrap();
    let (service, network) = (since_boot(UNIT), since_boot("network-pre.target"));
    assert!(0 < service && service <= network, "{service} {network}\n{}", machine.journal());
    assert!(!lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    assert!(lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed());
}

#[test]
fn upgrade_and_downgrade_keep_the_filter_removal_takes_it_away_and_a_purge_leaves_nothing() {
    let scene = Scene::enforcing();
    let Scene { machine, lab } = &scene;
    let before = Release::installed(&scene);
    let allow = ["exogate", "allow", "203.0.113.200", "--for", "1h", "--reason", "an upgrade"];
    machine.check(&allow).unwrap();
    // Up by a version, and down again.
    for package in [newer_package().unwrap(), package().unwrap()] {
        let prober = Prober::start(lab, Plan::dense()).unwrap();
        sleep(MOMENT);
        let (pid, release) = (scene.main_pid(), Release::installed(&scene));
        scene.install(&package);
        sleep(MOMENT);
        let report = prober.stop().unwrap();
        println!("{report}");
        report.expect_only(&LISTED).unwrap();
        assert_ne!(scene.main_pid(), pid);
        // Another program, which could not use the maps that it found.
        let after = Release::installed(&scene);
        println!("{release:?}, then {after:?}");
        assert!(after.version != release.version && after.maps != release.maps);
        let entries = machine.check(&["exogate", "allow", "list"]).unwrap();
        assert!(entries.contains("203.0.113.200"), "{entries}");
    }
    assert_eq!(Release::installed(&scene), before);
    let config = fs::read_to_string(machine.path("/etc/exogate/exogate.toml")).unwrap();
    assert_eq!(config, CONFIG, "an upgrade changed the configuration");

    machine.check(&["dpkg", "--remove", "exogate"]).unwrap();
    assert!(lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    assert!(machine.path("/etc/exogate/exogate.toml").exists());
    let shown = lab.edge().command("ip").args(["link", "show", EDGE_INTERFACE]).output().unwrap();
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("xdp"));

    machine.check(&["dpkg", "--purge", "exogate"]).unwrap();
    let left = "find /etc /usr /var /run /sys/fs/bpf -xdev -name '*exogate*'; \
                grep exogate /etc/passwd /etc/group /etc/shadow; true";
    assert_eq!(machine.check(&["sh", "-c", left]).unwrap(), "");
}

#[test]
fn an_rpm_keeps_the_filter_when_it_is_upgraded_and_takes_it_away_when_it_is_erased() {
    let scene = Scene::booted();
    let Scene { machine, lab } = &scene;
    fs::copy(rpm_package().unwrap(), machine.path("/root/exogate.rpm")).unwrap();
    fs::copy(newer_rpm_package().unwrap(), machine.path("/root/newer.rpm")).unwrap();
    // Its dependencies are told by names of another distribution.
    let rpm = |arguments: &[&str]| {
        machine.check(&[&["rpm", "--force-debian", "--nodeps"], arguments].concat()).unwrap()
    };
    let said = rpm(&["--install", "/root/exogate.rpm"]);
    assert!(said.contains("interfaces = [\"eth0\"]"), "{said}");
    assert!(!scene.is_active());
    scene.configure(CONFIG);
    machine.check(&["systemctl", "enable", "--now", UNIT]).unwrap();
    assert!(scene.is_filtered(), "{}", machine.journal());

    let prober = Prober::start(lab, Plan::dense()).unwrap();
    sleep(MOMENT);
    let pid = scene.main_pid();
    rpm(&["--upgrade", "/root/newer.rpm"]);
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&LISTED).unwrap();
    assert_ne!(scene.main_pid(), pid);
    let config = fs::read_to_string(machine.path("/etc/exogate/exogate.toml")).unwrap();
    assert_eq!(config, CONFIG, "an upgrade changed the configuration");

    rpm(&["--erase", "exogate"]);
    assert!(lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    assert!(!machine.path("/usr/bin/exogate").exists());
}

#[test]
fn the_unit_is_right_and_shut_tight() {
    let (scene, _) = Scene::installed();
    let unit = "/usr/lib/systemd/system/exogate.service";
    for unit in [unit, "/usr/lib/systemd/system/exogate.socket"] {
        let verified = scene.machine.run(&["systemd-analyze", "verify", unit]).unwrap();
        assert_eq!((verified.code, verified.stdout + &verified.stderr), (0, String::new()));
    }
    // In tenths: at most 1.8.
    let arguments = ["systemd-analyze", "security", "--offline=true", "--threshold=18", unit];
    let judged = scene.machine.run(&arguments).unwrap();
    assert_eq!(judged.code, 0, "{}", judged.stdout);
    println!("{}", judged.stdout.lines().last().unwrap_or_default());
}
