//! Replacing the list under full load: wrong verdicts, and what it costs packets. Run by
//! `cargo xtask bench publish`; needs root.
//!
//! Two lists that share half of their prefixes take turns, a thousand times, while a
//! sender in the kernel floods the interface. First from addresses that both lists have,
//! then from addresses that neither has, so that each packet has one right verdict at any
//! moment: one that passes or drops otherwise is wrong. Beside the flood a few packets of
//! a source that both lists have are timed.
//!
//! Short slices of the flood with the list at rest and with the list replaced take turns,
//! because the machine's pace changes: what replacing adds is the difference of neighbours.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use exogate::gate::{Attach, Gate, Options, Spares};
use exogate_ebpf::{
    compile::CompiledTable,
    verdict::{Action, Reason},
};
use exogate_tests::{
    addresses::is_taken,
    lab::{EDGE_INTERFACE, Family, Lab},
    lists::spread,
    random::Random,
};
use ipnet::IpNet;

use crate::{
    rig::{
        Flood, Latency, List, OTHER_CORE, Order, Probes, Share, Wire, family_name, meanwhile, pin,
        receiver_core,
    },
    support::{Arguments, Report, figure, paired},
};

const PATIENCE: Duration = Duration::from_secs(600);
/// How long the flood lasts each time.
const SLICE: Duration = Duration::from_millis(200);
/// Packets that may come to the network stack without having been judged, in all: what the
/// neighbours say to each other.
const STRAYS: u64 = 20;

pub fn bench(arguments: &Arguments) -> Result<()> {
    let quick = arguments.quick();
    let publishes = if quick { 20 } else { 1_000 };
    let mut report = Report::begin("publish")?;

    // Every second prefix is in both lists, the others are in one of them.
    // Sources that the network stack itself refuses are left out.
    let mut nets: Vec<IpNet> = [false, true]
        .into_iter()
        .flat_map(|v6| spread(1_000_000, v6).into_iter().step_by(37))
        .collect();
    nets.retain(|net| is_taken(&net.addr()));
    let part = |mine: usize| {
        let chosen =
            nets.iter().enumerate().filter(|(number, _)| number % 2 == 0 || number / 2 % 2 == mine);
        chosen.map(|(_, net)| *net).collect::<Vec<_>>()
    };
    let lists = [List::new(part(0)), List::new(part(1))];
    let both = List::new(nets.iter().copied().step_by(2).collect());
    let either = List::new(nets.clone());
    report.line(&format!(
        "{publishes} publishes each, of {} and {} prefixes in turn; slices of {} ms with the list \
         at rest and with the list replaced in turns. CPU is the receiver's, for each packet; \
         added is the difference of two neighbouring slices, median (least..most).",
        lists[0].nets().len(),
        lists[1].nets().len(),
        SLICE.as_millis()
    ));
    let tables = [lists[0].table()?, lists[1].table()?];

    let wire = Wire::new(receiver_core())?;
    let mut gate = open(wire.lab(), &tables[0])?;
    report.table(
        "**Under full load**",
        &[
            "sources",
            "packets",
            "judged while replaced",
            "wrong",
            "publish: ms",
            "CPU, list at rest: ns",
            "CPU, list replaced: ns",
            "added: ns of CPU",
        ],
    );
    let (mut wrong, mut latencies) = (0, Vec::new());
    for family in Family::ALL {
        let source = both.listed(family == Family::V6, &mut Random::new(7)).context("no source")?;
        let probes = Probes::new(&wire, source)?;
        for (name, list, share) in
            [("on both lists", &both, Share::Passed), ("on neither list", &either, Share::Dropped)]
        {
            let sources = list.sources(family, share, Order::Random)?;
            let destination = Wire::destination(family);
            let flood = Flood::new(wire.sender(), wire.addresses(), destination, &sources)?;
            let row = measure(publishes, &wire, &mut gate, &flood, &probes, &tables)?;
            let (right, mistaken) = row.seen.judged(share);
            wrong += mistaken;
            for (state, part) in [("at rest", &row.rest), ("replaced", &row.replaced)] {
                latencies.push(timed(name, family, state, &part.latency));
            }
            report.row(&[
                name.to_owned(),
                family_name(family).to_owned(),
                (right + mistaken).to_string(),
                mistaken.to_string(),
                figure(&row.publishes, 1),
                figure(&row.rest.cost, 1),
                figure(&row.replaced.cost, 1),
                figure(&paired(&row.replaced.cost, &row.rest.cost, |one, other| one - other), 1),
            ]);
        }
    }
    report.table(
        "**Packets of a listed source beside the flood: µs from one socket to the other**",
        &["flood from sources", "packets", "list", "p50", "p99", "longest", "sent", "lost"],
    );
    for latency in latencies {
        report.row(&latency);
    }
    report.target("wrong verdicts: 0", wrong.to_string(), wrong == 0);
    gate.detach()?;
    report.finish()?;
    ensure!(wrong == 0, "{wrong} packets were judged wrongly");
    Ok(())
}

fn open(lab: &Lab, table: &CompiledTable) -> Result<Gate> {
    let options = Options {
        attach: Attach::Native,
        capacity: 65_536,
        pin_directory: lab.pin_directory().join("exogate"),
    };
    lab.edge().run_async(PATIENCE, || async {
        Ok(Gate::open(EDGE_INTERFACE, &options, table, &mut Spares::default()).await?)
    })
}

/// The row of the packets that were timed.
fn timed(name: &str, family: Family, state: &str, latency: &Latency) -> [String; 8] {
    let quantile = |share| format!("{:.0}", latency.quantile(share));
    [
        name.to_owned(),
        family_name(family).to_owned(),
        state.to_owned(),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
        latency.sent().to_string(),
        (latency.sent() - latency.arrived()).to_string(),
    ]
}

/// What happened with one kind of packets.
#[derive(Default)]
struct Row {
    /// While the list was replaced.
    seen: Seen,
    /// Milliseconds of each publish.
    publishes: Vec<f64>,
    rest: Part,
    replaced: Part,
}

/// All slices in which the list was at rest, or all in which it was replaced.
#[derive(Default)]
struct Part {
    /// Nanoseconds of the receiver's CPU for each packet, by slice.
    cost: Vec<f64>,
    /// Of packets of a listed source.
    latency: Latency,
}

/// Packets, as the program and the network stack tell.
#[derive(Clone, Copy, Default)]
struct Seen {
    passed: u64,
    dropped: u64,
    delivered: u64,
    /// Of those that passed, not the flood's.
    timed: u64,
}

impl Seen {
    /// Adds what came between two moments, and so many that were timed.
    fn add(&mut self, before: Self, after: Self, timed: usize) {
        self.passed += after.passed - before.passed;
        self.dropped += after.dropped - before.dropped;
        self.delivered += after.delivered - before.delivered;
        self.timed += timed as u64;
    }

    /// Packets of the flood that were judged rightly and wrongly.
    fn judged(&self, share: Share) -> (u64, u64) {
        let passed = self.passed - self.timed;
        match share {
            Share::Dropped => (self.dropped, passed),
            _ => (passed, self.dropped),
        }
    }
}

fn measure(
    publishes: usize,
    wire: &Wire,
    gate: &mut Gate,
    flood: &Flood,
    probes: &Probes,
    tables: &[CompiledTable; 2],
) -> Result<Row> {
    let mut row = Row::default();
    // Caches fill, and the kernel's page pool.
    flood.run(wire.lab().wan(), receiver_core(), SLICE)?;
    while row.publishes.len() < publishes {
        row.rest.add(slice(wire, flood, probes)?);
        let before = seen(wire, gate)?;
        let first = row.publishes.len();
        let publish = |stop: &AtomicBool| publish_until(stop, gate, tables, first);
        let (slice, times) = meanwhile(publish, || slice(wire, flood, probes))?;
        row.seen.add(before, seen(wire, gate)?, slice.1.arrived());
        row.replaced.add(slice);
        row.publishes.extend(times);
    }
    let Seen { passed, delivered, timed, .. } = row.seen;
    ensure!(passed >= timed, "{timed} timed packets came, and {passed} passed");
    // What the program says must be what the network saw: no packet went around it. The
    // neighbours' own words pass unguarded, and are not counted by the program.
    let strays = delivered.abs_diff(passed);
    ensure!(strays <= STRAYS, "{delivered} packets were delivered, and {passed} passed");
    Ok(row)
}

impl Part {
    fn add(&mut self, (cost, latency): (f64, Latency)) {
        self.cost.push(cost);
        self.latency.add(latency);
    }
}

/// A slice of the flood: what a packet cost, and how long those took that were timed.
fn slice(wire: &Wire, flood: &Flood, probes: &Probes) -> Result<(f64, Latency)> {
    let before = wire.settled()?;
    let work = || flood.run(wire.lab().wan(), receiver_core(), SLICE);
    let (_, latency) = probes.run_during(work)?;
    Ok((wire.settled()?.cost_since(&before), latency))
}

/// Publishes the lists in turns. Returns the milliseconds that each took.
fn publish_until(
    stop: &AtomicBool,
    gate: &mut Gate,
    tables: &[CompiledTable; 2],
    first: usize,
) -> Result<Vec<f64>> {
    pin(0, OTHER_CORE)?;
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        gate.publish(&tables[(first + times.len() + 1) % 2])?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Packets to the guarded port until now, once none is under way.
fn seen(wire: &Wire, gate: &Gate) -> Result<Seen> {
    let mut seen = Seen { delivered: wire.settled()?.delivered, ..Seen::default() };
    for count in gate.program().counts()? {
        match (count.action, count.reason) {
            (Action::Drop, _) => seen.dropped += count.packets,
            (_, Reason::Allowed) => seen.passed += count.packets,
            _ => {}
        }
    }
    Ok(seen)
}
