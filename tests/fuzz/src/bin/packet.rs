//! Frames from the network: the parser against a second one, which is written another
//! way, and the verdict against lists that are searched from end to end.
//!
//! Seeds: tests/fuzz/seeds/packet
#![no_main]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use exogate_ebpf::{
    compile::{CompiledTable, Guard, Policy, Prefix, Protocol, compile},
    packet::{self, Address, LinkLayer, Parsed},
    verdict,
};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the differential test uses more of it")]
#[path = "../../../../ebpf/tests/differential/reference.rs"]
mod reference;

use reference::{Frame, Lists};

static POLICY: LazyLock<(CompiledTable, Lists)> = LazyLock::new(|| {
    let prefix = |address: &str, length, sources| Prefix {
        address: address.parse().unwrap(),
        length,
        sources,
    };
    let guard = |protocol, port, sources| Guard { protocol, port, sources };
    let policy = Policy {
        enforce: true,
        deadline: None,
        destinations: Some(vec![
            ("198.51.100.10".parse().unwrap(), 32),
            (Ipv6Addr::UNSPECIFIED.into(), 0),
        ]),
        prefixes: vec![
            prefix("40.96.0.0", 13, 1),
            prefix("0.0.0.0", 1, 2),
            prefix("2603:1026::", 36, 1),
            prefix("::", 2, 2),
        ],
        guards: vec![
            guard(Protocol::Tcp, 443, 1),
            guard(Protocol::Udp, 443, 3),
            guard(Protocol::Tcp, 0, 2),
        ],
    };
    (compile(&policy).unwrap(), Lists::new(&policy))
});

fuzz_target!(|frame: &[u8]| {
    for link_layer in [LinkLayer::Ethernet, LinkLayer::None] {
        let parsed = packet::parse(frame, link_layer);
        let expected = reference::parse(frame, link_layer);
        assert_eq!(in_words_of_the_reference(parsed), expected, "{link_layer:?}");
        let (compiled, lists) = &*POLICY;
        let found = verdict::judge(&parsed, &compiled.table());
        assert_eq!((found.action(), found.reason(), found.family()), lists.judge(expected));
    }
});

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
