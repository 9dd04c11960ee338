//! The policy that the table is about, and an address of each of its sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use exogate_ebpf::compile::{Guard, Policy, Prefix, Protocol};

// The sources of the policy.
pub const EXCHANGE: u32 = 1 << 0;
pub const GRAPH: u32 = 1 << 1;
pub const PARTNER: u32 = 1 << 2;
/// Published, but accepted by no guard.
pub const OFFICE: u32 = 1 << 3;

/// The host behind the gate.
pub const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const HOST6: Ipv6Addr = ip6(0x2001_0db8_0000_0001, 0x10);
/// Another host of the same site, and one that packets only pass through to.
pub const NEIGHBOUR4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
pub const NEIGHBOUR6: Ipv6Addr = ip6(0x2001_0db8_0000_0001, 0x11);

// One address of each source, and one of none.
pub const EXCHANGE4: Ipv4Addr = Ipv4Addr::new(52, 97, 1, 2);
pub const EXCHANGE6: Ipv6Addr = ip6(0x2603_1006_0001_0002, 0x3);
pub const GRAPH4: Ipv4Addr = Ipv4Addr::new(20, 20, 32, 1);
pub const GRAPH6: Ipv6Addr = ip6(0x2603_1030_0013_0200, 0x7);
pub const PARTNER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub const PARTNER6: Ipv6Addr = ip6(0x2001_0db8_0007_0000, 0x7);
pub const OFFICE4: Ipv4Addr = Ipv4Addr::new(13, 107, 6, 152);
pub const OFFICE6: Ipv6Addr = ip6(0x2620_01ec_0000_0001, 0x1);
pub const STRANGER4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const STRANGER6: Ipv6Addr = ip6(0x2a00_1234_0000_0000, 0x1);

pub const fn ip6(high: u64, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits((high as u128) << 64 | low as u128)
}

/// The policy of [`super::cases`], in enforce mode.
pub fn policy() -> Policy {
    let prefixes = [
        // Exchange, as published.
        ("52.96.0.0", 14, EXCHANGE),
        ("40.96.0.0", 13, EXCHANGE),
        ("2603:1006::", 40, EXCHANGE),
        ("2603:1016::", 36, EXCHANGE),
        // Graph notifications come from single addresses.
        ("20.20.32.0", 19, GRAPH),
        ("2603:1030:13:200::7", 128, GRAPH),
        // A partner, whose network holds a part of Exchange in its middle.
        ("203.0.113.7", 32, PARTNER),
        ("198.51.100.0", 24, PARTNER),
        ("198.51.100.64", 26, EXCHANGE),
        ("2001:db8:7::", 48, PARTNER),
        ("2001:db8:7::100", 120, EXCHANGE),
        // The same prefix in two sources.
        ("13.107.6.152", 31, OFFICE),
        ("2620:1ec::", 36, OFFICE),
        ("150.171.32.0", 22, OFFICE | GRAPH),
        // Both ends of the address space, and beside 2000::/3.
        ("0.0.0.0", 31, EXCHANGE),
        ("255.255.255.254", 31, EXCHANGE),
        ("::", 127, EXCHANGE),
        ("1fff:ffff:ffff:ffff::", 64, EXCHANGE),
        ("4000::", 64, EXCHANGE),
        ("fd00:1::", 32, PARTNER),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 127, EXCHANGE),
    ];
    let guards = [
        (Protocol::Tcp, 443, EXCHANGE),
        (Protocol::Udp, 443, EXCHANGE),
        (Protocol::Tcp, 8443, GRAPH),
        (Protocol::Tcp, 25, EXCHANGE | PARTNER),
        (Protocol::Tcp, 65_535, PARTNER),
        (Protocol::Udp, 0, PARTNER),
        // Closed to everyone.
        (Protocol::Tcp, 9443, 0),
    ];
    Policy {
        enforce: true,
        deadline: None,
        destinations: None,
        prefixes: prefixes
            .map(|(address, length, sources)| Prefix {
                address: address.parse().unwrap(),
                length,
                sources,
            })
            .to_vec(),
        guards: guards.map(|(protocol, port, sources)| Guard { protocol, port, sources }).to_vec(),
    }
}

/// The policy of [`super::destination_cases`]: as [`policy`], but only [`HOST4`] and
/// the /127 of [`HOST6`] are guarded.
pub fn destination_policy() -> Policy {
    let destinations = vec![(IpAddr::from(HOST4), 32), (IpAddr::from(HOST6), 127)];
    Policy { destinations: Some(destinations), ..policy() }
}
