//! The host itself is in trouble.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use exogate_tests::{
    agent::relay::{EWS, GRAPH},
    lab::Peer,
    load::Load,
    notification::Notification,
    pega::Mood,
};

use super::{SOON, Setting};

fn sent(number: u64, kilobytes: usize) -> Notification {
    Notification::graph(GRAPH, &["one"], number, &"x".repeat(kilobytes << 10))
}

#[test]
fn what_does_not_fit_on_the_disk_is_not_accepted() {
    let mut setting = Setting::new();
    // 64 MiB of a disk are left free, for what removes what was delivered.
    let disk = setting.lab.small_disk("small", 128 << 20).unwrap();
    setting.agent.set("spool.directory", disk.join("spool").to_str().unwrap()).unwrap();
    setting.agent.start().unwrap();
    setting.pega.feel(Mood::Answers(503, None));
    let mut accepted = 0;
    let status = loop {
        match sent(accepted + 1, 512).answer(&setting.lab, Peer::Graph).unwrap().status {
            202 => accepted += 1,
            status => break status,
        }
        assert!(accepted < 130, "64 MiB hold no 130 notifications of 512 KiB");
    };
    assert_eq!(status, 503);
    assert!(accepted > 10);
    // There is room again when the server has taken them.
    setting.pega.feel(Mood::Well);
    setting.pega.wait_for(usize::try_from(accepted).unwrap(), Duration::from_secs(60)).unwrap();
    setting
        .agent
        .wait_until("the spool is empty", SOON, |metrics| {
            metrics.sum("exogate_spool_records", &[("route", "graph")]) == Some(0.0)
        })
        .unwrap();
    assert_eq!(sent(accepted + 1, 512).answer(&setting.lab, Peer::Graph).unwrap().status, 202);
}

#[test]
fn beyond_its_limit_the_spool_takes_nothing() {
    let mut setting = Setting::new();
    setting.agent.set("spool.max_size", "1MiB").unwrap();
    setting.agent.start().unwrap();
    setting.pega.feel(Mood::Answers(503, None));
    let mut number = 0;
    while sent(number, 4).answer(&setting.lab, Peer::Graph).unwrap().status == 202 {
        number += 1;
        assert!(number < 300, "1 MiB holds no 300 notifications of 4 KiB");
    }
    assert!(setting.metric("exogate_spool_appends_total", &[("result", "full")]) >= 1.0);
    assert!(number > 100);
}

#[test]
fn what_a_stalled_disk_does_not_make_durable_in_time_is_answered_503() {
    let mut setting = Setting::new();
    setting.agent.set("route.ews.delivery", "store-and-forward").unwrap();
    setting.agent.start().unwrap();
    let ews = |number| Notification::ews(EWS, "c3Vi", number).unwrap();
    assert_eq!(ews(1).answer(&setting.lab, Peer::Exchange).unwrap().status, 200);
    let pid = setting.agent.pid().unwrap().to_string();
    let mut stall = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid, "-e", "trace=fdatasync,fsync"])
        .args(["-e", "inject=fdatasync,fsync:delay_enter=60s"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    // It takes hold when it does, and then Graph is answered before it would call us slow.
    let mut number = 1;
    while sent(number, 1).answer(&setting.lab, Peer::Graph).unwrap().status == 202 {
        assert!(begin.elapsed() < SOON, "strace does not take hold of the agent");
        number += 1;
    }
    let refused = ews(2).answer(&setting.lab, Peer::Exchange).unwrap();
    let over = [("over", "3s")];
    let slow = setting.metric("exogate_relay_slow_answers_ratio", &over);
    stall.kill().unwrap();
    stall.wait().unwrap();
    assert_eq!(refused.status, 503, "before Exchange gives up");
    assert!(slow < 1.0);
    // Exchange repeats it, and it arrives once.
    let repeated = ews(2).answer(&setting.lab, Peer::Exchange).unwrap();
    assert_eq!(repeated.status, 200);
    setting
        .pega
        .wait_until("it arrives", SOON, |received| {
            received.iter().filter(|one| one.body == ews(2).body).count() == 1
        })
        .unwrap();
}

#[test]
fn without_file_descriptors_the_relay_goes_on_when_there_are_some_again() {
    let mut setting = Setting::new();
    setting.agent.set("interfaces", Vec::<String>::new()).unwrap();
    setting.agent.start().unwrap();
    setting.agent.limit_open_files(40).unwrap();
    let load = Load::start(&setting.lab, GRAPH, 100, Duration::from_millis(20)).unwrap();
    load.wait_for(200, SOON).unwrap();
    setting.agent.limit_open_files(4096).unwrap();
    let all = |load: &Load| load.report().acknowledged.len() == 100;
    let begin = Instant::now();
    while !all(&load) {
        assert!(begin.elapsed() < SOON, "{:?}", load.report().acknowledged.len());
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = load.stop().unwrap();
    setting
        .pega
        .wait_until("all of it arrives", SOON, |received| {
            report.hold_against(received, GRAPH).is_ok()
        })
        .unwrap();
}
