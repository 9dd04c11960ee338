//! Interfaces that come, go, and change their names.

use std::{fs, sync::Arc, thread, time::Duration};

use exogate::gate::{Attach, Gate, Gates, Options, Spares};
use exogate_ebpf::compile::{CompiledTable, Guard, Policy, Protocol, compile};
use exogate_tests::{
    agent::Metrics,
    lab::{EDGE_INTERFACE, Family, Lab, Peer},
    peer::HTTPS,
};

use super::{PATIENCE, Scene, count, pins};

const STATE: &str = "exogate_gate_interface_state";

fn scene(interfaces: &[&str]) -> Scene {
    let mut scene = Scene::new();
    scene.agent.set("interfaces", interfaces.to_vec()).unwrap();
    scene.agent.set("privileges", "keep").unwrap();
    scene
}

/// The state of each interface that has one.
fn states(metrics: &Metrics) -> Vec<(String, String)> {
    let holds = metrics.samples().iter().filter(|one| one.name == STATE && one.value == 1.0);
    let mut states: Vec<_> =
        holds.map(|one| (one.labels["interface"].clone(), one.labels["state"].clone())).collect();
    states.sort();
    states
}

fn wait_for_states(scene: &Scene, expected: &[(&str, &str)]) -> Metrics {
    let expected: Vec<_> =
        expected.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect();
    let what = format!("{expected:?}");
    scene.agent.wait_until(&what, PATIENCE, |metrics| states(metrics) == expected).unwrap()
}

#[test]
fn what_fits_a_pattern_is_filtered_when_it_appears() {
    let mut scene = scene(&["edge*"]);
    scene.lab.edge().ip("link add edge5 type veth peer name other5\n").unwrap();
    scene.agent.start().unwrap();
    // It is down, and filtered all the same.
    wait_for_states(&scene, &[("edge0", "filtered"), ("edge5", "filtered")]);
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());

    scene.lab.edge().ip("link add edge6 type veth peer name other6\n").unwrap();
    let filtered = [("edge0", "filtered"), ("edge5", "filtered"), ("edge6", "filtered")];
    wait_for_states(&scene, &filtered);
    // That scrape may have read other metrics before the filter was there.
    let metrics = scene.agent.metrics().unwrap();
    assert_eq!(count(&metrics, "exogate_gate_attach_duration_seconds_count", &[]), 3.0);
    let of = [("interface", "edge6"), ("mode", "native")];
    assert_eq!(count(&metrics, "exogate_gate_attached", &of), 1.0);

    scene.lab.edge().ip("link delete edge5\n").unwrap();
    let metrics = wait_for_states(&scene, &[("edge0", "filtered"), ("edge6", "filtered")]);
    assert_eq!(metrics.sum("exogate_gate_attached", &[("interface", "edge5")]), None);
    assert_eq!(scene.agent.get("/readyz").unwrap().status, 200);
}

#[test]
fn an_interface_that_goes_leaves_neither_series_nor_open_files() {
    let mut scene = scene(&["edge*"]);
    scene.agent.start().unwrap();
    let come_and_go = || {
        scene.lab.edge().ip("link add edge5 type veth peer name other5\n").unwrap();
        wait_for_states(&scene, &[("edge0", "filtered"), ("edge5", "filtered")]);
        scene.lab.edge().ip("link delete edge5\n").unwrap();
        wait_for_states(&scene, &[("edge0", "filtered")]);
        let gone = |metrics: &Metrics| {
            !metrics.samples().iter().any(|one| {
                one.labels.get("interface").is_some_and(|interface| interface == "edge5")
            })
        };
        scene.agent.wait_until("no series of edge5", PATIENCE, gone).unwrap();
    };
    let rings = || {
        let files = fs::read_dir(format!("/proc/{}/fdinfo", scene.agent.pid().unwrap())).unwrap();
        // A descriptor may be closed while they are read. 27 is BPF_MAP_TYPE_RINGBUF.
        let texts = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
        texts.filter(|text| text.lines().any(|line| line == "map_type:\t27")).count()
    };
    assert_ne!(rings(), 0, "that of edge0 is not seen");
    come_and_go();
    // The program for the next interface is there by now, or soon.
    let most = rings() + 1;
    (0..3).for_each(|_| come_and_go());
    let begin = std::time::Instant::now();
    while rings() > most {
        assert!(begin.elapsed() < PATIENCE, "{} buffers instead of {most}", rings());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_pattern_that_nothing_fits_is_not_ready_and_none_takes_the_loopback_interface() {
    let mut scene = scene(&["eth*"]);
    scene.agent.spawn().unwrap();
    let waits = || {
        let ready = scene.agent.get("/readyz");
        ready.is_ok_and(|ready| ready.status == 503 && ready.text().contains("eth*"))
    };
    let begin = std::time::Instant::now();
    while !waits() {
        assert!(begin.elapsed() < PATIENCE, "{}", scene.agent.log());
        thread::sleep(Duration::from_millis(20));
    }
    wait_for_states(&scene, &[("eth*", "absent")]);
    scene.agent.set("interfaces", vec!["*"]).unwrap();
    scene.agent.restart().unwrap();
    wait_for_states(&scene, &[(EDGE_INTERFACE, "filtered")]);
}

#[test]
fn a_renamed_interface_stays_filtered_and_the_next_of_its_name_is_filtered_too() {
    let mut scene = scene(&[EDGE_INTERFACE]);
    scene.agent.start().unwrap();
    scene
        .lab
        .edge()
        .ip("link set edge0 down\nlink set edge0 name wan0\nlink set wan0 up\n\
             route add default via 198.51.100.1\n")
        .unwrap();
    wait_for_states(&scene, &[("wan0", "filtered")]);
    // That scrape may have read other metrics before the name had changed.
    let metrics = scene.agent.metrics().unwrap();
    assert_eq!(count(&metrics, "exogate_gate_attached", &[("interface", "wan0")]), 1.0);
    assert_eq!(scene.agent.get("/readyz").unwrap().status, 200);
    assert!(scene.lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed());
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());

    scene.lab.edge().ip("link add edge0 type veth peer name other0\n").unwrap();
    wait_for_states(&scene, &[("edge0", "filtered"), ("wan0", "filtered")]);
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
}

#[test]
fn the_time_without_a_filter_is_counted() {
    let mut scene = scene(&["edge*"]);
    scene.agent.start().unwrap();
    let link = pins(&scene.lab).into_iter().find(|path| path.ends_with("/link")).unwrap();
    fs::remove_file(link).unwrap();
    wait_for_states(&scene, &[("edge0", "open")]);
    let open = |metrics: &Metrics| {
        count(metrics, "exogate_gate_open_seconds_total", &[("configured", "edge*")])
    };
    scene.agent.wait_until("a second is counted", PATIENCE, |metrics| open(metrics) > 1.0).unwrap();
    scene.agent.restart().unwrap();
    wait_for_states(&scene, &[("edge0", "filtered")]);
    let metrics = scene.agent.metrics().unwrap();
    let until_filtered = count(&metrics, "exogate_gate_attach_duration_seconds_sum", &[]);
    assert!(open(&metrics) < until_filtered + 1.0, "the time until it was filtered, and no more");
}

#[test]
fn what_is_published_while_an_interface_is_opened_is_in_force_on_it_too() {
    let lab = Lab::new().unwrap();
    let (monitoring, enforcing) = (table(false), table(true));
    let options = Options {
        attach: Attach::Auto,
        capacity: 1000,
        pin_directory: lab.pin_directory().join("exogate"),
    };
    let gates = Gates::new(Arc::clone(&monitoring));
    let open = || async {
        let mut spares = Spares::default();
        let gate = Gate::open(EDGE_INTERFACE, &options, &gates.table(), &mut spares).await?;
        gates.publish(&enforcing)?;
        Ok(gates.add(gate, &monitoring)?)
    };
    lab.edge().run_async(PATIENCE, open).unwrap();
    assert!(!lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
}

/// Nobody is listed.
fn table(enforce: bool) -> Arc<CompiledTable> {
    let guards = vec![Guard { protocol: Protocol::Tcp, port: HTTPS, sources: 1 }];
    let policy =
        Policy { enforce, deadline: None, destinations: None, prefixes: Vec::new(), guards };
    Arc::new(compile(&policy).unwrap())
}
