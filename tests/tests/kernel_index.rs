//! The interval index through the program in the kernel: the same tables that the
//! host tests hold to `ipnet`, at every boundary of the list and beside it. Needs
//! root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use exogate::gate::Program;
use exogate_ebpf::{
    compile::{Guard, Policy, Prefix, Protocol, compile},
    packet::LinkLayer,
};
use exogate_tests::{
    lists::{exchange, service_tags},
    random::Random,
};
use ipnet::IpNet;

/// `XDP_DROP` and `XDP_PASS` of linux/bpf.h.
const DROP: u32 = 1;
const PASS: u32 = 2;

#[test]
fn an_empty_list_lets_nobody_pass() {
    agrees(&[], usize::MAX);
}

#[test]
fn exchanges_list_lets_exactly_its_addresses_pass() {
    agrees(&exchange().unwrap(), usize::MAX);
}

#[test]
fn a_list_of_a_thousand_prefixes_lets_exactly_its_addresses_pass() {
    let mut random = Random::new(3);
    let all = service_tags().unwrap();
    let nets: Vec<IpNet> = (0..1_000).map(|_| all[random.below(all.len())]).collect();
    agrees(&nets, usize::MAX);
}

#[test]
fn a_list_of_54_000_prefixes_lets_exactly_its_addresses_pass() {
    agrees(&service_tags().unwrap(), 20_000);
}

/// Runs a packet from every boundary (at most `most`, chosen at random) and its
/// neighbours, and from random addresses, through the kernel.
fn agrees(nets: &[IpNet], most: usize) {
    let mut program = Program::load(LinkLayer::Ethernet, 100_000).unwrap();
    let prefixes = nets
        .iter()
        .map(|net| Prefix { address: net.network(), length: net.prefix_len(), sources: 1 })
        .collect();
    let guards = vec![Guard { protocol: Protocol::Tcp, port: 443, sources: 1 }];
    let policy = Policy { enforce: true, deadline: None, destinations: None, prefixes, guards };
    program.publish(&compile(&policy).unwrap()).unwrap();

    // Disjoint, sorted prefixes: whether one contains an address is a matter of
    // the last that begins at or before it.
    let aggregated = IpNet::aggregate(&nets.to_vec());
    let mut random = Random::new(7);
    let mut addresses: Vec<IpAddr> =
        nets.iter().flat_map(|net| [net.network(), net.broadcast()]).flat_map(around).collect();
    while addresses.len() > most {
        let last = random.below(addresses.len());
        addresses.swap_remove(last);
    }
    for _ in 0..1_000 {
        addresses.push(Ipv4Addr::from_bits(random.next() as u32).into());
        addresses.push(Ipv6Addr::from_bits(random.wide()).into());
    }
    let mut passed = 0;
    for address in &addresses {
        let place = aggregated.partition_point(|net| net.network() <= *address);
        let listed = place > 0 && aggregated[place - 1].contains(address);
        passed += usize::from(listed);
        let (returned, _) = program.test_run(&frame(*address), 1).unwrap();
        assert_eq!(returned, if listed { PASS } else { DROP }, "{address}");
    }
    println!("{} prefixes: {} addresses, {passed} pass", nets.len(), addresses.len());
}

fn around(address: IpAddr) -> [IpAddr; 3] {
    [-1i8, 0, 1].map(|by| match address {
        IpAddr::V4(address) => {
            Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(by.into())).into()
        }
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(by.into())).into()
        }
    })
}

fn frame(source: IpAddr) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match source {
        IpAddr::V4(source) => ethernet.ipv4(source.octets(), [198, 51, 100, 1], 64),
        IpAddr::V6(source) => ethernet.ipv6(source.octets(), [0x20; 16], 64),
    };
    let mut frame = Vec::new();
    ip.tcp(50_000, 443, 1, 65_535).syn().write(&mut frame, &[]).unwrap();
    frame
}
