//! What a new list does, and when.

use std::{collections::BTreeSet, fs, net::IpAddr, thread::sleep};

use exogate_tests::{
    lab::Peer,
    peer::HTTPS,
    prober::{Plan, Prober},
    service::{Instance, Publication, captures},
};
use ipnet::IpNet;
use serde_json::Value;
use toml::Table;

use super::{MOMENT, PATIENCE, Scene, count, list_hash};

/// Captures of the service itself, under versions made up from their dates.
const CAPTURES: [(&str, &str); 4] = [
    ("2020122300", "worldwide/worldwide-captured-2020-12-23.json"),
    ("2024042400", "worldwide/worldwide-captured-2024-04-24.json"),
    ("2025070500", "worldwide/worldwide-captured-2025-07-05.json"),
    ("2026052900", "worldwide/worldwide-captured-2026-05-29.json"),
];

#[test]
fn no_verdict_is_wrong_while_all_published_versions_pass_by() {
    let history = history();
    assert_eq!(history.len(), 20);
    let mut scene = Scene::new();
    // Graph had no prefixes in 2018, and an answer that takes all away is refused.
    scene.agent.settings().insert("guard".to_owned(), vec![guard(&["exchange-online"])].into());
    scene.agent.set("feed.removal_grace", "0s").unwrap();
    scene.agent.set("feed.removal_polls", 0).unwrap();
    scene.service.publish(history[0].clone());
    scene.agent.start().unwrap();
    scene.wait_for_version(history[0].version());

    let plan = Plan { peers: vec![Peer::Exchange, Peer::Stranger], ..Plan::default() };
    let prober = Prober::start(&scene.lab, plan).unwrap();
    sleep(MOMENT);
    let mut lists = BTreeSet::new();
    for publication in &history {
        scene.service.publish(publication.clone());
        scene.poll();
        let metrics = scene.wait_for_version(publication.version());
        let published = exchange(publication);
        for (family, is_v6) in [("ipv4", false), ("ipv6", true)] {
            let expected = published.iter().filter(|net| net.addr().is_ipv6() == is_v6).count();
            let labels = [("source", "exchange-online"), ("family", family)];
            let shown = count(&metrics, "exogate_allowlist_prefixes", &labels);
            assert_eq!(shown, expected as f64, "{} {family}", publication.version());
        }
        assert_eq!(count(&metrics, "exogate_allowlist_pending_removals", &[]), 0.0);
        lists.insert(list_hash(&metrics));
    }
    sleep(MOMENT);
    let report = prober.stop().unwrap();
    println!("{} lists\n{report}", lists.len());
    report.expect_only(&[Peer::Exchange]).unwrap();
    let metrics = scene.agent.metrics().unwrap();
    let lists_published = count(&metrics, "exogate_gate_publishes_total", &[("result", "ok")]);
    assert!(lists_published >= lists.len() as f64 && lists.len() > 5, "{metrics}");
    assert_eq!(count(&metrics, "exogate_feed_polls_total", &[("result", "refused")]), 0.0);
    assert_eq!(count(&metrics, "exogate_feed_polls_total", &[("result", "failed")]), 0.0);
}

#[test]
fn what_is_no_longer_published_stays_for_its_grace() {
    let mut scene = Scene::new();
    scene.publish("2019102800");
    scene.agent.set("feed.removal_grace", "0s").unwrap();
    scene.agent.set("feed.removal_polls", 0).unwrap();
    scene.agent.start().unwrap();
    scene.wait_for_version("2019102800");

    let gone = gone("2019102800", "2020080600");
    scene.lab.add_source(Peer::Exchange, gone).unwrap();
    let passes =
        |scene: &Scene| scene.lab.connect_from(Peer::Exchange, gone, HTTPS).unwrap().passed();
    assert!(passes(&scene), "{gone}");

    scene.agent.set("feed.removal_grace", "1h").unwrap();
    scene.publish("2020080600");
    scene.poll();
    let metrics = scene.wait_for_version("2020080600");
    let of_exchange = [("source", "exchange-online")];
    let pending = count(&metrics, "exogate_allowlist_pending_removals", &of_exchange);
    assert!(pending >= 1.0, "{metrics}");
    let status = scene.agent.status_json().unwrap();
    let all = count(&metrics, "exogate_allowlist_pending_removals", &[]);
    assert_eq!(status["feeds"][0]["pending_removals"].as_f64(), Some(all));
    let text = scene.agent.cli(&["status"]).unwrap().stdout;
    assert!(
        text.contains(&format!("{all} prefixes are no longer published and will go")),
        "{text}"
    );
    assert!(passes(&scene), "{gone}");

    scene.agent.set("feed.removal_grace", "0s").unwrap();
    scene.poll();
    let none = |metrics: &_| count(metrics, "exogate_allowlist_pending_removals", &[]) == 0.0;
    scene.agent.wait_until("nothing is pending", PATIENCE, none).unwrap();
    assert!(!passes(&scene), "{gone}");
}

#[test]
fn a_restarted_agent_goes_on_with_the_list_it_had() {
    let mut scene = Scene::new();
    scene.publish("2020080600");
    scene.agent.start().unwrap();
    let before = list_hash(&scene.wait_for_version("2020080600"));
    scene.agent.kill9().unwrap();
    scene.service.fail(exogate_tests::service::On::Any, exogate_tests::service::Fault::Reset);
    scene.agent.start().unwrap();
    let metrics = scene.agent.metrics().unwrap();
    assert_eq!(list_hash(&metrics), before);
    assert_eq!(count(&metrics, "exogate_feed_version", &[]), 2_020_080_600.0);
    let status = scene.agent.status_json().unwrap();
    assert_eq!(status["feeds"][0]["provenance"], "last_known_good");
}

/// A guard of port 443, as in the configuration.
fn guard(sources: &[&str]) -> Table {
    let mut guard = Table::new();
    guard.insert("port".to_owned(), 443.into());
    guard.insert("sources".to_owned(), sources.to_vec().into());
    guard
}

/// Every version of the worldwide instance that there is, oldest first.
fn history() -> Vec<Publication> {
    let mut versions = Vec::new();
    for entry in fs::read_dir(captures().join("history")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let version = name.strip_prefix("worldwide-").and_then(|name| name.strip_suffix(".json"));
        versions.extend(version.map(str::to_owned));
    }
    versions.sort();
    let published = versions.iter().map(|version| Publication::worldwide(version));
    let captured = CAPTURES
        .iter()
        .map(|(version, file)| Publication::capture(Instance::Worldwide, version, file));
    published.chain(captured).collect::<Result<_, _>>().unwrap()
}

/// The prefixes of Exchange Online on TCP 443, read from the publication itself.
fn exchange(publication: &Publication) -> BTreeSet<IpNet> {
    let sets: Vec<Value> = serde_json::from_slice(publication.sets()).unwrap();
    let https = |set: &&Value| {
        let ports = set["tcpPorts"].as_str().unwrap_or_default();
        set["serviceArea"] == "Exchange" && ports.split(',').any(|port| port.trim() == "443")
    };
    let ips = sets.iter().filter(https).filter_map(|set| set["ips"].as_array()).flatten();
    ips.map(|ip| ip.as_str().unwrap().parse().unwrap()).collect()
}

/// An address that Exchange Online had in one version and has no longer in another.
fn gone(from: &str, to: &str) -> IpAddr {
    let [from, to] = [from, to].map(|version| exchange(&Publication::worldwide(version).unwrap()));
    let free = |net: &&IpNet| !to.iter().any(|other| other.contains(*net) || net.contains(other));
    from.iter().find(free).expect("something was removed").network()
}
