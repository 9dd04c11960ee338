//! Replacing the list under full load: wrong verdicts, and what it costs packets. Run by
//! `cargo xtask bench publish`; needs root.
//!
//! Two lists that share half of their prefixes take turns, a thousand times, while a
//! sender in the kernel floods the interface. First from addresses that both lists have,
//! then from addresses that neither has, so that each packet has one right verdict at any
//! moment: one that passes or drops otherwise is wrong. Beside the flood a few packets of
//! a source that both lists have are timed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exogate::gate::{Attach, Gate, Options, Spares};
use exogate_ebpf::{compile::CompiledTable, verdict::Action};
use exogate_tests::{
    addresses::is_taken,
    lab::{EDGE_INTERFACE, Family, Lab},
    lists::spread,
    random::Random,
};
use ipnet::IpNet;

use crate::{
    rig::{Flood, Latency, List, Order, Probes, Share, Wire, receiver_core},
    support::{Arguments, Report, figure, middle},
};

const PATIENCE: Duration = Duration::from_secs(600);

pub fn bench(arguments: &Arguments) -> Result<()> {
    let quick = arguments.quick();
    let scope = Scope {
        publishes: if quick { 20 } else { 1_000 },
        rest: Duration::from_millis(if quick { 300 } else { 15_000 }),
    };
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
        "{} publishes each, of {} and {} prefixes in turn",
        scope.publishes,
        lists[0].nets().len(),
        lists[1].nets().len()
    ));
    let tables = [lists[0].table()?, lists[1].table()?];

    let wire = Wire::new(receiver_core())?;
    let mut gate = open(wire.lab(), &tables[0])?;
    report.table(
        "**Under full load**",
        &[
            "sources",
            "packets",
            "packets judged",
            "wrong",
            "publish: ms",
            "ns per packet, list at rest",
            "ns per packet, list replaced",
            "added",
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
            let row = measure(&scope, &wire, &mut gate, &flood, &probes, &tables, share)?;
            wrong += row.wrong;
            for (state, latency) in [("at rest", &row.rest), ("replaced", &row.restless)] {
                latencies.push(timed(name, family, state, latency));
            }
            report.row(&[
                name.to_owned(),
                format!("{family:?}"),
                row.judged.to_string(),
                row.wrong.to_string(),
                figure(&row.publishes, 1),
                figure(&row.at_rest, 1),
                format!("{:.1}", row.replaced),
                format!("{:.1}", row.replaced - middle(&row.at_rest)),
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
    report.target("wrong verdicts: none", wrong.to_string(), wrong == 0);
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
        format!("{family:?}"),
        state.to_owned(),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
        latency.sent().to_string(),
        (latency.sent() - latency.arrived()).to_string(),
    ]
}

/// How much is done.
struct Scope {
    publishes: usize,
    /// How long packets are timed while the list is at rest.
    rest: Duration,
}

/// What happened while the list was replaced.
struct Row {
    judged: u64,
    wrong: u64,
    /// Milliseconds of each publish.
    publishes: Vec<f64>,
    /// Nanoseconds of the receiver's CPU for each packet.
    at_rest: Vec<f64>,
    replaced: f64,
    /// What packets of a listed source took.
    rest: Latency,
    restless: Latency,
}

fn measure(
    scope: &Scope,
    wire: &Wire,
    gate: &mut Gate,
    flood: &Flood,
    probes: &Probes,
    tables: &[CompiledTable; 2],
    share: Share,
) -> Result<Row> {
    let (wan, core) = (wire.lab().wan(), receiver_core());
    let mut at_rest = Vec::new();
    for _ in 0..5 {
        let before = wire.settled()?;
        flood.run(wan, core, Duration::from_millis(200))?;
        at_rest.push(wire.settled()?.cost_since(&before));
    }
    let (_, rest) = probes.run_during(|| flood.run(wan, core, scope.rest))?;
    let (counted, before) = (judged(gate)?, wire.settled()?);
    let mut times = Vec::new();
    let publish_all = || {
        for number in 0..scope.publishes {
            let begin = Instant::now();
            gate.publish(&tables[(number + 1) % 2])?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    };
    let ((), restless) = probes.run_during(|| flood.run_during(wan, core, publish_all))?;
    let (after, counts) = (wire.settled()?, judged(gate)?);
    let [passed, dropped] = [counts[0] - counted[0], counts[1] - counted[1]];
    let delivered = after.delivered - before.delivered;
    // Of the packets that passed rightly these are not the flood's.
    let timed = restless.arrived() as u64;
    let flood_passed = passed.checked_sub(timed).context("packets went around the program")?;
    let (wrong, right) = match share {
        Share::Dropped => (flood_passed, dropped),
        _ => (dropped, flood_passed),
    };
    // What the program says must be what the network saw: no packet went around it. The
    // neighbours' own words pass unguarded, and are not counted by the program.
    let spread = delivered.abs_diff(passed);
    ensure!(spread < 1_000, "{delivered} packets were delivered, and {passed} passed");
    Ok(Row {
        judged: right + wrong,
        wrong,
        publishes: times,
        at_rest,
        replaced: after.cost_since(&before),
        rest,
        restless,
    })
}

/// Packets to the guarded port that passed, and that were dropped.
fn judged(gate: &Gate) -> Result<[u64; 2]> {
    let mut sums = [0, 0];
    for count in gate.program().counts()? {
        match (count.action, count.reason) {
            (Action::Drop, _) => sums[1] += count.packets,
            (_, exogate_ebpf::verdict::Reason::Allowed) => sums[0] += count.packets,
            _ => {}
        }
    }
    Ok(sums)
}
