//! Two million random frames through the library and through a second
//! implementation of the same rules: they must agree on every one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and overflow checks are on"
)]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use exogate_ebpf::{
    compile::{Policy, compile},
    packet::{self, Address, LinkLayer, Parsed},
    verdict::{self, Action, Family, Reason},
};

mod generate;
#[path = "../random/mod.rs"]
mod random;
mod reference;

use generate::World;
use random::Random;
use reference::{Frame, Lists};

const POLICIES: u64 = 512;
const FRAMES_PER_POLICY: u64 = 4_096;
/// Of each outcome that can be, out of the two million frames.
const AT_LEAST: u64 = 2_000;

/// What the library found, in the words of the reference.
fn in_words_of_the_reference(parsed: Parsed) -> Frame {
    let ip = |address: Address| match address {
        Address::V4(bits) => IpAddr::from(Ipv4Addr::from_bits(bits)),
        Address::V6(high, low) => {
            Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
        }
    };
    match parsed {
        Parsed::NotIp => Frame::NotIp,
        Parsed::Fragment { family } => Frame::LaterFragment(family),
        Parsed::Portless { family } => Frame::Portless(family),
        Parsed::Flow { source, destination, protocol, source_port, port } => {
            Frame::Flow { from: (ip(source), source_port), to: (ip(destination), port), protocol }
        }
        Parsed::Unparsable { family, source } => {
            Frame::Unparsable { family, source: source.map(ip) }
        }
    }
}

/// A parse result without its numbers.
fn kind(frame: Frame) -> (&'static str, Family) {
    match frame {
        Frame::NotIp => ("not IP", Family::Other),
        Frame::LaterFragment(family) => ("later fragment", family),
        Frame::Portless(family) => ("portless", family),
        Frame::Flow { from: (IpAddr::V4(_), _), .. } => ("flow", Family::Ipv4),
        Frame::Flow { .. } => ("flow", Family::Ipv6),
        Frame::Unparsable { family, source: None } => ("unparsable", family),
        Frame::Unparsable { family, source: Some(_) } => ("unparsable, source known", family),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[test]
fn two_million_random_frames_get_the_verdict_of_the_reference() {
    let mut verdicts: BTreeMap<(Action, Reason, Family), u64> = BTreeMap::new();
    let mut kinds: BTreeMap<(&str, &str, Family), u64> = BTreeMap::new();
    let mut agreed_with_etherparse = 0;

    for number in 0..POLICIES {
        let mut random = Random::new(number);
        let world = World::new(&mut random);
        let enforcing = Policy { enforce: true, ..world.policy.clone() };
        let monitoring = Policy { enforce: false, ..world.policy.clone() };
        let modes = [enforcing, monitoring]
            .map(|policy| (compile(&policy).unwrap(), Lists::new(&policy), policy));

        for frame_number in 0..FRAMES_PER_POLICY {
            let (link_layer, frame) = world.frame(&mut random);
            let context = || {
                format!("policy {number}, frame {frame_number}, {link_layer:?}: {}", hex(&frame))
            };
            let parsed = packet::parse(frame.as_slice(), link_layer);
            let found = in_words_of_the_reference(parsed);
            let expected = reference::parse(&frame, link_layer);
            assert_eq!(found, expected, "parse of {}", context());
            if let Some(flow) = reference::strict_flow(&frame, link_layer) {
                assert_eq!(found, flow, "etherparse's parse of {}", context());
                agreed_with_etherparse += 1;
            }
            let (what, family) = kind(expected);
            let link = if link_layer == LinkLayer::None { "IP" } else { "Ethernet" };
            *kinds.entry((link, what, family)).or_default() += 1;

            for (compiled, lists, policy) in &modes {
                let table = compiled.table();
                let verdict = verdict::judge(&parsed, &table);
                let found = (verdict.action(), verdict.reason(), verdict.family());
                let expected = lists.judge(expected);
                assert_eq!(found, expected, "verdict on {parsed:?} by {policy:?}\n{}", context());
                *verdicts.entry(found).or_default() += 1;
            }
        }
    }

    println!("{verdicts:#?}\n{kinds:#?}\netherparse agreed on {agreed_with_etherparse}");
    assert_eq!(verdicts.values().sum::<u64>(), 2 * POLICIES * FRAMES_PER_POLICY);
    for action in Action::ALL {
        for reason in Reason::ALL {
            for family in Family::ALL {
                let verdict = (action, reason, family);
                let count = verdicts.get(&verdict).copied().unwrap_or_default();
                assert_eq!(verdict::can_occur(action, reason, family), can_be(verdict));
                if can_be(verdict) {
                    assert!(count >= AT_LEAST, "{verdict:?} occurred {count} times only");
                } else {
                    assert_eq!(count, 0, "{verdict:?} cannot be");
                }
            }
        }
    }
    for link in ["Ethernet", "IP"] {
        let count = |what, family| kinds.get(&(link, what, family)).copied().unwrap_or_default();
        for what in ["later fragment", "portless", "flow", "unparsable", "unparsable, source known"]
        {
            for family in [Family::Ipv4, Family::Ipv6] {
                let count = count(what, family);
                assert!(count >= AT_LEAST, "{what} {family:?} over {link}: {count} times only");
            }
        }
        for what in ["not IP", "unparsable"] {
            let count = count(what, Family::Other);
            assert!(count >= AT_LEAST, "{what} over {link}: {count} times only");
        }
    }
    assert!(agreed_with_etherparse >= 400_000, "etherparse saw {agreed_with_etherparse} flows");
}

/// Every combination that a packet can end up with, so that a counter that
/// should stay 0 does.
fn can_be((action, reason, family): (Action, Reason, Family)) -> bool {
    let passes = action == Action::Pass;
    let ip = family != Family::Other;
    match reason {
        Reason::NotIp => passes && !ip,
        Reason::NotGuarded | Reason::Allowed | Reason::Fragment => passes && ip,
        Reason::Unlisted => !passes && ip,
        Reason::Unparsable => !passes || ip,
    }
}
