//! What `exogate doctor` says of each kernel.

#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use exogate_tests::process::{agent_binary, check, run};
use serde_json::Value;

use super::{
    PATIENCE, beside_a_veth_pair,
    capabilities::{USER, configuration},
    release, version,
};

/// What a kernel before these cannot do, in the doctor's words.
const LIMITS: [((u32, u32), &str); 3] =
    [((5, 11), "locked memory"), ((5, 18), "jumbo frames"), ((5, 19), "CAP_BPF")];

#[test]
fn the_doctor_knows_what_this_kernel_cannot_do() {
    beside_a_veth_pair(async |pins| {
        let mut doctor = Command::new(agent_binary().unwrap());
        let (level, message) = examine(&mut doctor, pins, "kernel");
        println!("{level}: {message}");
        assert!(message.starts_with(&format!("Linux {}", release())), "{message}");
        let is_limited = LIMITS.map(|(from, limit)| {
            let is_limited = version() < from;
            assert_eq!(message.contains(limit), is_limited, "{message}");
            is_limited
        });
        let expected = if is_limited.contains(&true) { "warning" } else { "ok" };
        assert_eq!(level, expected, "{message}");
    });
}

#[test]
fn the_doctor_knows_who_may_attach_on_this_kernel() {
    beside_a_veth_pair(async |pins| {
        for (rights, expected) in [
            ("-all", "failure"),
            ("-all,+net_admin,+bpf", "failure"),
            ("-all,+net_admin,+perfmon,+bpf", "ok"),
        ] {
            let (level, message) = examine(&mut as_somebody(rights), pins, "capabilities");
            assert_eq!(level, expected, "{rights}: {message}");
        }
        let mut as_root = Command::new(agent_binary().unwrap());
        let (level, message) = examine(&mut as_root, pins, "capabilities");
        assert_eq!(level, "ok", "root: {message}");
    });
}

/// The agent's binary, run by a user who has these capabilities.
fn as_somebody(rights: &str) -> Command {
    let mut command = Command::new("/bin/setpriv");
    let user = USER.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"]);
    command.args(["--bounding-set", rights, "--inh-caps", rights, "--ambient-caps", rights]);
    command.arg(agent_binary().unwrap());
    command
}

/// The only finding of a check: its level and message.
fn examine(doctor: &mut Command, pins: &Path, what: &str) -> (String, String) {
    check(Command::new("ip").args(["link", "set", "lo", "up"]), "").unwrap();
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config = state.path().join("exogate.toml");
    fs::write(&config, configuration("keep", pins, state.path())).unwrap();
    let doctor = doctor.args(["doctor", "--json", "--listen", "0s", "--config"]).arg(&config);
    let output = run(doctor, PATIENCE).unwrap();
    let report = serde_json::from_str(&output.stdout);
    let report: Value = report.unwrap_or_else(|_| panic!("{output:?}"));
    let findings = report["findings"].as_array().unwrap();
    let about: Vec<_> = findings.iter().filter(|finding| finding["check"] == what).collect();
    assert_eq!(about.len(), 1, "{report:#}");
    let text = |key: &str| about[0][key].as_str().unwrap().to_owned();
    (text("level"), text("message"))
}
