//! A new user's path, word for word from the README: from the package to a filter that is
//! enforced, to a newer version and back to the older one, and back to nothing.
//!
//! Commands and configuration are taken from the README's blocks, in the order in which they
//! stand there; what has to be true after each is told here. Needs root, systemd-nspawn, and
//! the package of `cargo xtask package --development`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::{fs, path::Path};

use exogate_tests::{
    lab::{EDGE_INTERFACE, Family, Lab, Peer},
    machine::{Machine, newer_package, package},
    peer::HTTPS,
};

const README: &str = include_str!("../../README.md");
/// Where the user stands.
const HOME: &str = "/root";
/// The user's configuration.
const CONFIG: &str = "/etc/exogate/exogate.toml";

/// A step of the path.
#[derive(Debug, PartialEq)]
enum Step {
    /// Lines of the configuration.
    Configure(String),
    /// A command, and what the README says of it.
    Run { command: String, remark: String },
}

/// The steps between the heading `## {section}` and the next one.
fn steps(section: &str) -> Vec<Step> {
    let (_, text) = README.split_once(&format!("\n## {section}\n")).unwrap();
    let (text, _) = text.split_once("\n## ").unwrap();
    let mut steps = Vec::new();
    let mut language = None;
    for line in text.lines().map(str::trim) {
        match (language, line.strip_prefix("```")) {
            (None, Some(begins)) => {
                language = Some(begins);
                if begins == "toml" {
                    steps.push(Step::Configure(String::new()));
                }
            }
            (Some(_), Some(_)) => language = None,
            (Some("toml"), None) => {
                let Some(Step::Configure(lines)) = steps.last_mut() else { unreachable!() };
                lines.push_str(&format!("{line}\n"));
            }
            (Some("console"), None) => {
                let command = line.strip_prefix("# ").or(line.strip_prefix("$ ")).unwrap();
                let (command, remark) = command.split_once("  #").unwrap_or((command, ""));
                let (command, remark) = (command.trim().to_owned(), remark.trim().to_owned());
                steps.push(Step::Run { command, remark });
            }
            _ => {}
        }
    }
    steps
}

/// The user, on a machine that never had exogate.
struct User {
    // Dropped first: the lab lasts as long as anybody uses it.
    machine: Machine,
    lab: Lab,
}

impl User {
    /// Before the first step: `cargo xtask package` has left its package, and the machine's
    /// interface has the name that the README has.
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        lab.edge()
            .ip(&format!(
                "link set {EDGE_INTERFACE} down\nlink set {EDGE_INTERFACE} name eth0\n\
                 link set eth0 up\nroute add default via 198.51.100.1\n"
            ))
            .unwrap();
        let machine = Machine::boot(&lab).unwrap();
        let user = Self { machine, lab };
        let package = package().unwrap();
        user.put(&package, "target/package/release/exogate_1.deb");
        user.put(&package, "older/exogate_1.deb");
        user.put(&newer_package().unwrap(), "exogate_2.deb");
        user
    }

    fn put(&self, file: &Path, place: &str) {
        let place = self.machine.path(&format!("{HOME}/{place}"));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(file, place).unwrap();
    }

    /// Follows a step, and returns what was printed.
    fn follow(&self, step: &Step) -> String {
        println!("{step:?}");
        match step {
            Step::Configure(lines) => {
                self.configure(lines);
                String::new()
            }
            // Who is asked says yes.
            Step::Run { command, .. } => {
                let script = format!("cd {HOME} && yes | {command}");
                self.machine.check(&["sh", "-c", &script]).unwrap()
            }
        }
    }

    /// Gives keys of the packaged file other values.
    fn configure(&self, lines: &str) {
        let path = self.machine.path(CONFIG);
        let mut text = fs::read_to_string(&path).unwrap();
        for line in lines.lines() {
            let (key, _) = line.split_once('=').unwrap();
            let is_it = |old: &&str| old.starts_with(key);
            let old = text.lines().find(is_it).unwrap().to_owned();
            text = text.replacen(&format!("\n{old}\n"), &format!("\n{line}\n"), 1);
            assert!(text.contains(line));
        }
        fs::write(&path, text).unwrap();
    }

    fn passes(&self, peer: Peer) -> bool {
        self.lab.connect(peer, Family::V4, HTTPS).unwrap().passed()
    }

    fn expect_filter(&self, stands: bool) {
        assert!(self.passes(Peer::Exchange), "{}", self.machine.journal());
        assert_eq!(self.passes(Peer::Stranger), !stands, "{}", self.machine.journal());
    }

    fn version(&self) -> String {
        self.machine.check(&["dpkg-query", "--show", "-f", "${Version}", "exogate"]).unwrap()
    }
}

#[test]
fn the_readmes_commands_lead_to_a_filter_and_back_to_nothing() {
    let install = steps("Install");
    let [build, installation, upgrade, downgrade, removal, purge] = install.as_slice() else {
        unreachable!("Install has other steps: {install:?}")
    };
    let first_run = steps("First run on a host");
    let [name, restart, status, look, check, enforce, confirm, keep, reload] = first_run.as_slice()
    else {
        unreachable!("the first run has other steps: {first_run:?}")
    };
    let user = User::new();

    // What it leaves is there.
    assert!(matches!(build, Step::Run { command, .. } if command == "cargo xtask package"));
    user.follow(installation);
    user.expect_filter(false);

    user.follow(name);
    user.follow(restart);
    let Step::Run { remark, .. } = status else { unreachable!() };
    assert!(remark.starts_with("Status: "), "{remark}");
    let shown = user.follow(status);
    assert!(shown.contains(remark), "{shown}");
    user.expect_filter(false);

    let shown = user.follow(look);
    assert!(shown.contains("would_drop"), "{shown}");
    let shown = user.follow(check);
    assert!(shown.contains("pass"), "{shown}");

    user.follow(enforce);
    user.expect_filter(true);
    user.follow(confirm);
    user.expect_filter(true);
    user.follow(keep);
    user.follow(reload);
    user.expect_filter(true);
    user.follow(restart);
    user.expect_filter(true);

    let older = user.version();
    user.follow(upgrade);
    assert_ne!(user.version(), older);
    user.expect_filter(true);
    user.follow(downgrade);
    assert_eq!(user.version(), older);
    user.expect_filter(true);

    user.follow(removal);
    user.expect_filter(false);
    assert!(user.machine.path(CONFIG).exists());
    user.follow(purge);
    let left = "find /etc /usr /var /run /sys/fs/bpf -xdev -name '*exogate*'; \
                grep exogate /etc/passwd /etc/group /etc/shadow; true";
    assert_eq!(user.machine.check(&["sh", "-c", left]).unwrap(), "");
}
