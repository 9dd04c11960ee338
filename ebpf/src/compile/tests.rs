//! Tests of the compiler against a linear scan.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

fn prefix(net: IpNet, sources: u32) -> Prefix {
    Prefix { address: net.addr(), length: net.prefix_len(), sources }
}

fn lookup(compiled: &CompiledTable, address: IpAddr) -> u32 {
    compiled.table().sources(&address.into())
}

fn expected(prefixes: &[Prefix], address: IpAddr) -> u32 {
    prefixes
        .iter()
        .filter(|prefix| IpNet::new(prefix.address, prefix.length).unwrap().contains(&address))
        .fold(0, |mask, prefix| mask | prefix.sources)
}

/// Every boundary of the prefixes, and the addresses beside it.
fn edges(prefixes: &[Prefix]) -> Vec<IpAddr> {
    let mut edges = Vec::new();
    for prefix in prefixes {
        let net = IpNet::new(prefix.address, prefix.length).unwrap();
        for address in [net.network(), net.broadcast()] {
            match address {
                IpAddr::V4(address) => edges.extend([-1, 0, 1].map(|by| {
                    IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(by)))
                })),
                IpAddr::V6(address) => edges.extend([-1, 0, 1].map(|by| {
                    IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(by)))
                })),
            }
        }
    }
    edges
}

fn check(prefixes: Vec<Prefix>, addresses: &[IpAddr]) {
    let policy = Policy { prefixes, ..Policy::default() };
    let compiled = compile(&policy).unwrap();
    for &address in edges(&policy.prefixes).iter().chain(addresses) {
        assert_eq!(
            lookup(&compiled, address),
            expected(&policy.prefixes, address),
            "sources of {address} among {:?}",
            policy.prefixes
        );
    }
}

fn any_net() -> impl Strategy<Value = IpNet> {
    // Narrow choices of leading bits make prefixes meet and nest.
    let v4 = (prop_oneof![any::<u32>(), 0u32..8, Just(u32::MAX)], 0u8..=32)
        .prop_map(|(bits, length)| IpNet::new(Ipv4Addr::from_bits(bits).into(), length).unwrap());
    let v6 = (
        prop_oneof![
            any::<u64>(),
            (0u64..4).prop_map(|bits| 0x2603_1000_0000_0000 | bits),
            Just(u64::MAX),
            Just(0)
        ],
        prop_oneof![any::<u64>(), 0u64..4, Just(u64::MAX)],
        0u8..=128,
    )
        .prop_map(|(high, low, length)| {
            let bits = u128::from(high) << 64 | u128::from(low);
            IpNet::new(Ipv6Addr::from_bits(bits).into(), length).unwrap()
        });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn every_address_gets_the_sources_that_contain_it(
        nets in proptest::collection::vec((any_net(), 0u32..1 << MAX_SOURCES), 0..40),
        others in proptest::collection::vec(any_net(), 0..40),
    ) {
        let prefixes = nets.into_iter().map(|(net, sources)| prefix(net, sources)).collect();
        let others: Vec<_> = others.iter().map(IpNet::addr).collect();
        check(prefixes, &others);
    }

    #[test]
    fn a_level_full_of_addresses_outside_global_unicast_is_searched_right(
        count in 1usize..2_000,
    ) {
        let prefixes = (0..count)
            .step_by(7)
            .map(|n| prefix(format!("fd00:{n:x}::/48").parse().unwrap(), 1))
            .collect();
        check(prefixes, &[]);
    }
}

#[test]
fn a_guard_is_found_on_its_own_protocol_and_port_only() {
    let guards = vec![
        Guard { protocol: Protocol::Tcp, port: 443, sources: 0b01 },
        Guard { protocol: Protocol::Udp, port: 65_535, sources: 0b10 },
        Guard { protocol: Protocol::Tcp, port: 0, sources: 0 },
    ];
    let compiled = compile(&Policy { guards, ..Policy::default() }).unwrap();
    let table = compiled.table();
    for port in 0..=65_535u16 {
        let tcp = match port {
            443 => Some(0b01),
            0 => Some(0),
            _ => None,
        };
        assert_eq!(table.guard(TCP, port), tcp, "TCP {port}");
        assert_eq!(table.guard(UDP, port), (port == 65_535).then_some(0b10), "UDP {port}");
    }
    assert_eq!(table.any_guard(), 0b11);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let too_long = Prefix { address: Ipv4Addr::LOCALHOST.into(), length: 33, sources: 1 };
    let policy = Policy { prefixes: vec![too_long], ..Policy::default() };
    assert_eq!(compile(&policy), Err(Error::PrefixLength { length: 33 }));

    let too_high = Prefix { length: 8, sources: 1 << MAX_SOURCES, ..too_long };
    let policy = Policy { prefixes: vec![too_high], ..Policy::default() };
    assert_eq!(compile(&policy), Err(Error::SourceBit { sources: 1 << MAX_SOURCES }));

    let guards = (0..=MAX_GUARDS as u16)
        .map(|port| Guard { protocol: Protocol::Tcp, port, sources: u32::from(port) })
        .collect();
    let policy = Policy { guards, ..Policy::default() };
    assert_eq!(compile(&policy), Err(Error::TooManyGuards));
}
