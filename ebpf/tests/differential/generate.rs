//! Random policies, and frames that meet them often: plausible at first, then
//! damaged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use exogate_ebpf::{
    compile::{Guard, Policy, Prefix, Protocol},
    packet::LinkLayer,
};
use ipnet::IpNet;

use crate::random::Random;

/// A policy, and addresses and ports that lie close to what it says.
pub(crate) struct World {
    pub(crate) policy: Policy,
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    ports: Vec<u16>,
}

impl World {
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut nets: Vec<IpNet> = Vec::new();
        for _ in 0..2 + random.below(20) {
            // A net near one that is there already: nested, adjoining or equal.
            let near = (!nets.is_empty() && random.one_in(2)).then(|| random.pick(&nets));
            nets.push(net(random, near));
        }
        let prefixes = nets
            .iter()
            .map(|net| Prefix {
                // Host bits are ignored.
                address: within(random, *net),
                length: net.prefix_len(),
                sources: mask(random),
            })
            .collect();

        let mut ports = vec![443, 8443, 25, 0, 65_535];
        let guards: Vec<Guard> = (0..1 + random.below(8))
            .map(|_| Guard {
                protocol: random.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp]),
                port: if random.one_in(6) { random.u16() } else { random.pick(&ports) },
                sources: mask(random),
            })
            .collect();
        ports.extend(guards.iter().flat_map(|guard| [guard.port; 8]));
        ports.extend(guards.iter().map(|guard| guard.port.swap_bytes()));
        ports.extend(guards.iter().map(|guard| guard.port.wrapping_add(1)));

        let destinations = random.one_in(2).then(|| {
            (0..random.below(4))
                .map(|_| {
                    let near = random.pick(&nets);
                    let net = if random.one_in(2) { near } else { net(random, Some(near)) };
                    (net.addr(), net.prefix_len())
                })
                .collect::<Vec<_>>()
        });
        let guarded = destinations.iter().flatten().map(|&(a, l)| IpNet::new(a, l).unwrap());
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets.iter().copied().chain(guarded.collect::<Vec<_>>()) {
            for address in [net.network(), within(random, net), net.broadcast()] {
                match address {
                    IpAddr::V4(address) => {
                        v4.extend([-1, 0, 1].map(|by| {
                            Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(by))
                        }))
                    }
                    IpAddr::V6(address) => {
                        v6.extend([-1, 0, 1].map(|by| {
                            Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(by))
                        }))
                    }
                }
            }
        }
        v4.push(Ipv4Addr::from_bits(random.u32()));
        v6.push(Ipv6Addr::from_bits(random.u128()));
        let policy = Policy { enforce: true, deadline: None, destinations, prefixes, guards };
        Self { policy, v4, v6, ports }
    }

    pub(crate) fn frame(&self, random: &mut Random) -> (LinkLayer, Vec<u8>) {
        let link_layer = random.pick(&[LinkLayer::Ethernet, LinkLayer::Ethernet, LinkLayer::None]);
        if random.one_in(100) {
            let count = random.below(120);
            return (link_layer, random.bytes(count));
        }
        let mut frame = Vec::new();
        let mut ether_type = random.pick(&[0x0800u16, 0x86dd]);
        let ip = match ether_type {
            0x0800 => self.ipv4(random),
            _ => self.ipv6(random),
        };
        if link_layer == LinkLayer::Ethernet {
            if random.one_in(16) {
                ether_type = random.pick(&[0x0806, 0x88cc, 0x0008, 0xdd86, 0x9100, 0x88e5, 0x0040]);
            }
            frame.extend(random.bytes(12));
            let tags = random.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3]);
            for _ in 0..tags {
                frame.extend(random.pick(&[0x8100u16, 0x88a8]).to_be_bytes());
                frame.extend(random.bytes(2));
            }
            frame.extend(ether_type.to_be_bytes());
        }
        frame.extend(ip);
        if random.one_in(3) {
            damage(random, link_layer, &mut frame);
        }
        (link_layer, frame)
    }

    fn ipv4(&self, random: &mut Random) -> Vec<u8> {
        let protocol = random.pick(&[6, 6, 6, 6, 17, 17, 1, 132, 51, 60, 0]);
        let words = if random.one_in(4) { random.below(16) as u8 } else { 5 };
        let fragment = match random.below(10) {
            0 => random.pick(&[0x2000, 0x4000, 0x8000, 0xe000]),
            1 => random.pick(&[0x2001, 0x0001, 0x3fff, 0x1fff, 0x0100, 0x3000, 0x1000]),
            2 if random.one_in(4) => random.u16(),
            _ => 0x4000u16,
        };
        let inner = self.transport(random, protocol);
        let options = random.bytes(usize::from(words.saturating_sub(5)) * 4);
        let length = (20 + options.len() + inner.len()) as u16;
        let mut bytes = vec![0x40 | words, random.u8()];
        bytes.extend(length.to_be_bytes());
        bytes.extend(random.bytes(2));
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0]);
        for _ in 0..2 {
            bytes.extend(self.v4(random).octets());
        }
        [bytes, options, inner].concat()
    }

    fn ipv6(&self, random: &mut Random) -> Vec<u8> {
        let mut next = random.pick(&[6, 6, 6, 6, 17, 17, 58, 59, 50, 132, 135]);
        let mut bytes = self.transport(random, next);
        let headers = if random.one_in(2) { 0 } else { random.below(11) };
        // Many later fragments would hide what is behind them.
        let may_be_later = random.one_in(2);
        for _ in 0..headers {
            let number = random.pick(&[0, 43, 44, 51, 60]);
            let mut header = vec![next, 0];
            match number {
                44 => {
                    let later = may_be_later && random.one_in(4);
                    let offset = if later {
                        random.pick(&[8, 9, 0x0100, 0x8000, 0xfff8, 0x0588])
                    } else {
                        random.pick(&[0u16, 1, 7, 6])
                    };
                    header.extend(offset.to_be_bytes());
                    header.extend(random.bytes(4));
                }
                51 => {
                    header[1] = random.pick(&[1, 2, 3, 4, 5]);
                    header.extend(random.bytes(usize::from(header[1]) * 4 + 6));
                }
                _ => {
                    header[1] = random.pick(&[0, 0, 0, 1, 2, 5]);
                    if random.one_in(200) {
                        header[1] = 255;
                    }
                    header.extend(random.bytes(usize::from(header[1]) * 8 + 6));
                }
            }
            bytes = [header, bytes].concat();
            next = number;
        }
        let mut header = vec![0x60 | random.u8() & 15, 0, 0, 0];
        header.extend((bytes.len() as u16).to_be_bytes());
        header.extend([next, 64]);
        for _ in 0..2 {
            header.extend(self.v6(random).octets());
        }
        [header, bytes].concat()
    }

    /// A whole transport header, so that etherparse has a say as well.
    fn transport(&self, random: &mut Random, protocol: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..2 {
            bytes.extend(random.pick(&self.ports).to_be_bytes());
        }
        if protocol == 17 {
            bytes.extend([0, 8, 0, 0]);
        } else {
            bytes.extend(random.bytes(8));
            bytes.extend([0x50, 0x02, 4, 0, 0, 0, 0, 0]);
        }
        bytes
    }

    fn v4(&self, random: &mut Random) -> Ipv4Addr {
        if random.one_in(10) { Ipv4Addr::from_bits(random.u32()) } else { random.pick(&self.v4) }
    }

    fn v6(&self, random: &mut Random) -> Ipv6Addr {
        if random.one_in(10) { Ipv6Addr::from_bits(random.u128()) } else { random.pick(&self.v6) }
    }
}

/// A network, close to another if one is given.
fn net(random: &mut Random, near: Option<IpNet>) -> IpNet {
    match near {
        Some(near) => {
            let bits = near.max_prefix_len();
            let length = (near.prefix_len() + random.below(20) as u8).saturating_sub(6).min(bits);
            IpNet::new(within(random, near), length).unwrap().trunc()
        }
        None if random.one_in(2) => {
            let length = random.pick(&[2, 8, 14, 15, 16, 19, 22, 24, 25, 30, 31, 32, 32]);
            let bits = match random.below(8) {
                0 => 0,
                1 => u32::MAX,
                _ => random.u32(),
            };
            let address = Ipv4Addr::from_bits(bits);
            IpNet::new(address.into(), length).unwrap().trunc()
        }
        None => {
            let length = random.pick(&[3, 20, 29, 32, 36, 40, 48, 56, 63, 64, 65, 96, 127, 128]);
            let high = match random.below(8) {
                0 => 0,
                1 => u64::MAX,
                2 => 0xfd00_0000_0000_0000 | random.u64() >> 12,
                3 => random.u64(),
                _ => 0x2000_0000_0000_0000 | random.u64() >> 3,
            };
            let low = random.pick(&[0, u64::MAX, 1, 0x1234_5678_9abc_def0]);
            let bits = u128::from(high) << 64 | u128::from(low);
            IpNet::new(Ipv6Addr::from_bits(bits).into(), length).unwrap().trunc()
        }
    }
}

/// An address of the network.
fn within(random: &mut Random, net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => {
            let free = u32::from(net.hostmask());
            Ipv4Addr::from_bits(net.network().to_bits() | random.u32() & free).into()
        }
        IpNet::V6(net) => {
            let free = net.hostmask().to_bits();
            Ipv6Addr::from_bits(net.network().to_bits() | random.u128() & free).into()
        }
    }
}

/// One source mostly, sometimes more, sometimes none.
fn mask(random: &mut Random) -> u32 {
    match random.below(12) {
        0 => 0,
        1 | 2 => 1 << random.below(4) | 1 << random.below(4),
        3 => 1 << 29 | 1 << random.below(4),
        _ => 1 << random.below(4),
    }
}

/// Breaks a frame in one to three ways.
fn damage(random: &mut Random, link_layer: LinkLayer, frame: &mut Vec<u8>) {
    // Where the IP header begins, if there is no tag.
    let ip = if link_layer == LinkLayer::Ethernet { 14 } else { 0 };
    for _ in 0..1 + random.below(3) {
        match random.below(9) {
            0 | 1 => frame.truncate(random.below(frame.len().min(90) + 1)),
            2 if link_layer == LinkLayer::None && random.one_in(8) => frame.clear(),
            // Any byte of the headers.
            2 | 3 => flip(random, frame, 0..100),
            // The first byte of the IP header, its fragment and protocol fields.
            4 => flip(random, frame, ip..ip + 1),
            5 => flip(random, frame, ip + 6..ip + 10),
            6 => {
                let ether_type = random.pick(&[0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x0806]);
                let at = random.pick(&[12, 12, 16, 20]);
                if link_layer == LinkLayer::Ethernet && frame.len() >= at + 2 {
                    frame[at..at + 2].copy_from_slice(&ether_type.to_be_bytes());
                }
            }
            7 => {
                if link_layer == LinkLayer::Ethernet && frame.len() >= 12 {
                    let tag_type: u16 = random.pick(&[0x8100, 0x88a8, 0x9100]);
                    let tag = [tag_type.to_be_bytes(), [random.u8(), random.u8()]].concat();
                    frame.splice(12..12, tag);
                }
            }
            _ => {
                if let Some(byte) = frame.get_mut(ip) {
                    *byte = *byte & 0xf0 | random.u8() & 0x0f;
                }
            }
        }
    }
}

fn flip(random: &mut Random, frame: &mut [u8], range: std::ops::Range<usize>) {
    let at = range.start + random.below(range.len());
    let bits = if random.one_in(2) { random.u8() } else { 1 << random.below(8) };
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= bits;
    }
}
