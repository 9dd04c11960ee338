//! Before the IP header: what is not IP, VLAN tags, and interfaces without a link layer.

use etherparse::EtherType;
use exogate_ebpf::packet::LinkLayer;

use super::{
    Case,
    expected::{
        NOT_IP, UNKNOWN, V4, V6, allowed, later_fragment, not_guarded, unlisted, unparsable,
        unparsable_from_a_source,
    },
    layer::{
        Frame, Layer, bare, destination, ethernet, hop_by_hop, not_ip, service_tag, tag, tcp, udp,
        v4, v4_fragment, v4_options, v6,
    },
    policy::{EXCHANGE4, EXCHANGE6, STRANGER4, STRANGER6},
    table,
};

#[rustfmt::skip]
pub(super) fn not_ip_frames() -> Vec<Case> {
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
pub(super) fn tags() -> Vec<Case> {
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
pub(super) fn interfaces_without_a_link_layer() -> Vec<Case> {
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
