//! IPv4: headers, options and fragments.

use etherparse::IpNumber;

use super::{
    Case,
    expected::{
        V4, allowed, later_fragment, not_guarded, unlisted, unparsable, unparsable_from_a_source,
    },
    layer::{ethernet, other, tcp, udp, v4, v4_fragment, v4_options},
    policy::{EXCHANGE4, GRAPH4, OFFICE4, STRANGER4},
    row, table,
};

pub(super) fn headers() -> Vec<Case> {
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
pub(super) fn fragments() -> Vec<Case> {
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
