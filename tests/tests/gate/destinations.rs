//! What is guarded where `gate.destinations` is `"local"`: the addresses that the host has now.

use exogate_tests::{
    lab::{Family, Peer, edge},
    peer::HTTPS,
};

use super::{PATIENCE, Scene};

#[test]
fn an_address_that_comes_after_the_start_is_guarded() {
    let mut scene = Scene::new();
    let address = edge(Family::V4);
    // As a host boots: the filter is there before the first address is.
    scene.lab.edge().ip(&format!("address delete {address}/24 dev edge0\n")).unwrap();
    scene.agent.set("gate.destinations", "local").unwrap();
    scene.agent.start().unwrap();

    let commands =
        format!("address add {address}/24 dev edge0\nroute add default via 198.51.100.1\n");
    scene.lab.edge().ip(&commands).unwrap();
    let stranger = Peer::Stranger.address(Family::V4);
    scene.lab.wait_for_verdict(Peer::Stranger, stranger, HTTPS, false, PATIENCE).unwrap();
    // It was the filter: the address answers others.
    assert!(scene.lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed());
}
