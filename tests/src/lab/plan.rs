//! Who is in the lab, and under which addresses.
//!
//! Addresses are chosen by what is published: a sender called [`Peer::Exchange`]
//! has addresses that every capture of the worldwide instance lists for Exchange on
//! TCP 443, so that tests may serve any of them. A test keeps this true. All others
//! are from ranges reserved for documentation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A sender in the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A mailbox server of Exchange Online.
    Exchange,
    /// A source of Graph change notifications: in IPv4 one of the published single
    /// addresses, in IPv6 one of the published ranges.
    Graph,
    /// Nobody that any list has ever had.
    Stranger,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exchange, Self::Graph, Self::Stranger];

    /// The name of its namespace, without the lab's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Graph => "graph",
            Self::Stranger => "stranger",
        }
    }

    /// The address it sends from.
    #[must_use]
    pub const fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(match self {
                Self::Exchange => Ipv4Addr::new(40, 96, 1, 2),
                Self::Graph => Ipv4Addr::new(52, 159, 23, 209),
                Self::Stranger => Ipv4Addr::new(203, 0, 113, 7),
            }),
            Family::V6 => IpAddr::V6(match self {
                Self::Exchange => Ipv6Addr::new(0x2603, 0x1026, 0x206, 1, 0, 0, 0, 5),
                Self::Graph => Ipv6Addr::new(0x2603, 0x1026, 0x3000, 0, 0, 0, 0, 9),
                Self::Stranger => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
            }),
        }
    }
}

/// An Exchange sender that has been listed since 2020: the source of a push that was
/// captured in that year. No capture of 2018 or 2019 has it.
pub const EXCHANGE_SINCE_2020: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0x2603, 0x1026, 0xc02, 0x3097, 0, 0, 0, 5));

/// A version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The one that `address` belongs to.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The edge host's network interface, where the gate is.
pub const EDGE_INTERFACE: &str = "edge0";

/// The edge host's address.
#[must_use]
pub const fn edge(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x10)),
    }
}

/// The address of the stand-in of Microsoft's endpoint service.
pub const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

/// Its address for hosts that have no IPv4.
pub const SERVICE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x5, 0, 0, 0, 0, 0x10));

/// The address of the HTTP proxy.
pub const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 20));

/// The numbers of the router's interfaces start here, away from their peers'. The
/// kernel delays the first packet of a pair with equal numbers by up to a second: it
/// takes neither for a veth (`linkwatch_urgent_event`).
const ROUTER_INDEX: u32 = 100;

/// How the router is wired to the edge host, as commands of `ip` on either side.
pub(super) fn edge_link(namespace: &str) -> (String, String) {
    let (v4, v6) = (edge(Family::V4), edge(Family::V6));
    let router = format!(
        "link add edge index {ROUTER_INDEX} type veth peer name {EDGE_INTERFACE} netns {namespace}
         address add 198.51.100.1/24 dev edge
         address add 2001:db8:e::1/64 dev edge nodad
         link set edge up\n"
    );
    let host = format!(
        "address add {v4}/24 dev {EDGE_INTERFACE}
         address add {v6}/64 dev {EDGE_INTERFACE} nodad
         link set {EDGE_INTERFACE} up
         route add default via 198.51.100.1
         route add default via 2001:db8:e::1\n"
    );
    (router, host)
}

/// The hardware address of a guest in the edge host's place.
pub(super) const GUEST_HARDWARE: &str = "52:54:00:12:34:56";

/// How the router is wired to a guest in the edge host's place. It never asks who has the
/// address, so it sends to the guest from the moment in which that is switched on.
pub(super) fn guest_tap() -> String {
    let (v4, v6) = (edge(Family::V4), edge(Family::V6));
    format!(
        "tuntap add dev edge mode tap
         address add 198.51.100.1/24 dev edge
         address add 2001:db8:e::1/64 dev edge nodad
         link set edge up
         neighbour add {v4} lladdr {GUEST_HARDWARE} dev edge nud permanent
         neighbour add {v6} lladdr {GUEST_HARDWARE} dev edge nud permanent\n"
    )
}

/// What configures the guest's interface of this name, as commands of `ip`.
pub(super) fn guest_side(interface: &str) -> String {
    let (v4, v6) = (edge(Family::V4), edge(Family::V6));
    format!(
        "link set {interface} up
         address add {v4}/24 dev {interface}
         address add {v6}/64 dev {interface} nodad
         route add default via 198.51.100.1
         route add default via 2001:db8:e::1\n"
    )
}

/// How the router is wired to a sender, as commands of `ip` on either side. The
/// router has no address in the sender's networks, because they are not its own.
pub(super) fn peer_link(peer: Peer, namespace: &str) -> (String, String) {
    let name = peer.name();
    let index = match peer {
        Peer::Exchange => ROUTER_INDEX + 1,
        Peer::Graph => ROUTER_INDEX + 2,
        Peer::Stranger => ROUTER_INDEX + 3,
    };
    let (v4, v6) = (peer.address(Family::V4), peer.address(Family::V6));
    let router = format!(
        "link add {name} index {index} type veth peer name eth0 netns {namespace}
         address add 198.18.0.1 peer {v4}/32 dev {name}
         address add fe80::1/64 dev {name} nodad
         link set {name} up
         route add {v6}/128 dev {name}\n"
    );
    let host = format!(
        "address add {v4} peer 198.18.0.1/32 dev eth0
         address add {v6}/128 dev eth0 nodad
         link set eth0 up
         route add default via 198.18.0.1
         route add default via fe80::1 dev eth0\n"
    );
    (router, host)
}
