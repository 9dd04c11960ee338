//! From the bytes of a frame to the fields that the verdict needs.
//!
//! Ethernet with up to two VLAN tags or a bare IP packet; IPv4 with options;
//! IPv6 with up to [`MAX_EXTENSION_HEADERS`] extension headers. Everything that
//! is cut off or malformed has a defined result: [`parse`] is total.

use core::hint::cold_path;

use crate::{opaque::opaque, verdict::Family};

/// TCP's IP protocol number.
pub const TCP: u8 = 6;
/// UDP's IP protocol number.
pub const UDP: u8 = 17;

/// VLAN tags that are followed; a frame with more is [`Parsed::Unparsable`].
pub const MAX_VLAN_TAGS: usize = 2;

/// IPv6 extension headers that are followed; a packet with more is
/// [`Parsed::Unparsable`], unless the next one makes it a later fragment. RFC
/// 8200 (4.1) expects at most six before TCP or UDP.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// The bytes of a frame, read with bounds checks.
pub trait Packet {
    /// The plain value at byte `offset`, `None` if the frame ends before its end.
    fn read<T: Plain>(&self, offset: usize) -> Option<T>;
}

/// Types that any bytes are a valid value of.
///
/// # Safety
///
/// The type is `repr(C)`, `Copy`, without padding, and every bit pattern is a
/// value of it.
pub unsafe trait Plain: Copy {}

/// A frame that lies in ordinary memory, as on the host.
#[cfg(not(target_arch = "bpf"))]
impl Packet for [u8] {
    fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        let bytes = self.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: `bytes` has the size of T, and any bytes are a T.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}

/// Whether a frame begins with an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// Ethernet, and what looks like it.
    Ethernet,
    /// The frame begins with the IP header (tun, WireGuard, ...).
    None,
}

/// An address in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4.
    V4(u32),
    /// IPv6, upper and lower half.
    V6(u64, u64),
}

impl Address {
    /// The 16 bytes of the address, IPv4 in the mapped form `::ffff:a.b.c.d`.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let (high, low) = match self {
            Self::V4(address) => (0, 0xffff_0000_0000 | address as u64),
            Self::V6(high, low) => (high, low),
        };
        ((high as u128) << 64 | low as u128).to_be_bytes()
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            core::net::IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                Self::V6((bits >> 64) as u64, bits as u64)
            }
        }
    }
}

/// What a frame is, as far as the verdict cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not IP.
    NotIp,
    /// A fragment other than the first.
    Fragment {
        /// Its network protocol.
        family: Family,
    },
    /// IP, but neither TCP nor UDP, so without a port to guard.
    Portless {
        /// Its network protocol.
        family: Family,
    },
    /// TCP or UDP whose ports can be seen. Includes first fragments.
    Flow {
        /// Source address.
        source: Address,
        /// Destination address.
        destination: Address,
        /// [`TCP`] or [`UDP`].
        protocol: u8,
        /// Source port.
        source_port: u16,
        /// Destination port.
        port: u16,
    },
    /// The frame ends, or breaks the rules, before its port can be seen.
    Unparsable {
        /// Its network protocol, as far as it is known.
        family: Family,
        /// The source address if the IP header is whole.
        source: Option<Address>,
    },
}

/// Parses a frame.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P, link_layer: LinkLayer) -> Parsed {
    parse_then(packet, link_layer, &Itself)
}

/// What is done with a parsed packet.
pub trait Then {
    /// What comes of it.
    type Output;

    /// Goes on with the packet. To be inlined: see [`parse_then`].
    fn then(&self, parsed: Parsed) -> Self::Output;
}

struct Itself;

impl Then for Itself {
    type Output = Parsed;

    #[inline(always)]
    fn then(&self, parsed: Parsed) -> Parsed {
        parsed
    }
}

/// Parses a frame and goes on with the result. What follows is inlined where each
/// kind of result arises, so that the compiler sees which it is: with ten
/// registers, building the value first and taking it apart again costs more than
/// the parsing.
#[inline(always)]
pub fn parse_then<P: Packet + ?Sized, T: Then>(
    packet: &P,
    link_layer: LinkLayer,
    next: &T,
) -> T::Output {
    match link_layer {
        LinkLayer::Ethernet => parse_ethernet(packet, next),
        LinkLayer::None => parse_layer3(packet, next),
    }
}

/// What of a frame cannot be read: not even its network protocol is known.
const CUT: Parsed = Parsed::Unparsable { family: Family::Other, source: None };

#[inline(always)]
fn parse_ethernet<P: Packet + ?Sized, T: Then>(packet: &P, next: &T) -> T::Output {
    let Some(ethernet) = packet.read::<EthernetHeader>(0) else { return next.then(CUT) };
    let mut ethertype = u16::from_be(ethernet.ethertype);
    let mut offset = size_of::<EthernetHeader>();
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        cold_path();
        let Some(tag) = packet.read::<VlanTag>(offset) else { return next.then(CUT) };
        ethertype = u16::from_be(tag.ethertype);
        offset = offset.wrapping_add(size_of::<VlanTag>());
    }
    match ethertype {
        ethertype::IPV4 => parse_ipv4(packet, offset, next),
        ethertype::IPV6 => parse_ipv6(packet, offset, next),
        // One tag too many: nobody sends this by accident.
        ethertype::VLAN | ethertype::SERVICE_VLAN => next.then(CUT),
        _ => next.then(Parsed::NotIp),
    }
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN)
}

#[inline(always)]
fn parse_layer3<P: Packet + ?Sized, T: Then>(packet: &P, next: &T) -> T::Output {
    match packet.read::<u8>(0).map(|byte| byte >> 4) {
        Some(4) => parse_ipv4(packet, 0, next),
        Some(6) => parse_ipv6(packet, 0, next),
        Some(_) => next.then(Parsed::NotIp),
        None => next.then(CUT),
    }
}

#[inline(always)]
#[allow(clippy::arithmetic_side_effects, reason = "offsets stay far below 64 KiB")]
fn parse_ipv4<P: Packet + ?Sized, T: Then>(packet: &P, at: usize, next: &T) -> T::Output {
    let family = Family::Ipv4;
    let Some(header) = packet.read::<Ipv4Header>(at) else {
        return next.then(Parsed::Unparsable { family, source: None });
    };
    let source = Address::V4(u32::from_be(header.source));
    let header_words = usize::from(header.version_and_length & 0xf);
    'malformed: {
        // Version 4 and at least five words, in one comparison.
        if header.version_and_length.wrapping_sub(0x45) > 0xf - 5 {
            break 'malformed;
        }
        if u16::from_be(header.fragment) & 0x1fff != 0 {
            cold_path();
            return next.then(Parsed::Fragment { family });
        }
        let protocol = header.protocol;
        if protocol != TCP && protocol != UDP {
            return next.then(Parsed::Portless { family });
        }
        let Some(ports) = packet.read::<Ports>(at + header_words * 4) else { break 'malformed };
        return next.then(Parsed::Flow {
            source,
            destination: Address::V4(u32::from_be(header.destination)),
            protocol,
            source_port: u16::from_be(ports.source),
            port: u16::from_be(ports.destination),
        });
    }
    cold_path();
    next.then(Parsed::Unparsable { family, source: Some(source) })
}

#[inline(always)]
#[allow(clippy::arithmetic_side_effects, reason = "offsets stay far below 64 KiB")]
fn parse_ipv6<P: Packet + ?Sized, T: Then>(packet: &P, at: usize, next: &T) -> T::Output {
    let family = Family::Ipv6;
    let Some(header) = packet.read::<Ipv6Header>(at) else {
        return next.then(Parsed::Unparsable { family, source: None });
    };
    let source = Address::V6(u64::from_be(header.source[0]), u64::from_be(header.source[1]));
    'malformed: {
        if header.version_and_class >> 4 != 6 {
            break 'malformed;
        }
        let mut protocol = header.next_header;
        let mut offset = at + size_of::<Ipv6Header>();
        // Nearly all packets go straight on to TCP or UDP, and are spared the loop.
        if protocol != TCP && protocol != UDP {
            cold_path();
            let mut found = false;
            // One more round than headers: the last one sees what follows them.
            for _ in 0..=MAX_EXTENSION_HEADERS {
                match protocol {
                    TCP | UDP => {
                        found = true;
                        break;
                    }
                    extension::HOP_BY_HOP
                    | extension::ROUTING
                    | extension::FRAGMENT
                    | extension::AUTHENTICATION
                    | extension::DESTINATION => {
                        // None is shorter than a fragment header.
                        let Some(extension) = packet.read::<ExtensionHeader>(offset) else {
                            break 'malformed;
                        };
                        let is_fragment = equal(protocol, extension::FRAGMENT);
                        let is_authentication = equal(protocol, extension::AUTHENTICATION);
                        let fragment_offset =
                            usize::from(u16::from_be(extension.fragment) & 0xfff8);
                        if fragment_offset & is_fragment != 0 {
                            return next.then(Parsed::Fragment { family });
                        }
                        // Without branches, so that the verifier has one way through each
                        // round: 8 + 8 n bytes, 8 + 4 n, or 8.
                        let length = usize::from(extension.length);
                        offset += 8 + ((length * 8) & !(is_fragment | is_authentication));
                        offset += (length * 4) & is_authentication;
                        protocol = extension.next_header;
                    }
                    _ => return next.then(Parsed::Portless { family }),
                }
            }
            if !found {
                break 'malformed;
            }
        }
        let Some(ports) = packet.read::<Ports>(offset) else { break 'malformed };
        return next.then(Parsed::Flow {
            source,
            destination: Address::V6(
                u64::from_be(header.destination[0]),
                u64::from_be(header.destination[1]),
            ),
            protocol,
            source_port: u16::from_be(ports.source),
            port: u16::from_be(ports.destination),
        });
    }
    cold_path();
    next.then(Parsed::Unparsable { family, source: Some(source) })
}

/// All ones if equal, else zero, without a branch.
#[inline(always)]
fn equal(a: u8, b: u8) -> usize {
    let differ = opaque(u64::from(a ^ b));
    ((differ.wrapping_sub(1) as i64) >> 63) as usize
}

mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    /// 802.1Q.
    pub(super) const VLAN: u16 = 0x8100;
    /// 802.1ad.
    pub(super) const SERVICE_VLAN: u16 = 0x88a8;
}

/// IPv6 next-header numbers that lead on to another header.
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
}

// Headers in network byte order. Unused fields keep the others in place.

#[repr(C)]
#[derive(Clone, Copy)]
struct EthernetHeader {
    _addresses: [u16; 6],
    ethertype: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct VlanTag {
    _control: u16,
    ethertype: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4Header {
    version_and_length: u8,
    _service: u8,
    _total_length: u16,
    _identification: u16,
    fragment: u16,
    _time_to_live: u8,
    protocol: u8,
    _checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6Header {
    version_and_class: u8,
    _class_and_flow: [u8; 3],
    _payload_length: u16,
    next_header: u8,
    _hop_limit: u8,
    source: [u64; 2],
    destination: [u64; 2],
}

/// What all extension headers have in common, and the fragment header's field.
#[repr(C)]
#[derive(Clone, Copy)]
struct ExtensionHeader {
    next_header: u8,
    length: u8,
    fragment: u16,
    _rest: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ports {
    source: u16,
    destination: u16,
}

// SAFETY: integers and arrays of integers, laid out without padding (asserted
// below).
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for EthernetHeader {}
// SAFETY: as above.
unsafe impl Plain for VlanTag {}
// SAFETY: as above.
unsafe impl Plain for Ipv4Header {}
// SAFETY: as above.
unsafe impl Plain for Ipv6Header {}
// SAFETY: as above.
unsafe impl Plain for ExtensionHeader {}
// SAFETY: as above.
unsafe impl Plain for Ports {}

const _: () = {
    assert!(size_of::<EthernetHeader>() == 14);
    assert!(size_of::<VlanTag>() == 4);
    assert!(size_of::<Ipv4Header>() == 20);
    assert!(size_of::<Ipv6Header>() == 40);
    assert!(size_of::<ExtensionHeader>() == 8);
    assert!(size_of::<Ports>() == 4);
};
