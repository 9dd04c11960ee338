//! Interfaces that come, go, and change their names.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    sync::Arc,
    thread,
    time::Duration,
};

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

/// Starts an agent whose only interface is not there.
fn start_without(scene: &mut Scene, interface: &str) {
    scene.agent.spawn().unwrap();
    let waits = || {
        let ready = scene.agent.get("/readyz");
        ready.is_ok_and(|ready| ready.status == 503 && ready.text().contains(interface))
    };
    let begin = std::time::Instant::now();
    while !waits() {
        assert!(begin.elapsed() < PATIENCE, "{}", scene.agent.log());
        thread::sleep(Duration::from_millis(20));
    }
    wait_for_states(scene, &[(interface, "absent")]);
}

fn wait_for_log(scene: &Scene, what: &str) {
    let begin = std::time::Instant::now();
    while !scene.agent.log().contains(what) {
        assert!(begin.elapsed() < PATIENCE, "{what} is not in {}", scene.agent.log());
        thread::sleep(Duration::from_millis(20));
    }
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
    start_without(&mut scene, "eth*");
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
    let counted = |metrics: &Metrics, interface: &str| {
        metrics.sum("exogate_gate_drop_events_total", &[("interface", interface)])
    };
    let taken = |metrics: &Metrics| counted(metrics, "wan0") > Some(0.0);
    let metrics = scene.agent.wait_until("a drop of wan0 is taken", PATIENCE, taken).unwrap();
    assert_eq!(counted(&metrics, EDGE_INTERFACE), None);
    let told = scene.agent.print(&["events"]).unwrap();
    assert!(told.contains("wan0 drop unlisted") && !told.contains(EDGE_INTERFACE), "{told}");

    scene.lab.edge().ip("link add edge0 type veth peer name other0\n").unwrap();
    wait_for_states(&scene, &[("edge0", "filtered"), ("wan0", "filtered")]);
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
}

#[test]
fn what_waits_for_a_restart_waits_for_it_on_the_next_interface_too() {
    let mut scene = scene(&["edge*"]);
    scene.agent.start().unwrap();
    let other = scene.lab.pin_directory().join("other");
    scene.agent.set("gate.attach", "generic").unwrap().set("gate.capacity", 1000).unwrap();
    scene.agent.set("gate.pin_directory", other.to_str().unwrap()).unwrap();
    scene.agent.reload().unwrap();
    wait_for_log(&scene, "gate.attach, gate.capacity or gate.pin_directory");
    wait_for_log(&scene, "configuration in force");
    scene.lab.edge().ip("link add edge5 type veth peer name other5\n").unwrap();
    wait_for_states(&scene, &[("edge0", "filtered"), ("edge5", "filtered")]);
    let native = [("interface", "edge5"), ("mode", "native")];
    // That scrape may have read other metrics before the filter was there.
    assert_eq!(count(&scene.agent.metrics().unwrap(), "exogate_gate_attached", &native), 1.0);
    let pins = pins(&scene.lab);
    assert!(!pins.iter().any(|pin| pin.contains("/other")), "{pins:?}");
    let tables = pins.iter().filter(|pin| pin.ends_with("/TABLES"));
    let sizes: BTreeSet<_> = tables.map(|tables| max_entries(tables)).collect();
    assert_eq!(sizes.len(), 1, "{pins:?}");
}

#[test]
fn a_list_that_no_interface_would_have_room_for_is_refused_while_there_is_none() {
    let mut scene = scene(&[EDGE_INTERFACE]);
    scene.agent.set("gate.capacity", 1).unwrap();
    scene.lab.remove_edge_interface().unwrap();
    start_without(&mut scene, EDGE_INTERFACE);
    let many: Vec<_> = (0..20_000).map(|n| format!("11.{}.{}.1/32", n / 256, n % 256)).collect();
    let more: toml::Table = toml::from_str(
        "[[guard]]\nport = 443\nsources = [\"exchange-online\", \"many\"]\n\
         [source.many]\nkind = \"static\"",
    )
    .unwrap();
    scene.agent.settings().extend(more);
    scene.agent.set("source.many.prefixes", many).unwrap();
    scene.agent.reload().unwrap();
    wait_for_log(&scene, "raise gate.capacity");
    wait_for_log(&scene, "reload failed, going on as before");
    scene.lab.add_edge_interface().unwrap();
    wait_for_states(&scene, &[(EDGE_INTERFACE, "filtered")]);
    assert!(scene.lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed());
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
}

/// How many elements a pinned map has.
fn max_entries(pin: &str) -> u32 {
    aya::maps::MapInfo::from_pin(pin).unwrap().max_entries()
}

#[test]
fn an_interface_that_could_not_be_filtered_is_tried_again() {
    let mut scene = scene(&["edge*"]);
    scene.agent.start().unwrap();
    let pins = scene.lab.pin_directory().join("exogate/if4242");
    fs::create_dir(&pins).unwrap();
    let held = File::open(&pins).unwrap();
    held.lock().unwrap();
    scene.lab.edge().ip("link add edge5 index 4242 type veth peer name other5\n").unwrap();
    wait_for_states(&scene, &[("edge0", "filtered"), ("edge5", "open")]);
    wait_for_log(&scene, "another exogate process holds");
    // What the kernel says of a new interface comes within this time, and nothing later.
    thread::sleep(Duration::from_secs(1));
    drop(held);
    wait_for_states(&scene, &[("edge0", "filtered"), ("edge5", "filtered")]);
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
    let options = options(&lab);
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

#[test]
fn an_interface_that_is_there_after_all_keeps_its_filter() {
    let lab = Lab::new().unwrap();
    let (blocking, options) = (table(true), options(&lab));
    let gates = Gates::new(Arc::clone(&blocking));
    let open = || async {
        let mut spares = Spares::default();
        let gate = Gate::open(EDGE_INTERFACE, &options, &blocking, &mut spares).await?;
        let index = gate.interface().index;
        gates.add(gate, &blocking)?;
        Ok((index, gates.forget(index).await?))
    };
    let (index, gone) = lab.edge().run_async(PATIENCE, open).unwrap();
    assert!(!gone);
    assert!(!lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    assert!(!pins(&lab).is_empty());

    lab.remove_edge_interface().unwrap();
    let forget = || async { Ok(gates.forget(index).await?) };
    assert!(lab.edge().run_async(PATIENCE, forget).unwrap());
    assert!(pins(&lab).is_empty(), "{:?}", pins(&lab));
}

fn options(lab: &Lab) -> Options {
    let pin_directory = lab.pin_directory().join("exogate");
    Options { attach: Attach::Auto, capacity: 1000, pin_directory }
}

/// Nobody is listed.
fn table(enforce: bool) -> Arc<CompiledTable> {
    let guards = vec![Guard { protocol: Protocol::Tcp, port: HTTPS, sources: 1 }];
    let policy =
        Policy { enforce, deadline: None, destinations: None, prefixes: Vec::new(), guards };
    Arc::new(compile(&policy).unwrap())
}
