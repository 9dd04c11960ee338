//! `exogate spool`: what an operator does with notifications that were given up.

use exogate_tests::{agent::relay::GRAPH, lab::Peer, notification::Notification, pega::Mood};

use super::{SOON, Setting};

/// A setting in which the server has refused so many notifications.
fn refused(count: u64) -> Setting {
    let setting = Setting::started();
    setting.pega.feel(Mood::Answers(422, None));
    for number in 1..=count {
        let sent = Notification::graph(GRAPH, &["one"], number, "state");
        assert_eq!(sent.answer(&setting.lab, Peer::Graph).unwrap().status, 202);
    }
    setting
        .agent
        .wait_until("all are dead letters", SOON, |metrics| {
            metrics.sum("exogate_spool_dead_letters", &[("route", "graph")]) == Some(count as f64)
        })
        .unwrap();
    setting
}

#[test]
fn dead_letters_are_listed_shown_replayed_and_exported() {
    let setting = refused(3);
    let agent = &setting.agent;
    let listed = agent.json(&["spool", "list", "--route", "graph"]).unwrap();
    let letters = listed.as_array().unwrap();
    assert_eq!(letters.len(), 3);
    assert_eq!((&letters[0]["reason"], &letters[0]["status"]), (&"refused".into(), &422.into()));
    let id = letters[1]["id"].as_str().unwrap();

    let shown = agent.json(&["spool", "show", id]).unwrap();
    assert!(shown["body"].as_str().unwrap().contains("Events/2"), "{shown:#}");
    let text = agent.print(&["spool", "list"]).unwrap();
    assert!(text.contains(id) && text.contains("refused with 422"), "{text}");
    assert!(!text.contains("Events/"), "content shows only where it is asked for: {text}");

    let exported = agent.print(&["spool", "export", "--all"]).unwrap();
    let lines: Vec<serde_json::Value> =
        exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], shown);

    let attempts = setting.pega.received().len();
    setting.pega.feel(Mood::Well);
    assert!(agent.print(&["spool", "replay", id]).unwrap().starts_with("1 dead letter "));
    let received = setting.pega.wait_for(1, SOON).unwrap();
    assert_eq!(received.last().unwrap().id(), Some(id), "under its old identity");
    assert_eq!(received.len(), attempts + 1);
    assert!(agent.print(&["spool", "replay", "--route", "graph"]).unwrap().starts_with("2 dead"));
    setting.pega.wait_for(3, SOON).unwrap();
    assert_eq!(agent.print(&["spool", "list"]).unwrap(), "there are no dead letters\n");
}

#[test]
fn dead_letters_outlive_a_restart_and_can_be_removed() {
    let mut setting = refused(2);
    setting.agent.restart().unwrap();
    let listed = setting.agent.json(&["spool", "list"]).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    setting.agent.print(&["spool", "purge", &id]).unwrap();
    assert_eq!(setting.agent.json(&["spool", "list"]).unwrap().as_array().unwrap().len(), 1);
    setting.agent.print(&["spool", "purge", "--all"]).unwrap();
    assert_eq!(setting.agent.cli(&["spool", "show", &id]).unwrap().code, 1);
    assert_eq!(setting.agent.cli(&["spool", "purge"]).unwrap().code, 64);
}
