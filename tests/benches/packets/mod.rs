//! Packets of a real interface: what each costs the host, beside what people would use
//! instead and beside the limit. Run by `cargo xtask bench packets`; needs root.
//!
//! A sender in the kernel floods the veth of a lab's edge host; the interface's own
//! thread takes the packets. A figure is the CPU time of that thread for each packet
//! that it took, so that what else the machine does is not in it. All contenders take
//! turns within each round, and a figure is the median of the rounds.
//!
//! Sender and receiver share a core, so that a packet's head is in the nearest cache
//! when the receiver looks at it, much as after a network card that writes into the
//! cache. `--separate` puts them on two cores: then every program that reads the packet
//! waits for it to come from the other core, and differences look smaller.
//!
//! The benchmark stops if a contender lets pass more or less than it should.

mod chart;
mod contender;
mod peers;
mod targets;

use std::{collections::BTreeSet, env, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use exogate::gate::Attach;
use exogate_tests::{
    lab::Family,
    lists::{exchange, service_tags, spread},
    random::Random,
};

use self::{
    contender::{Contender, Exogate, Nothing, Twin},
    peers::{Ipset, Nftables, XdpFilter},
};
use crate::{
    rig::{Flood, List, Order, Share, Wire, receiver_core},
    support::{Arguments, Report, figure, middle},
};

/// Azure's prefixes, see [`service_tags`].
const AZURE: usize = 53_586;

/// How much is done.
struct Scope {
    /// One round of moments, to see that it works.
    quick: bool,
    /// The sender on a core of its own.
    separate: bool,
}

impl Scope {
    /// Rounds for a list of so many prefixes. Many short ones tell small differences best,
    /// since the machine's pace changes from second to second; but peers take long to be put
    /// in place with a long list.
    fn rounds(&self, prefixes: usize) -> usize {
        match prefixes {
            _ if self.quick => 1,
            ..1_000 => 21,
            _ => 7,
        }
    }

    fn time(&self, prefixes: usize) -> Duration {
        Duration::from_millis(match prefixes {
            _ if self.quick => 20,
            ..1_000 => 100,
            _ => 300,
        })
    }

    fn sender_core(&self) -> usize {
        if self.separate { 0 } else { receiver_core() }
    }
}

/// What one contender did with one kind of packets: nanoseconds of CPU for each, by
/// round.
pub struct Row {
    contender: &'static str,
    prefixes: usize,
    family: Family,
    share: Share,
    order: Order,
    nanoseconds: Vec<f64>,
}

pub fn bench(arguments: &Arguments) -> Result<()> {
    let scope = Scope { quick: arguments.quick(), separate: arguments.has("--separate") };
    let mut report = Report::begin("packets")?;
    report.line(&peers::versions()?);
    report.line(&format!(
        "{} rounds of {} ms for each contender and short lists, {} of {} ms for others; sender \
         and receiver {}; nanoseconds of the receiver's CPU time per packet, median (least..most)",
        scope.rounds(0),
        scope.time(0).as_millis(),
        scope.rounds(usize::MAX),
        scope.time(usize::MAX).as_millis(),
        if scope.separate { "on two cores" } else { "share a core" },
    ));

    let wire = Wire::new(receiver_core())?;
    let mut contenders = contenders(&wire)?;
    let mut rows = Vec::new();
    for list in lists(scope.quick)? {
        eprintln!("{} prefixes: filling", list.nets().len());
        for contender in &mut contenders {
            contender.take(&list).with_context(|| contender.name())?;
        }
        for family in Family::ALL {
            let v6 = family == Family::V6;
            if !list.nets().iter().any(|net| net.addr().is_ipv6() == v6) {
                continue;
            }
            for (share, order) in kinds(list.nets().len(), scope.quick) {
                let part = measure(&scope, &wire, &mut contenders, &list, family, share, order)?;
                table(&mut report, &part);
                rows.extend(part);
            }
        }
    }
    if !scope.quick {
        targets::judge(&mut report, &rows);
    }
    fs::write(report.directory().join("packets.svg"), chart::draw(&rows))?;
    report.finish()
}

fn contenders(wire: &Wire) -> Result<Vec<Box<dyn Contender>>> {
    let lab = wire.lab();
    let twins = env::var("EXOGATE_TWINS_OBJECT")
        .context("EXOGATE_TWINS_OBJECT is not set; run `cargo xtask bench packets`")?;
    let mut all: Vec<Box<dyn Contender>> = vec![Box::new(Nothing)];
    all.extend(Twin::all(lab, wire.receiver(), &twins)?);
    all.push(Box::new(Exogate::new(lab, Attach::Native)));
    all.push(Box::new(Exogate::new(lab, Attach::Generic)));
    all.push(Box::new(XdpFilter::new(lab)));
    all.push(Box::new(Nftables::ingress(lab)));
    all.push(Box::new(Nftables::prerouting(lab)));
    all.push(Box::new(Ipset::new(lab)));
    Ok(all)
}

/// Exchange's 34 prefixes; a thousand and all of Azure's; 54,000 and a million of each
/// family, spread over all addresses.
fn lists(quick: bool) -> Result<Vec<List>> {
    let mut lists = vec![List::new(exchange()?)];
    if quick {
        return Ok(lists);
    }
    let tags = service_tags()?;
    let mut random = Random::new(3);
    let mut thousand = BTreeSet::new();
    while thousand.len() < 1_000 {
        thousand.insert(tags[random.below(tags.len())]);
    }
    lists.push(List::new(thousand.into_iter().collect()));
    lists.push(List::new(tags));
    for count in [54_000, 1_000_000] {
        lists.extend([false, true].map(|v6| List::new(spread(count, v6))));
    }
    Ok(lists)
}

/// The kinds of packets that a list of this length is tried with.
fn kinds(prefixes: usize, quick: bool) -> Vec<(Share, Order)> {
    let mut kinds = vec![(Share::Dropped, Order::Random)];
    if prefixes == AZURE {
        kinds.push((Share::Dropped, Order::Near));
    }
    if prefixes < 1_000 || prefixes == AZURE {
        kinds.push((Share::Passed, Order::Random));
    }
    if prefixes < 1_000 {
        kinds.push((Share::Tenth, Order::Random));
        if !quick {
            kinds.push((Share::Dropped, Order::Repeating));
        }
    }
    kinds
}

fn measure(
    scope: &Scope,
    wire: &Wire,
    contenders: &mut [Box<dyn Contender>],
    list: &List,
    family: Family,
    share: Share,
    order: Order,
) -> Result<Vec<Row>> {
    let sources = list.sources(family, share, order)?;
    let destination = Wire::destination(family);
    let flood = Flood::new(wire.sender(), wire.addresses(), destination, &sources)?;
    let passing = share != Share::Dropped;
    let prefixes = list.nets().len();
    let mut chosen: Vec<_> =
        contenders.iter_mut().filter(|contender| contender.can(prefixes, passing)).collect();
    let mut rows: Vec<Row> = chosen
        .iter()
        .map(|contender| Row {
            contender: contender.name(),
            prefixes,
            family,
            share,
            order,
            nanoseconds: Vec::new(),
        })
        .collect();
    let time = scope.time(prefixes);
    for _ in 0..scope.rounds(prefixes) {
        for (contender, row) in chosen.iter_mut().zip(&mut rows) {
            contender.begin().with_context(|| contender.name())?;
            let cost = cost(scope, time, wire, &flood, contender.as_ref(), share);
            contender.end().with_context(|| contender.name())?;
            wire.wait_until_free().with_context(|| contender.name())?;
            row.nanoseconds.push(cost.with_context(|| contender.name())?);
        }
    }
    Ok(rows)
}

/// Nanoseconds of CPU for each packet.
fn cost(
    scope: &Scope,
    time: Duration,
    wire: &Wire,
    flood: &Flood,
    contender: &dyn Contender,
    share: Share,
) -> Result<f64> {
    let wan = wire.lab().wan();
    // Caches fill, and the kernel's page pool.
    flood.run(wan, scope.sender_core(), time / 10)?;
    let before = wire.settled()?;
    flood.run(wan, scope.sender_core(), time)?;
    let after = wire.settled()?;
    let received = after.received - before.received;
    let delivered = after.delivered - before.delivered;
    ensure!(received > 1_000, "only {received} packets arrived");
    // What the neighbours say to each other is delivered too.
    if contender.judges() {
        let wanted = if contender.name() == "no filter" { 1.0 } else { share.passing() };
        let found = delivered as f64 / received as f64;
        let allowed = if share == Share::Tenth { 0.01 } else { 0.0 };
        let strays = 20.0 / received as f64;
        ensure!(
            (found - wanted).abs() <= allowed + strays,
            "{delivered} of {received} packets passed, which is {found:.3} and not {wanted:.3}"
        );
    } else {
        ensure!(delivered < 20, "{delivered} packets passed");
    }
    Ok(after.cost_since(&before))
}

fn table(report: &mut Report, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let of = |name: &str| {
        let row = rows.iter().find(|row| row.contender == name)?;
        Some(middle(&row.nanoseconds))
    };
    let exogate = of("exogate");
    report.table(
        &format!(
            "**{} prefixes, {:?}, {}, {} sources**",
            first.prefixes,
            first.family,
            first.share.name(),
            first.order.name()
        ),
        &["contender", "ns", "million packets/s of a core", "times exogate's cost"],
    );
    for row in rows {
        let middle = middle(&row.nanoseconds);
        report.row(&[
            row.contender.to_owned(),
            figure(&row.nanoseconds, 1),
            format!("{:.2}", 1e3 / middle),
            exogate.map_or_else(String::new, |exogate| format!("{:.2}", middle / exogate)),
        ]);
    }
}
