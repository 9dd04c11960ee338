//! The verdict once more, from the RFCs and the documented rules: slices that
//! are taken apart from the front, and lists that are searched from end to end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use exogate_ebpf::{
    compile::{Policy, Protocol},
    packet::LinkLayer,
    verdict::{Action, Family, Reason},
};
use ipnet::IpNet;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    NotIp,
    LaterFragment(Family),
    Portless(Family),
    Flow { from: (IpAddr, u16), to: (IpAddr, u16), protocol: u8 },
    Unparsable { family: Family, source: Option<IpAddr> },
}

/// The frame ends too early.
struct Cut;

/// The rest of a frame.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Cut> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Big endian, like every number on the wire.
    fn number(&mut self, bytes: usize) -> Result<u16, Cut> {
        Ok(self.take(bytes)?.iter().fold(0, |number, &byte| number << 8 | u16::from(byte)))
    }
}

pub(crate) fn parse(frame: &[u8], link_layer: LinkLayer) -> Frame {
    let nothing_known = Frame::Unparsable { family: Family::Other, source: None };
    let mut rest = Rest(frame);
    let family = match link_layer {
        LinkLayer::Ethernet => match network_protocol(&mut rest) {
            Ok(EtherType::Ip(family)) => family,
            Ok(EtherType::Another) => return Frame::NotIp,
            Ok(EtherType::ThirdTag) | Err(Cut) => return nothing_known,
        },
        LinkLayer::None => match frame {
            [0x40..=0x4f, ..] => Family::Ipv4,
            [0x60..=0x6f, ..] => Family::Ipv6,
            [_, ..] => return Frame::NotIp,
            [] => return nothing_known,
        },
    };
    let mut source = None;
    let parsed = match family {
        Family::Ipv4 => ipv4(rest, &mut source),
        _ => ipv6(rest, &mut source),
    };
    parsed.unwrap_or(Frame::Unparsable { family, source })
}

enum EtherType {
    Ip(Family),
    Another,
    ThirdTag,
}

/// IEEE 802.3, 802.1Q, 802.1ad.
fn network_protocol(rest: &mut Rest<'_>) -> Result<EtherType, Cut> {
    let _addresses = rest.take(12)?;
    for tags in 0.. {
        match rest.number(2)? {
            0x0800 => return Ok(EtherType::Ip(Family::Ipv4)),
            0x86dd => return Ok(EtherType::Ip(Family::Ipv6)),
            0x8100 | 0x88a8 if tags == 2 => return Ok(EtherType::ThirdTag),
            0x8100 | 0x88a8 => {
                // A tag that is not followed by an ethertype is cut off anyway.
                let _control = rest.take(2)?;
            }
            _ => break,
        }
    }
    Ok(EtherType::Another)
}

/// RFC 791.
fn ipv4(mut rest: Rest<'_>, source: &mut Option<IpAddr>) -> Result<Frame, Cut> {
    let fixed: &[u8; 20] = rest.take(20)?.try_into().map_err(|_| Cut)?;
    let &[first, _, _, _, _, _, flags, offset, _, protocol, _, _, a, b, c, d, e, f, g, h] = fixed;
    let from = IpAddr::from([a, b, c, d]);
    *source = Some(from);
    let (version, words) = (first / 16, usize::from(first % 16));
    if version != 4 {
        return Err(Cut);
    }
    // Fewer than the five words of the fixed part.
    let option_words = words.checked_sub(5).ok_or(Cut)?;
    // Reserved, do not fragment, more fragments; the rest is the offset.
    if (flags % 32, offset) != (0, 0) {
        return Ok(Frame::LaterFragment(Family::Ipv4));
    }
    if ![6, 17].contains(&protocol) {
        return Ok(Frame::Portless(Family::Ipv4));
    }
    let _options = rest.take(4 * option_words)?;
    let to = IpAddr::from([e, f, g, h]);
    flow(rest, from, to, protocol)
}

/// RFC 8200, and RFC 4302 for the authentication header.
fn ipv6(mut rest: Rest<'_>, source: &mut Option<IpAddr>) -> Result<Frame, Cut> {
    let fixed = rest.take(40)?;
    let address = |at: usize| -> Result<IpAddr, Cut> {
        let octets = <[u8; 16]>::try_from(&fixed[at..at + 16]).map_err(|_| Cut)?;
        Ok(Ipv6Addr::from(octets).into())
    };
    let (from, to) = (address(8)?, address(24)?);
    *source = Some(from);
    if fixed[0] / 16 != 6 {
        return Err(Cut);
    }
    chain(fixed[6], rest, 0, &|protocol, rest| flow(rest, from, to, protocol))
}

/// Follows the header chain; `before` are the extension headers so far.
fn chain(
    next: u8,
    mut rest: Rest<'_>,
    before: usize,
    transport: &dyn Fn(u8, Rest<'_>) -> Result<Frame, Cut>,
) -> Result<Frame, Cut> {
    let units_of = match next {
        6 | 17 => return transport(next, rest),
        // Hop-by-hop options, routing, destination options: 8 bytes and more.
        0 | 43 | 60 => 8,
        // Authentication: the length counts 4 bytes, less two.
        51 => 4,
        44 => 0,
        _ => return Ok(Frame::Portless(Family::Ipv6)),
    };
    if next == 44 {
        let header = rest.take(8)?;
        let offset = u16::from_be_bytes([header[2], header[3]]) / 8;
        if offset > 0 {
            // Even as the ninth header.
            return Ok(Frame::LaterFragment(Family::Ipv6));
        }
        return if before == 8 { Err(Cut) } else { chain(header[0], rest, before + 1, transport) };
    }
    if before == 8 {
        return Err(Cut);
    }
    // None is shorter than eight bytes.
    let header = rest.take(8)?;
    let [following, length] = [header[0], header[1]];
    let more = match units_of {
        8 => 8 * usize::from(length),
        _ => 4 * usize::from(length),
    };
    // What is skipped need not be there; what comes after it must.
    let rest = Rest(rest.0.get(more..).unwrap_or_default());
    chain(following, rest, before + 1, transport)
}

/// RFC 9293 and RFC 768: both begin with the ports.
fn flow(mut rest: Rest<'_>, from: IpAddr, to: IpAddr, protocol: u8) -> Result<Frame, Cut> {
    let mut ports = Rest(rest.take(4)?);
    let (source_port, port) = (ports.number(2)?, ports.number(2)?);
    Ok(Frame::Flow { from: (from, source_port), to: (to, port), protocol })
}

/// A policy as lists.
pub(crate) struct Lists {
    enforce: bool,
    destinations: Option<Vec<IpNet>>,
    prefixes: Vec<(IpNet, u32)>,
    /// The later of two on the same port counts.
    guards: Vec<(u8, u16, u32)>,
}

impl Lists {
    pub(crate) fn new(policy: &Policy) -> Self {
        let net = |address, length| IpNet::new(address, length).unwrap();
        let mut guards: Vec<(u8, u16, u32)> = Vec::new();
        for guard in &policy.guards {
            let protocol = if guard.protocol == Protocol::Tcp { 6 } else { 17 };
            guards.retain(|&(other, port, _)| (other, port) != (protocol, guard.port));
            guards.push((protocol, guard.port, guard.sources));
        }
        Self {
            enforce: policy.enforce,
            destinations: policy.destinations.as_ref().map(|destinations| {
                destinations.iter().map(|&(address, length)| net(address, length)).collect()
            }),
            prefixes: policy
                .prefixes
                .iter()
                .map(|prefix| (net(prefix.address, prefix.length), prefix.sources))
                .collect(),
            guards,
        }
    }

    fn sources(&self, address: IpAddr) -> u32 {
        self.prefixes
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .fold(0, |mask, (_, sources)| mask | sources)
    }

    pub(crate) fn judge(&self, frame: Frame) -> (Action, Reason, Family) {
        let refuse = if self.enforce { Action::Drop } else { Action::WouldDrop };
        match frame {
            Frame::NotIp => (Action::Pass, Reason::NotIp, Family::Other),
            Frame::LaterFragment(family) => (Action::Pass, Reason::Fragment, family),
            Frame::Portless(family) => (Action::Pass, Reason::NotGuarded, family),
            Frame::Unparsable { family, source } => {
                let union = self.guards.iter().fold(0, |union, guard| union | guard.2);
                let sources = source.map_or(0, |source| self.sources(source));
                let action = if sources & union == 0 { refuse } else { Action::Pass };
                (action, Reason::Unparsable, family)
            }
            Frame::Flow { from: (source, _), to: (destination, port), protocol } => {
                let family = if source.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
                let protects = self.destinations.as_ref().is_none_or(|destinations| {
                    destinations.iter().any(|net| net.contains(&destination))
                });
                let guard = self.guards.iter().find(|guard| (guard.0, guard.1) == (protocol, port));
                match guard {
                    Some(&(_, _, accepted)) if protects => {
                        if self.sources(source) & accepted == 0 {
                            (refuse, Reason::Unlisted, family)
                        } else {
                            (Action::Pass, Reason::Allowed, family)
                        }
                    }
                    _ => (Action::Pass, Reason::NotGuarded, family),
                }
            }
        }
    }
}

/// What etherparse, which is strict, makes of the frame: the flow, if it finds
/// one and follows the same rules on the way.
pub(crate) fn strict_flow(frame: &[u8], link_layer: LinkLayer) -> Option<Frame> {
    use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};

    let packet = match link_layer {
        LinkLayer::Ethernet => SlicedPacket::from_ethernet(frame).ok()?,
        LinkLayer::None => SlicedPacket::from_ip(frame).ok()?,
    };
    // It knows tag types that the kernel does not take off, and a third tag.
    let tagged = packet.link_exts.iter().enumerate().all(|(number, tag)| {
        let tag_type = &frame[12 + 4 * number..][..2];
        number < 2
            && matches!(tag, LinkExtSlice::Vlan(_))
            && [[0x81, 0x00], [0x88, 0xa8]].contains(&[tag_type[0], tag_type[1]])
    });
    if !tagged {
        return None;
    }
    let (from, to): (IpAddr, IpAddr) = match packet.net? {
        // It looks behind an authentication header over IPv4.
        NetSlice::Ipv4(ip) if ip.extensions().is_empty() => {
            let header = ip.header();
            (Ipv4Addr::from(header.source()).into(), Ipv4Addr::from(header.destination()).into())
        }
        // It follows as many extension headers as there are.
        NetSlice::Ipv6(ip) if ip.extensions().clone().into_iter().count() <= 8 => {
            let header = ip.header();
            (Ipv6Addr::from(header.source()).into(), Ipv6Addr::from(header.destination()).into())
        }
        _ => return None,
    };
    let (protocol, source_port, port) = match packet.transport? {
        TransportSlice::Tcp(tcp) => (6, tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (17, udp.source_port(), udp.destination_port()),
        _ => return None,
    };
    Some(Frame::Flow { from: (from, source_port), to: (to, port), protocol })
}
