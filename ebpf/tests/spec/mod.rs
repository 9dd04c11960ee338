//! The verdict as a table of packets: what the packet is, its bytes, what becomes
//! of it.
//!
//! The host test runs every row through the library and the kernel test includes
//! this file and runs the same rows through the program, so that both are held
//! to one specification. It therefore needs nothing but etherparse and the
//! library.

#![allow(dead_code, reason = "each of the tests that include this file uses a part of it")]
#![allow(unreachable_pub, reason = "the file is a module of test binaries, which export nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test data: a wrong row must not go unnoticed"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, IpNumber};
use exogate_ebpf::{
    compile::{Guard, Policy, Prefix, Protocol},
    packet::LinkLayer,
    verdict::{Action, Family, Reason},
};

mod layer;

use layer::{
    Frame, Layer, authentication, bare, destination, ethernet, fragment, hop_by_hop, not_ip, other,
    routing, service_tag, tag, tcp, tcp_from, udp, udp_from, v4, v4_fragment, v4_options, v4_to,
    v6, v6_to,
};

/// A row.
#[derive(Clone)]
pub struct Case {
    /// What the packet is.
    pub name: String,
    /// How the frame begins.
    pub link_layer: LinkLayer,
    /// The frame.
    pub frame: Vec<u8>,
    /// The verdict in enforce mode.
    pub expected: Expected,
}

/// A verdict.
pub type Expected = (Action, Reason, Family);

impl Case {
    /// The verdict in monitor mode: the same, but nothing is dropped.
    pub fn expected_in_monitor_mode(&self) -> Expected {
        match self.expected {
            (Action::Drop, reason, family) => (Action::WouldDrop, reason, family),
            passes => passes,
        }
    }

    /// Whether `BPF_PROG_TEST_RUN` takes the frame: the kernel refuses data that
    /// is shorter than an Ethernet header, even where the program expects none.
    pub fn fits_test_run(&self) -> bool {
        self.frame.len() >= TEST_RUN_BYTES
    }
}

/// The kernel's `ETH_HLEN`.
pub const TEST_RUN_BYTES: usize = 14;

// The sources of the policy.
const EXCHANGE: u32 = 1 << 0;
const GRAPH: u32 = 1 << 1;
const PARTNER: u32 = 1 << 2;
/// Published, but accepted by no guard.
const OFFICE: u32 = 1 << 3;

/// The host behind the gate.
pub const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const HOST6: Ipv6Addr = ip6(0x2001_0db8_0000_0001, 0x10);
/// Another host of the same site, and one that packets only pass through to.
const NEIGHBOUR4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const NEIGHBOUR6: Ipv6Addr = ip6(0x2001_0db8_0000_0001, 0x11);

// One address of each source, and one of none.
const EXCHANGE4: Ipv4Addr = Ipv4Addr::new(52, 97, 1, 2);
const EXCHANGE6: Ipv6Addr = ip6(0x2603_1006_0001_0002, 0x3);
const GRAPH4: Ipv4Addr = Ipv4Addr::new(20, 20, 32, 1);
const GRAPH6: Ipv6Addr = ip6(0x2603_1030_0013_0200, 0x7);
const PARTNER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const PARTNER6: Ipv6Addr = ip6(0x2001_0db8_0007_0000, 0x7);
const OFFICE4: Ipv4Addr = Ipv4Addr::new(13, 107, 6, 152);
const OFFICE6: Ipv6Addr = ip6(0x2620_01ec_0000_0001, 0x1);
const STRANGER4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const STRANGER6: Ipv6Addr = ip6(0x2a00_1234_0000_0000, 0x1);

const fn ip6(high: u64, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits((high as u128) << 64 | low as u128)
}

/// The policy of [`cases`], in enforce mode.
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

/// The policy of [`destination_cases`]: as [`policy`], but only [`HOST4`] and
/// the /127 of [`HOST6`] are guarded.
pub fn destination_policy() -> Policy {
    let destinations = vec![(IpAddr::from(HOST4), 32), (IpAddr::from(HOST6), 127)];
    Policy { destinations: Some(destinations), ..policy() }
}

const V4: Family = Family::Ipv4;
const V6: Family = Family::Ipv6;

const NOT_IP: Expected = (Action::Pass, Reason::NotIp, Family::Other);
/// Cut off or malformed before anything is known of it.
const UNKNOWN: Expected = (Action::Drop, Reason::Unparsable, Family::Other);

fn allowed(family: Family) -> Expected {
    (Action::Pass, Reason::Allowed, family)
}

fn unlisted(family: Family) -> Expected {
    (Action::Drop, Reason::Unlisted, family)
}

fn not_guarded(family: Family) -> Expected {
    (Action::Pass, Reason::NotGuarded, family)
}

fn later_fragment(family: Family) -> Expected {
    (Action::Pass, Reason::Fragment, family)
}

/// Unparsable, and no guard accepts its source, if that can be seen at all.
fn unparsable(family: Family) -> Expected {
    (Action::Drop, Reason::Unparsable, family)
}

/// Unparsable, but some guard accepts its source.
fn unparsable_from_a_source(family: Family) -> Expected {
    (Action::Pass, Reason::Unparsable, family)
}

/// The table for [`policy`].
pub fn cases() -> Vec<Case> {
    [
        guards_and_sources(),
        edges_of_prefixes(),
        not_ip_cases(),
        tags(),
        interfaces_without_a_link_layer(),
        ipv4_headers(),
        ipv4_fragments(),
        ipv6_headers(),
        ipv6_extensions(),
        ipv6_fragments(),
        truncations(),
    ]
    .concat()
}

/// The table for [`destination_policy`].
pub fn destination_cases() -> Vec<Case> {
    let rows = [
        (
            "IPv4 to the guarded host, listed",
            ethernet(&[v4_to(EXCHANGE4, HOST4), tcp(443)]),
            allowed(V4),
        ),
        (
            "IPv4 to the guarded host, not listed",
            ethernet(&[v4_to(STRANGER4, HOST4), tcp(443)]),
            unlisted(V4),
        ),
        (
            "IPv4 in transit to 443, not listed",
            ethernet(&[v4_to(STRANGER4, NEIGHBOUR4), tcp(443)]),
            not_guarded(V4),
        ),
        (
            "IPv4 in transit to 443, listed",
            ethernet(&[v4_to(EXCHANGE4, NEIGHBOUR4), tcp(443)]),
            not_guarded(V4),
        ),
        (
            "IPv4 from the guarded host itself to 443 elsewhere",
            ethernet(&[v4_to(HOST4, STRANGER4), tcp(443)]),
            not_guarded(V4),
        ),
        (
            "IPv4 from the guarded host to itself: to be a destination is no source",
            ethernet(&[v4_to(HOST4, HOST4), tcp(443)]),
            unlisted(V4),
        ),
        (
            "IPv4 to an allow-listed address: to be a source is no destination",
            ethernet(&[v4_to(STRANGER4, EXCHANGE4), tcp(443)]),
            not_guarded(V4),
        ),
        (
            "IPv4 to a port without a guard on the guarded host",
            ethernet(&[v4_to(STRANGER4, HOST4), tcp(22)]),
            not_guarded(V4),
        ),
        (
            "IPv4 UDP to the guarded host, not listed",
            ethernet(&[v4_to(STRANGER4, HOST4), udp(443)]),
            unlisted(V4),
        ),
        (
            "IPv6 to the guarded host, listed",
            ethernet(&[v6_to(EXCHANGE6, HOST6), tcp(443)]),
            allowed(V6),
        ),
        (
            "IPv6 to the guarded host, not listed",
            ethernet(&[v6_to(STRANGER6, HOST6), tcp(443)]),
            unlisted(V6),
        ),
        (
            "IPv6 to the other address of the guarded /127",
            ethernet(&[v6_to(STRANGER6, NEIGHBOUR6), tcp(443)]),
            unlisted(V6),
        ),
        (
            "IPv6 to the address behind the guarded /127",
            ethernet(&[v6_to(STRANGER6, ip6(0x2001_0db8_0000_0001, 0x12)), tcp(443)]),
            not_guarded(V6),
        ),
        (
            "IPv6 to the address before the guarded /127",
            ethernet(&[v6_to(STRANGER6, ip6(0x2001_0db8_0000_0001, 0xf)), tcp(443)]),
            not_guarded(V6),
        ),
        (
            "IPv6 to the guarded lower half under another /64",
            ethernet(&[v6_to(STRANGER6, ip6(0x2001_0db8_0000_0002, 0x10)), tcp(443)]),
            not_guarded(V6),
        ),
        (
            "cut off, in transit, not listed: judged by its source alone",
            ethernet(&[v4_to(STRANGER4, NEIGHBOUR4), tcp(443)]).cut(36),
            unparsable(V4),
        ),
        (
            "cut off, in transit, listed",
            ethernet(&[v4_to(EXCHANGE4, NEIGHBOUR4), tcp(443)]).cut(36),
            unparsable_from_a_source(V4),
        ),
        (
            "cut off, from the guarded host: to be a destination is no source",
            ethernet(&[v4_to(HOST4, NEIGHBOUR4), tcp(443)]).cut(36),
            unparsable(V4),
        ),
    ];
    table(rows)
}

fn table<const N: usize>(rows: [(&str, Frame, Expected); N]) -> Vec<Case> {
    rows.into_iter().map(|(name, frame, expected)| row(name, frame, expected)).collect()
}

fn row(name: impl Into<String>, frame: Frame, expected: Expected) -> Case {
    Case { name: name.into(), link_layer: frame.link_layer, frame: frame.bytes, expected }
}

#[rustfmt::skip]
fn guards_and_sources() -> Vec<Case> {
    let on4 = |source, transport| ethernet(&[v4(source), transport]);
    let on6 = |source, transport| ethernet(&[v6(source), transport]);
    table([
        ("IPv4 TCP to 443 from Exchange", on4(EXCHANGE4, tcp(443)), allowed(V4)),
        ("IPv4 TCP to 443 from a stranger", on4(STRANGER4, tcp(443)), unlisted(V4)),
        ("IPv4 TCP to 443 from Graph, a source of another port", on4(GRAPH4, tcp(443)), unlisted(V4)),
        ("IPv4 TCP to 443 from a source that no guard accepts", on4(OFFICE4, tcp(443)), unlisted(V4)),
        ("IPv6 TCP to 443 from Exchange", on6(EXCHANGE6, tcp(443)), allowed(V6)),
        ("IPv6 TCP to 443 from a stranger", on6(STRANGER6, tcp(443)), unlisted(V6)),
        ("IPv6 TCP to 443 from Graph, a source of another port", on6(GRAPH6, tcp(443)), unlisted(V6)),
        ("IPv6 TCP to 443 from a source that no guard accepts", on6(OFFICE6, tcp(443)), unlisted(V6)),

        ("IPv4 TCP to 8443 from Graph", on4(GRAPH4, tcp(8443)), allowed(V4)),
        ("IPv4 TCP to 8443 from Exchange", on4(EXCHANGE4, tcp(8443)), unlisted(V4)),
        ("IPv4 TCP to 8443 from a prefix of two sources", on4(Ipv4Addr::new(150, 171, 33, 1), tcp(8443)), allowed(V4)),
        ("IPv6 TCP to 8443 from Graph", on6(GRAPH6, tcp(8443)), allowed(V6)),
        ("IPv6 TCP to 8443 from Exchange", on6(EXCHANGE6, tcp(8443)), unlisted(V6)),
        ("IPv4 TCP to 25 from the first of two sources", on4(EXCHANGE4, tcp(25)), allowed(V4)),
        ("IPv4 TCP to 25 from the second of two sources", on4(PARTNER4, tcp(25)), allowed(V4)),
        ("IPv4 TCP to 25 from a third", on4(GRAPH4, tcp(25)), unlisted(V4)),
        ("IPv6 TCP to 25 from the second of two sources", on6(PARTNER6, tcp(25)), allowed(V6)),
        ("IPv4 TCP to 65535 from the partner", on4(PARTNER4, tcp(65_535)), allowed(V4)),
        ("IPv4 TCP to 65535 from Exchange", on4(EXCHANGE4, tcp(65_535)), unlisted(V4)),
        ("IPv4 TCP to 9443, which is closed, from Exchange", on4(EXCHANGE4, tcp(9443)), unlisted(V4)),
        ("IPv6 TCP to 9443, which is closed, from a stranger", on6(STRANGER6, tcp(9443)), unlisted(V6)),

        ("IPv4 UDP to 443 from Exchange", on4(EXCHANGE4, udp(443)), allowed(V4)),
        ("IPv4 UDP to 443 from a stranger", on4(STRANGER4, udp(443)), unlisted(V4)),
        ("IPv6 UDP to 443 from a stranger", on6(STRANGER6, udp(443)), unlisted(V6)),
        ("IPv4 UDP to 8443, guarded on TCP only", on4(STRANGER4, udp(8443)), not_guarded(V4)),
        ("IPv4 UDP to 0 from the partner", on4(PARTNER4, udp(0)), allowed(V4)),
        ("IPv4 UDP to 0 from a stranger", on4(STRANGER4, udp(0)), unlisted(V4)),
        ("IPv4 TCP to 0, guarded on UDP only", on4(STRANGER4, tcp(0)), not_guarded(V4)),

        ("IPv4 TCP to 80 from a stranger", on4(STRANGER4, tcp(80)), not_guarded(V4)),
        ("IPv4 TCP to 442 from a stranger", on4(STRANGER4, tcp(442)), not_guarded(V4)),
        ("IPv4 TCP to 444 from a stranger", on4(STRANGER4, tcp(444)), not_guarded(V4)),
        ("IPv4 TCP to 47873 (443 in the wrong byte order) from a stranger", on4(STRANGER4, tcp(443u16.swap_bytes())), not_guarded(V4)),
        ("IPv4 TCP to 80 from Exchange", on4(EXCHANGE4, tcp(80)), not_guarded(V4)),
        ("IPv6 TCP to 22 from a stranger", on6(STRANGER6, tcp(22)), not_guarded(V6)),
        ("IPv6 UDP to 53 from a stranger", on6(STRANGER6, udp(53)), not_guarded(V6)),

        ("IPv4 TCP from port 443: an answer to the host's own HTTPS", on4(STRANGER4, tcp_from(443, 50_000)), not_guarded(V4)),
        ("IPv6 TCP from port 443: an answer to the host's own HTTPS", on6(STRANGER6, tcp_from(443, 50_000)), not_guarded(V6)),
        ("IPv4 UDP from port 443: an answer to the host's own QUIC", on4(STRANGER4, udp_from(443, 50_000)), not_guarded(V4)),
        ("IPv4 TCP from port 443 to 443 from a stranger", on4(STRANGER4, tcp_from(443, 443)), unlisted(V4)),
        ("IPv4 TCP from port 443 to 443 from Exchange", on4(EXCHANGE4, tcp_from(443, 443)), allowed(V4)),

        ("IPv4 ICMP from a stranger", on4(STRANGER4, other(IpNumber::ICMP)), not_guarded(V4)),
        ("IPv4 IGMP from a stranger", on4(STRANGER4, other(IpNumber::IGMP)), not_guarded(V4)),
        ("IPv4 SCTP to 443 from a stranger", on4(STRANGER4, other(IpNumber::SCTP)), not_guarded(V4)),
        ("IPv4 UDP-Lite to 443 from a stranger", on4(STRANGER4, other(IpNumber::UDP_LITE)), not_guarded(V4)),
        ("IPv4 GRE from a stranger", on4(STRANGER4, other(IpNumber::GRE)), not_guarded(V4)),
        ("IPv4 ESP from a stranger", on4(STRANGER4, other(IpNumber::ENCAPSULATING_SECURITY_PAYLOAD)), not_guarded(V4)),
        ("IPv4 in IPv4 from a stranger", ethernet(&[v4(STRANGER4), v4(STRANGER4), tcp(443)]), not_guarded(V4)),
        ("IPv4 protocol 0 is no hop-by-hop header", on4(STRANGER4, other(IpNumber(0))), not_guarded(V4)),
        ("IPv4 protocol 60 is no destination options header", on4(STRANGER4, other(IpNumber(60))), not_guarded(V4)),
        ("IPv6 ICMPv6 from a stranger", on6(STRANGER6, other(IpNumber::IPV6_ICMP)), not_guarded(V6)),
        ("IPv6 SCTP to 443 from a stranger", on6(STRANGER6, other(IpNumber::SCTP)), not_guarded(V6)),
        ("IPv6 in IPv6 from a stranger", ethernet(&[v6(STRANGER6), v6(STRANGER6), tcp(443)]), not_guarded(V6)),
    ])
}

#[rustfmt::skip]
fn edges_of_prefixes() -> Vec<Case> {
    let from4 = |a, b, c, d| ethernet(&[v4(Ipv4Addr::new(a, b, c, d)), tcp(443)]);
    let from6 = |high, low| ethernet(&[v6(ip6(high, low)), tcp(443)]);
    let outer6 = |high, low| ethernet(&[v6(ip6(high, low)), tcp(65_535)]);
    let smtp4 = |a, b, c, d| ethernet(&[v4(Ipv4Addr::new(a, b, c, d)), tcp(25)]);
    table([
        ("IPv4 address before a /14", from4(52, 95, 255, 255), unlisted(V4)),
        ("IPv4 first address of a /14", from4(52, 96, 0, 0), allowed(V4)),
        ("IPv4 last address of a /14", from4(52, 99, 255, 255), allowed(V4)),
        ("IPv4 address behind a /14", from4(52, 100, 0, 0), unlisted(V4)),
        ("IPv4 source in the wrong byte order", from4(2, 1, 97, 52), unlisted(V4)),
        ("IPv4 source 0.0.0.0 in a /31", from4(0, 0, 0, 0), allowed(V4)),
        ("IPv4 source 0.0.0.1 in a /31", from4(0, 0, 0, 1), allowed(V4)),
        ("IPv4 source 0.0.0.2 behind it", from4(0, 0, 0, 2), unlisted(V4)),
        ("IPv4 source 255.255.255.253 before the last /31", from4(255, 255, 255, 253), unlisted(V4)),
        ("IPv4 source 255.255.255.254 in the last /31", from4(255, 255, 255, 254), allowed(V4)),
        ("IPv4 source 255.255.255.255 in the last /31", from4(255, 255, 255, 255), allowed(V4)),
        ("IPv4 outer prefix before the inner one", from4(198, 51, 100, 63), unlisted(V4)),
        ("IPv4 first address of the inner prefix", from4(198, 51, 100, 64), allowed(V4)),
        ("IPv4 last address of the inner prefix", from4(198, 51, 100, 127), allowed(V4)),
        ("IPv4 outer prefix behind the inner one", from4(198, 51, 100, 128), unlisted(V4)),
        ("IPv4 outer prefix, on the port that accepts it", smtp4(198, 51, 100, 128), allowed(V4)),
        ("IPv4 inner prefix, on a port that accepts both", smtp4(198, 51, 100, 64), allowed(V4)),
        ("IPv4 inner prefix, on a port that accepts the outer one alone", ethernet(&[v4(Ipv4Addr::new(198, 51, 100, 64)), tcp(65_535)]), allowed(V4)),
        ("IPv4 address before a /32", smtp4(203, 0, 113, 6), unlisted(V4)),
        ("IPv4 the address of a /32", smtp4(203, 0, 113, 7), allowed(V4)),
        ("IPv4 address behind a /32", smtp4(203, 0, 113, 8), unlisted(V4)),

        ("IPv6 address before a /40", from6(0x2603_1005_ffff_ffff, u64::MAX), unlisted(V6)),
        ("IPv6 first address of a /40", from6(0x2603_1006_0000_0000, 0), allowed(V6)),
        ("IPv6 last address of a /40", from6(0x2603_1006_00ff_ffff, u64::MAX), allowed(V6)),
        ("IPv6 address behind a /40", from6(0x2603_1006_0100_0000, 0), unlisted(V6)),
        ("IPv6 address before the inner /120", from6(0x2001_0db8_0007_0000, 0xff), unlisted(V6)),
        ("IPv6 first address of the inner /120", from6(0x2001_0db8_0007_0000, 0x100), allowed(V6)),
        ("IPv6 last address of the inner /120", from6(0x2001_0db8_0007_0000, 0x1ff), allowed(V6)),
        ("IPv6 address behind the inner /120", from6(0x2001_0db8_0007_0000, 0x200), unlisted(V6)),
        ("IPv6 last address of the /64 that the inner /120 cuts", from6(0x2001_0db8_0007_0000, u64::MAX), unlisted(V6)),
        ("IPv6 inner /120, on a port that accepts the outer /48 alone", outer6(0x2001_0db8_0007_0000, 0x180), allowed(V6)),
        ("IPv6 address behind the inner /120, on that port", outer6(0x2001_0db8_0007_0000, 0x200), allowed(V6)),
        ("IPv6 outer /48 behind the /64 that was cut, on that port", outer6(0x2001_0db8_0007_0001, 0x100), allowed(V6)),
        ("IPv6 last address of the outer /48, on that port", outer6(0x2001_0db8_0007_ffff, u64::MAX), allowed(V6)),
        ("IPv6 address behind the outer /48, on that port", outer6(0x2001_0db8_0008_0000, 0), unlisted(V6)),
        ("IPv6 inner lower half under the next /64", from6(0x2001_0db8_0007_0001, 0x100), unlisted(V6)),
        ("IPv6 source ::", from6(0, 0), allowed(V6)),
        ("IPv6 source ::1", from6(0, 1), allowed(V6)),
        ("IPv6 source ::2", from6(0, 2), unlisted(V6)),
        ("IPv6 first address of the last /64 below 2000::/3", from6(0x1fff_ffff_ffff_ffff, 0), allowed(V6)),
        ("IPv6 last address below 2000::/3", from6(0x1fff_ffff_ffff_ffff, u64::MAX), allowed(V6)),
        ("IPv6 source 2000::", from6(0x2000_0000_0000_0000, 0), unlisted(V6)),
        ("IPv6 last address of 2000::/3", from6(0x3fff_ffff_ffff_ffff, u64::MAX), unlisted(V6)),
        ("IPv6 first address above 2000::/3", from6(0x4000_0000_0000_0000, 0), allowed(V6)),
        ("IPv6 source of a local network", ethernet(&[v6(ip6(0xfd00_0001_0000_0000, 5)), tcp(25)]), allowed(V6)),
        ("IPv6 last address but two", from6(u64::MAX, u64::MAX - 2), unlisted(V6)),
        ("IPv6 last address", from6(u64::MAX, u64::MAX), allowed(V6)),
        ("IPv6 mapped form of a listed IPv4 address", ethernet(&[v6(EXCHANGE4.to_ipv6_mapped()), tcp(443)]), unlisted(V6)),
    ])
}

#[rustfmt::skip]
fn not_ip_cases() -> Vec<Case> {
    let of = |ether_type| ethernet(&[not_ip(EtherType(ether_type))]);
    table([
        ("ARP", of(0x0806), NOT_IP),
        ("LLDP", of(0x88cc), NOT_IP),
        ("EAPOL", of(0x888e), NOT_IP),
        ("PPPoE session", of(0x8864), NOT_IP),
        ("MPLS", of(0x8847), NOT_IP),
        ("the old double tag 0x9100, which the kernel does not take off either", of(0x9100), NOT_IP),
        ("802.3 length instead of an ethertype", of(0x0026), NOT_IP),
        ("IPv4's ethertype in the wrong byte order", of(0x0008), NOT_IP),
        ("ARP behind one tag", ethernet(&[tag(), not_ip(EtherType::ARP)]), NOT_IP),
        ("ARP behind two tags", ethernet(&[service_tag(), tag(), not_ip(EtherType::ARP)]), NOT_IP),
        ("ARP, cut off behind the Ethernet header", of(0x0806).cut(14), NOT_IP),
    ])
}

#[rustfmt::skip]
fn tags() -> Vec<Case> {
    let behind4 = |tags: &[Layer], source| ethernet(&[tags, &[v4(source), tcp(443)]].concat());
    let behind6 = |tags: &[Layer], source| ethernet(&[tags, &[v6(source), tcp(443)]].concat());
    table([
        ("802.1Q, IPv4 from Exchange", behind4(&[tag()], EXCHANGE4), allowed(V4)),
        ("802.1Q, IPv4 from a stranger", behind4(&[tag()], STRANGER4), unlisted(V4)),
        ("802.1Q, IPv6 from Exchange", behind6(&[tag()], EXCHANGE6), allowed(V6)),
        ("802.1Q, IPv6 from a stranger", behind6(&[tag()], STRANGER6), unlisted(V6)),
        ("802.1ad, IPv4 from Exchange", behind4(&[service_tag()], EXCHANGE4), allowed(V4)),
        ("802.1ad, IPv6 from a stranger", behind6(&[service_tag()], STRANGER6), unlisted(V6)),
        ("802.1ad and 802.1Q, IPv4 from Exchange", behind4(&[service_tag(), tag()], EXCHANGE4), allowed(V4)),
        ("802.1ad and 802.1Q, IPv4 from a stranger", behind4(&[service_tag(), tag()], STRANGER4), unlisted(V4)),
        ("802.1ad and 802.1Q, IPv6 from a stranger", behind6(&[service_tag(), tag()], STRANGER6), unlisted(V6)),
        ("802.1Q twice, IPv4 from a stranger", behind4(&[tag(), tag()], STRANGER4), unlisted(V4)),
        ("802.1Q and 802.1ad, IPv6 from Exchange", behind6(&[tag(), service_tag()], EXCHANGE6), allowed(V6)),
        ("802.1ad twice, IPv4 from Exchange", behind4(&[service_tag(), service_tag()], EXCHANGE4), allowed(V4)),
        ("two tags, IPv4 to a port without a guard", ethernet(&[tag(), tag(), v4(STRANGER4), tcp(80)]), not_guarded(V4)),
        ("three 802.1Q tags, from Exchange", behind4(&[tag(), tag(), tag()], EXCHANGE4), UNKNOWN),
        ("three 802.1Q tags, from a stranger", behind6(&[tag(), tag(), tag()], STRANGER6), UNKNOWN),
        ("three tags, the third of 802.1ad", behind4(&[tag(), tag(), service_tag()], EXCHANGE4), UNKNOWN),
        ("three tags before ARP", ethernet(&[tag(), tag(), tag(), not_ip(EtherType::ARP)]), UNKNOWN),
        ("IPv4 behind the ethertype of IPv6", behind4(&[], EXCHANGE4).with_byte(12, 0x86).with_byte(13, 0xdd), unparsable(V6)),
    ])
}

#[rustfmt::skip]
fn interfaces_without_a_link_layer() -> Vec<Case> {
    table([
        ("no link layer, IPv4 from Exchange", bare(&[v4(EXCHANGE4), tcp(443)]), allowed(V4)),
        ("no link layer, IPv4 from a stranger", bare(&[v4(STRANGER4), tcp(443)]), unlisted(V4)),
        ("no link layer, IPv4 to a port without a guard", bare(&[v4(STRANGER4), tcp(80)]), not_guarded(V4)),
        ("no link layer, IPv4 with options from a stranger", bare(&[v4_options(STRANGER4, 40), tcp(443)]), unlisted(V4)),
        ("no link layer, a later IPv4 fragment", bare(&[v4_fragment(STRANGER4, 1, false), tcp(443)]), later_fragment(V4)),
        ("no link layer, IPv6 from Exchange", bare(&[v6(EXCHANGE6), tcp(443)]), allowed(V6)),
        ("no link layer, IPv6 UDP from a stranger", bare(&[v6(STRANGER6), udp(443)]), unlisted(V6)),
        ("no link layer, IPv6 with a chain from a stranger", bare(&[v6(STRANGER6), hop_by_hop(0), destination(1), tcp(443)]), unlisted(V6)),
        ("no link layer, version 0", bare(&[v4(EXCHANGE4), tcp(443)]).with_byte(0, 0x05), NOT_IP),
        ("no link layer, version 5", bare(&[v4(STRANGER4), tcp(443)]).with_byte(0, 0x55), NOT_IP),
        ("no link layer, version 15", bare(&[v6(STRANGER6), tcp(443)]).with_byte(0, 0xf0), NOT_IP),
        ("no link layer, an Ethernet frame", Frame { link_layer: LinkLayer::None, ..ethernet(&[v4(STRANGER4), tcp(443)]) }, NOT_IP),
        ("no link layer, IPv4 with a header length of 4 words, listed", bare(&[v4(EXCHANGE4), tcp(443)]).with_byte(0, 0x44), unparsable_from_a_source(V4)),
        ("no link layer, nothing", bare(&[]), UNKNOWN),
    ])
}

fn ipv4_headers() -> Vec<Case> {
    let mut cases = Vec::new();
    for option_bytes in (0..=40).step_by(4) {
        let header_bytes = 20 + option_bytes;
        for (who, source, expected) in
            [("Exchange", EXCHANGE4, allowed(V4)), ("a stranger", STRANGER4, unlisted(V4))]
        {
            cases.push(row(
                format!("IPv4 header of {header_bytes} bytes, TCP to 443 from {who}"),
                ethernet(&[v4_options(source, option_bytes), tcp(443)]),
                expected,
            ));
        }
        cases.push(row(
            format!("IPv4 header of {header_bytes} bytes, TCP to 80"),
            ethernet(&[v4_options(STRANGER4, option_bytes), tcp(80)]),
            not_guarded(V4),
        ));
    }
    for words in 0..5 {
        for (who, source, expected) in [
            ("Exchange", EXCHANGE4, unparsable_from_a_source(V4)),
            ("the source of another port", GRAPH4, unparsable_from_a_source(V4)),
            ("a source that no guard accepts", OFFICE4, unparsable(V4)),
            ("a stranger", STRANGER4, unparsable(V4)),
        ] {
            cases.push(row(
                format!("IPv4 header length of {words} words, from {who}"),
                ethernet(&[v4(source), tcp(443)]).with_byte(14, 0x40 | words),
                expected,
            ));
        }
    }
    for version in (0..16).filter(|&version| version != 4) {
        cases.push(row(
            format!("IPv4's ethertype over version {version}, from a stranger"),
            ethernet(&[v4(STRANGER4), tcp(443)]).with_byte(14, version << 4 | 5),
            unparsable(V4),
        ));
    }
    cases.extend(table([
        (
            "IPv4's ethertype over version 6, from Exchange",
            ethernet(&[v4(EXCHANGE4), tcp(443)]).with_byte(14, 0x65),
            unparsable_from_a_source(V4),
        ),
        (
            "IPv4 header length of 4 words, ICMP from a stranger",
            ethernet(&[v4(STRANGER4), other(IpNumber::ICMP)]).with_byte(14, 0x44),
            unparsable(V4),
        ),
        (
            "IPv4 header length of 4 words, a later fragment from a stranger",
            ethernet(&[v4_fragment(STRANGER4, 100, true), tcp(443)]).with_byte(14, 0x44),
            unparsable(V4),
        ),
        (
            "IPv4 header length beyond the frame, from a stranger",
            ethernet(&[v4(STRANGER4), udp(443)]).with_byte(14, 0x4f),
            unparsable(V4),
        ),
        (
            "IPv4 header length beyond the frame, ICMP: no port is looked for",
            ethernet(&[v4(STRANGER4), other(IpNumber::ICMP)]).with_byte(14, 0x4f),
            not_guarded(V4),
        ),
    ]));
    cases
}

#[rustfmt::skip]
fn ipv4_fragments() -> Vec<Case> {
    let of = |source, offset, more, inner| ethernet(&[v4_fragment(source, offset, more), inner]);
    table([
        ("IPv4 first fragment from Exchange", of(EXCHANGE4, 0, true, tcp(443)), allowed(V4)),
        ("IPv4 first fragment from a stranger", of(STRANGER4, 0, true, tcp(443)), unlisted(V4)),
        ("IPv4 first fragment, UDP from a stranger", of(STRANGER4, 0, true, udp(443)), unlisted(V4)),
        ("IPv4 first fragment to a port without a guard", of(STRANGER4, 0, true, tcp(80)), not_guarded(V4)),
        ("IPv4 first fragment of ICMP", of(STRANGER4, 0, true, other(IpNumber::ICMP)), not_guarded(V4)),
        ("IPv4 first fragment too short for its port, from a stranger", of(STRANGER4, 0, true, tcp(443)).cut(37), unparsable(V4)),
        ("IPv4 first fragment too short for its port, from Exchange", of(EXCHANGE4, 0, true, tcp(443)).cut(37), unparsable_from_a_source(V4)),
        ("IPv4 second fragment at the smallest offset", of(STRANGER4, 1, true, tcp(443)), later_fragment(V4)),
        ("IPv4 middle fragment from a stranger", of(STRANGER4, 185, true, tcp(443)), later_fragment(V4)),
        ("IPv4 middle fragment from Exchange", of(EXCHANGE4, 185, true, tcp(443)), later_fragment(V4)),
        ("IPv4 fragment at offset 256: only the upper byte is set", of(STRANGER4, 256, true, tcp(443)), later_fragment(V4)),
        ("IPv4 fragment at offset 4096: only the highest bit is set", of(STRANGER4, 4_096, true, tcp(443)), later_fragment(V4)),
        ("IPv4 last fragment from a stranger", of(STRANGER4, 370, false, tcp(443)), later_fragment(V4)),
        ("IPv4 last fragment at the greatest offset", of(STRANGER4, 8_191, false, udp(443)), later_fragment(V4)),
        ("IPv4 later fragment of ICMP", of(STRANGER4, 185, true, other(IpNumber::ICMP)), later_fragment(V4)),
        ("IPv4 do-not-fragment is no fragment", ethernet(&[v4(STRANGER4), tcp(443)]).with_byte(20, 0x40), unlisted(V4)),
        ("IPv4 with the reserved flag is no fragment", ethernet(&[v4(STRANGER4), tcp(443)]).with_byte(20, 0x80), unlisted(V4)),
    ])
}

fn ipv6_headers() -> Vec<Case> {
    let mut cases: Vec<Case> = (0..16)
        .filter(|&version| version != 6)
        .map(|version| {
            row(
                format!("IPv6's ethertype over version {version}, from a stranger"),
                ethernet(&[v6(STRANGER6), tcp(443)]).with_byte(14, version << 4),
                unparsable(V6),
            )
        })
        .collect();
    cases.extend(table([
        (
            "IPv6's ethertype over version 4, from Exchange",
            ethernet(&[v6(EXCHANGE6), tcp(443)]).with_byte(14, 0x40),
            unparsable_from_a_source(V6),
        ),
        (
            "IPv6 with traffic class and flow label, from a stranger",
            ethernet(&[v6(STRANGER6), tcp(443)]).with_byte(14, 0x6f).with_byte(15, 0xff),
            unlisted(V6),
        ),
        (
            "IPv6 with a payload length of 0, from a stranger",
            ethernet(&[v6(STRANGER6), tcp(443)]).with_byte(18, 0).with_byte(19, 0),
            unlisted(V6),
        ),
    ]));
    cases
}

fn ipv6_extensions() -> Vec<Case> {
    // The header under test, and what it is.
    let single = [
        ("hop-by-hop options", vec![hop_by_hop(0)]),
        ("hop-by-hop options of 24 bytes", vec![hop_by_hop(2)]),
        ("a routing header", vec![routing(0)]),
        ("a routing header of 2,048 bytes", vec![routing(255)]),
        ("destination options", vec![destination(0)]),
        ("destination options of 16 bytes", vec![destination(1)]),
        ("an authentication header without a check value", vec![authentication(0)]),
        ("an authentication header of 24 bytes", vec![authentication(12)]),
        ("an authentication header of 20 bytes, not a multiple of 8", vec![authentication(8)]),
        ("an authentication header of 1,028 bytes", vec![authentication(1_016)]),
        ("an atomic fragment header", vec![fragment(0, false)]),
        ("a first fragment header", vec![fragment(0, true)]),
    ];
    let chains = [
        (
            "every kind once, as RFC 8200 orders them",
            vec![
                hop_by_hop(0),
                destination(0),
                routing(2),
                fragment(0, true),
                authentication(12),
                destination(0),
            ],
        ),
        (
            "every kind once, in reverse",
            vec![destination(1), authentication(4), fragment(0, false), routing(0), hop_by_hop(0)],
        ),
        ("a hop-by-hop header where none is allowed", vec![destination(0), hop_by_hop(0)]),
        ("eight headers", vec![destination(0); 8]),
        ("eight headers, the last an authentication header", {
            let mut chain = vec![destination(0); 7];
            chain.push(authentication(8));
            chain
        }),
        ("eight atomic fragment headers", vec![fragment(0, false); 8]),
    ];
    let mut cases = Vec::new();
    for (what, chain) in single.into_iter().chain(chains) {
        let behind = |source, transport: Layer| {
            ethernet(&[&[v6(source)], chain.as_slice(), &[transport]].concat())
        };
        cases.extend([
            row(
                format!("IPv6, {what}, TCP to 443 from Exchange"),
                behind(EXCHANGE6, tcp(443)),
                allowed(V6),
            ),
            row(
                format!("IPv6, {what}, TCP to 443 from a stranger"),
                behind(STRANGER6, tcp(443)),
                unlisted(V6),
            ),
            row(
                format!("IPv6, {what}, UDP to 443 from a stranger"),
                behind(STRANGER6, udp(443)),
                unlisted(V6),
            ),
            row(format!("IPv6, {what}, TCP to 80"), behind(STRANGER6, tcp(80)), not_guarded(V6)),
            row(
                format!("IPv6, {what}, ICMPv6"),
                behind(STRANGER6, other(IpNumber::IPV6_ICMP)),
                not_guarded(V6),
            ),
        ]);
    }
    let nine = |source, kind: Layer, transport| {
        ethernet(&[vec![v6(source)], vec![kind; 9], vec![transport]].concat())
    };
    let esp = || other(IpNumber::ENCAPSULATING_SECURITY_PAYLOAD);
    let none = || other(IpNumber::IPV6_NO_NEXT_HEADER);
    cases.extend(table([
        (
            "IPv6, nine headers, from a stranger",
            nine(STRANGER6, destination(0), tcp(443)),
            unparsable(V6),
        ),
        (
            "IPv6, nine headers, from Exchange",
            nine(EXCHANGE6, destination(0), tcp(443)),
            unparsable_from_a_source(V6),
        ),
        (
            "IPv6, nine headers, to a port without a guard",
            nine(STRANGER6, hop_by_hop(0), tcp(80)),
            unparsable(V6),
        ),
        (
            "IPv6, nine headers before ICMPv6",
            nine(STRANGER6, routing(0), other(IpNumber::IPV6_ICMP)),
            unparsable(V6),
        ),
        (
            "IPv6, nine atomic fragment headers",
            nine(STRANGER6, fragment(0, false), tcp(443)),
            unparsable(V6),
        ),
        ("IPv6, ESP from a stranger", ethernet(&[v6(STRANGER6), esp()]), not_guarded(V6)),
        (
            "IPv6, ESP behind destination options",
            ethernet(&[v6(STRANGER6), destination(0), esp()]),
            not_guarded(V6),
        ),
        ("IPv6, no next header", ethernet(&[v6(STRANGER6), none()]), not_guarded(V6)),
        (
            "IPv6, no next header behind hop-by-hop options",
            ethernet(&[v6(STRANGER6), hop_by_hop(0), none()]),
            not_guarded(V6),
        ),
        (
            "IPv6, a mobility header, which leads nowhere",
            ethernet(&[v6(STRANGER6), other(IpNumber::MOBILITY_HEADER)]),
            not_guarded(V6),
        ),
        (
            "IPv6, an extension header longer than the frame, from a stranger",
            ethernet(&[v6(STRANGER6), destination(0), tcp(443)]).with_byte(55, 255),
            unparsable(V6),
        ),
        (
            "IPv6, an extension header longer than the frame, from Exchange",
            ethernet(&[v6(EXCHANGE6), authentication(0), tcp(443)]).with_byte(55, 255),
            unparsable_from_a_source(V6),
        ),
    ]));
    cases
}

#[rustfmt::skip]
fn ipv6_fragments() -> Vec<Case> {
    let of = |source, offset, more, inner| ethernet(&[v6(source), fragment(offset, more), inner]);
    table([
        ("IPv6 first fragment too short for its port, from a stranger", of(STRANGER6, 0, true, tcp(443)).cut(65), unparsable(V6)),
        ("IPv6 first fragment too short for its port, from Exchange", of(EXCHANGE6, 0, true, tcp(443)).cut(65), unparsable_from_a_source(V6)),
        ("IPv6 first fragment that ends within its header chain", ethernet(&[v6(STRANGER6), fragment(0, true), destination(3), tcp(443)]).cut(70), unparsable(V6)),
        ("IPv6 second fragment at the smallest offset", of(STRANGER6, 1, true, tcp(443)), later_fragment(V6)),
        ("IPv6 middle fragment from a stranger", of(STRANGER6, 181, true, tcp(443)), later_fragment(V6)),
        ("IPv6 middle fragment from Exchange", of(EXCHANGE6, 181, true, udp(443)), later_fragment(V6)),
        ("IPv6 fragment at offset 32: only the upper byte is set", of(STRANGER6, 32, true, tcp(443)), later_fragment(V6)),
        ("IPv6 fragment at offset 4096: only the highest bit is set", of(STRANGER6, 4_096, true, tcp(443)), later_fragment(V6)),
        ("IPv6 last fragment from a stranger", of(STRANGER6, 362, false, tcp(443)), later_fragment(V6)),
        ("IPv6 last fragment at the greatest offset", of(STRANGER6, 8_191, false, udp(443)), later_fragment(V6)),
        ("IPv6 later fragment of ICMPv6", of(STRANGER6, 181, true, other(IpNumber::IPV6_ICMP)), later_fragment(V6)),
        ("IPv6 later fragment behind hop-by-hop options", ethernet(&[v6(STRANGER6), hop_by_hop(1), fragment(181, true), tcp(443)]), later_fragment(V6)),
        ("IPv6 later fragment behind a first one", ethernet(&[v6(STRANGER6), fragment(0, true), fragment(181, true), tcp(443)]), later_fragment(V6)),
        ("IPv6 later fragment behind eight headers", ethernet(&[vec![v6(STRANGER6)], vec![destination(0); 8], vec![fragment(181, true), tcp(443)]].concat()), later_fragment(V6)),
        ("IPv6 reserved bits of the fragment header are no offset", of(STRANGER6, 0, true, tcp(443)).with_byte(57, 0x07), unlisted(V6)),
    ])
}

/// Representative frames cut off at every byte.
fn truncations() -> Vec<Case> {
    let mut cases = Vec::new();
    // What becomes of a frame of at least so many bytes.
    let mut cuts = |name: &str, frame: Frame, ranges: &[(usize, Expected)]| {
        for length in 0..=frame.bytes.len() {
            let &(_, expected) = ranges.iter().rfind(|&&(from, _)| from <= length).unwrap();
            cases.push(row(format!("{name}, {length} bytes"), frame.clone().cut(length), expected));
        }
    };

    cuts("ARP cut off", ethernet(&[not_ip(EtherType::ARP)]), &[(0, UNKNOWN), (14, NOT_IP)]);
    cuts(
        "tagged ARP cut off",
        ethernet(&[tag(), not_ip(EtherType::ARP)]),
        &[(0, UNKNOWN), (18, NOT_IP)],
    );
    for (who, source, cut, whole) in [
        ("Exchange", EXCHANGE4, unparsable_from_a_source(V4), allowed(V4)),
        ("a stranger", STRANGER4, unparsable(V4), unlisted(V4)),
    ] {
        let none = unparsable(V4);
        cuts(
            &format!("IPv4 TCP from {who} cut off"),
            ethernet(&[v4(source), tcp(443)]),
            &[(0, UNKNOWN), (14, none), (34, cut), (38, whole)],
        );
        cuts(
            &format!("IPv4 UDP from {who} cut off"),
            ethernet(&[v4(source), udp(443)]),
            &[(0, UNKNOWN), (14, none), (34, cut), (38, whole)],
        );
        cuts(
            &format!("802.1Q, IPv4 TCP from {who} cut off"),
            ethernet(&[tag(), v4(source), tcp(443)]),
            &[(0, UNKNOWN), (18, none), (38, cut), (42, whole)],
        );
        cuts(
            &format!("802.1ad and 802.1Q, IPv4 TCP from {who} cut off"),
            ethernet(&[service_tag(), tag(), v4(source), tcp(443)]),
            &[(0, UNKNOWN), (22, none), (42, cut), (46, whole)],
        );
        cuts(
            &format!("IPv4 with 40 bytes of options, TCP from {who} cut off"),
            ethernet(&[v4_options(source, 40), tcp(443)]),
            &[(0, UNKNOWN), (14, none), (34, cut), (78, whole)],
        );
        cuts(
            &format!("IPv4 with 4 bytes of options, UDP from {who} cut off"),
            ethernet(&[v4_options(source, 4), udp(443)]),
            &[(0, UNKNOWN), (14, none), (34, cut), (42, whole)],
        );
        cuts(
            &format!("no link layer, IPv4 TCP from {who} cut off"),
            bare(&[v4(source), tcp(443)]),
            &[(0, UNKNOWN), (1, none), (20, cut), (24, whole)],
        );
        cuts(
            &format!("IPv4 ICMP from {who} cut off"),
            ethernet(&[v4(source), other(IpNumber::ICMP)]),
            &[(0, UNKNOWN), (14, none), (34, not_guarded(V4))],
        );
        cuts(
            &format!("IPv4 later fragment from {who} cut off"),
            ethernet(&[v4_fragment(source, 185, true), tcp(443)]),
            &[(0, UNKNOWN), (14, none), (34, later_fragment(V4))],
        );
    }
    cuts(
        "three tags cut off",
        ethernet(&[tag(), tag(), tag(), v4(EXCHANGE4), tcp(443)]),
        &[(0, UNKNOWN)],
    );
    for (who, source, cut, whole) in [
        ("Exchange", EXCHANGE6, unparsable_from_a_source(V6), allowed(V6)),
        ("a stranger", STRANGER6, unparsable(V6), unlisted(V6)),
    ] {
        let none = unparsable(V6);
        let known = [(0, UNKNOWN), (14, none), (54, cut)];
        let mut chain = |name: &str, headers: &[Layer], bytes: usize| {
            for transport in [tcp(443), udp(443)] {
                let protocol = if matches!(transport, Layer::Tcp { .. }) { "TCP" } else { "UDP" };
                let frame = ethernet(&[&[v6(source)], headers, &[transport]].concat());
                let ranges = [known.as_slice(), &[(54 + bytes + 4, whole)]].concat();
                cuts(&format!("IPv6, {name}{protocol} from {who} cut off"), frame, &ranges);
            }
        };
        chain("", &[], 0);
        chain("hop-by-hop options, ", &[hop_by_hop(0)], 8);
        chain("a routing header of 24 bytes, ", &[routing(2)], 24);
        chain("destination options of 16 bytes, ", &[destination(1)], 16);
        chain("an authentication header of 24 bytes, ", &[authentication(12)], 24);
        chain("a first fragment header, ", &[fragment(0, true)], 8);
        chain(
            "every header, ",
            &[
                hop_by_hop(0),
                destination(0),
                routing(2),
                fragment(0, true),
                authentication(12),
                destination(1),
            ],
            8 + 8 + 24 + 8 + 24 + 16,
        );
        cuts(
            &format!("802.1Q, IPv6 TCP from {who} cut off"),
            ethernet(&[tag(), v6(source), tcp(443)]),
            &[(0, UNKNOWN), (18, none), (58, cut), (62, whole)],
        );
        cuts(
            &format!("802.1ad and 802.1Q, IPv6 TCP from {who} cut off"),
            ethernet(&[service_tag(), tag(), v6(source), tcp(443)]),
            &[(0, UNKNOWN), (22, none), (62, cut), (66, whole)],
        );
        cuts(
            &format!("no link layer, IPv6 UDP from {who} cut off"),
            bare(&[v6(source), udp(443)]),
            &[(0, UNKNOWN), (1, none), (40, cut), (44, whole)],
        );
        cuts(
            &format!("IPv6 later fragment from {who} cut off"),
            ethernet(&[v6(source), fragment(181, true), tcp(443)]),
            &[(0, UNKNOWN), (14, none), (54, cut), (62, later_fragment(V6))],
        );
        cuts(
            &format!("IPv6 ICMPv6 behind destination options from {who} cut off"),
            ethernet(&[v6(source), destination(0), other(IpNumber::IPV6_ICMP)]),
            // No extension header is shorter than eight bytes.
            &[(0, UNKNOWN), (14, none), (54, cut), (62, not_guarded(V6))],
        );
    }
    cases
}
