//! Senders reach the edge host from the addresses that they are meant to have.

use std::{fs, net::IpAddr};

use exogate_tests::{
    lab::{EXCHANGE_SINCE_2020, Family, Lab, Peer},
    peer::{EdgeServer, HTTPS, Reached},
    service::captures,
};
use ipnet::IpNet;
use serde_json::Value;

#[test]
fn every_sender_reaches_the_server_from_its_own_address() {
    let lab = Lab::new().unwrap();
    let server = EdgeServer::start(&lab).unwrap();
    for peer in Peer::ALL {
        for family in Family::ALL {
            let answer = lab.https(peer, family, "/").unwrap().answer().unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(answer.text(), peer.address(family).to_string());
            assert_eq!(server.connections()[&peer.address(family)], 1);
        }
    }
    assert_eq!(server.connections().len(), 6);
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    let lab = Lab::new().unwrap();
    let refused = lab.connect(Peer::Graph, Family::V6, HTTPS).unwrap();
    assert_eq!(refused, Reached::Refused);
    assert!(refused.passed());
}

#[test]
fn what_is_dropped_on_the_way_times_out() {
    let lab = Lab::new().unwrap();
    lab.wan().sysctl(&[("ipv4/conf/stranger/forwarding", "0")]).unwrap();
    assert_eq!(lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap(), Reached::TimedOut);
    assert_eq!(lab.connect(Peer::Stranger, Family::V6, HTTPS).unwrap(), Reached::Refused);
}

#[test]
fn a_sender_may_have_more_addresses() {
    let lab = Lab::new().unwrap();
    let server = EdgeServer::start(&lab).unwrap();
    for source in [EXCHANGE_SINCE_2020, "52.100.1.1".parse().unwrap()] {
        lab.add_source(Peer::Exchange, source).unwrap();
        let answer = lab.https_from(Peer::Exchange, source, "/").unwrap().answer().unwrap();
        assert_eq!(answer.text(), source.to_string());
        assert!(lab.connect_from(Peer::Exchange, source, HTTPS).unwrap().passed());
        assert!(server.connections()[&source] >= 1);
    }
}

#[test]
fn an_interface_can_go_and_come_back() {
    let lab = Lab::new().unwrap();
    lab.remove_edge_interface().unwrap();
    assert!(!lab.connect(Peer::Exchange, Family::V4, HTTPS).is_ok_and(|reached| reached.passed()));
    lab.add_edge_interface().unwrap();
    for family in Family::ALL {
        assert!(lab.connect(Peer::Exchange, family, HTTPS).unwrap().passed());
    }
}

#[test]
fn an_interface_may_have_no_ethernet_header() {
    let lab = Lab::new().unwrap();
    lab.add_tunnel("tun0").unwrap();
    let shown = lab.edge().command("ip").args(["link", "show", "tun0"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("link/none"), "{shown:?}");
}

#[test]
fn senders_have_the_addresses_that_are_published() {
    let mut files = 0;
    for directory in ["history", "worldwide"] {
        for entry in fs::read_dir(captures().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !name.starts_with("worldwide-") {
                continue;
            }
            files += 1;
            let sets: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let lists = |address| exchange_https(&sets).any(|prefix| holds(&prefix, address));
            for family in Family::ALL {
                assert!(lists(Peer::Exchange.address(family)), "{name} {family:?}");
                assert!(!lists(Peer::Graph.address(family)), "{name} {family:?}");
                assert!(!lists(Peer::Stranger.address(family)), "{name} {family:?}");
            }
            let before_2020 =
                name.starts_with("worldwide-2018") || name.starts_with("worldwide-2019");
            assert_eq!(lists(EXCHANGE_SINCE_2020), !before_2020, "{name}");
        }
    }
    assert_eq!(files, 20);

    let path = captures().join("graph/graph-change-notification-sources.json");
    let graph: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let latest = graph["snapshots"].as_array().unwrap().last().unwrap();
    let published = texts(&latest["worldwide"]);
    for family in Family::ALL {
        let address = Peer::Graph.address(family);
        assert!(published.iter().any(|prefix| holds(prefix, address)), "{family:?}");
    }
}

fn exchange_https(sets: &Value) -> impl Iterator<Item = String> {
    let https = |set: &&Value| {
        let ports = set["tcpPorts"].as_str().unwrap_or_default();
        set["serviceArea"] == "Exchange" && ports.split(',').any(|port| port.trim() == "443")
    };
    sets.as_array().unwrap().iter().filter(https).flat_map(|set| texts(&set["ips"]))
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Whether a prefix, or a single address, holds `address`.
fn holds(prefix: &str, address: IpAddr) -> bool {
    match prefix.parse::<IpNet>() {
        Ok(prefix) => prefix.contains(&address),
        Err(_) => prefix.parse::<IpAddr>().unwrap() == address,
    }
}
