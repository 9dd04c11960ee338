//! Addresses that a list contains, and addresses that it does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::random::Random;

/// A list of prefixes, to choose addresses by.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Sorted by family and address, disjoint.
    nets: Vec<IpNet>,
}

impl Addresses {
    /// Those of a list, which may overlap.
    #[must_use]
    pub fn of(nets: &[IpNet]) -> Self {
        let mut nets = IpNet::aggregate(&nets.to_vec());
        nets.sort_unstable();
        Self { nets }
    }

    /// Whether the list contains an address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let after = self.nets.partition_point(|net| net.network() <= address);
        let last = after.checked_sub(1).and_then(|last| self.nets.get(last));
        last.is_some_and(|net| net.contains(&address))
    }

    /// A random address of a random prefix of a family; `None` if it has none.
    pub fn listed(&self, v6: bool, random: &mut Random) -> Option<IpAddr> {
        let split = self.nets.partition_point(|net| net.addr().is_ipv4());
        let (v4s, v6s) = self.nets.split_at_checked(split)?;
        let family = if v6 { v6s } else { v4s };
        let net = family.get(random.below(family.len()))?;
        Some(match net {
            IpNet::V4(net) => {
                let host = random.next() as u32 & net.hostmask().to_bits();
                Ipv4Addr::from_bits(net.network().to_bits() | host).into()
            }
            IpNet::V6(net) => {
                let host = random.wide() & net.hostmask().to_bits();
                Ipv6Addr::from_bits(net.network().to_bits() | host).into()
            }
        })
    }

    /// A random address that is in no prefix, but in the same /16 (IPv4) or /32 (IPv6) as a
    /// random address of the list; `None` where there is none.
    pub fn beside(&self, v6: bool, random: &mut Random) -> Option<IpAddr> {
        // Prefixes may touch, so that the first ones tried have nobody beside them.
        (0..1_000).find_map(|_| {
            let address = match self.listed(v6, random)? {
                IpAddr::V4(address) => {
                    let near = random.next() as u32 & 0xffff;
                    Ipv4Addr::from_bits(address.to_bits() & !0xffff | near).into()
                }
                IpAddr::V6(address) => {
                    let near = random.wide() & (u128::MAX >> 32);
                    Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> 32) | near).into()
                }
            };
            (!self.contain(address)).then_some(address)
        })
    }

    /// A random address that is in no prefix: of 1.0.0.0 to 223.255.255.255 without the
    /// loopback's, or of 2000::/3.
    pub fn unlisted(&self, v6: bool, random: &mut Random) -> IpAddr {
        loop {
            let address: IpAddr = if v6 {
                Ipv6Addr::from_bits(random.wide() >> 3 | 1 << 125).into()
            } else {
                Ipv4Addr::from_bits(random.next() as u32).into()
            };
            if is_taken(&address) && !self.contain(address) {
                return address;
            }
        }
    }
}

/// Whether a network stack takes packets that say they are from there.
#[must_use]
pub const fn is_taken(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets(), [0 | 127 | 224.., ..]),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_loopback(),
    }
}
