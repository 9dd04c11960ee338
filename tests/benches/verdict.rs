//! What the verdict costs: nanoseconds per packet by BPF_PROG_TEST_RUN, beside
//! a program that does nothing, one that reads the headers, and the twin with
//! LPM tries. Run by `cargo xtask bench verdict`; needs root.
//!
//! Every figure is the median over rounds in which all contenders take turns, so
//! that a machine that speeds up or slows down does so for all of them. A packet
//! is repeated many times before the next one comes, so caches are warm.

use std::{
    env,
    net::{IpAddr, Ipv6Addr},
};

use anyhow::Result;
use aya::{
    Ebpf,
    maps::lpm_trie::{Key, LpmTrie},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use etherparse::PacketBuilder;
use exogate::gate::Program;
use exogate_ebpf::{
    compile::{Guard, Policy, Prefix, Protocol, compile},
    packet::LinkLayer,
};
use exogate_tests::{
    addresses::Addresses,
    lists::{exchange, service_tags, spread},
    random::Random,
};
use ipnet::IpNet;

use crate::support::{Report, figure, middle};

/// How often a packet is judged in one go, and how often all contenders take
/// their turn.
const REPEAT: u32 = 6_000;
const ROUNDS: usize = 25;
/// Different source addresses per measurement. Few, because the kernel takes some
/// 10 ms to prepare each test run.
const SOURCES: usize = 16;

const COLUMNS: [&str; 10] = [
    "prefixes",
    "family",
    "source",
    "empty",
    "reads headers",
    "exogate",
    "over empty",
    "LPM trie",
    "over empty",
    "lookup: trie / exogate",
];

pub fn bench() -> Result<()> {
    let mut report = Report::begin("verdict")?;
    report.table(
        &format!(
            "{ROUNDS} rounds, {SOURCES} sources, {REPEAT} runs of each; nanoseconds per packet, \
             median (least..most). Lookup: what a program costs over the one that reads the headers."
        ),
        &COLUMNS,
    );
    let spread = [false, true].map(|v6| spread(54_000, v6)).concat();
    for nets in [exchange().unwrap(), service_tags().unwrap(), spread] {
        measure(&mut report, &mut load_twins(), &nets);
    }
    report.finish()
}

fn measure(report: &mut Report, twins: &mut Ebpf, nets: &[IpNet]) {
    let mut exogate = Program::load(LinkLayer::Ethernet, 100_000).unwrap();
    let prefixes = nets
        .iter()
        .map(|net| Prefix { address: net.network(), length: net.prefix_len(), sources: 1 })
        .collect();
    let guards = vec![Guard { protocol: Protocol::Tcp, port: 443, sources: 1 }];
    let policy = Policy { enforce: true, deadline: None, destinations: None, prefixes, guards };
    exogate.publish(&compile(&policy).unwrap()).unwrap();
    fill(twins, nets);

    let addresses = Addresses::of(nets);
    let mut random = Random::new(1);
    for v6 in [false, true] {
        for hit in [true, false] {
            let frames: Vec<Vec<u8>> = (0..SOURCES)
                .map(|_| {
                    frame(if hit {
                        addresses.listed(v6, &mut random).unwrap()
                    } else {
                        addresses.unlisted(v6, &mut random)
                    })
                })
                .collect();
            let mut times: [Vec<f64>; 4] = Default::default();
            for _ in 0..ROUNDS {
                for (name, times) in ["empty", "headers", "trie"].iter().zip(&mut times) {
                    times.push(mean(&frames, |frame| run_twin(twins, name, frame)));
                }
                times[3].push(mean(&frames, |frame| {
                    let (returned, time) = exogate.test_run(frame, REPEAT).unwrap();
                    assert_eq!(returned, if hit { 2 } else { 1 }, "a wrong verdict");
                    time.as_nanos() as f64
                }));
            }
            let family = if v6 { "IPv6" } else { "IPv4" };
            let source = if hit { "listed" } else { "unlisted" };
            let [empty, headers, trie, exogate] = times.each_ref().map(|times| figure(times, 1));
            let middles = times.map(|times| middle(&times));
            let over = |one: f64, other: f64| format!("{:.1}", one - other);
            let lookups = (middles[2] - middles[1]) / (middles[3] - middles[1]).max(0.1);
            report.row(&[
                nets.len().to_string(),
                family.to_owned(),
                source.to_owned(),
                empty,
                headers,
                exogate,
                over(middles[3], middles[0]),
                trie,
                over(middles[2], middles[0]),
                format!("{lookups:.1}"),
            ]);
            let name = format!("{} prefixes, {family}, {source}", nets.len());
            if nets.len() < 1_000 {
                let (most, found) = (if v6 { 25.0 } else { 20.0 }, middles[3] - middles[0]);
                let wanted = format!("{name}: at most {most} ns over empty");
                report.target(&wanted, format!("{found:.1} ns"), found <= most);
            } else {
                let least = if v6 { 4.0 } else { 10.0 };
                let wanted = format!("{name}: trie / exogate at least {least}");
                report.target(&wanted, format!("{lookups:.1}"), lookups >= least);
            }
        }
    }
}

fn mean(frames: &[Vec<u8>], mut run: impl FnMut(&[u8]) -> f64) -> f64 {
    frames.iter().map(|frame| run(frame)).sum::<f64>() / frames.len() as f64
}

fn load_twins() -> Ebpf {
    let path = env::var("EXOGATE_TWINS_OBJECT")
        .expect("EXOGATE_TWINS_OBJECT is not set; run `cargo xtask bench verdict`");
    let mut twins = Ebpf::load_file(path).unwrap();
    for name in ["empty", "headers", "trie"] {
        let program: &mut Xdp = twins.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
    twins
}

fn run_twin(twins: &Ebpf, name: &str, frame: &[u8]) -> f64 {
    let program: &Xdp = twins.program(name).unwrap().try_into().unwrap();
    let options = TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::new() };
    program.test_run(options).unwrap().duration.as_nanos() as f64
}

fn fill(twins: &mut Ebpf, nets: &[IpNet]) {
    for net in nets {
        let length = u32::from(net.prefix_len());
        match net.network() {
            IpAddr::V4(address) => {
                LpmTrie::<_, [u8; 4], u32>::try_from(twins.map_mut("TRIE_V4").unwrap())
                    .unwrap()
                    .insert(&Key::new(length, address.octets()), 1, 0)
                    .unwrap();
            }
            IpAddr::V6(address) => {
                LpmTrie::<_, [u8; 16], u32>::try_from(twins.map_mut("TRIE_V6").unwrap())
                    .unwrap()
                    .insert(&Key::new(length, address.octets()), 1, 0)
                    .unwrap();
            }
        }
    }
}

fn frame(source: IpAddr) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match source {
        IpAddr::V4(source) => ethernet.ipv4(source.octets(), [198, 51, 100, 1], 64),
        IpAddr::V6(source) => {
            let host: Ipv6Addr = "2001:db8::1".parse().unwrap();
            ethernet.ipv6(source.octets(), host.octets(), 64)
        }
    };
    let mut frame = Vec::new();
    ip.tcp(50_000, 443, 1, 65_535).syn().write(&mut frame, &[]).unwrap();
    frame
}
