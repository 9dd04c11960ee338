//! Packets of a real interface: what each costs the host, beside what people would use
//! instead and beside the limit. Run by `cargo xtask bench packets`; needs root.
//!
//! A sender in the kernel floods the veth of a lab's edge host; the interface's own
//! thread takes the packets. A figure is the CPU time of that thread for each packet
//! that it took, so that what else the machine does is not in it. All contenders take
//! turns within each round, another one first each time, and a figure is the median of the
//! rounds. What is compared is compared within each round.
//!
//! Sender and receiver share a core, so that a packet's head is in the nearest cache
//! when the receiver looks at it, much as after a network card that writes into the
//! cache. `--separate` puts them on two cores: then every program that reads the packet
//! waits for it to come from the other core, and differences look smaller.
//!
//! The benchmark stops if a contender lets pass more or less than it should. One that
//! cannot take a list is left out of it, and the report says so. Tables, the chart and the
//! figures of each round (`packets.csv`) are written as they come, so that a run that is
//! broken off leaves what it has; `--lists NAME[,NAME]` does a part.

mod chart;
mod contender;
mod exogate;
mod peers;
mod progress;
mod rounds;
mod scope;
mod tables;
mod targets;

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use exogate_tests::lab::Family;

use self::{
    contender::{Contender, Nothing, Twin},
    exogate::{Exogate, Use},
    peers::{Ipset, Nftables, XdpFilter},
    progress::Progress,
    scope::{Kind, Pace, Scope},
};
use crate::{
    rig::{Flood, List, Wire, receiver_core},
    support::{Arguments, Report, middle, paired},
};

/// Azure's prefixes, see [`exogate_tests::lists::service_tags`].
const AZURE: usize = 53_586;

/// What one contender did with one kind of packets: nanoseconds of CPU for each, by
/// round.
pub struct Row {
    contender: &'static str,
    kind: Kind,
    family: Family,
    nanoseconds: Vec<f64>,
}

impl Row {
    /// How many times the cost of another one with the same packets.
    fn times(&self, other: &Self) -> f64 {
        middle(&paired(&self.nanoseconds, &other.nanoseconds, |mine, other| mine / other))
    }
}

pub fn bench(arguments: &Arguments) -> Result<()> {
    let scope = Scope::new(arguments)?;
    let mut report = Report::begin("packets")?;
    report.line(&format!(
        "Sender and receiver {}; nanoseconds of the receiver's CPU time per packet. Contenders \
         take turns within each round; × says how many rounds and how long a turn.",
        if scope.separate { "on two cores" } else { "share a core" },
    ));
    let wire = Wire::new(receiver_core())?;
    report.line(&peers::versions(wire.lab())?);
    let mut contenders = contenders(&wire)?;
    let mut rows = Vec::new();
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name()).collect();
    let outcome = measure_all(&scope, &wire, &mut contenders, &names, &mut report, &mut rows);
    tables::summary(&mut report, &names, &rows);
    if !scope.quick {
        targets::judge(&mut report, &rows);
    }
    report.finish()?;
    outcome
}

fn contenders(wire: &Wire) -> Result<Vec<Box<dyn Contender>>> {
    let lab = wire.lab();
    let mut all: Vec<Box<dyn Contender>> = vec![Box::new(Nothing)];
    all.extend(Twin::all(lab, wire.receiver())?);
    for how in [Use::Native, Use::Unread, Use::Generic] {
        all.push(Box::new(Exogate::new(lab, how)));
    }
    all.push(Box::new(XdpFilter::new(lab)));
    all.push(Box::new(Nftables::ingress(lab)));
    all.push(Box::new(Nftables::prerouting(lab)));
    all.push(Box::new(Ipset::new(lab)));
    Ok(all)
}

fn measure_all(
    scope: &Scope,
    wire: &Wire,
    contenders: &mut [Box<dyn Contender>],
    names: &[&str],
    report: &mut Report,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let able = |kind: &Kind| contenders.iter().filter(|contender| contender.can(kind)).count();
    let mut progress = Progress::new(scope.measurements(able));
    for name in scope.lists() {
        for list in scope::lists(name)? {
            let begin = Instant::now();
            let mut able = takers(contenders, &list, report);
            progress.filled(begin.elapsed());
            for family in Family::ALL {
                let v6 = family == Family::V6;
                if !list.nets().iter().any(|net| net.addr().is_ipv6() == v6) {
                    continue;
                }
                let begin = rows.len();
                let outcome = scope.kinds(list.nets().len()).into_iter().try_for_each(|kind| {
                    let part = measure(scope, wire, &mut able, &list, family, kind)?;
                    progress.measured(part.iter().map(|row| row.nanoseconds.len()).sum());
                    rows.extend(part);
                    fs::write(report.directory().join("packets.svg"), chart::draw(rows))?;
                    fs::write(report.directory().join("packets.csv"), rounds::csv(rows))?;
                    anyhow::Ok(())
                });
                tables::of_list(report, scope, names, &rows[begin..]);
                outcome?;
            }
        }
    }
    report.line(&format!("\nTaken in {:.0} minutes.", progress.minutes()));
    Ok(())
}

/// The contenders that have taken a list.
fn takers<'a>(
    contenders: &'a mut [Box<dyn Contender>],
    list: &List,
    report: &mut Report,
) -> Vec<&'a mut Box<dyn Contender>> {
    let prefixes = list.nets().len();
    eprintln!("{prefixes} prefixes: filling");
    contenders
        .iter_mut()
        .filter_map(|contender| match contender.take(list) {
            Ok(()) => Some(contender),
            Err(error) => {
                let (name, why) = (contender.name(), format!("{error:#}").replace('\n', " "));
                report.line(&format!("\n{name} is left out of {prefixes} prefixes: {why}"));
                None
            }
        })
        .collect()
}

fn measure(
    scope: &Scope,
    wire: &Wire,
    contenders: &mut [&mut Box<dyn Contender>],
    list: &List,
    family: Family,
    kind: Kind,
) -> Result<Vec<Row>> {
    let sources = list.sources(family, kind.share, kind.order)?;
    let destination = Wire::destination(family);
    let flood = Flood::new(wire.sender(), wire.addresses(), destination, &sources)?;
    let mut chosen: Vec<_> =
        contenders.iter_mut().filter(|contender| contender.can(&kind)).collect();
    let mut rows: Vec<Row> = chosen
        .iter()
        .map(|contender| Row { contender: contender.name(), kind, family, nanoseconds: Vec::new() })
        .collect();
    let Pace { rounds, time } = scope.pace(&kind);
    for round in 0..rounds {
        for place in 0..chosen.len() {
            let number = (round + place) % chosen.len();
            let (contender, row) = (&mut chosen[number], &mut rows[number]);
            contender.begin(family).with_context(|| contender.name())?;
            let passing = contender.passing(kind.share);
            let cost = cost(wire, &flood, scope.sender_core(), time, passing);
            contender.end().with_context(|| contender.name())?;
            wire.wait_until_free().with_context(|| contender.name())?;
            row.nanoseconds.push(cost.with_context(|| contender.name())?);
        }
    }
    Ok(rows)
}

/// Nanoseconds of CPU for each packet, of which this share has to pass.
fn cost(wire: &Wire, flood: &Flood, core: usize, time: Duration, passing: f64) -> Result<f64> {
    let wan = wire.lab().wan();
    // Caches fill, and the kernel's page pool.
    flood.run(wan, core, time / 10)?;
    let before = wire.settled()?;
    flood.run(wan, core, time)?;
    let after = wire.settled()?;
    let received = after.received - before.received;
    let delivered = after.delivered - before.delivered;
    ensure!(received > 1_000, "only {received} packets arrived");
    let found = delivered as f64 / received as f64;
    // The sources need not have had the same number of turns.
    let turns = if passing == 0.0 || passing == 1.0 { 0.0 } else { 0.01 };
    // What the neighbours say to each other is delivered too.
    let strays = 20.0 / received as f64;
    ensure!(
        (found - passing).abs() <= turns + strays,
        "{delivered} of {received} packets passed, which is {found:.3} and not {passing:.3}"
    );
    Ok(after.cost_since(&before))
}
