//! IPv6: headers, extension headers and fragments.

use etherparse::IpNumber;

use super::{
    Case,
    expected::{
        V6, allowed, later_fragment, not_guarded, unlisted, unparsable, unparsable_from_a_source,
    },
    layer::{
        Layer, authentication, destination, ethernet, fragment, hop_by_hop, other, routing, tcp,
        udp, v6,
    },
    policy::{EXCHANGE6, STRANGER6},
    row, table,
};

pub(super) fn headers() -> Vec<Case> {
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

pub(super) fn extensions() -> Vec<Case> {
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
pub(super) fn fragments() -> Vec<Case> {
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
