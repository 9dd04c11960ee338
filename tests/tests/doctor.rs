//! `exogate doctor` on hosts that are well, and on hosts that are not. Needs root and the
//! agent's binary.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first thing that goes wrong"
)]
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{EDGE_INTERFACE, Lab},
    pega::Pega,
    process::{agent_binary, run},
    proxy::Proxy,
    service::EndpointService,
};
use serde_json::Value;

/// Sends frames of an EtherType to the edge host, until its time is over.
const SEND_FRAMES: &str = "
import socket, sys, time
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((sys.argv[1], 0))
end = time.monotonic() + 20
while time.monotonic() < end:
    sender.send(b'\\xff' * 6 + b'\\x02' * 6 + int(sys.argv[2], 16).to_bytes(2, 'big') + b'\\x11' * 50)
    time.sleep(0.02)
";

/// What the doctor said.
struct Said {
    code: i32,
    report: Value,
}

impl Said {
    fn of(agent: &Agent) -> Self {
        Self::listening(agent, "0s")
    }

    fn listening(agent: &Agent, time: &str) -> Self {
        let output = agent.cli(&["doctor", "--json", "--listen", time]).unwrap();
        let report = serde_json::from_str(&output.stdout);
        Self { code: output.code, report: report.unwrap_or_else(|_| panic!("{output:?}")) }
    }

    /// The findings of a check, as levels and messages.
    fn about(&self, check: &str) -> Vec<(&str, &str)> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        findings
            .filter(|finding| finding["check"] == check)
            .map(|finding| {
                let level = finding["level"].as_str().unwrap();
                assert_eq!(finding["next_step"].is_null(), level == "ok", "{finding}");
                (level, finding["message"].as_str().unwrap())
            })
            .collect()
    }

    /// Whether a check has this level, and says this.
    #[track_caller]
    fn assert(&self, check: &str, level: &str, part: &str) {
        let about = self.about(check);
        let found = about.iter().any(|(has, says)| *has == level && says.contains(part));
        assert!(found, "no {level} of {check} with {part:?}:\n{:#}", self.report);
    }
}

#[test]
fn a_host_that_is_well_has_nothing_but_ok() {
    let lab = Lab::new().unwrap();
    let _service = EndpointService::start(&lab).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    agent.wait_for_version("Worldwide", "2026052900", Duration::from_secs(10)).unwrap();
    let said = Said::of(&agent);
    assert_eq!((said.code, &said.report["worst"]), (0, &Value::from("ok")), "{:#}", said.report);
    said.assert("agent", "ok", "enforce");
    said.assert("interface", "ok", "driver veth");
    said.assert("interface", "ok", "filtered in native mode");
    said.assert("pins", "ok", "1 interfaces");
    said.assert("feed", "ok", "the latest version is 2026052900");
    said.assert("clock", "ok", "the web service's");
    for check in ["configuration", "kernel", "btf", "capabilities", "bpffs", "forwarding"] {
        assert_eq!(said.about(check).len(), 1, "{check}: {:#}", said.report);
    }
    let text = agent.print(&["doctor", "--listen", "0s"]).unwrap();
    assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
}

#[test]
fn without_an_agent_the_host_alone_is_looked_at() {
    let lab = Lab::new().unwrap();
    let _service = EndpointService::start(&lab).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    let said = Said::of(&agent);
    assert_eq!(said.code, 2, "{:#}", said.report);
    said.assert("agent", "warning", "no filter is pinned");
    said.assert("interface", "warning", "not filtered");
    said.assert("pins", "ok", "nothing is pinned");

    agent.start().unwrap();
    agent.kill9().unwrap();
    let said = Said::of(&agent);
    assert_eq!(said.code, 2, "{:#}", said.report);
    said.assert("agent", "warning", "still in force");
    said.assert("interface", "ok", "filtered in native mode");

    let pins = lab.pin_directory().join("exogate");
    let interface = fs::read_dir(&pins).unwrap().next().unwrap().unwrap().path();
    fs::create_dir(interface.join("abi0-7")).unwrap();
    Said::of(&agent).assert("pins", "warning", "abi0-7");
}

#[test]
fn a_program_of_somebody_else_is_told_and_left_alone() {
    let lab = Lab::new().unwrap();
    let mut somebody = Agent::second(&lab).unwrap();
    somebody
        .set("gate.pin_directory", lab.pin_directory().join("other").to_str().unwrap())
        .unwrap();
    somebody.start().unwrap();
    let agent = Agent::new(&lab).unwrap();
    let said = Said::of(&agent);
    assert_eq!(said.code, 1, "{:#}", said.report);
    said.assert("interface", "failure", "(exogate_frags) is not exogate's");
}

#[test]
fn what_keeps_the_agent_from_filtering_is_a_failure() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.set("interfaces", vec![EDGE_INTERFACE, "eth7"]).unwrap();
    agent.set("gate.pin_directory", lab.directory().join("pins").to_str().unwrap()).unwrap();
    lab.edge().sysctl(&[("ipv4/ip_forward", "1")]).unwrap();
    let said = Said::of(&agent);
    assert_eq!(said.code, 1, "{:#}", said.report);
    said.assert("bpffs", "failure", "not on a BPF file system");
    said.assert("interface", "warning", "there is no interface \"eth7\"");
    said.assert("forwarding", "failure", "transit traffic");

    agent.set("mode", "blocking").unwrap();
    let said = Said::of(&agent);
    said.assert("configuration", "failure", "mode");
    assert!(!said.about("kernel").is_empty() && said.about("feed").is_empty());
}

#[test]
fn a_filter_that_somebody_removed_is_a_failure() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    let pins = lab.pin_directory().join("exogate");
    let interface = fs::read_dir(&pins).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(interface.join("link")).unwrap();
    let said = Said::of(&agent);
    assert_eq!(said.code, 1, "{:#}", said.report);
    said.assert("interface", "failure", "removed by somebody else");
}

#[test]
fn feeds_are_asked_through_the_configured_proxy() {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let proxy = Proxy::start(&lab).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.set("feed.proxy", Proxy::url()).unwrap();
    Said::of(&agent).assert("feed", "ok", "through the proxy");
    assert!(!proxy.tunnels().is_empty());
    let state = agent.state_directory();
    assert!(!state.exists(), "the state directory is the agent's to make");

    proxy.refuse(true);
    let said = Said::of(&agent);
    assert_eq!(said.code, 1, "{:#}", said.report);
    said.assert("feed", "failure", "proxy authorization required");
    said.assert("clock", "warning", "cannot be compared");
    drop(service);
}

#[test]
fn certificates_that_nobody_can_use_or_renew_are_told() {
    let lab = Lab::new().unwrap();
    let pega = Pega::start(&lab, 8080).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.add_relay(&[&pega]).unwrap();
    let said = Said::of(&agent);
    said.assert("certificate", "ok", "expires in");
    said.assert("acme", "ok", "the gate blocks the ACME challenges TLS-ALPN-01 (port 443)");
    said.assert("spool", "ok", "MiB free");

    agent.expire_certificate().unwrap();
    let key = agent.config_file().with_file_name("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let said = Said::of(&agent);
    assert_eq!(said.code, 1, "{:#}", said.report);
    said.assert("certificate", "failure", "has expired");
    said.assert("certificate", "warning", "key.pem may be read by everybody");
    fs::write(&key, "nonsense").unwrap();
    Said::of(&agent).assert("certificate", "failure", "key.pem");
}

#[test]
fn frames_that_the_gate_cannot_see_into_are_told() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    Said::listening(&agent, "0s").assert("frames", "ok", "no PPPoE or MPLS frame");
    for (ether_type, name) in [("8864", "PPPoE"), ("8847", "MPLS")] {
        let mut command = lab.wan().command("python3");
        let mut sender = command.args(["-c", SEND_FRAMES, "edge", ether_type]).spawn().unwrap();
        let mut said = Said::listening(&agent, "1s");
        // Python may have been slow to start.
        for _ in 0..10 {
            if said.about("frames").iter().any(|(level, _)| *level == "failure") {
                break;
            }
            said = Said::listening(&agent, "1s");
        }
        sender.kill().unwrap();
        sender.wait().unwrap();
        said.assert("frames", "failure", &format!("{name} frames"));
    }
}

#[test]
fn whoever_may_see_little_is_told_to_become_root() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    let binary = agent_binary().unwrap();
    let config = lab.directory().join("readable.toml");
    fs::copy(agent.config_file(), &config).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let copy = lab.directory().join("exogate");
    fs::copy(binary, &copy).unwrap();
    let mut command = lab.edge().command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.arg(&copy).args(["doctor", "--listen", "0s", "--config"]).arg(&config);
    let said = run(&mut command, Duration::from_secs(60)).unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("next: run this command as root"), "{said:?}");
}
