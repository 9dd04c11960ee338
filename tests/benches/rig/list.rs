//! A list, its compiled table, and the sources that packets come from.

use std::net::IpAddr;

use anyhow::{Context, Result};
use exogate_ebpf::compile::{CompiledTable, Guard, Policy, Prefix, Protocol, compile};
use exogate_tests::{
    addresses::{Addresses, is_taken},
    lab::Family,
    random::Random,
};
use ipnet::IpNet;

/// A family in words.
pub const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// How many packets the list lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// None.
    Dropped,
    /// Every tenth.
    Tenth,
    /// All.
    Passed,
}

/// Which sources follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// 65,536 random ones.
    Random,
    /// Twenty, over and over.
    Repeating,
    /// 65,536 from beside the prefixes of the list, where an index and a tree have to look
    /// closest.
    Near,
}

impl Share {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dropped, Self::Passed, Self::Tenth];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Tenth => "9 of 10 dropped",
            Self::Passed => "passed",
        }
    }

    /// The share of packets that pass.
    pub const fn passing(self) -> f64 {
        match self {
            Self::Dropped => 0.0,
            Self::Tenth => 0.1,
            Self::Passed => 1.0,
        }
    }
}

impl Order {
    /// Those that make sense with every list.
    pub const EVERYWHERE: [Self; 2] = [Self::Random, Self::Repeating];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Repeating => "repeating",
            Self::Near => "near",
        }
    }

    const fn sources(self) -> usize {
        match self {
            Self::Random | Self::Near => 1 << 16,
            Self::Repeating => 20,
        }
    }
}

/// An allow-list.
pub struct List {
    nets: Vec<IpNet>,
    addresses: Addresses,
}

impl List {
    /// Of these prefixes.
    pub fn new(nets: Vec<IpNet>) -> Self {
        Self { addresses: Addresses::of(&nets), nets }
    }

    /// Its prefixes.
    pub fn nets(&self) -> &[IpNet] {
        &self.nets
    }

    /// As exogate has it: for UDP to port 443, enforced.
    pub fn table(&self) -> Result<CompiledTable> {
        let prefixes = self.nets.iter().map(|net| Prefix {
            address: net.network(),
            length: net.prefix_len(),
            sources: 1,
        });
        let guards = vec![Guard { protocol: Protocol::Udp, port: 443, sources: 1 }];
        let policy = Policy {
            enforce: true,
            deadline: None,
            destinations: None,
            prefixes: prefixes.collect(),
            guards,
        };
        Ok(compile(&policy)?)
    }

    /// Sources of packets.
    pub fn sources(&self, family: Family, share: Share, order: Order) -> Result<Vec<IpAddr>> {
        let mut random = Random::new(1);
        let v6 = family == Family::V6;
        (0..order.sources())
            .map(|number| {
                let listed = match share {
                    Share::Dropped => false,
                    Share::Tenth => number % 10 == 0,
                    Share::Passed => true,
                };
                if listed {
                    self.listed(v6, &mut random).context("the list has no such prefix")
                } else if order == Order::Near {
                    self.addresses.beside(v6, &mut random).context("nothing is near the list")
                } else {
                    Ok(self.addresses.unlisted(v6, &mut random))
                }
            })
            .collect()
    }

    /// A random address of the list that the network stack takes packets from.
    pub fn listed(&self, v6: bool, random: &mut Random) -> Option<IpAddr> {
        (0..1_000).find_map(|_| self.addresses.listed(v6, random).filter(is_taken))
    }
}
