//! The example configurations, as they are shipped, and started.
//!
//! Only what belongs to a host is changed: names of interfaces, and where files are.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    thread,
    time::Duration,
};

use exogate_tests::{
    agent::Agent,
    http::{Get, Post, Response},
    lab::{EDGE_INTERFACE, Family, Lab, Peer, edge},
    notification::{Notification, RELAY_NAME},
    peer::{HTTPS, PATIENCE},
    pega::{Pega, Received},
    process::{self, Output},
    python,
    service::EndpointService,
    tls::Validity,
};
use rustls::pki_types::ServerName;
use toml::{Table, Value};

use super::{SOON, way_out};

/// The files, with the routes that each has and whether it needs the endpoint service.
const EXAMPLES: [(&str, &[&str]); 6] = [
    ("pega-on-premises", &["ews", "graph"]),
    ("pega-behind-a-tunnel", &["exchange"]),
    ("dmz-proxy", &["exchange"]),
    ("load-balancer", &["ews"]),
    ("exchange-in-the-dmz", &[]),
    ("exchange-to-pega-cloud", &["ews"]),
];

/// What is in each file that an example names, be it a secret or a list of addresses.
const SECRET: &str = "198.51.100.20";

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
        match (agent.settings().get_mut(&key), value) {
            // The lab has its own directory for pins.
            (Some(Value::Table(old)), Value::Table(new)) => old.extend(new),
            (_, value) => drop(agent.settings().insert(key, value)),
        }
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
            let names = ["mail.example.com", "ews.example.com", RELAY_NAME];
            let (chain, key) = lab.authority().issue_pem(&names, Validity::Now).unwrap();
            match rest {
                "tls/chain.pem" | "tls/key.pem" => {
                    fs::write(path.with_file_name("chain.pem"), chain).unwrap();
                    fs::write(path.with_file_name("key.pem"), key).unwrap();
                }
                "tls/ca.pem" => drop(fs::copy(lab.ca_file(), &path).unwrap()),
                _ => fs::write(&path, format!("{SECRET}\n")).unwrap(),
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
        // Where destinations are named, this host is none of them.
        let is_open = agent.settings()["gate"].get("destinations").is_some();
        assert_eq!(stranger.passed(), is_open, "{name}");
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

/// A lab for an example, and its agent, not started yet.
fn setting(name: &str) -> (Lab, EndpointService, Agent) {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    let agent = agent(&lab, name, &[EDGE_INTERFACE]);
    (lab, service, agent)
}

/// A server in the place of those that an upstream of the example names.
fn server(lab: &Lab, agent: &mut Agent, upstream: &str) -> Pega {
    let tls = lab.authority().server(&["127.0.0.1", "mail.example.com"], false).unwrap();
    let server = Pega::start_tls(lab, 8443, tls).unwrap();
    agent.set(&format!("upstream.{upstream}.servers"), vec![server.url()]).unwrap();
    server
}

/// An address that the example lets in, and from which something can be sent now.
fn source(lab: &Lab, address: &str) -> IpAddr {
    let source = address.parse().unwrap();
    lab.add_source(Peer::Exchange, source).unwrap();
    lab.edge().ip(&format!("route add {address}/32 via 198.51.100.1\n")).unwrap();
    source
}

fn get(lab: &Lab, source: IpAddr, name: &str, path: &str) -> Get {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    Get {
        source: Some(source),
        target: (edge(Family::V4), HTTPS).into(),
        tls: Some((lab.authority().client().unwrap(), name)),
        path: path.to_owned(),
        patience: PATIENCE,
    }
}

fn send(lab: &Lab, get: Get) -> Response {
    let send = || get.send();
    lab.peer(Peer::Exchange).run_async(SOON, send).unwrap().answer().expect("it is let in")
}

/// The path of a route of the example.
fn path(agent: &mut Agent, route: &str) -> String {
    agent.settings()["route"][route]["path"].as_str().unwrap().to_owned()
}

/// Lets a client of Exchange with this address ask through the proxy.
fn exchange_is_reached(example: &str, address: &str) {
    let (lab, _service, mut agent) = setting(example);
    let exchange = server(&lab, &mut agent, "exchange");
    agent.start().unwrap();
    let source = source(&lab, address);
    let answer = send(&lab, get(&lab, source, "mail.example.com", "/EWS/Exchange.asmx"));
    assert_eq!(answer.status, 200, "{example}: {}", agent.log());
    let received = exchange.wait_for(1, SOON).unwrap();
    let asked = received.iter().find(|request| request.target == "/EWS/Exchange.asmx");
    let asked = asked.unwrap_or_else(|| panic!("{example}: {received:?}"));
    assert_eq!(asked.headers["x-forwarded-for"], address);
}

#[test]
fn microsoft_notifies_pega_on_premises() {
    let (lab, _service, mut agent) = setting("pega-on-premises");
    let pega = server(&lab, &mut agent, "pega");
    let (graph, ews) = (path(&mut agent, "graph"), path(&mut agent, "ews"));
    agent.start().unwrap();
    let sent = Notification::graph(&graph, &["one"], 1, SECRET);
    assert_eq!(sent.answer(&lab, Peer::Graph).unwrap().status, 202);
    let sent = Notification::ews(&ews, "c3Vic2NyaXB0aW9u", 1).unwrap();
    assert_eq!(sent.answer(&lab, Peer::Exchange).unwrap().status, 200);
    for end in ["/v1/notifications", "/v1/PushNotificationsListener"] {
        let target = format!("/prweb/PRRestService/Calendar{end}");
        let arrived = |received: &[_]| received.iter().any(|one: &Received| one.target == target);
        pega.wait_until(&target, SOON, arrived).unwrap();
    }
}

#[test]
fn pega_behind_a_tunnel_reaches_exchange() {
    exchange_is_reached("pega-behind-a-tunnel", "10.20.7.7");
}

#[test]
fn pega_in_a_cloud_reaches_exchange_through_the_dmz() {
    exchange_is_reached("dmz-proxy", "198.51.100.20");
}

#[test]
fn clients_reach_exchange_in_the_place_of_a_load_balancer() {
    let (lab, _service, mut agent) = setting("load-balancer");
    let exchange = server(&lab, &mut agent, "exchange");
    agent.start().unwrap();
    let source = source(&lab, SECRET);
    // The second one speaks to the server's own TLS, and nobody sets fields on the way.
    for (name, forwarded) in [("ews.example.com", true), ("mail.example.com", false)] {
        let path = format!("/EWS/of/{name}");
        assert_eq!(send(&lab, get(&lab, source, name, &path)).status, 200, "{name}");
        let received = exchange.received();
        let asked = received.iter().find(|request| request.target == path).unwrap();
        assert_eq!(asked.headers.contains_key("x-forwarded-for"), forwarded, "{name}");
    }
    let log = agent.log();
    assert!(log.contains("ews.example.com/EWS/of/ews.example.com"), "{log}");
}

#[test]
fn exchange_in_the_dmz_is_guarded_on_the_way_to_it() {
    let (lab, _service, mut agent) = setting("exchange-in-the-dmz");
    // The host forwards, which enforcing takes only with destinations. What it forwards
    // is judged before it is routed, so the server may as well stand on this side.
    lab.edge().sysctl(&[("ipv4/ip_forward", "1")]).unwrap();
    lab.edge().ip("address add 198.51.100.30/32 dev lo\n").unwrap();
    let exchange = SocketAddr::from(([198, 51, 100, 30], HTTPS));
    let listener = lab.edge().run(|| Ok(TcpListener::bind(exchange)?)).unwrap();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    agent.start().unwrap();
    let ask = |peer: Peer, source, target| {
        let plain = Get { target, tls: None, ..get(&lab, source, "mail.example.com", "/EWS/") };
        lab.peer(peer).run_async(SOON, || plain.send()).unwrap()
    };
    let pega = source(&lab, "198.51.100.20");
    for source in [Peer::Exchange.address(Family::V4), pega] {
        assert_eq!(ask(Peer::Exchange, source, exchange).answer().unwrap().status, 200);
    }
    let stranger = Peer::Stranger.address(Family::V4);
    assert!(!ask(Peer::Stranger, stranger, exchange).passed());
    // What is forwarded to others is not the filter's business.
    let other = (edge(Family::V4), HTTPS).into();
    assert!(ask(Peer::Stranger, stranger, other).passed());
}

#[test]
fn exchange_on_premises_notifies_pega_in_a_cloud() {
    let (lab, _service, mut agent) = setting("exchange-to-pega-cloud");
    let tls = lab.authority().server(&[way_out::CLOUD], false).unwrap();
    let cloud = Pega::start_tls(&lab, 8443, tls).unwrap();
    let (port, asked) = way_out::proxy(&lab, 8443);
    agent.set("upstream.pega-cloud.proxy", format!("http://127.0.0.1:{port}")).unwrap();
    let authority = lab.ca_file().to_str().unwrap().to_owned();
    agent.set("upstream.pega-cloud.ca_file", authority).unwrap();
    let target = path(&mut agent, "ews");
    agent.start().unwrap();
    let source = source(&lab, "192.0.2.11");
    let Notification { headers, body, .. } =
        Notification::ews(&target, "c3Vic2NyaXB0aW9u", 1).unwrap();
    let post = Post { to: get(&lab, source, RELAY_NAME, &target), headers, body };
    let answer = lab.peer(Peer::Exchange).run_async(SOON, || post.send()).unwrap();
    assert_eq!(answer.answer().unwrap().status, 200, "{}", agent.log());
    let received = cloud.wait_for(1, SOON).unwrap();
    assert_eq!(received[0].target, "/prweb/PRRestService/Calendar/v1/PushNotificationsListener");
    assert!(received[0].headers["authorization"].to_str().unwrap().starts_with("Basic "));
    assert!(asked.recv_timeout(SOON).unwrap().starts_with("CONNECT "));
}
