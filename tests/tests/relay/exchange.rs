//! exchangelib, requests and curl speak to a stand-in Exchange through the proxy.

use std::{fs, time::Duration};

use exogate_tests::{
    lab::{Family, Peer, edge},
    notification::RELAY_NAME,
    process, python,
};
use serde_json::Value;

use super::{
    Setting,
    identities::{add_proxy, report},
};

/// How long all of it may take.
const ALL: Duration = Duration::from_secs(300);
/// What a body of 64 MiB may add to the agent's memory: a few buffers. In KiB.
const FLAT: u64 = 16 << 10;

fn started(users: &str) -> (Setting, python::Server, String) {
    let mut setting = Setting::new();
    let mut server = python::Server::start(setting.lab.edge(), "ntlm_server.py", &[users]).unwrap();
    let port = server.line().unwrap();
    add_proxy(&mut setting.agent, &[format!("http://127.0.0.1:{port}")]);
    (setting, server, port)
}

/// A line of /proc/PID/status, in KiB.
fn memory(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', ' ', '\t']).split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn exchangelib_gets_makes_and_listens_and_large_bodies_take_no_memory() {
    let (mut setting, _server, port) = started("1");
    // All limits but that of the proxy's streams are shorter than the silence in them.
    let listener = setting.agent.listener().unwrap();
    for limit in ["header_timeout", "body_timeout", "idle_timeout"] {
        listener.insert(limit.to_owned(), "5s".into());
    }
    setting.agent.set("upstream.exchange.response_timeout", "5s").unwrap();
    setting.agent.start().unwrap();
    let pid = setting.agent.pid().unwrap();
    let before = memory(pid, "VmHWM");

    let mut command = python::command(setting.lab.peer(Peer::Exchange), "ews_client.py").unwrap();
    command.arg(format!("https://{RELAY_NAME}/EWS/")).arg(edge(Family::V4).to_string());
    let output = process::run(command.arg(setting.lab.ca_file()), ALL).unwrap();
    assert_eq!(output.code, 0, "{}\n{}", output.stderr, setting.agent.log());
    let steps: Vec<Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [get, create, stream, up, down, beyond] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(get["subject"], "for EXAMPLE\\user0");
    assert_eq!(create["created"], serde_json::json!(["True"]));
    assert_eq!(stream["events"], serde_json::json!(["item0", "item1", "item2"]));
    let moments: Vec<f64> = serde_json::from_value(stream["moments"].clone()).unwrap();
    assert!(moments[0] + 2.0 < moments[1], "each comes when it is sent: {moments:?}");
    for large in [up, down] {
        assert_eq!(large["length"], 64 << 20);
        assert_eq!(large["same"], true, "{large}");
    }
    assert_eq!(beyond["status"], 413, "Exchange takes no more either");
    let after = memory(pid, "VmHWM");
    println!("memory: {before} KiB before, at most {after} KiB");
    assert!(after < before + FLAT, "{before} KiB before, {after} KiB after");
    assert_eq!(report(&setting.lab, &port)["mismatches"], serde_json::json!([]));
}

#[test]
fn curl_is_taken_for_who_it_is_with_ntlm_and_expectations() {
    let (mut setting, _server, port) = started("6");
    setting.agent.start().unwrap();
    let body = setting.lab.directory().join("body");
    // Large enough for curl to ask first whether it is wanted.
    fs::write(&body, vec![b'x'; 2 << 20]).unwrap();
    for user in 0..6 {
        let mut command = setting.lab.peer(Peer::Exchange).command("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "60", "--ntlm", "--fail"])
            .args(["--user", &format!("EXAMPLE\\user{user}:password{user}")])
            .args(["--header", &format!("X-User: user{user}")])
            .args(["--resolve", &format!("{RELAY_NAME}:443:{}", edge(Family::V4))])
            .arg("--cacert")
            .arg(setting.lab.ca_file())
            .args(["--data-binary", &format!("@{}", body.display())]);
        let url = format!("https://{RELAY_NAME}/EWS/echo");
        let output = process::run(command.args([&url, &url, &url]), ALL).unwrap();
        assert_eq!(output.code, 0, "{}\n{}", output.stderr, setting.agent.log());
        let told = format!("\"believed\": \"EXAMPLE\\\\user{user}\", \"length\": {}", 2 << 20);
        assert_eq!(output.stdout.matches(&told).count(), 3, "{}", output.stdout);
    }
    let seen = report(&setting.lab, &port);
    assert_eq!(seen["mismatches"], serde_json::json!([]));
    assert_eq!(seen["shared"], serde_json::json!([]));
    assert_eq!(seen["believed"], 18, "{seen}");
}
