//! The verdict on the table of packets in `spec`, on the host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use exogate_ebpf::{
    compile::{Policy, compile},
    packet,
    verdict::{self, Action, Family, Reason, Verdict},
};

mod spec;

use spec::{Case, Expected};

fn assert_all(policy: Policy, cases: &[Case]) {
    for mode in &spec::MODES {
        let compiled = compile(&mode.of(&policy)).unwrap();
        let table = compiled.table();
        let wrong: Vec<String> = cases
            .iter()
            .filter_map(|case| {
                let parsed = packet::parse(case.frame.as_slice(), case.link_layer);
                let verdict = table.by_now(verdict::judge(&parsed, &table), || spec::NOW);
                let found: Expected = (verdict.action(), verdict.reason(), verdict.family());
                let expected = case.expected_in(mode);
                (found != expected).then(|| {
                    format!(
                        "{}\n  expected {expected:?}\n  found    {found:?}\n  parsed   {parsed:?}\n  frame    {:02x?}",
                        case.name, case.frame
                    )
                })
            })
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {} packets got another verdict ({mode:?}):\n{}",
            wrong.len(),
            cases.len(),
            wrong.join("\n")
        );
    }
}

#[test]
fn every_packet_gets_its_verdict() {
    assert_all(spec::policy(), &spec::cases());
}

#[test]
fn every_packet_gets_its_verdict_where_destinations_are_restricted() {
    assert_all(spec::destination_policy(), &spec::destination_cases());
}

#[test]
fn the_clock_is_asked_only_where_it_decides() {
    for mode in &spec::MODES {
        let compiled = compile(&mode.of(&spec::policy())).unwrap();
        let table = compiled.table();
        for action in Action::ALL {
            let mut asked = false;
            let verdict = Verdict::new(action, Reason::Unparsable, Family::Other);
            let _ = table.by_now(verdict, || {
                asked = true;
                spec::NOW
            });
            assert_eq!(asked, action == Action::Drop && mode.deadline.is_some(), "{mode:?}");
        }
    }
}

#[test]
fn without_restriction_the_guarded_hosts_are_no_sources() {
    let Policy { destinations, .. } = spec::destination_policy();
    let policy = Policy { destinations, ..spec::policy() };
    let compiled = compile(&policy).unwrap();
    let table = compiled.table();
    let any = table.any_guard();
    for address in [IpAddr::from(spec::HOST4), IpAddr::from(spec::HOST6)] {
        assert_eq!(table.sources(&address.into()) & any, 0, "{address}");
    }
}

#[test]
fn the_table_covers_the_vocabulary_and_names_each_packet_once() {
    let cases = [spec::cases(), spec::destination_cases()].concat();
    let mut names = HashSet::new();
    let mut seen: BTreeMap<Expected, usize> = BTreeMap::new();
    for case in &cases {
        assert!(names.insert(&case.name), "two rows are named {:?}", case.name);
        *seen.entry(case.expected).or_default() += 1;
    }
    let with_a_family = [Family::Ipv4, Family::Ipv6].into_iter().flat_map(|family| {
        [
            (Action::Pass, Reason::NotGuarded, family),
            (Action::Pass, Reason::Allowed, family),
            (Action::Drop, Reason::Unlisted, family),
            (Action::Pass, Reason::Fragment, family),
            (Action::Pass, Reason::Unparsable, family),
            (Action::Drop, Reason::Unparsable, family),
        ]
    });
    let without = [
        (Action::Pass, Reason::NotIp, Family::Other),
        (Action::Drop, Reason::Unparsable, Family::Other),
    ];
    for expected in with_a_family.chain(without) {
        assert!(seen.contains_key(&expected), "no row expects {expected:?}");
    }

    let short = cases.iter().filter(|case| !case.fits_test_run()).count();
    println!(
        "{} packets, of which {short} are too short for BPF_PROG_TEST_RUN: {seen:#?}",
        cases.len()
    );
    assert!(cases.len() > 1_500, "the generated rows are missing: {}", cases.len());
}
