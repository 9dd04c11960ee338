//! What a scanner that knows nothing of the relay says of its TLS.

use std::{fs, time::Duration};

use exogate_tests::{
    lab::{Family, Peer, edge},
    notification::RELAY_NAME,
    process,
};

use super::Setting;

/// The longest that it may take. It asks a few hundred times, each time by a process; a long
/// trial asks some thousand times.
fn patience() -> Duration {
    Duration::from_secs(if is_soak() { 3600 } else { 600 })
}

/// A long trial looks at all that it knows: each cipher, each curve, each fault with a name,
/// what the answers say, and which clients there are in the world could connect.
fn is_soak() -> bool {
    std::env::var_os("EXOGATE_SOAK").is_some()
}

/// What it looks at otherwise: versions, the certificate and what the handshake says, and those
/// faults with a name that it finds with few connections. Each takes a process or two, and
/// a busy machine a second for each; lists of ciphers take minutes.
const CHECKS: &[&str] = &[
    "--protocols",
    "--server-defaults",
    "--heartbleed",
    "--robot",
    "--renegotiation",
    "--crime",
    "--poodle",
    "--drown",
    "--logjam",
];

/// What it looks at in a long trial.
const ALL: &[&str] = &[
    "--protocols",
    "--std",
    "--fs",
    "--server-preference",
    "--server-defaults",
    "--headers",
    "--vulnerable",
    "--each-cipher",
    "--client-simulation",
];

/// Findings that are about the certificates of the lab and not about the relay, or that are
/// no faults here.
const EXEMPT: &[(&str, &str)] = &[
    ("cert_chain_of_trust", "the authority of the lab is nobody's"),
    ("cert_revocation", "it has no list of revoked certificates, and no service for that"),
    ("cert_validityPeriod", "its certificates last for decades"),
    ("cert_extlifeSpan", "its certificates last for decades"),
    ("cipher_order", "all that is offered is strong, so the client may choose what it is fast at"),
];

#[test]
fn testssl_finds_no_fault() {
    let setting = Setting::started();
    let found = setting.lab.directory().join("testssl.json");
    // It asks for names that do not exist, and nobody in the lab answers: it shall not wait
    // for that.
    let names = setting.secret("nsswitch.conf", "hosts: files\n");
    let mount = format!("mount --bind {names} /etc/nsswitch.conf && exec testssl \"$@\"");
    let mut command = setting.lab.peer(Peer::Graph).command("unshare");
    command
        .args(["--mount", "sh", "-c", &mount, "testssl"])
        .args(["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none"])
        .args(["--connect-timeout", "5", "--openssl-timeout", "5"])
        .args(if is_soak() { ALL } else { CHECKS })
        .arg("--jsonfile")
        .arg(&found)
        .arg("--ip")
        .arg(edge(Family::V4).to_string())
        .arg(format!("{RELAY_NAME}:443"));
    let output = process::run(&mut command, patience()).unwrap();
    let found = fs::read_to_string(found).unwrap_or_default();
    let findings: serde_json::Value = serde_json::from_str(&found)
        .unwrap_or_else(|error| panic!("{error}: {found}\n{}{}", output.stdout, output.stderr));
    let findings = findings.as_array().unwrap();
    let text =
        |finding: &serde_json::Value, name| finding[name].as_str().unwrap_or_default().to_owned();
    let said = |id: &str| {
        findings.iter().find(|finding| finding["id"] == id).map(|finding| text(finding, "finding"))
    };
    // It has seen what is there, or its silence would mean nothing.
    for (id, expected) in [
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered with final"),
        ("heartbleed", "not vulnerable"),
        ("ROBOT", "not vulnerable"),
    ] {
        let said = said(id).unwrap_or_else(|| panic!("nothing about {id}: {}", output.stdout));
        assert!(said.starts_with(expected), "{id}: {said}");
    }
    let is_grave = |finding: &&serde_json::Value| {
        let severity = text(finding, "severity");
        let is_exempt = EXEMPT.iter().any(|(id, _)| text(finding, "id").starts_with(id));
        ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&severity.as_str()) && !is_exempt
    };
    let grave: Vec<_> = findings.iter().filter(is_grave).collect();
    assert!(grave.is_empty(), "{grave:#?}");
}
