//! Frames that end too early.

use etherparse::{EtherType, IpNumber};

use super::{
    Case, Expected,
    expected::{
        NOT_IP, UNKNOWN, V4, V6, allowed, later_fragment, not_guarded, unlisted, unparsable,
        unparsable_from_a_source,
    },
    layer::{
        Frame, Layer, authentication, bare, destination, ethernet, fragment, hop_by_hop, not_ip,
        other, routing, service_tag, tag, tcp, udp, v4, v4_fragment, v4_options, v6,
    },
    policy::{EXCHANGE4, EXCHANGE6, STRANGER4, STRANGER6},
    row,
};

/// Representative frames cut off at every byte.
pub(super) fn truncations() -> Vec<Case> {
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
