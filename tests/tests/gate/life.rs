//! What happens while the agent starts, stops, crashes, and changes.

use std::{fs, thread::sleep, time::Duration};

use exogate_tests::{
    lab::{EDGE_INTERFACE, Family, Peer},
    peer::HTTPS,
    prober::{Plan, Prober},
    process::agent_binary,
};

use super::{MOMENT, PATIENCE, Scene, count, pins};

const LISTED: [Peer; 2] = [Peer::Exchange, Peer::Graph];

#[test]
fn no_verdict_is_wrong_while_the_agent_dies_and_comes_back() {
    let mut scene = Scene::started();
    let prober = Prober::start(&scene.lab, Plan::default()).unwrap();
    sleep(MOMENT);
    scene.agent.kill9().unwrap();
    sleep(MOMENT);
    scene.agent.start().unwrap();
    sleep(MOMENT);
    scene.agent.restart().unwrap();
    sleep(MOMENT);
    scene.agent.terminate().unwrap();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&LISTED).unwrap();
}

#[test]
fn no_verdict_is_wrong_while_the_binary_is_replaced() {
    let mut scene = Scene::started();
    let old = scene.agent.status_json().unwrap();
    let prober = Prober::start(&scene.lab, Plan::default()).unwrap();
    let next = scene.lab.directory().join("exogate-next");
    fs::copy(agent_binary().unwrap(), &next).unwrap();
    sleep(MOMENT);
    scene.agent.use_binary(&next);
    scene.agent.restart().unwrap();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&LISTED).unwrap();

    let process = format!("/proc/{}/exe", scene.agent.pid().unwrap());
    // `nsenter` becomes the agent.
    assert_eq!(fs::read_link(process).unwrap(), next);
    let new = scene.agent.status_json().unwrap();
    assert_eq!(old["interfaces"][0]["adopted"], false);
    assert_eq!(new["interfaces"][0]["adopted"], true);
    assert_ne!(old["interfaces"][0]["program"], new["interfaces"][0]["program"]);
    let packets = |status: &serde_json::Value| status["interfaces"][0]["packets"].clone();
    assert!(packets(&new).as_array().unwrap().len() >= packets(&old).as_array().unwrap().len());
}

#[test]
fn stopping_with_on_stop_detach_lets_everybody_in_again() {
    let mut scene = Scene::new();
    scene.agent.set("gate.on_stop", "detach").unwrap();
    scene.agent.start().unwrap();
    let prober = Prober::start(&scene.lab, Plan::default()).unwrap();
    sleep(MOMENT);
    scene.agent.terminate().unwrap();
    let open = prober.elapsed();
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    for family in Family::ALL {
        let stranger = report.datagrams(Peer::Stranger, family);
        assert!(stranger.first.unwrap() > MOMENT && stranger.last.unwrap() > open, "{report}");
        assert_eq!(stranger.gaps.len(), 1, "{report}");
    }
    assert!(pins(&scene.lab).is_empty(), "{:?}", pins(&scene.lab));
}

#[test]
fn detach_removes_the_filter_of_a_stopped_agent_and_of_no_other() {
    let mut scene = Scene::started();
    let running = scene.agent.cli(&["detach"]).unwrap();
    assert_eq!(running.code, 1, "{running:?}");
    assert!(running.stderr.contains("another exogate process holds"), "{running:?}");
    let reached =
        |scene: &Scene| scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed();
    assert!(!reached(&scene));

    scene.agent.terminate().unwrap();
    assert!(!reached(&scene));
    let status = scene.agent.cli(&["status"]).unwrap();
    assert_eq!(status.code, 3, "{status:?}");
    assert!(status.stderr.contains("still in force"), "{status:?}");

    let detached = scene.agent.cli(&["detach"]).unwrap();
    assert_eq!((detached.code, detached.stdout.as_str()), (0, "filter removed from 1 interface\n"));
    assert!(reached(&scene));
    assert!(pins(&scene.lab).is_empty(), "{:?}", pins(&scene.lab));
    assert_eq!(scene.agent.cli(&["detach"]).unwrap().code, 0);
}

#[test]
fn a_reload_turns_monitoring_into_enforcing_without_touching_listed_senders() {
    let mut scene = Scene::new();
    scene.agent.set("mode", "monitor").unwrap();
    scene.agent.start().unwrap();
    let prober = Prober::start(&scene.lab, Plan::default()).unwrap();
    sleep(MOMENT);
    scene.agent.set("mode", "enforce").unwrap();
    let asked = prober.elapsed();
    scene.agent.reload().unwrap();
    let dropped = [("action", "drop"), ("reason", "unlisted")];
    let drops = |metrics: &_| count(metrics, "exogate_gate_packets_total", &dropped) > 0.0;
    let metrics = scene.agent.wait_until("packets are dropped", PATIENCE, drops).unwrap();
    let enforced = prober.elapsed();
    sleep(MOMENT);

    // What cannot be read changes nothing.
    scene.agent.set("mode", "sometimes").unwrap();
    scene.agent.reload().unwrap();
    sleep(MOMENT);
    assert!(scene.agent.log().contains("reload refused, going on as before"));
    assert_eq!(scene.agent.get("/readyz").unwrap().status, 200);

    let report = prober.stop().unwrap();
    println!("{report}");
    assert!(count(&metrics, "exogate_gate_packets_total", &[("action", "would_drop")]) > 100.0);
    for family in Family::ALL {
        for listed in LISTED {
            assert!(report.datagrams(listed, family).gaps.is_empty(), "{report}");
        }
        let stranger = report.datagrams(Peer::Stranger, family);
        let last = stranger.last.unwrap();
        assert!(asked <= last + Duration::from_millis(50) && last <= enforced, "{report}");
        assert_eq!(stranger.gaps.len(), 1, "{report}");
    }
}

#[test]
fn an_interface_that_goes_and_comes_back_is_filtered_again() {
    let mut scene = Scene::new();
    scene.agent.set("privileges", "keep").unwrap();
    scene.agent.start().unwrap();
    let index =
        |scene: &Scene| scene.agent.status_json().unwrap()["interfaces"][0]["index"].clone();
    let ready = |scene: &Scene| scene.agent.get("/readyz").unwrap();
    let before = index(&scene);
    scene.lab.remove_edge_interface().unwrap();
    wait("the agent is not ready without its interface", || ready(&scene).status == 503);
    assert!(ready(&scene).text().contains(EDGE_INTERFACE), "{}", ready(&scene).text());

    scene.lab.add_edge_interface().unwrap();
    wait("the agent is ready again", || ready(&scene).status == 200);
    assert_ne!(index(&scene), before);
    for family in Family::ALL {
        for listed in LISTED {
            assert!(scene.lab.connect(listed, family, HTTPS).unwrap().passed());
        }
        assert!(!scene.lab.connect(Peer::Stranger, family, HTTPS).unwrap().passed());
    }
}

#[test]
fn an_interface_that_comes_back_needs_the_right_to_attach() {
    let mut scene = Scene::new();
    scene.agent.set("privileges", "drop").unwrap();
    scene.agent.start().unwrap();
    scene.lab.remove_edge_interface().unwrap();
    scene.lab.add_edge_interface().unwrap();
    wait("the agent says what it cannot do", || {
        scene.agent.log().contains("the right to attach was given up when all interfaces")
    });
    assert_eq!(scene.agent.get("/readyz").unwrap().status, 503);
    scene.agent.restart().unwrap();
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
}

#[test]
fn an_interface_that_appears_after_the_start_is_filtered_then() {
    let mut scene = Scene::new();
    scene.lab.remove_edge_interface().unwrap();
    scene.agent.spawn().unwrap();
    wait("the agent waits for its interface", || {
        let ready = scene.agent.get("/readyz");
        ready.is_ok_and(|ready| ready.status == 503 && ready.text().contains(EDGE_INTERFACE))
    });
    assert_eq!(threads_that_may_attach(&scene), ["exogate-attach"]);
    scene.lab.add_edge_interface().unwrap();
    scene.agent.wait_ready(PATIENCE).unwrap();
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    wait("no thread may attach any more", || threads_that_may_attach(&scene).is_empty());
}

#[test]
fn only_one_thread_may_attach_and_only_while_it_has_to() {
    let mut scene = Scene::new();
    scene.agent.set("privileges", "keep").unwrap();
    scene.agent.start().unwrap();
    assert_eq!(threads_that_may_attach(&scene), ["exogate-attach"]);
    scene.agent.set("privileges", "drop").unwrap();
    scene.agent.reload().unwrap();
    wait("no thread may attach any more", || threads_that_may_attach(&scene).is_empty());
    scene.agent.set("privileges", "keep").unwrap();
    scene.agent.reload().unwrap();
    wait("it is told that this comes too late", || {
        scene.agent.log().contains("takes effect at the next restart only")
    });
    assert!(threads_that_may_attach(&scene).is_empty());
}

#[test]
fn without_an_interface_the_agent_says_the_next_step() {
    let mut scene = Scene::new();
    scene.agent.set("interfaces", Vec::<String>::new()).unwrap();
    scene.agent.start().unwrap();
    let log = scene.agent.log();
    assert!(log.contains("interfaces = [\"eth0\"]"), "{log}");
    assert!(threads_that_may_attach(&scene).is_empty());
    assert!(scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
}

/// The names of the agent's threads that hold CAP_NET_ADMIN, without which nothing is
/// attached.
fn threads_that_may_attach(scene: &Scene) -> Vec<String> {
    const NET_ADMIN: u64 = 1 << 12;
    let directory = format!("/proc/{}/task", scene.agent.pid().unwrap());
    let threads = fs::read_dir(directory).unwrap().flatten();
    // One may end while we look.
    let status = threads.filter_map(|one| fs::read_to_string(one.path().join("status")).ok());
    let value = |status: &str, key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().to_owned()
    };
    status
        .filter(|status| {
            let mask = u64::from_str_radix(&value(status, "CapPrm:"), 16).unwrap();
            mask & NET_ADMIN != 0
        })
        .map(|status| value(&status, "Name:"))
        .collect()
}

#[test]
fn an_interface_without_an_ethernet_header_is_guarded_too() {
    let mut scene = Scene::new();
    scene.lab.add_tunnel("tun0").unwrap();
    scene.agent.set("interfaces", vec![EDGE_INTERFACE, "tun0"]).unwrap();
    scene.agent.start().unwrap();
    let status = scene.agent.status_json().unwrap();
    let interfaces = status["interfaces"].as_array().unwrap();
    let names: Vec<_> = interfaces.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, [EDGE_INTERFACE, "tun0"]);
    let shown = scene.lab.edge().command("ip").args(["link", "show", "tun0"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("xdp") && shown.contains("link/none"), "{shown}");
    let program = format!("id {}", interfaces[1]["program"]);
    assert!(shown.contains(&program), "{shown} has not {program}");
}

/// Waits until something holds.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}
