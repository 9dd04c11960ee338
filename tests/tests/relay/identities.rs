//! Who a server believes that it speaks to: nobody else, whatever happens on the way.
//!
//! Server and clients are other people's: pyspnego, requests-ntlm and curl.

use std::{net::SocketAddr, time::Duration};

use exogate_tests::{
    agent::Agent,
    http::Get,
    lab::{Family, Lab, Peer, edge},
    notification::RELAY_NAME,
    peer::{PATIENCE, Reached},
    process, python,
};
use serde_json::Value;

use super::Setting;

/// The longest that all clients may take.
const ALL: Duration = Duration::from_secs(500);

/// Users and requests of each.
fn extent() -> (usize, usize) {
    if std::env::var_os("EXOGATE_SOAK").is_some() { (200, 40) } else { (24, 20) }
}

/// A route that proxies to servers on the edge host's loopback.
pub(super) fn add_proxy(agent: &mut Agent, servers: &[String]) {
    agent.set("upstream.exchange.servers", servers.to_vec()).unwrap();
    agent.set("upstream.exchange.connections", 1000).unwrap();
    agent.set("route.exchange.kind", "proxy").unwrap();
    agent.set("route.exchange.path_prefix", "/EWS/").unwrap();
    agent.set("route.exchange.upstream", "exchange").unwrap();
}

/// What the server on a port of the edge host's loopback has seen.
pub(super) fn report(lab: &Lab, port: &str) -> Value {
    let target = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let get =
        Get { source: None, target, tls: None, path: "/report".to_owned(), patience: PATIENCE };
    let answer = lab.edge().run_async(Duration::from_secs(10), || get.send()).unwrap();
    let Reached::Answered(answer) = answer else { panic!("no report: {answer:?}") };
    serde_json::from_slice(&answer.body).unwrap()
}

fn no_identity_crosses(scheme: &str) {
    let (users, count) = extent();
    let mut setting = Setting::new();
    let arguments = [users.to_string()];
    let arguments = arguments.each_ref().map(String::as_str);
    let mut server =
        python::Server::start(setting.lab.edge(), "ntlm_server.py", &arguments).unwrap();
    let port = server.line().unwrap();
    add_proxy(&mut setting.agent, &[format!("http://127.0.0.1:{port}")]);
    setting.agent.start().unwrap();

    let mut command = python::command(setting.lab.peer(Peer::Exchange), "ntlm_clients.py").unwrap();
    command
        .arg(format!("https://{RELAY_NAME}/EWS/"))
        .arg(edge(Family::V4).to_string())
        .arg(setting.lab.ca_file())
        .args([scheme, &users.to_string(), &count.to_string()]);
    let output = process::run(&mut command, ALL).unwrap();
    assert_eq!(output.code, 0, "{}\n{}", output.stderr, setting.agent.log());
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    let seen = report(&setting.lab, &port);
    println!("{scheme}: {users} users; clients: {told}\nserver: {seen}");

    let none: [Value; 0] = [];
    assert_eq!(seen["mismatches"].as_array().unwrap(), &none, "somebody was taken for another");
    assert_eq!(seen["shared"].as_array().unwrap(), &none, "a connection had two users");
    assert_eq!(told["wrong"].as_array().unwrap(), &none, "an answer went to somebody else");
    let anonymous = told["anonymous"].as_array().unwrap();
    assert!(!anonymous.is_empty() && anonymous.iter().all(|status| status == 401), "{told}");
    assert_eq!(seen["refused"].as_array().unwrap(), &none, "a handshake lost its connection");
    assert_eq!(seen["users"].as_object().unwrap().len(), users, "all were authenticated");
    let curl = told["curl"].as_u64().unwrap();
    assert_eq!(curl > u64::try_from(users * count / 16).unwrap(), scheme == "NTLM", "{told}");
    let answers = told["answers"].as_u64().unwrap();
    assert!(answers > u64::try_from(users * count / 2).unwrap(), "{told}");
}

#[test]
fn no_identity_crosses_with_ntlm() {
    no_identity_crosses("NTLM");
}

#[test]
fn no_identity_crosses_with_negotiate() {
    no_identity_crosses("Negotiate");
}
