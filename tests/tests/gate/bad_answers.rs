//! A list that cannot be right, or cannot be had, changes nothing: the list in force
//! stays, the operator is told why, and the next good answer is taken.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use exogate_tests::{
    lab::Peer,
    peer::HTTPS,
    prober::{Plan, Prober},
    service::{Certificate, Fault, Instance, Moment, On, Publication},
};
use serde_json::{Value, json};

use super::{Scene, count, list_hash};

const FAILURES: &str = "exogate_feed_failures_total";
const REFUSALS: &str = "exogate_feed_refusals_total";
/// The version in force, and the one that cannot be had.
const HELD: &str = "2019102800";
const NEXT: &str = "2020080600";

/// An agent that has the list of [`HELD`], and senders that see each wrong verdict.
fn scene() -> (Scene, Prober, String) {
    let mut scene = Scene::new();
    scene.publish(HELD);
    scene.agent.set("feed.timeout", "2s").unwrap();
    scene.agent.start().unwrap();
    let hash = list_hash(&scene.wait_for_version(HELD));
    let prober = Prober::start(&scene.lab, Plan::default()).unwrap();
    (scene, prober, hash)
}

/// Polls, and sees that the answer was counted under its reason and changed nothing.
fn poll_in_vain(scene: &mut Scene, hash: &str, what: &str, metric: &str, reason: &str) {
    let before = scene.agent.metrics().unwrap();
    let after = scene.poll();
    let gained = |name, labels: &[_]| count(&after, name, labels) - count(&before, name, labels);
    assert_eq!(gained(metric, &[("reason", reason)]), 1.0, "{what}: {}", scene.agent.log());
    assert_eq!(gained(FAILURES, &[]) + gained(REFUSALS, &[]), 1.0, "{what}");
    let result = if metric == REFUSALS { "refused" } else { "failed" };
    assert_eq!(gained("exogate_feed_polls_total", &[("result", result)]), 1.0, "{what}");
    assert_eq!(list_hash(&after), hash, "{what}");
    assert_eq!(count(&after, "exogate_feed_version", &[]), HELD.parse::<f64>().unwrap(), "{what}");
    let status = scene.agent.status_json().unwrap();
    assert_eq!(status["feeds"][0]["problem"]["reason"], reason, "{what}");
}

/// The service is well again, and so is the agent; nobody noticed.
fn recover(mut scene: Scene, prober: Prober, hash: &str) {
    scene.service.heal();
    scene.publish(NEXT);
    scene.poll();
    let metrics = scene.wait_for_version(NEXT);
    assert_ne!(list_hash(&metrics), hash);
    assert!(scene.agent.status_json().unwrap()["feeds"][0]["problem"].is_null());
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&[Peer::Exchange, Peer::Graph]).unwrap();
}

#[test]
fn answers_that_are_no_use_change_nothing() {
    let (mut scene, prober, hash) = scene();
    scene.publish(NEXT);
    let redirect = Fault::Redirect { location: "https://192.0.2.10/endpoints".to_owned() };
    let slow = Fault::Slow { piece: 100, pause: Duration::from_millis(50) };
    for (method, fault, metric, reason) in [
        (On::Endpoints, Fault::EmptyArray, REFUSALS, "no_prefixes"),
        (On::Endpoints, Fault::Empty, REFUSALS, "not_json"),
        (On::Endpoints, Fault::Html, REFUSALS, "not_json"),
        (On::Endpoints, Fault::Huge { bytes: 1 << 30 }, REFUSALS, "too_large"),
        (On::Endpoints, Fault::Truncated, FAILURES, "transport"),
        (On::Endpoints, Fault::Reset, FAILURES, "transport"),
        (On::Endpoints, Fault::Hang, FAILURES, "timeout"),
        (On::Endpoints, slow, FAILURES, "timeout"),
        (On::Endpoints, redirect, FAILURES, "redirect"),
        (On::Endpoints, Fault::TooManyRequests, FAILURES, "throttled"),
        (On::Endpoints, Fault::ServerError, FAILURES, "server_error"),
        (On::Version, Fault::Empty, REFUSALS, "not_json"),
        (On::Version, Fault::EmptyArray, REFUSALS, "other_instance"),
        (On::Version, Fault::Html, REFUSALS, "not_json"),
        (On::Version, Fault::TooManyRequests, FAILURES, "throttled"),
    ] {
        scene.service.heal();
        scene.service.fail(method, fault.clone());
        poll_in_vain(&mut scene, &hash, &format!("{method:?} {fault:?}"), metric, reason);
    }
    recover(scene, prober, &hash);
}

#[test]
fn a_service_that_cannot_prove_its_name_is_not_believed() {
    let (mut scene, prober, hash) = scene();
    scene.publish(NEXT);
    for (certificate, says) in
        [(Certificate::Expired, "expired"), (Certificate::WrongName, "not valid for name")]
    {
        scene.service.present(certificate);
        let what = format!("{certificate:?}");
        poll_in_vain(&mut scene, &hash, &what, FAILURES, "transport");
        let status = scene.agent.status_json().unwrap();
        let message = status["feeds"][0]["problem"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{what}: {message}");
    }
    recover(scene, prober, &hash);
}

#[test]
fn sets_that_cannot_be_right_are_refused_as_a_whole() {
    type Edit = fn(&mut Vec<Value>);
    let (mut scene, prober, hash) = scene();
    let next = Publication::worldwide(NEXT).unwrap();
    let cases: [(&str, Edit); 8] = [
        ("too_wide", |sets| exchange(sets).push(json!("40.0.0.0/6"))),
        ("too_wide", |sets| exchange(sets).push(json!("2a00::/12"))),
        ("not_public", |sets| exchange(sets).push(json!("10.0.0.0/24"))),
        ("not_public", |sets| exchange(sets).push(json!("::/0"))),
        ("ipv4_mapped", |sets| exchange(sets).push(json!("::ffff:203.0.113.0/120"))),
        ("host_bits", |sets| exchange(sets).push(json!("40.96.1.2/16"))),
        ("malformed", |sets| exchange(sets).push(json!("40.96.0.0/33"))),
        ("removes_too_much", |sets| {
            let kept = |set: &Value| set["serviceArea"] != "Exchange" || set["id"] == 1;
            sets.retain(kept);
            exchange(sets).truncate(2);
        }),
    ];
    for (number, (reason, edit)) in cases.into_iter().enumerate() {
        let version = format!("20200806{:02}", number + 1);
        scene.service.publish(next.edited(&version, edit).unwrap());
        poll_in_vain(&mut scene, &hash, &version, REFUSALS, reason);
    }
    recover(scene, prober, &hash);
}

#[test]
fn a_publication_between_the_two_requests_is_taken_whole() {
    let (mut scene, prober, hash) = scene();
    let next = Publication::worldwide(NEXT).unwrap();
    for (number, moment) in [Moment::BeforeSets, Moment::AfterSets].into_iter().enumerate() {
        let sender = format!("45.60.{number}.9").parse().unwrap();
        scene.lab.add_source(Peer::Stranger, sender).unwrap();
        let version = |step: usize| format!("20200806{:02}", 10 * number + step);
        scene.service.publish(next.edited(&version(1), |_| {}).unwrap());
        let last = next.edited(&version(2), |sets| {
            exchange(sets).push(json!(format!("45.60.{number}.0/24")));
        });
        scene.service.publish_during(moment, last.unwrap());
        scene.poll();
        scene.wait_for_version(&version(2));
        let reached = scene.lab.connect_from(Peer::Stranger, sender, HTTPS).unwrap();
        assert!(reached.passed(), "{moment:?}: the version is new and the sets are old");
    }
    assert_ne!(list_hash(&scene.agent.metrics().unwrap()), hash);
    prober.stop().unwrap().expect_only(&[Peer::Exchange, Peer::Graph]).unwrap();
}

#[test]
fn a_version_that_never_rests_is_not_paired_with_any_sets() {
    let (mut scene, prober, hash) = scene();
    let moving = AtomicBool::new(true);
    let next = Publication::worldwide(NEXT).unwrap();
    let service = &scene.service;
    let version = |number: u32| {
        Publication::new(Instance::Worldwide, &format!("30{number:08}"), next.sets().clone())
    };
    // Threads cannot share the scene with what changes it.
    let before = scene.agent.metrics().unwrap();
    scene.agent.set("feed.interval", "2h").unwrap();
    let after = thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while moving.load(Ordering::Relaxed) {
                service.publish(version(number));
                number += 1;
                thread::sleep(Duration::from_millis(1));
            }
        });
        thread::sleep(Duration::from_millis(20));
        scene.agent.reload().unwrap();
        let polled =
            |metrics: &_| count(metrics, "exogate_feed_polls_total", &[("result", "failed")]) > 0.0;
        let after = scene.agent.wait_until("a poll fails", super::PATIENCE, polled);
        moving.store(false, Ordering::Relaxed);
        after.and_then(|_| scene.agent.metrics()).unwrap()
    });
    assert_eq!(count(&before, FAILURES, &[]), 0.0);
    assert_eq!(count(&after, FAILURES, &[("reason", "moving")]), 1.0, "{}", scene.agent.log());
    assert_eq!(list_hash(&after), hash);
    recover(scene, prober, &hash);
}

/// The prefixes of the first set of Exchange on TCP 443.
fn exchange(sets: &mut [Value]) -> &mut Vec<Value> {
    let set = sets.iter_mut().find(|set| set["serviceArea"] == "Exchange").unwrap();
    set["ips"].as_array_mut().unwrap()
}
