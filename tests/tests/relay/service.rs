//! The proxy in the place of a load balancer: draining, limits, the access log.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use exogate_tests::{
    agent::Agent,
    http::{Get, Response},
    lab::{Family, Lab, Peer, edge},
    notification::RELAY_NAME,
    peer::{HTTPS, PATIENCE, Reached},
    pega::Pega,
};
use rustls::pki_types::ServerName;
use serde_json::Value;

use super::{SOON, Setting, identities::add_proxy, proxied::client};

/// A relay that proxies to two servers, not started yet.
fn setting() -> (Setting, [Pega; 2]) {
    let mut setting = Setting::new();
    let servers = [8091, 8092].map(|port| Pega::start(&setting.lab, port).unwrap());
    add_proxy(&mut setting.agent, &servers.each_ref().map(Pega::url));
    setting.agent.set("upstream.exchange.response_timeout", "2s").unwrap();
    (setting, servers)
}

/// Gets a path through the proxy, on a connection of its own.
fn get(lab: &Lab, path: &str) -> Reached<Response> {
    get_as(Peer::Exchange, lab, path)
}

fn get_as(peer: Peer, lab: &Lab, path: &str) -> Reached<Response> {
    let get = Get {
        source: Some(peer.address(Family::V4)),
        target: (edge(Family::V4), HTTPS).into(),
        tls: Some((lab.authority().client().unwrap(), ServerName::try_from(RELAY_NAME).unwrap())),
        path: path.to_owned(),
        patience: PATIENCE,
    };
    lab.peer(peer).run_async(Duration::from_secs(30), || get.send()).unwrap()
}

fn status(lab: &Lab, path: &str) -> u16 {
    get(lab, path).answer().unwrap().status
}

fn count(server: &Pega, path: &str) -> usize {
    server.received().iter().filter(|request| request.target.starts_with(path)).count()
}

#[test]
fn an_operator_drains_servers_and_clients_are_told_of_maintenance() {
    let (mut setting, servers) = setting();
    let page = setting.lab.directory().join("maintenance.html");
    fs::write(&page, "<p>back at noon</p>").unwrap();
    let path = page.to_str().unwrap();
    setting.agent.set("route.exchange.maintenance.file", path).unwrap();
    setting.agent.set("relay.access_log", true).unwrap();
    setting.agent.set("log.format", "json").unwrap();
    setting.agent.start().unwrap();
    assert_eq!(status(&setting.lab, "/EWS/a?token=hunter2"), 200);
    assert_eq!(count(&servers[0], "/EWS/a"), 1, "the first one is asked first");

    let first = ["upstream", "drain", "exchange", "127.0.0.1:8091"];
    let shown = setting.agent.json(&first).unwrap();
    assert_eq!(shown[0]["servers"][0]["drained"], true, "{shown}");
    assert_eq!(status(&setting.lab, "/EWS/b"), 200);
    assert_eq!((count(&servers[0], "/EWS/b"), count(&servers[1], "/EWS/b")), (0, 1));

    setting.agent.print(&["upstream", "drain", "exchange"]).unwrap();
    let answer = get(&setting.lab, "/EWS/c").answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (503, "<p>back at noon</p>"));
    assert_eq!(answer.headers["retry-after"], "300");
    let drained = setting.agent.print(&["upstream", "status"]).unwrap();
    assert_eq!(drained.matches(": drained,").count(), 2, "{drained}");

    setting.agent.print(&["upstream", "ready", "exchange"]).unwrap();
    assert_eq!(status(&setting.lab, "/EWS/d"), 200);
    assert_eq!(count(&servers[0], "/EWS/d"), 1);
    let wrong = setting.agent.cli(&["upstream", "drain", "exchange", "nobody:1"]).unwrap();
    assert!(wrong.code != 0 && wrong.stderr.contains("127.0.0.1:8091"), "{}", wrong.stderr);

    // Each request has its line, and no line has the secret.
    let log = setting.agent.log();
    let lines = access_log(&setting.agent);
    let told: Vec<_> = lines.iter().map(|line| (&line["request"], &line["status"])).collect();
    let expected = serde_json::json!([
        [format!("{RELAY_NAME}/EWS/a?token=..."), 200],
        [format!("{RELAY_NAME}/EWS/b"), 200],
        [format!("{RELAY_NAME}/EWS/c"), 503],
        [format!("{RELAY_NAME}/EWS/d"), 200],
    ]);
    assert_eq!(serde_json::json!(told), expected, "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

/// The lines of the access log.
pub(super) fn access_log(agent: &Agent) -> Vec<Value> {
    agent
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["target"] == "access")
        .collect()
}

#[test]
fn a_source_has_only_so_many_connections() {
    let (mut setting, servers) = setting();
    setting.agent.listener().unwrap().insert("source_connections".to_owned(), 2.into());
    setting.agent.start().unwrap();
    let target = SocketAddr::new(edge(Family::V4), HTTPS);
    let exchange = setting.lab.peer(Peer::Exchange);
    // They hold their places before they say a word.
    let mut held: Vec<_> =
        (0..2).map(|_| exchange.run(|| Ok(TcpStream::connect(target)?)).unwrap()).collect();
    setting.until("exogate_relay_connections", &[], 2.0);
    let mut third = exchange.run(|| Ok(TcpStream::connect(target)?)).unwrap();
    third.set_read_timeout(Some(SOON)).unwrap();
    let error = third.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let refused = [("result", "source_limit")];
    setting.until("exogate_relay_connections_total", &refused, 1.0);
    // Nobody else has fewer for it, and a place that becomes free can be taken.
    assert_eq!(get_as(Peer::Graph, &setting.lab, "/EWS/other").answer().unwrap().status, 200);
    held.pop();
    setting.until("exogate_relay_connections", &[], 1.0);
    assert_eq!(status(&setting.lab, "/EWS/again"), 200);
    assert_eq!(count(&servers[0], "/EWS/again"), 1);
}

#[test]
fn a_source_that_asks_too_often_is_told_to_wait() {
    let (mut setting, servers) = setting();
    setting.agent.listener().unwrap().insert("source_requests".to_owned(), 3.into());
    setting.agent.set("relay.access_log", true).unwrap();
    setting.agent.set("log.format", "json").unwrap();
    setting.agent.start().unwrap();
    let statuses: Vec<_> = (0..40).map(|_| status(&setting.lab, "/EWS/often")).collect();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused > 0, "{statuses:?}");
    assert_eq!(count(&servers[0], "/EWS/often"), 40 - refused, "{statuses:?}");
    let lines = access_log(&setting.agent);
    let told: Vec<_> = lines.iter().filter(|line| line["reason"] == "source_limit").collect();
    assert_eq!((lines.len(), told.len()), (40, refused), "each request has its line");
    let source = Peer::Exchange.address(Family::V4).to_string();
    for line in told {
        assert_eq!((&line["status"], &line["method"]), (&429.into(), &"GET".into()), "{line}");
        assert!(line["source"].as_str().unwrap().starts_with(&source), "{line}");
        assert!(line["listener"].is_string(), "{line}");
    }
    let reason = [("reason", "source_limit")];
    let refused = f64::from(u32::try_from(refused).unwrap());
    assert_eq!(setting.metric("exogate_relay_malformed_requests_total", &reason), refused);
}

#[test]
fn what_cannot_be_read_in_one_way_has_its_line_in_the_access_log() {
    let (mut setting, _servers) = setting();
    setting.agent.set("relay.access_log", true).unwrap();
    setting.agent.set("log.format", "json").unwrap();
    setting.agent.start().unwrap();
    for (head, status) in [
        ("GET /EWS/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        (
            "POST /EWS/b?token=hunter2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "400",
        ),
        ("GET /EWS/c HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", "400"),
    ] {
        let mut asks = client(&setting.lab, &[]);
        assert!(asks.send(head).head().starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        asks.is_closed();
    }
    let told = || {
        let lines = access_log(&setting.agent);
        let told = lines.iter().map(|line| [&line["reason"], &line["method"], &line["status"]]);
        serde_json::json!(told.collect::<Vec<_>>())
    };
    // The last one ends its connection a moment after its answer.
    let expected = serde_json::json!([
        ["host", "GET", 400],
        ["transfer_encoding", "POST", 400],
        ["protocol_error", null, null],
    ]);
    let begin = std::time::Instant::now();
    while told() != expected {
        assert!(begin.elapsed() < SOON, "{}", told());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!setting.agent.log().contains("hunter2"));
}
