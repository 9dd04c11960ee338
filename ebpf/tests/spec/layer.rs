//! Frames from layers. Every header is etherparse's, so that the table of packets
//! does not repeat the parser's own idea of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, IpAuthHeader, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, SingleVlanHeader, TcpHeader, UdpHeader,
    VlanId,
};
use exogate_ebpf::packet::LinkLayer;

/// A frame and how it begins.
#[derive(Clone)]
pub struct Frame {
    pub link_layer: LinkLayer,
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The frame with one byte replaced: for what no builder lets one say.
    pub fn with_byte(mut self, at: usize, value: u8) -> Self {
        self.bytes[at] = value;
        self
    }

    /// The first bytes of the frame.
    pub fn cut(mut self, length: usize) -> Self {
        self.bytes.truncate(length);
        self
    }
}

/// One header, with what follows from it.
#[derive(Clone)]
pub enum Layer {
    Tag(EtherType),
    Ipv4 {
        header: Box<Ipv4Header>,
    },
    Ipv6 {
        header: Ipv6Header,
    },
    Extension {
        number: IpNumber,
        units: usize,
    },
    Authentication {
        icv_bytes: usize,
    },
    Fragment {
        offset: u16,
        more: bool,
    },
    Tcp {
        source_port: u16,
        port: u16,
    },
    Udp {
        source_port: u16,
        port: u16,
    },
    /// Any other protocol over IP.
    Other {
        number: IpNumber,
        bytes: Vec<u8>,
    },
    /// Anything but IP over Ethernet.
    NotIp {
        ether_type: EtherType,
        bytes: Vec<u8>,
    },
}

/// An Ethernet frame of these layers.
pub fn ethernet(layers: &[Layer]) -> Frame {
    let inner = encode(layers);
    let header = Ethernet2Header {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
        ether_type: inner.ether_type,
    };
    let bytes = [header.to_bytes().as_slice(), &inner.bytes].concat();
    Frame { link_layer: LinkLayer::Ethernet, bytes }
}

/// A frame of these layers on an interface without a link layer.
pub fn bare(layers: &[Layer]) -> Frame {
    Frame { link_layer: LinkLayer::None, bytes: encode(layers).bytes }
}

/// An 802.1Q tag.
pub fn tag() -> Layer {
    Layer::Tag(EtherType::VLAN_TAGGED_FRAME)
}

/// An 802.1ad (service) tag.
pub fn service_tag() -> Layer {
    Layer::Tag(EtherType::PROVIDER_BRIDGING)
}

/// IPv4 from `source` to [`super::HOST4`].
pub fn v4(source: Ipv4Addr) -> Layer {
    v4_to(source, super::HOST4)
}

pub fn v4_to(source: Ipv4Addr, destination: Ipv4Addr) -> Layer {
    let header = Ipv4Header::new(0, 64, IpNumber::TCP, source.octets(), destination.octets());
    Layer::Ipv4 { header: Box::new(header.unwrap()) }
}

/// IPv4 with so many bytes of no-operation options, a multiple of 4 up to 40.
pub fn v4_options(source: Ipv4Addr, option_bytes: usize) -> Layer {
    let Layer::Ipv4 { mut header } = v4(source) else { unreachable!() };
    header.options = Ipv4Options::try_from(vec![1; option_bytes].as_slice()).unwrap();
    Layer::Ipv4 { header }
}

/// An IPv4 fragment, `offset` in units of 8 bytes.
pub fn v4_fragment(source: Ipv4Addr, offset: u16, more: bool) -> Layer {
    let Layer::Ipv4 { mut header } = v4(source) else { unreachable!() };
    header.dont_fragment = false;
    header.identification = 0x1234;
    header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
    header.more_fragments = more;
    Layer::Ipv4 { header }
}

/// IPv6 from `source` to [`super::HOST6`].
pub fn v6(source: Ipv6Addr) -> Layer {
    v6_to(source, super::HOST6)
}

pub fn v6_to(source: Ipv6Addr, destination: Ipv6Addr) -> Layer {
    let header = Ipv6Header {
        hop_limit: 64,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    Layer::Ipv6 { header }
}

/// Hop-by-hop options of `8 * (units + 1)` bytes.
pub fn hop_by_hop(units: usize) -> Layer {
    Layer::Extension { number: IpNumber::IPV6_HEADER_HOP_BY_HOP, units }
}

/// A routing header of `8 * (units + 1)` bytes.
pub fn routing(units: usize) -> Layer {
    Layer::Extension { number: IpNumber::IPV6_ROUTE_HEADER, units }
}

/// Destination options of `8 * (units + 1)` bytes.
pub fn destination(units: usize) -> Layer {
    Layer::Extension { number: IpNumber::IPV6_DESTINATION_OPTIONS, units }
}

/// An authentication header with an integrity check value of so many bytes.
pub fn authentication(icv_bytes: usize) -> Layer {
    Layer::Authentication { icv_bytes }
}

/// An IPv6 fragment header, `offset` in units of 8 bytes.
pub fn fragment(offset: u16, more: bool) -> Layer {
    Layer::Fragment { offset, more }
}

pub fn tcp(port: u16) -> Layer {
    tcp_from(50_000, port)
}

pub fn tcp_from(source_port: u16, port: u16) -> Layer {
    Layer::Tcp { source_port, port }
}

pub fn udp(port: u16) -> Layer {
    udp_from(50_000, port)
}

pub fn udp_from(source_port: u16, port: u16) -> Layer {
    Layer::Udp { source_port, port }
}

/// Another protocol, with bytes that would be the ports 50000 and 443 of TCP.
pub fn other(number: IpNumber) -> Layer {
    Layer::Other { number, bytes: TcpHeader::new(50_000, 443, 0, 1_024).to_bytes().to_vec() }
}

/// Another ethertype.
pub fn not_ip(ether_type: EtherType) -> Layer {
    Layer::NotIp { ether_type, bytes: vec![0; 46] }
}

/// Layers in bytes, and how the layer above says what they are.
struct Encoded {
    bytes: Vec<u8>,
    ether_type: EtherType,
    number: IpNumber,
}

/// Encodes from the innermost layer outwards, as every header names the next.
fn encode(layers: &[Layer]) -> Encoded {
    let Some((layer, inner)) = layers.split_first() else {
        let number = IpNumber::IPV6_NO_NEXT_HEADER;
        return Encoded { bytes: Vec::new(), ether_type: EtherType(0xffff), number };
    };
    let inner = encode(inner);
    // Where a layer cannot stand directly on Ethernet or on IP, the other
    // number is never used.
    let (ether_type, number) = (EtherType(0xffff), IpNumber(255));
    let (header, ether_type, number) = match layer.clone() {
        Layer::Tag(ether_type) => {
            let header = SingleVlanHeader {
                vlan_id: VlanId::try_new(7).unwrap(),
                ether_type: inner.ether_type,
                ..SingleVlanHeader::default()
            };
            (header.to_bytes().to_vec(), ether_type, number)
        }
        Layer::Ipv4 { mut header } => {
            header.protocol = inner.number;
            header.set_payload_len(inner.bytes.len()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            (header.to_bytes().to_vec(), EtherType::IPV4, IpNumber::IPV4)
        }
        Layer::Ipv6 { mut header } => {
            header.next_header = inner.number;
            header.set_payload_length(inner.bytes.len()).unwrap();
            (header.to_bytes().to_vec(), EtherType::IPV6, IpNumber::IPV6)
        }
        Layer::Extension { number, units } => {
            // Padding: one option that fills the header.
            let mut options = vec![0; units * 8 + 6];
            options[0] = 1;
            options[1] = (options.len() - 2).min(255) as u8;
            let header = Ipv6RawExtHeader::new_raw(inner.number, &options).unwrap();
            (header.to_bytes().to_vec(), ether_type, number)
        }
        Layer::Authentication { icv_bytes } => {
            let header = IpAuthHeader::new(inner.number, 1, 1, &vec![0xa5; icv_bytes]).unwrap();
            (header.to_bytes().to_vec(), ether_type, IpNumber::AUTHENTICATION_HEADER)
        }
        Layer::Fragment { offset, more } => {
            let offset = IpFragOffset::try_new(offset).unwrap();
            let header = Ipv6FragmentHeader::new(inner.number, offset, more, 0x1234);
            (header.to_bytes().to_vec(), ether_type, IpNumber::IPV6_FRAGMENTATION_HEADER)
        }
        Layer::Tcp { source_port, port } => {
            let header = TcpHeader::new(source_port, port, 0, 1_024);
            (header.to_bytes().to_vec(), ether_type, IpNumber::TCP)
        }
        Layer::Udp { source_port, port } => {
            let length = (UdpHeader::LEN + inner.bytes.len()) as u16;
            let header = UdpHeader { source_port, destination_port: port, length, checksum: 0 };
            (header.to_bytes().to_vec(), ether_type, IpNumber::UDP)
        }
        Layer::Other { number, bytes } => (bytes, ether_type, number),
        Layer::NotIp { ether_type, bytes } => (bytes, ether_type, number),
    };
    Encoded { bytes: [header, inner.bytes].concat(), ether_type, number }
}
