//! How long an interface that appears is without the filter. Run by
//! `cargo xtask bench attach`; needs root.
//!
//! The agent is told a pattern. Interfaces that fit it are made one after the other, and
//! the kernel is asked all the time whether there is one, and whether a program is on it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use exogate::gate::{Error, interface::find};
use exogate_tests::{
    agent::Agent,
    lab::{Lab, Namespace},
    service::EndpointService,
};

use crate::support::{Arguments, Report, figure, median, middle};

/// How long it may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two interfaces: ample for the agent to make the next program ready.
const PAUSE: Duration = Duration::from_secs(1);
/// What is wanted.
const GOAL: f64 = 100.0;

pub fn bench(arguments: &Arguments) -> Result<()> {
    let quick = arguments.quick();
    let count = if quick { 5 } else { 50 };
    let mut report = Report::begin("attach")?;

    let lab = Lab::new()?;
    let _service = EndpointService::start(&lab)?;
    let mut agent = Agent::new(&lab)?;
    agent.set("interfaces", vec!["edge*"])?.set("privileges", "keep")?;
    agent.start()?;
    report.table(
        &format!("**{count} interfaces that appear, and the same number made without a pause**"),
        &[
            "interfaces",
            "from when the kernel shows it to when the filter is on it: ms",
            "slower than 100 ms",
        ],
    );
    let alone = measure(lab.edge(), count, PAUSE)?;
    let hurried = measure(lab.edge(), count, Duration::ZERO)?;
    for (interfaces, times) in [("one a second", &alone), ("one after the other", &hurried)] {
        let slow = times.iter().filter(|time| **time > GOAL).count();
        report.row(&[interfaces, &figure(times, 1), &slow.to_string()]);
    }
    let most = median(&alone).most;
    let found = format!("{:.1} ms, at most {most:.1} ms", middle(&alone));
    report.target("one a second is attached within 100 ms", found, most < GOAL);
    report.finish()
}

/// Milliseconds that each of so many interfaces is without the filter.
fn measure(edge: &Namespace, count: u32, pause: Duration) -> Result<Vec<f64>> {
    (1..=count)
        .map(|number| {
            thread::sleep(pause);
            let name = format!("edge{number}");
            let open = appear(edge, &name)?;
            edge.ip(&format!("link delete {name}\n"))?;
            Ok(open.as_secs_f64() * 1000.0)
        })
        .collect()
}

/// Makes an interface, and measures how long it is there without a program.
fn appear(edge: &Namespace, name: &str) -> Result<Duration> {
    thread::scope(|scope| {
        let watched = scope.spawn(|| edge.run_async(PATIENCE, || watch(name)));
        edge.ip(&format!("link add {name} type veth peer name peer-{name}\n"))?;
        watched.join().expect("the watching thread ended well")
    })
}

async fn watch(name: &str) -> Result<Duration> {
    let mut seen = None;
    loop {
        match find(name).await {
            Ok(found) => {
                let seen: &mut Instant = seen.get_or_insert_with(Instant::now);
                if found.xdp.is_some() {
                    return Ok(seen.elapsed());
                }
            }
            Err(Error::UnknownInterface { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
