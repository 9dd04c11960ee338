//! The relay stops, crashes and starts again, under load.

use std::{env, thread, time::Duration};

use exogate_tests::{
    agent::relay::GRAPH,
    lab::Peer,
    load::{Load, Report},
    notification::Notification,
    pega::Mood,
    tls::Validity,
};

use super::{SOON, Setting};

const PACE: Duration = Duration::from_millis(5);

/// How often the agent is killed: few times, or often enough to hit everything.
fn kills() -> u32 {
    if env::var_os("EXOGATE_SOAK").is_some() { 1000 } else { 12 }
}

/// Different moments, the same in every run.
fn moment(number: u32) -> Duration {
    Duration::from_micros(u64::from(number.wrapping_mul(2_654_435_761) % 120_000))
}

#[test]
fn nothing_acknowledged_is_lost_when_the_agent_is_killed_at_any_moment() {
    let setting = &mut Setting::new();
    // Only the relay, which starts faster, and is what is tried here.
    setting.agent.set("interfaces", Vec::<String>::new()).unwrap();
    setting.agent.start().unwrap();
    let load = Load::start(&setting.lab, GRAPH, 16, Duration::ZERO).unwrap();
    load.wait_for(10, SOON).unwrap();
    for number in 0..kills() {
        let before = load.count();
        thread::sleep(moment(number));
        setting.agent.kill9().unwrap();
        setting.agent.start().unwrap();
        load.wait_for(before + 1, SOON).unwrap();
    }
    let report = load.stop().unwrap();
    println!("{} kills, {} notifications acknowledged", kills(), report.count());
    let patience = Duration::from_secs(120);
    setting
        .pega
        .wait_until("all of it arrives", patience, |received| {
            report.hold_against(received, GRAPH).is_ok()
        })
        .unwrap_or_else(|_| panic!("{:?}", report.hold_against(&setting.pega.received(), GRAPH)));
}

/// A setting whose stops wait as long as a busy machine may take to answer.
fn patient() -> Setting {
    let mut setting = Setting::new();
    setting.agent.set("relay.drain", "30s").unwrap();
    setting.agent.start().unwrap();
    setting
}

#[test]
fn a_stop_answers_what_was_begun_and_loses_nothing() {
    let setting = &mut patient();
    let load = Load::start(&setting.lab, GRAPH, 16, PACE).unwrap();
    for _ in 0..5 {
        load.wait_for(load.count() + 100, SOON).unwrap();
        setting.agent.restart().unwrap();
    }
    load.wait_for(load.count() + 100, SOON).unwrap();
    is_answered_and_arrives(setting, &load.stop().unwrap());
}

#[test]
fn a_stop_breaks_off_no_request_of_a_connection_that_was_just_made() {
    let setting = &mut patient();
    let load = Load::start_anew(&setting.lab, GRAPH, 8).unwrap();
    for _ in 0..5 {
        load.wait_for(load.count() + 50, SOON).unwrap();
        setting.agent.restart().unwrap();
    }
    load.wait_for(load.count() + 50, SOON).unwrap();
    let report = load.stop().unwrap();
    // Whoever was let in by TLS, and sent a request, has its answer.
    assert_eq!(report.broken, 0);
    is_answered_and_arrives(setting, &report);
}

/// All that was accepted arrives, and nothing arrives whose sender was not answered. What
/// was sent on a connection that was closed meanwhile, as idle ones are, was never read.
fn is_answered_and_arrives(setting: &Setting, report: &Report) {
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    let received = setting
        .pega
        .wait_until("all of it arrives", SOON, |received| {
            report.hold_against(received, GRAPH).is_ok()
        })
        .unwrap();
    let unanswered = report.unacknowledged(&received).unwrap();
    assert!(unanswered.is_empty(), "taken and not answered: {unanswered:?}");
}

#[test]
fn what_waits_is_delivered_after_a_restart() {
    let mut setting = Setting::started();
    setting.pega.feel(Mood::Answers(503, None));
    let sent = Notification::graph(GRAPH, &["one", "two"], 7, "state");
    assert_eq!(sent.answer(&setting.lab, Peer::Graph).unwrap().status, 202);
    setting.agent.restart().unwrap();
    setting.pega.feel(Mood::Well);
    let received = setting.pega.wait_for(1, SOON).unwrap();
    let taken = received.iter().find(|request| request.is_taken()).unwrap();
    assert_eq!(taken.body, sent.body);
    let ids: std::collections::BTreeSet<_> = received.iter().filter_map(|one| one.id()).collect();
    assert_eq!(ids.len(), 1, "every attempt has the same identity");
}

#[test]
fn the_certificate_is_renewed_without_a_restart() {
    let setting = Setting::started();
    let expiry = "exogate_relay_certificate_expiry_timestamp_seconds";
    let before = setting.metric(expiry, &[]);
    let load = Load::start(&setting.lab, GRAPH, 4, PACE).unwrap();
    setting.agent.replace_certificate(Validity::Renewed).unwrap();
    setting
        .agent
        .wait_until("the new certificate is shown", SOON, |metrics| {
            metrics.sum(expiry, &[]) != Some(before)
        })
        .unwrap();
    load.wait_for(load.count() + 50, SOON).unwrap();
    let report = load.stop().unwrap();
    assert_eq!((report.broken, report.refused.len()), (0, 0));
}
