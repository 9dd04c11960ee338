//! Names from a real DNS server.

use std::{net::IpAddr, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::Lab,
    server::{Query, Unbound},
};
use jiff::Timestamp;
use serde_json::Value;

use super::{PARTNERS, SOON, feed, follow, lab, passing, poll, server, wait};

const PROBE: &str = "probe.example.com";
const OTHER: &str = "other.example.com";

fn addresses() -> [IpAddr; 4] {
    PARTNERS.map(|partner| partner.parse().unwrap())
}

fn start(lab: &Lab, server: IpAddr) -> Agent {
    let server = std::net::SocketAddr::new(server, 53);
    let mut agent = follow(
        lab,
        &format!("kind = \"dns\"\nnames = [\"{PROBE}\", \"{OTHER}\"]\nservers = [\"{server}\"]"),
    );
    agent.start().unwrap();
    agent
}

/// The time between the last poll and the next one.
fn pace(feed: &Value) -> Duration {
    let time = |key: &str| feed[key].as_str().unwrap().parse::<Timestamp>().unwrap();
    Duration::try_from(time("next_attempt").duration_since(time("last_success"))).unwrap()
}

#[test]
fn names_are_followed_over_both_families_as_long_as_they_are_valid() {
    let [a, b, c, d] = addresses();
    let [ta, tb, tc, td] = PARTNERS;
    for address in ["192.0.2.53", "2001:db8:5::53"] {
        let lab = lab();
        let address = server(address, &lab);
        // The shorter time to live counts, and half a minute at least.
        let names: [(_, _, &[_]); 2] = [(PROBE, 120, &[a, c]), (OTHER, 3000, &[b])];
        let mut unbound = Unbound::start(&lab, &[address], &names).unwrap();
        let agent = start(&lab, address);
        wait(&lab, ta, true, SOON);
        assert_eq!(passing(&lab), [ta, tb, tc], "{}", agent.log());
        for kind in ["A", "AAAA"] {
            let asked = |query: &Query| query.name == PROBE && query.kind == kind;
            assert!(unbound.queries().iter().any(asked), "{:?}", unbound.queries());
        }
        let pace = pace(&feed(&agent, "partners")).as_secs();
        assert!((100..=120).contains(&pace), "the next poll is {pace} s after the last");

        // A name that moves, and gets another family.
        unbound.answer(&[(PROBE, 5, &[d]), (OTHER, 3000, &[b])]).unwrap();
        poll(&agent);
        assert_eq!(passing(&lab), [tb, td], "{}", agent.log());
    }
}

#[test]
fn a_name_is_asked_for_again_when_its_time_is_over_and_no_sooner() {
    let lab = lab();
    let [a, b, ..] = addresses();
    let [ta, tb, ..] = PARTNERS;
    let address = server("192.0.2.53", &lab);
    let mut unbound =
        Unbound::start(&lab, &[address], &[(PROBE, 30, &[a]), (OTHER, 30, &[a])]).unwrap();
    let agent = start(&lab, address);
    wait(&lab, ta, true, SOON);
    unbound.answer(&[(PROBE, 30, &[a, b]), (OTHER, 30, &[a])]).unwrap();
    wait(&lab, tb, true, Duration::from_secs(60));
    assert_eq!(passing(&lab), [ta, tb], "{}", agent.log());
    let queries = unbound.queries();
    let times: Vec<_> = queries
        .iter()
        .filter(|query| query.name == PROBE && query.kind == "A")
        .map(|query| query.at)
        .collect();
    // The log has whole seconds.
    assert!(times.len() >= 2 && times[1] - times[0] >= 29, "{queries:?}");
}

#[test]
fn a_name_that_vanishes_keeps_its_last_addresses() {
    let lab = lab();
    let [a, b, c, d] = addresses();
    let [ta, tb, tc, td] = PARTNERS;
    let address = server("192.0.2.53", &lab);
    let names: [(_, _, &[_]); 2] = [(PROBE, 300, &[a, c]), (OTHER, 300, &[b])];
    let mut unbound = Unbound::start(&lab, &[address], &names).unwrap();
    let agent = start(&lab, address);
    wait(&lab, ta, true, SOON);

    // It is gone (NXDOMAIN), and the other one has moved.
    unbound.answer(&[(OTHER, 300, &[d])]).unwrap();
    poll(&agent);
    assert_eq!(passing(&lab), [ta, tc, td], "{}", agent.log());
    assert!(agent.log().contains("the last addresses of a name stay"), "{}", agent.log());

    // Both are, and then nobody answers.
    let failed = [("source", "partners"), ("reason", "unresolved")];
    for (count, gone) in [true, false].into_iter().enumerate() {
        if gone {
            unbound.answer(&[]).unwrap();
        } else {
            unbound.stop();
        }
        poll(&agent);
        let failures = agent.metrics().unwrap().sum("exogate_source_failures_total", &failed);
        assert_eq!(failures, Some((count + 1) as f64), "{}", agent.log());
        let problem = feed(&agent, "partners")["problem"].to_string();
        assert!(problem.contains(PROBE) && problem.contains(OTHER), "{problem}");
        assert_eq!(passing(&lab), [ta, tc, td], "{}", agent.log());
    }

    unbound.answer(&[(PROBE, 300, &[a]), (OTHER, 300, &[b])]).unwrap();
    poll(&agent);
    assert_eq!(passing(&lab), [ta, tb], "{}", agent.log());
}
