//! Who passes which guard: sources, the edges of their prefixes, and destinations.

use std::net::Ipv4Addr;

use etherparse::IpNumber;

use super::{
    Case,
    expected::{V4, V6, allowed, not_guarded, unlisted, unparsable, unparsable_from_a_source},
    layer::{ethernet, other, tcp, tcp_from, udp, udp_from, v4, v4_to, v6, v6_to},
    policy::{
        EXCHANGE4, EXCHANGE6, GRAPH4, GRAPH6, HOST4, HOST6, NEIGHBOUR4, NEIGHBOUR6, OFFICE4,
        OFFICE6, PARTNER4, PARTNER6, STRANGER4, STRANGER6, ip6,
    },
    table,
};

#[rustfmt::skip]
pub(super) fn guards_and_sources() -> Vec<Case> {
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
pub(super) fn edges_of_prefixes() -> Vec<Case> {
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
