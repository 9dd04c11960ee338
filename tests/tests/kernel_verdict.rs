//! The specification of the verdict, row by row, through the program in the
//! kernel (BPF_PROG_TEST_RUN). Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use aya::util::KernelVersion;
use exogate::gate::Program;
use exogate_ebpf::{
    abi::SAMPLED_PER_EPOCH,
    compile::{Policy, compile},
    packet::LinkLayer,
    verdict::{Action, Family, Reason},
};

#[path = "../../ebpf/tests/spec/mod.rs"]
pub(crate) mod spec;

use spec::{Case, Expected, Mode};

/// Instructions that the verifier may walk through: a fifth of what the kernel allows a
/// program (BPF_COMPLEXITY_LIMIT_INSNS, one million), so that older kernels, which walk
/// twice as far, and those to come have room.
const VERIFIER_BUDGET: u32 = 200_000;

/// `XDP_DROP` and `XDP_PASS` of linux/bpf.h.
const RETURNED: [(Action, u32); 3] = [(Action::Pass, 2), (Action::Drop, 1), (Action::WouldDrop, 2)];

#[test]
fn every_packet_gets_its_verdict() {
    judge_all(&spec::policy(), &spec::cases());
}

#[test]
fn every_packet_gets_its_verdict_where_destinations_are_restricted() {
    judge_all(&spec::destination_policy(), &spec::destination_cases());
}

#[test]
fn the_verifier_walks_within_its_budget() {
    for link_layer in [LinkLayer::Ethernet, LinkLayer::None] {
        let program = Program::load(link_layer, 65_536).unwrap();
        let Some(walked) = program.verified_instructions() else {
            // The verifier ends at a million all the same.
            let kernel = KernelVersion::current().unwrap();
            assert!(kernel < KernelVersion::new(5, 16, 0), "newer ones tell");
            println!("{link_layer:?}: this kernel does not tell how far its verifier walked");
            continue;
        };
        println!("{link_layer:?}: the verifier walked through {walked} instructions");
        assert!(walked < VERIFIER_BUDGET, "{walked} of {VERIFIER_BUDGET}");
    }
}

#[test]
fn every_blocked_source_is_told_however_many_there_are() {
    let mut program = Program::load(LinkLayer::Ethernet, 1_000).unwrap();
    program.publish(&compile(&spec::policy()).unwrap()).unwrap();
    let refused = (Action::Drop, Reason::Unlisted, Family::Ipv4);
    let frame = spec::datagram(refused);
    // More than are read at once.
    let expected: BTreeSet<_> =
        (0..5_000_u32).map(|number| Ipv4Addr::from_bits(0x0b00_0000 + number)).collect();
    for (number, source) in (0..).zip(&expected) {
        let mut frame = frame.clone();
        drop(frame.splice(spec::DATAGRAM_SOURCE, source.octets()));
        // Of each second only so many are recorded.
        program.tick(number / SAMPLED_PER_EPOCH + 1);
        program.test_run(&frame, 1).unwrap();
    }
    let found = program.blocked(usize::MAX).unwrap();
    assert!(found.iter().all(|source| source.packets == 1), "each of them was refused once");
    assert_eq!(found.len(), expected.len());
    let found: BTreeSet<_> = found.into_iter().map(|source| source.address).collect();
    let expected: BTreeSet<_> = expected.into_iter().map(IpAddr::from).collect();
    assert_eq!(found, expected);
}

fn judge_all(policy: &Policy, cases: &[Case]) {
    for link_layer in [LinkLayer::Ethernet, LinkLayer::None] {
        for mode in &spec::MODES {
            let mut program = Program::load(link_layer, 1_000).unwrap();
            program.publish(&compile(&mode.of(policy)).unwrap()).unwrap();
            judge(&program, link_layer, mode, cases);
        }
    }
}

fn judge(program: &Program, link_layer: LinkLayer, mode: &Mode, cases: &[Case]) {
    let mine: Vec<&Case> = cases.iter().filter(|case| case.link_layer == link_layer).collect();
    let (fit, short): (Vec<&Case>, Vec<&Case>) =
        mine.into_iter().partition(|case| case.fits_test_run());
    let mut wrong = Vec::new();
    for case in &fit {
        let expected = case.expected_in(mode);
        let before = counts(program);
        let (returned, _) = program.test_run(&case.frame, 1).unwrap();
        let counted = difference(&before, &counts(program));
        let returns = RETURNED.iter().find(|(action, _)| *action == expected.0).unwrap().1;
        if counted != [(expected, (1, case.frame.len() as u64))] || returned != returns {
            wrong.push(format!(
                "{}\n  expected {expected:?}, returning {returns}\n  counted {counted:?}, returned {returned}",
                case.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!(
        "{link_layer:?}, {mode:?}: {} packets as specified; {} too short for a test run, \
         which the host test judges",
        fit.len(),
        short.len()
    );
}

/// Packets and bytes by verdict.
type Counts = BTreeMap<Expected, (u64, u64)>;

fn counts(program: &Program) -> Counts {
    program
        .counts()
        .unwrap()
        .iter()
        .map(|count| ((count.action, count.reason, count.family), (count.packets, count.bytes)))
        .collect()
}

fn difference(before: &Counts, after: &Counts) -> Vec<(Expected, (u64, u64))> {
    after
        .iter()
        .map(|(key, (packets, bytes))| {
            let (packets_before, bytes_before) = before.get(key).copied().unwrap_or_default();
            (*key, (packets - packets_before, bytes - bytes_before))
        })
        .filter(|(_, (packets, _))| *packets > 0)
        .collect()
}
