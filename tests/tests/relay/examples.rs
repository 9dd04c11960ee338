//! The example configurations, as they are shipped, and started.
//!
//! Only what belongs to a host is changed: names of interfaces, and where files are.

use std::{fs, path::Path, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{EDGE_INTERFACE, Family, Lab, Peer},
    peer::HTTPS,
    process::{self, Output},
    python,
    service::EndpointService,
    tls::Validity,
};
use toml::{Table, Value};

/// The files, with the routes that each has and whether it needs the endpoint service.
const EXAMPLES: [(&str, &[&str]); 6] = [
    ("pega-on-premises", &["ews", "graph"]),
    ("pega-behind-a-tunnel", &["exchange"]),
    ("dmz-proxy", &["exchange"]),
    ("load-balancer", &["ews"]),
    ("exchange-in-the-dmz", &[]),
    ("exchange-to-pega-cloud", &["ews"]),
];

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

/// An agent with an example, in a lab.
fn agent(lab: &Lab, name: &str, interfaces: &[&str]) -> Agent {
    let text = fs::read_to_string(directory().join(format!("{name}.toml"))).unwrap();
    let example: Table = text.parse().unwrap();
    let mut agent = Agent::new(lab).unwrap();
    for (key, mut value) in example {
        move_files(lab, &mut value);
        agent.settings().insert(key, value);
    }
    agent.set("mode", "enforce").unwrap();
    agent.set("interfaces", interfaces.to_vec()).unwrap();
    agent
}

/// Puts the files that an example names into the lab's directory.
fn move_files(lab: &Lab, value: &mut Value) {
    match value {
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| move_files(lab, value)),
        Value::Array(array) => array.iter_mut().for_each(|value| move_files(lab, value)),
        Value::String(text) => {
            let Some(rest) = text.strip_prefix("/etc/exogate/") else { return };
            let path = lab.directory().join(rest);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let names = ["mail.example.com"];
            let (chain, key) = lab.authority().issue_pem(&names, Validity::Now).unwrap();
            match rest {
                "tls/chain.pem" | "tls/key.pem" => {
                    fs::write(path.with_file_name("chain.pem"), chain).unwrap();
                    fs::write(path.with_file_name("key.pem"), key).unwrap();
                }
                "tls/ca.pem" => drop(fs::copy(lab.ca_file(), &path).unwrap()),
                _ => fs::write(&path, "198.51.100.20\n").unwrap(),
            }
            *text = path.to_str().unwrap().to_owned();
        }
        _ => {}
    }
}

#[test]
fn every_example_starts_and_says_what_it_relays() {
    let mut files: Vec<_> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    let mut known = EXAMPLES.map(|(name, _)| name.to_owned());
    known.sort();
    assert_eq!(files, known, "each example is started here");
    for (name, routes) in EXAMPLES {
        let lab = Lab::new().unwrap();
        let _service = EndpointService::start(&lab).unwrap();
        let mut agent = agent(&lab, name, &[EDGE_INTERFACE]);
        let Output { code, stderr, .. } = agent.cli(&["config", "check"]).unwrap();
        assert_eq!(code, 0, "{name}: {stderr}");
        agent.start().unwrap();
        let status = agent.status_json().unwrap();
        let relayed: Vec<_> = status["relay"]["routes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|route| route["name"].as_str().unwrap())
            .collect();
        assert_eq!(relayed, routes, "{name}: {status}");
        let stranger = lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap();
        assert!(!stranger.passed(), "{name}");
    }
}

#[test]
fn what_leaves_a_tunnel_is_guarded() {
    let lab = Lab::new().unwrap();
    let _service = EndpointService::start(&lab).unwrap();
    let ip = |arguments: &str| {
        let mut command = lab.edge().command("ip");
        process::check(command.args(arguments.split(' ')), "").unwrap();
    };
    ip("tuntap add dev tun0 mode tun");
    ip("address add 10.20.0.1/8 dev tun0");
    ip("link set tun0 up");
    let mut agent = agent(&lab, "pega-behind-a-tunnel", &[EDGE_INTERFACE, "tun0"]);
    agent.start().unwrap();
    let knock = || -> serde_json::Value {
        let mut command = python::command(lab.edge(), "tunnel.py").unwrap();
        command.args(["tun0", "10.20.0.1", "443", "10.20.7.7", "10.99.7.7"]);
        let output = process::run(&mut command, Duration::from_secs(30)).unwrap();
        assert_eq!(output.code, 0, "{}", output.stderr);
        serde_json::from_str(&output.stdout).unwrap()
    };
    let dropped = |action| {
        let labels = [("interface", "tun0"), ("action", action)];
        agent.metrics().unwrap().sum("exogate_gate_packets_total", &labels).unwrap_or(0.0)
    };
    let guarded = serde_json::json!({ "10.20.7.7": "accepted", "10.99.7.7": "nothing" });
    assert_eq!(knock(), guarded, "{}", agent.log());
    assert!(dropped("drop") > 0.0);
}
