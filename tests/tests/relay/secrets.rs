//! What is secret stays secret: on the disk, in the log, in metrics and answers.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use exogate_tests::{
    agent::relay::{EWS, GRAPH},
    lab::Peer,
    notification::Notification,
    pega::Mood,
};
use toml::Table;

use super::{SOON, Setting};

/// All files and directories below one.
fn all_below(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(all_below(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn with_a_key_nothing_that_was_stored_can_be_read_on_the_disk() {
    for is_sealed in [false, true] {
        let mut setting = Setting::new();
        let spool = setting.lab.directory().join("the-spool");
        setting.agent.set("spool.directory", spool.to_str().unwrap()).unwrap();
        if is_sealed {
            let key = setting.secret("spool-key", &format!("{}\n", "0123456789abcdef".repeat(4)));
            setting.agent.set("spool.key_file", key).unwrap();
        }
        setting.agent.start().unwrap();
        setting.pega.feel(Mood::Answers(503, None));
        let sent = Notification::graph(GRAPH, &["the-one"], 7, "state")
            .with("x-personal", "a-field-of-the-head");
        assert_eq!(sent.answer(&setting.lab, Peer::Graph).unwrap().status, 202);
        for is_stopped in [false, true] {
            if is_stopped {
                setting.agent.terminate().unwrap();
            }
            let files = all_below(&spool);
            let holds = |text: &str| {
                files.iter().filter(|path| path.is_file()).any(|path| {
                    let bytes = fs::read(path).unwrap();
                    bytes.windows(text.len()).any(|window| window == text.as_bytes())
                })
            };
            for text in ["the-one", "Users/1/Events/7", "clientState", "a-field-of-the-head", GRAPH]
            {
                assert_eq!(holds(text), !is_sealed, "{text}, with a key: {is_sealed}");
            }
            for path in files {
                let mode = fs::metadata(&path).unwrap().mode() & 0o777;
                let expected = if path.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(mode, expected, "{} has {mode:o}", path.display());
            }
        }
        setting.pega.feel(Mood::Well);
        setting.agent.start().unwrap();
        let received = setting.pega.wait_for(1, SOON).unwrap();
        assert_eq!(received.iter().find(|one| one.is_taken()).unwrap().body, sent.body);
    }
}

#[test]
fn neither_log_nor_metrics_nor_answers_tell_a_secret() {
    let mut setting = Setting::new();
    setting.agent.set("log.level", "trace").unwrap();
    let state = setting.secret("client-state", "SECRET-STATE\n");
    setting.agent.set("route.graph.client_state_file", state).unwrap();
    setting.agent.set("route.graph.upstream_path", "/SECRET-BEHIND").unwrap();
    let key = setting.secret("key", "SECRET-KEY\n");
    let mut secret = Table::new();
    secret.insert("name".to_owned(), "key".into());
    secret.insert("file".to_owned(), key.into());
    setting.agent.set("route.ews.query_secret", secret).unwrap();
    let password = setting.secret("password", "SECRET-PASSWORD\n");
    let mut credentials = Table::new();
    credentials.insert("username".to_owned(), "relay".into());
    credentials.insert("password_file".to_owned(), password.into());
    setting.agent.set("upstream.pega.credentials", credentials).unwrap();
    setting.agent.start().unwrap();
    let graph = |target: &str, state: &str| {
        let target = format!("{GRAPH}?Password=SECRET-QUERY{target}");
        Notification::graph(&target, &["SECRET-SUBSCRIPTION"], 1, state)
    };
    for mood in [Mood::Well, Mood::Answers(500, None), Mood::Resets, Mood::Answers(422, None)] {
        setting.pega.feel(mood);
        for sent in [
            graph("", "SECRET-STATE"),
            graph("", "SECRET-WRONG"),
            graph("&x=%00", "SECRET-STATE"),
            Notification::validation(GRAPH, "SECRET-TOKEN"),
            Notification::ews(&format!("{EWS}?key=SECRET-KEY"), "U0VDUkVU", 1).unwrap(),
            Notification::ews(&format!("{EWS}?key=SECRET-WRONG"), "U0VDUkVU", 1).unwrap(),
        ] {
            sent.with("callerdata", "SECRET-CALLER").answer(&setting.lab, Peer::Graph).unwrap();
        }
    }
    let dead = |metrics: &exogate_tests::agent::Metrics| {
        metrics.sum("exogate_spool_dead_letters", &[]) >= Some(1.0)
    };
    setting.agent.wait_until("one is a dead letter", SOON, dead).unwrap();
    let metrics = setting.agent.get("/metrics").unwrap().text();
    let status = setting.agent.status_json().unwrap().to_string();
    let check = setting.agent.print(&["config", "check"]).unwrap();
    let check_json = setting.agent.print(&["config", "check", "--json"]).unwrap();
    assert!(check.contains("route       graph = graph at any host to pega"), "{check}");
    setting.agent.terminate().unwrap();
    let log = setting.agent.log();
    assert!(log.contains("TRACE"), "the log tells all it can");
    let secrets = ["SECRET", "8Jx2mVq0s7", "Kq81zB4tYc"];
    let texts = [
        ("log", log),
        ("metrics", metrics),
        ("status", status),
        ("check", check),
        ("check", check_json),
    ];
    for (name, text) in texts {
        for line in text.lines() {
            let told = secrets.iter().find(|secret| line.contains(**secret));
            assert!(told.is_none(), "{name}: {told:?} in {line}");
        }
    }
}
