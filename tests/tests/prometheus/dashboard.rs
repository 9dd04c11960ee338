//! The dashboard shows something in every panel. Whether it is pleasant to look at is for
//! Grafana to show, which is not part of these tests.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use exogate_tests::{
    agent::relay::GRAPH,
    lab::Peer,
    notification::Notification,
    pega::Pega,
    server::{promtool, rules_directory},
};
use serde_json::Value;

use super::{PATIENCE, TARGETS, Watched};

/// The expressions of all panels, by title, with the variables that Grafana puts in.
fn expressions() -> Vec<(String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/exogate.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter(|panel| panel["type"] != "row").flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        targets.iter().map(move |target| (title, target["expr"].as_str().unwrap()))
    });
    let replaced = targets.map(|(title, expression)| {
        let expression = expression
            .replace("$job", "exogate")
            .replace("$instance", ".+")
            .replace("$__rate_interval", "5s");
        assert!(!expression.contains('$'), "{expression}");
        (title.to_owned(), expression)
    });
    replaced.collect()
}

#[test]
fn promtool_takes_every_expression_and_the_page_has_every_metric() {
    let page = fs::read_to_string(rules_directory().join("METRICS.md")).unwrap();
    let rules = fs::read_to_string(rules_directory().join("recording.yml")).unwrap();
    let mut text = "groups:\n- name: panels\n  rules:\n".to_owned();
    for (number, (title, expression)) in expressions().iter().enumerate() {
        text.push_str(&format!("  - record: panel:{number}\n    expr: {expression:?}\n"));
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for name in expression.split(|c: char| !is_name(c)) {
            let metric = name.trim_end_matches("_bucket");
            assert!(
                !name.starts_with("exogate")
                    || name == "exogate"
                    || rules.contains(&format!("record: {name}\n"))
                    || page.contains(&format!("| `{metric}` |")),
                "{title}: {name}"
            );
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("panels.yml");
    fs::write(&file, text).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "").unwrap();
}

#[test]
fn every_panel_shows_something_of_a_live_agent() {
    let mut watched = Watched::new();
    let pega = Pega::start(&watched.lab, 8080).unwrap();
    watched.agent.add_relay(&[&pega]).unwrap();
    watched.start(&TARGETS[..1]);
    let mut missing = expressions();
    let begin = Instant::now();
    for number in 1.. {
        // Something goes on, as in life; one sender has a wrong path.
        for target in [GRAPH, "/"] {
            let sent = Notification::graph(target, &["one"], number, "");
            sent.answer(&watched.lab, Peer::Graph).unwrap();
        }
        missing.retain(|(title, expression)| {
            let found = watched.prometheus().query(expression);
            let found = found.unwrap_or_else(|error| panic!("{title}: {error:#}"));
            // A quantile of nothing is no number.
            !found.iter().any(|sample| sample["value"][1] != "NaN")
        });
        if missing.is_empty() {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "nothing to see: {missing:?}");
        thread::sleep(Duration::from_millis(200));
    }
}
