//! What the verdict costs: nanoseconds per packet by BPF_PROG_TEST_RUN, beside
//! a program that does nothing, one that reads the headers, and the twin with
//! LPM tries. Run by `cargo xtask bench verdict`; needs root.
//!
//! Every figure is the median over rounds in which all contenders take turns, so
//! that a machine that speeds up or slows down does so for all of them. A packet
//! is repeated many times before the next one comes, so caches are warm. All programs are loaded
//! anew a few times: where the kernel puts their code makes some nanoseconds of difference.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use aya::{
    Ebpf,
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

use crate::{
    rig::{fill, twin, twins},
    support::{Arguments, Report, beside, figure, middle, paired, thousands},
};

/// How often a packet is judged in one go.
const REPEAT: u32 = 6_000;
/// Different source addresses per measurement. Few, because the kernel takes some
/// 10 ms to prepare each test run.
const SOURCES: usize = 16;

/// The programs to compare with.
const TWINS: [&str; 3] = ["empty", "headers", "trie"];

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

/// How often all contenders are loaded anew, and take their turns each time.
struct Scope {
    loads: usize,
    rounds: usize,
}

/// One kind of packets, and what each contender took for it: nanoseconds, by round.
struct Case {
    v6: bool,
    is_listed: bool,
    frames: Vec<Vec<u8>>,
    empty: Vec<f64>,
    headers: Vec<f64>,
    trie: Vec<f64>,
    exogate: Vec<f64>,
}

pub fn bench(arguments: &Arguments) -> Result<()> {
    let [loads, rounds] = if arguments.quick() { [2, 1] } else { [3, 9] };
    let scope = Scope { loads, rounds };
    let mut report = Report::begin("verdict")?;
    report.table(
        &format!(
            "{rounds} rounds each time that all are loaded, which is {loads} times; {SOURCES} \
             sources, {REPEAT} runs of each; nanoseconds per packet, median (least..most). Over \
             empty: the difference within each round. Lookup: what a program costs over the one \
             that reads the headers."
        ),
        &COLUMNS,
    );
    measure(&mut report, &scope, "34", &exchange()?)?;
    if !arguments.quick() {
        let tags = service_tags()?;
        measure(&mut report, &scope, &thousands(tags.len()), &tags)?;
        let both = [false, true].map(|v6| spread(54_000, v6)).concat();
        measure(&mut report, &scope, "54,000 of each family", &both)?;
        for v6 in [false, true] {
            measure(&mut report, &scope, "1,000,000", &spread(1_000_000, v6))?;
        }
    }
    report.finish()
}

fn measure(report: &mut Report, scope: &Scope, list: &str, nets: &[IpNet]) -> Result<()> {
    let prefixes = nets
        .iter()
        .map(|net| Prefix { address: net.network(), length: net.prefix_len(), sources: 1 })
        .collect();
    let guards = vec![Guard { protocol: Protocol::Tcp, port: 443, sources: 1 }];
    let policy = Policy { enforce: true, deadline: None, destinations: None, prefixes, guards };
    let table = compile(&policy)?;
    let mut twins = twins()?;
    fill(&mut twins, nets)?;
    let mut cases = cases(nets);
    for _ in 0..scope.loads {
        for name in TWINS {
            twin(&mut twins, name)?.load()?;
        }
        let mut exogate = Program::load(LinkLayer::Ethernet, nets.len().max(1024) as u32)?;
        exogate.publish(&table)?;
        for case in &mut cases {
            for _ in 0..scope.rounds {
                case.round(&mut twins, &exogate)?;
            }
        }
        for name in TWINS {
            twin(&mut twins, name)?.unload()?;
        }
    }
    for case in &cases {
        case.report(report, list, nets.len() < 1_000);
    }
    Ok(())
}

/// Packets of each family that the list has, from listed and from unlisted sources.
fn cases(nets: &[IpNet]) -> Vec<Case> {
    let addresses = Addresses::of(nets);
    let mut random = Random::new(1);
    let mut cases = Vec::new();
    for v6 in [false, true] {
        if !nets.iter().any(|net| net.addr().is_ipv6() == v6) {
            continue;
        }
        for is_listed in [true, false] {
            let mut source = || match is_listed {
                true => addresses.listed(v6, &mut random).unwrap(),
                false => addresses.unlisted(v6, &mut random),
            };
            let frames = (0..SOURCES).map(|_| frame(source())).collect();
            let [empty, headers, trie, exogate] = Default::default();
            cases.push(Case { v6, is_listed, frames, empty, headers, trie, exogate });
        }
    }
    cases
}

impl Case {
    /// All contenders in turn.
    fn round(&mut self, twins: &mut Ebpf, exogate: &Program) -> Result<()> {
        let Self { is_listed, frames, empty, headers, trie, .. } = self;
        for (name, times) in TWINS.into_iter().zip([empty, headers, trie]) {
            let program = twin(twins, name)?;
            times.push(mean(frames, |frame| run(program, frame)));
        }
        self.exogate.push(mean(frames, |frame| {
            let (returned, time) = exogate.test_run(frame, REPEAT).unwrap();
            assert_eq!(returned, if *is_listed { 2 } else { 1 }, "a wrong verdict");
            time.as_nanos() as f64
        }));
        Ok(())
    }

    /// The row, and the targets that it is held against.
    fn report(&self, report: &mut Report, list: &str, is_short: bool) {
        let Self { empty, headers, trie, exogate, .. } = self;
        let over = |one: &[f64], other: &[f64]| paired(one, other, |one, other| one - other);
        let lookup = middle(&over(trie, headers)) / middle(&over(exogate, headers)).max(0.1);
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let source = if self.is_listed { "listed" } else { "unlisted" };
        report.row(&[
            list.to_owned(),
            family.to_owned(),
            source.to_owned(),
            figure(empty, 1),
            figure(headers, 1),
            figure(exogate, 1),
            figure(&over(exogate, empty), 1),
            figure(trie, 1),
            figure(&over(trie, empty), 1),
            format!("{lookup:.1}"),
        ]);
        let name = format!("{list} prefixes, {family}, {source}");
        if is_short {
            let (most, found) = (if self.v6 { 25.0 } else { 20.0 }, over(exogate, empty));
            let wanted = format!("{name}: at most {most} ns over empty");
            report.target(&wanted, format!("{} ns", beside(&found, most)), middle(&found) <= most);
        } else {
            let least = if self.v6 { 4.0 } else { 10.0 };
            let wanted = format!("{name}: trie / exogate at least {least}");
            report.target(&wanted, format!("{lookup:.2}"), lookup >= least);
        }
    }
}

fn mean(frames: &[Vec<u8>], mut run: impl FnMut(&[u8]) -> f64) -> f64 {
    frames.iter().map(|frame| run(frame)).sum::<f64>() / frames.len() as f64
}

fn run(program: &Xdp, frame: &[u8]) -> f64 {
    let options = TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::new() };
    program.test_run(options).unwrap().duration.as_nanos() as f64
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
