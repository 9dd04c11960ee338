//! The page of all metrics has those that the agent has, and no others; and they are what
//! Prometheus expects.
//!
//! All of this is asked of the scrapes of one agent, to which everything has happened that a
//! metric counts.

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use exogate_tests::{
    agent::{
        Metrics, Sample,
        relay::{EWS, GRAPH},
    },
    lab::Peer,
    nats::Cluster,
    notification::Notification,
    pega::Pega,
    server::promtool,
    service::{Fault, On},
};
use toml::Table;

use super::{PATIENCE, Scene, count};

/// One with a spool on the disk, and one with a spool on a cluster.
static SCRAPES: LazyLock<[String; 2]> = LazyLock::new(scrapes);

#[test]
fn every_metric_is_on_the_page_and_every_metric_on_the_page_exists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/METRICS.md");
    let text = fs::read_to_string(&page)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", page.display()));
    let documented = documented(&text);
    assert!(!documented.is_empty(), "{} has no row for a metric", page.display());

    let exposed: BTreeSet<_> = SCRAPES.iter().flat_map(|scrape| families(scrape)).collect();
    let missing: Vec<_> = exposed.difference(&documented).collect();
    assert!(missing.is_empty(), "not in {}: {missing:?}", page.display());
    let unknown: Vec<_> = documented.difference(&exposed).collect();
    assert!(unknown.is_empty(), "in {}, but not exposed: {unknown:?}", page.display());
}

#[test]
fn every_metric_explains_itself() {
    for scrape in SCRAPES.iter() {
        for name in families(scrape) {
            let help =
                scrape.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
            assert!(
                help.is_some_and(|help| help.len() > 10 && help.ends_with('.')),
                "{name}: {help:?}"
            );
        }
    }
}

#[test]
fn prometheus_finds_nothing_odd_in_the_metrics() {
    for scrape in SCRAPES.iter() {
        promtool(&["check", "metrics"], scrape).unwrap();
    }
}

#[test]
fn no_label_has_a_name_that_prometheus_gives_to_its_targets() {
    for scrape in SCRAPES.iter() {
        let metrics: Metrics = scrape.parse().unwrap();
        let clash = |sample: &&Sample| {
            ["instance", "job"].iter().any(|name| sample.labels.contains_key(*name))
        };
        let clashes: Vec<_> = metrics.samples().iter().filter(clash).collect();
        assert!(clashes.is_empty(), "they become exported_instance on scrape: {clashes:?}");
    }
}

/// The names in the first column of the page's tables.
fn documented(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.trim().strip_prefix('|')?.split('|').next());
    let names = cells.filter_map(|cell| cell.trim().strip_prefix('`')?.strip_suffix('`'));
    // Labels may be written behind the name.
    let names = names.map(|name| name.split('{').next().unwrap_or(name).to_owned());
    names.filter(|name| name.starts_with("exogate_")).collect()
}

/// What an agent exposes to which everything has happened that a metric counts: both
/// kinds of feed had a success, a refusal and a failure, and so had the relay, with
/// each kind of route and of spool.
fn scrapes() -> [String; 2] {
    let mut scene = Scene::new();
    let mut pega = Pega::start(&scene.lab, 8080).unwrap();
    let secret = scene.lab.directory().join("client-state");
    fs::write(&secret, "known").unwrap();
    scene.agent.add_relay(&[&pega]).unwrap();
    scene.agent.set("route.graph.client_state_file", secret.to_str().unwrap()).unwrap();
    for (key, value) in [("kind", "proxy"), ("path_prefix", "/EWS/"), ("upstream", "pega")] {
        scene.agent.set(&format!("route.exchange.{key}"), value).unwrap();
    }
    let file = scene.lab.directory().join("probes.txt");
    fs::write(&file, "198.51.100.200\n").unwrap();
    let more = format!(
        "[[guard]]\nport = 443\nsources = [\"exchange-online\", \"graph-notifications\", \"probes\"]\n\
         [source.probes]\nkind = \"file\"\npath = {file:?}\nallow_private = true"
    );
    scene.agent.settings().extend(more.parse::<Table>().unwrap());
    scene.agent.start().unwrap();
    scene.wait_for_version("2026052900");
    scene.publish("2020080600");
    for fault in [Fault::EmptyArray, Fault::ServerError] {
        scene.service.fail(On::Endpoints, fault);
        scene.poll();
    }
    let seen = |name: &'static str| move |metrics: &Metrics| count(metrics, name, &[]) > 0.0;
    let success = seen("exogate_source_last_success_timestamp_seconds");
    scene.agent.wait_until("a success", PATIENCE, success).unwrap();
    fs::write(&file, "# by mistake\n").unwrap();
    scene.agent.wait_until("a refusal", PATIENCE, seen("exogate_source_refusals_total")).unwrap();
    fs::remove_file(&file).unwrap();
    scene.agent.wait_until("a failure", PATIENCE, seen("exogate_source_failures_total")).unwrap();
    for (target, state, status) in [(GRAPH, "known", 202), (GRAPH, "wrong", 202), ("/", "", 404)] {
        let sent = Notification::graph(target, &["one"], 1, state);
        assert_eq!(sent.answer(&scene.lab, Peer::Graph).unwrap().status, status);
    }
    pega.wait_for(1, PATIENCE).unwrap();
    for target in [EWS, "/EWS/Exchange.asmx"] {
        let passed = Notification::ews(target, "one", 1).unwrap();
        assert_eq!(passed.answer(&scene.lab, Peer::Exchange).unwrap().status, 200);
    }
    pega.stop();
    let waits = Notification::graph(GRAPH, &["one"], 2, "known");
    assert_eq!(waits.answer(&scene.lab, Peer::Graph).unwrap().status, 202);
    let on_disk = scene.agent.get("/metrics").unwrap().text();

    let cluster = scene.lab.edge().run(|| Cluster::start(1)).unwrap();
    scene.agent.set("spool.jetstream.servers", cluster.urls()).unwrap();
    scene.agent.set("spool.jetstream.replicas", 1).unwrap();
    scene.agent.restart().unwrap();
    [on_disk, scene.agent.get("/metrics").unwrap().text()]
}

/// The families of a scrape that are exogate's own.
fn families(scrape: &str) -> BTreeSet<String> {
    let types = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with("exogate_")).map(str::to_owned).collect()
}
