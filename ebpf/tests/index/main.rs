//! The interval index against prefix sets that are searched in another way: with
//! nothing, one prefix, Exchange's, a thousand that overlap, all of Azure's and a
//! million.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and overflow checks are on"
)]

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use exogate_ebpf::{
    abi::{LINE_WORDS, Line},
    compile::{Guard, Policy, Prefix, Protocol, compile, lines_for},
    packet::Address,
    table::{Entry, MAX_SOURCES, Table},
};
use ipnet::IpNet;
use serde_json::Value;

#[path = "../random/mod.rs"]
mod random;

use random::Random;

/// Prefixes and their sources. `ipnet` decides what contains an address: by a
/// linear scan of a small set, or by looking up the network of every length.
struct Reference {
    nets: Vec<(IpNet, u32)>,
    by_net: HashMap<IpNet, u32>,
    lengths: BTreeSet<(bool, u8)>,
}

impl Reference {
    fn new(nets: Vec<(IpNet, u32)>) -> Self {
        let mut by_net = HashMap::new();
        for &(net, sources) in &nets {
            *by_net.entry(net.trunc()).or_insert(0) |= sources;
        }
        let lengths = nets.iter().map(|(net, _)| (net.addr().is_ipv4(), net.prefix_len()));
        Self { lengths: lengths.collect(), by_net, nets }
    }

    fn sources(&self, address: IpAddr) -> u32 {
        let by_length = self
            .lengths
            .iter()
            .filter(|(v4, _)| *v4 == address.is_ipv4())
            .filter_map(|&(_, length)| {
                self.by_net.get(&IpNet::new(address, length).unwrap().trunc())
            })
            .fold(0, |mask, sources| mask | sources);
        if self.nets.len() <= 1_000 {
            let by_scan = self
                .nets
                .iter()
                .filter(|(net, _)| net.contains(&address))
                .fold(0, |mask, (_, sources)| mask | sources);
            assert_eq!(by_length, by_scan, "the two references differ on {address}");
        }
        by_length
    }

    fn policy(&self) -> Policy {
        let prefixes = self.nets.iter().map(|&(net, sources)| Prefix {
            address: net.addr(),
            length: net.prefix_len(),
            sources,
        });
        Policy { prefixes: prefixes.collect(), ..Policy::default() }
    }

    /// The first and last address of every net, those beside them, and random
    /// ones inside, up to `most` nets.
    fn addresses(&self, random: &mut Random, most: usize) -> Vec<IpAddr> {
        let step = self.nets.len().div_ceil(most).max(1);
        let mut addresses = vec![
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::BROADCAST.into(),
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::from_bits(u128::MAX).into(),
        ];
        // Where the directory of IPv6 begins and ends.
        addresses.extend(around(IpAddr::V6(Ipv6Addr::from_bits(0x2000 << 112))));
        addresses.extend(around(IpAddr::V6(Ipv6Addr::from_bits(0x4000 << 112))));
        for (net, _) in self.nets.iter().step_by(step) {
            addresses.extend(around(net.network()));
            addresses.extend(around(net.broadcast()));
            addresses.push(match net {
                IpNet::V4(net) => {
                    let free = net.hostmask().to_bits();
                    Ipv4Addr::from_bits(net.network().to_bits() | random.u32() & free).into()
                }
                IpNet::V6(net) => {
                    let free = net.hostmask().to_bits();
                    Ipv6Addr::from_bits(net.network().to_bits() | random.u128() & free).into()
                }
            });
        }
        for _ in 0..20_000 {
            addresses.push(Ipv4Addr::from_bits(random.u32()).into());
            addresses.push(Ipv6Addr::from_bits(random.u128()).into());
            addresses.push(Ipv6Addr::from_bits(0x2 << 124 | random.u128() >> 4).into());
        }
        addresses
    }
}

/// An address and its neighbours, which wrap at the ends of the space.
fn around(address: IpAddr) -> [IpAddr; 3] {
    [-1i8, 0, 1].map(|by| match address {
        IpAddr::V4(address) => {
            Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(by.into())).into()
        }
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(by.into())).into()
        }
    })
}

fn assert_agree(nets: Vec<(IpNet, u32)>, most: usize) {
    let reference = Reference::new(nets);
    let compiled = compile(&reference.policy()).unwrap();
    let table = compiled.table();
    let addresses = reference.addresses(&mut Random::new(1), most);
    let mut listed = 0;
    for &address in &addresses {
        let expected = reference.sources(address);
        listed += usize::from(expected != 0);
        let found = table.sources(&address.into());
        assert_eq!(found, expected, "sources of {address} among {} nets", reference.nets.len());
    }
    println!(
        "{} prefixes, {} lines, {} addresses, {listed} of them listed",
        reference.nets.len(),
        compiled.lines.len(),
        addresses.len()
    );
}

fn data(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(relative)
}

/// What Microsoft lists for Exchange on TCP 443, each prefix once.
fn exchange() -> Vec<IpNet> {
    let path = data("worldwide/worldwide-captured-2026-05-29.json");
    let sets: Vec<Value> = serde_json::from_reader(File::open(&path).expect("captured endpoints"))
        .expect("endpoints are JSON");
    let nets: BTreeSet<IpNet> = sets
        .iter()
        .filter(|set| set["serviceArea"] == "Exchange")
        .filter(|set| {
            set["tcpPorts"].as_str().is_some_and(|ports| ports.split(',').any(|p| p == "443"))
        })
        .flat_map(|set| set["ips"].as_array().into_iter().flatten())
        .map(|net| net.as_str().unwrap().parse().unwrap())
        .collect();
    nets.into_iter().collect()
}

/// Every prefix of every Azure service tag, with one of 30 bits for the tag, so
/// that equal and nested prefixes have different sources.
fn service_tags() -> Vec<(IpNet, u32)> {
    let path = data("servicetags/ServiceTags_Public-changeNumber376-2025-11-10.json.gz");
    let mut json = String::new();
    flate2::read::GzDecoder::new(File::open(&path).expect("captured service tags"))
        .read_to_string(&mut json)
        .expect("service tags are gzipped");
    let tags: Value = serde_json::from_str(&json).expect("service tags are JSON");
    let mut nets = Vec::new();
    for (number, tag) in tags["values"].as_array().unwrap().iter().enumerate() {
        for net in tag["properties"]["addressPrefixes"].as_array().unwrap() {
            let net: IpNet = net.as_str().unwrap().parse().unwrap();
            nets.push((net, 1 << (number % MAX_SOURCES as usize)));
        }
    }
    nets
}

/// Nets that nest, adjoin and repeat, of both families.
fn overlapping(random: &mut Random, count: usize) -> Vec<(IpNet, u32)> {
    let mut nets: Vec<(IpNet, u32)> = Vec::new();
    while nets.len() < count {
        let v4 = random.one_in(2);
        let near = (random.below(4) != 0 && !nets.is_empty()).then(|| random.pick(&nets).0);
        let bits = match near {
            Some(IpNet::V4(net)) => u128::from(net.broadcast().to_bits()) << 96,
            Some(IpNet::V6(net)) => net.broadcast().to_bits(),
            None => random.u128(),
        };
        // The broadcast address plus one adjoins, minus some nests.
        let bits = match random.below(3) {
            0 => bits.wrapping_add(if v4 { 1 << 96 } else { 1 }),
            1 => bits ^ 1 << random.below(128),
            _ => bits,
        };
        let (address, length) = if v4 {
            let length = if random.one_in(50) { 0 } else { 4 + random.below(29) as u8 };
            (IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)), length)
        } else {
            let length = if random.one_in(50) { 0 } else { 8 + random.below(121) as u8 };
            (IpAddr::V6(Ipv6Addr::from_bits(bits)), length)
        };
        let net = IpNet::new(address, length).unwrap();
        // Whole families are rare, or all masks would be the same.
        if length == 0 && nets.iter().any(|(other, _)| other.prefix_len() == 0) {
            continue;
        }
        nets.push((net, 1 << random.below(MAX_SOURCES as usize)));
    }
    nets
}

#[test]
fn an_empty_list_contains_nothing() {
    assert_agree(Vec::new(), usize::MAX);
}

#[test]
fn a_single_prefix_of_any_length_contains_what_it_should() {
    let mut random = Random::new(2);
    for length in 0..=128u8 {
        for bits in [0, u128::MAX, 0x2603_1006 << 96, random.u128()] {
            let mut nets = vec![IpNet::new(Ipv6Addr::from_bits(bits).into(), length).unwrap()];
            if length <= 32 {
                let address = Ipv4Addr::from_bits((bits >> 96) as u32);
                nets.push(IpNet::new(address.into(), length).unwrap());
            }
            for net in nets {
                let reference = Reference::new(vec![(net, 1)]);
                let compiled = compile(&reference.policy()).unwrap();
                let table = compiled.table();
                for address in around(net.network()).into_iter().chain(around(net.broadcast())) {
                    let expected = u32::from(net.contains(&address));
                    assert_eq!(table.sources(&address.into()), expected, "{address} in {net}");
                }
            }
        }
    }
}

#[test]
fn exchanges_prefixes_contain_what_they_should() {
    let nets = exchange();
    assert_eq!(nets.len(), 34);
    assert_agree(nets.iter().map(|&net| (net, 1)).collect(), usize::MAX);
    // Each prefix a source of its own.
    let own = nets.iter().zip((0..MAX_SOURCES).cycle()).map(|(&net, bit)| (net, 1 << bit));
    assert_agree(own.collect(), usize::MAX);
}

#[test]
fn an_address_has_the_sources_of_all_prefixes_that_contain_it() {
    for seed in 0..10 {
        assert_agree(overlapping(&mut Random::new(seed), 100), usize::MAX);
    }
    assert_agree(overlapping(&mut Random::new(10), 1_000), usize::MAX);
}

#[test]
fn all_of_azures_prefixes_contain_what_they_should() {
    let nets = service_tags();
    let distinct: BTreeSet<IpNet> = nets.iter().map(|(net, _)| *net).collect();
    assert_eq!((nets.len(), distinct.len()), (95_823, 53_586));
    assert_agree(nets, usize::MAX);
    assert_agree(distinct.into_iter().map(|net| (net, 1)).collect(), usize::MAX);
}

/// Half of each family, about a quarter of them nested.
fn a_million() -> Vec<(IpNet, u32)> {
    let mut random = Random::new(3);
    (0..1_000_000u32)
        .map(|number| {
            let sources = 1 << (number % MAX_SOURCES);
            let net = if number % 2 == 0 {
                let length = random.pick(&[16, 20, 24, 28, 32, 32, 32, 32]);
                IpNet::new(Ipv4Addr::from_bits(random.u32()).into(), length)
            } else {
                let length = random.pick(&[36, 40, 48, 48, 56, 64, 96, 128]);
                let bits = 0x26 << 120 | random.u128() >> 8;
                IpNet::new(Ipv6Addr::from_bits(bits).into(), length)
            };
            (net.unwrap(), sources)
        })
        .collect()
}

#[test]
fn a_million_prefixes_compile_and_contain_what_they_should() {
    assert_agree(a_million(), 20_000);
}

/// Lists that need the most lines for their length: every prefix alone, longer
/// than its block, within and outside global unicast.
#[test]
fn the_promised_capacity_suffices_for_any_list() {
    fn single(high: u64, low: u64, length: u8) -> Prefix {
        let bits = u128::from(high) << 64 | u128::from(low);
        Prefix { address: Ipv6Addr::from_bits(bits).into(), length, sources: 1 }
    }
    fn single_v4(bits: u32) -> Prefix {
        Prefix { address: Ipv4Addr::from_bits(bits).into(), length: 32, sources: 1 }
    }
    type List = (&'static str, fn(u64) -> Prefix);
    let lists: [List; 5] = [
        ("local /128s", |n| single(0xfd00 << 48 | n << 4, 5, 128)),
        ("global /128s", |n| single(0x2600 << 48 | n << 24, 5, 128)),
        ("/128s of one /64", |n| single(0x2600 << 48, 2 * n + 1, 128)),
        ("local /64s", |n| single(0xfd00 << 48 | n << 4, 0, 64)),
        ("IPv4 /32s", |n| single_v4(2 * n as u32 + 1)),
    ];
    for count in [0u32, 1, 2, 3, 31, 32, 33, 1_023, 1_025, 40_000, 131_071, 131_073, 300_000] {
        for (what, prefix) in lists {
            let prefixes = (0..u64::from(count)).map(prefix).collect();
            let compiled = compile(&Policy { prefixes, ..Policy::default() }).unwrap();
            let promised = lines_for(count);
            assert!(
                compiled.lines.len() <= promised as usize,
                "{count} {what} need {} lines, more than the promised {promised}",
                compiled.lines.len()
            );
        }
    }
}

#[test]
fn the_order_of_a_policy_does_not_change_its_table() {
    let mut random = Random::new(4);
    let mut policy = Reference::new(overlapping(&mut random, 500)).policy();
    policy.guards = [443, 25, 8443, 80]
        .map(|port| Guard { protocol: Protocol::Tcp, port, sources: u32::from(port) })
        .to_vec();
    let compiled = compile(&policy).unwrap();
    for _ in 0..20 {
        for last in (1..policy.prefixes.len()).rev() {
            policy.prefixes.swap(last, random.below(last + 1));
        }
        policy.guards.rotate_left(1);
        assert!(compile(&policy).unwrap() == compiled, "the table depends on the order");
    }
}

#[test]
fn a_table_reads_the_same_wherever_it_lies() {
    let reference = Reference::new(service_tags());
    let compiled = compile(&reference.policy()).unwrap();
    let first = compiled.table();
    let base = 1_237;
    let noise = vec![Line([0xdead_beef; LINE_WORDS]); base as usize];
    let elsewhere = [noise.as_slice(), &compiled.lines, &noise].concat();
    let mut head = compiled.head.clone();
    head.base = base;
    let second = Table::new(elsewhere.as_slice(), &head);
    for address in reference.addresses(&mut Random::new(5), 5_000) {
        let address = Address::from(address);
        assert_eq!(first.sources(&address), second.sources(&address), "{address:?}");
    }
}

#[test]
fn the_destination_bit_and_the_sources_do_not_mix() {
    let mut random = Random::new(6);
    let sources = Reference::new(overlapping(&mut random, 300));
    let guarded = Reference::new(overlapping(&mut random, 30));
    let destinations = guarded.nets.iter().map(|(net, _)| (net.addr(), net.prefix_len()));
    let policy = Policy { destinations: Some(destinations.collect()), ..sources.policy() };
    let compiled = compile(&policy).unwrap();
    let table = compiled.table();
    let mut addresses = sources.addresses(&mut random, usize::MAX);
    addresses.extend(guarded.addresses(&mut random, usize::MAX));
    for address in addresses {
        let mask = table.sources(&address.into());
        assert_eq!(mask & !Entry::DESTINATION, sources.sources(address), "sources of {address}");
        let is_guarded = guarded.sources(address) != 0;
        assert_eq!(table.is_destination(&address.into()), is_guarded, "{address} is guarded");
    }
}

/// A table that user space damaged may give any answer, but must give one.
#[test]
fn a_damaged_table_gives_an_answer() {
    let mut random = Random::new(7);
    let reference = Reference::new(overlapping(&mut random, 200));
    let compiled = compile(&reference.policy()).unwrap();
    let addresses = reference.addresses(&mut random, 40);
    for _ in 0..200 {
        let mut damaged = compiled.clone();
        for _ in 0..1 + random.below(20) {
            let line = random.below(damaged.lines.len());
            damaged.lines[line].0[random.below(LINE_WORDS)] = random.u32();
        }
        if random.one_in(2) {
            let head = &mut damaged.head;
            for field in [
                &mut head.base,
                &mut head.v4_directory[0x2860],
                &mut head.v4_nodes,
                &mut head.v4_directories,
                &mut head.v6_directory[0x3018],
                &mut head.v6_nodes,
                &mut head.v6_directories,
                &mut head.v6_low_nodes,
                &mut head.v6_below,
                &mut head.v6_above,
                &mut head.v4_shift,
                &mut head.v6_shift,
            ] {
                if random.one_in(4) {
                    *field = random.u32();
                }
            }
        }
        damaged.lines.truncate(1 + random.below(damaged.lines.len() * 2));
        let table = damaged.table();
        for _ in 0..200 {
            let _ = table.sources(&random.pick(&addresses).into());
            let _ = table.guard(random.u8(), random.u16());
        }
    }
}
