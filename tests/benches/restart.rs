//! How long notifications are not taken while the agent is restarted. Run by
//! `cargo xtask bench restart`; needs root.
//!
//! The agent is told to stop (SIGTERM) and started as soon as it has ended, as
//! `systemctl restart` does, while senders notify without a pause. Connections that come
//! meanwhile are refused here; a socket of systemd's would keep them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use exogate_tests::{
    agent::{Agent, relay::GRAPH},
    lab::Lab,
    load::Load,
    pega::{Mood, Pega},
    service::EndpointService,
};

use crate::support::{Arguments, Report, figure, median};

/// The longest that a restart may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is wanted, in seconds.
const GOAL: f64 = 2.0;

/// Who waits for the agent, and for whom it waits.
const SITUATIONS: [(&str, usize, Mood); 3] = [
    ("a sender, the server well", 1, Mood::Well),
    ("64 senders, the server well", 64, Mood::Well),
    ("64 senders, the server hangs", 64, Mood::Hangs),
];

pub fn bench(arguments: &Arguments) -> Result<()> {
    let rounds = if arguments.quick() { 1 } else { 10 };
    let mut report = Report::begin("restart")?;
    report.table(
        &format!("**{rounds} restarts each: seconds, median (least..most)**"),
        &["", "from SIGTERM to the end", "from SIGTERM to the first 202 of the next"],
    );
    for (name, senders, mood) in SITUATIONS {
        let (stops, restarts) = measure(rounds, senders, &mood).context(name)?;
        report.row(&[name, &figure(&stops, 2), &figure(&restarts, 2)]);
        let most = median(&restarts).most;
        report.target(
            &format!("{name}: under {GOAL} s, always"),
            format!("at most {most:.2} s"),
            most < GOAL,
        );
    }
    report.finish()
}

fn measure(rounds: usize, senders: usize, mood: &Mood) -> Result<(Vec<f64>, Vec<f64>)> {
    let lab = Lab::new()?;
    let _service = EndpointService::start(&lab)?;
    let pega = Pega::start(&lab, 8080)?;
    pega.feel(mood.clone());
    let mut agent = Agent::new(&lab)?;
    agent.add_relay(&[&pega])?.start()?;
    let load = Load::start(&lab, GRAPH, senders, Duration::from_millis(1))?;
    let (mut stops, mut restarts) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        accepted_after(&load, load.count())?;
        thread::sleep(Duration::from_secs(1));
        let begin = Instant::now();
        agent.terminate()?;
        stops.push(begin.elapsed().as_secs_f64());
        let before = load.count();
        agent.spawn()?;
        accepted_after(&load, before)?;
        restarts.push(begin.elapsed().as_secs_f64());
        agent.wait_ready(PATIENCE)?;
    }
    load.stop()?;
    Ok((stops, restarts))
}

/// Waits until more than so many notifications are accepted.
fn accepted_after(load: &Load, before: usize) -> Result<()> {
    let begin = Instant::now();
    while load.count() <= before {
        ensure!(begin.elapsed() < PATIENCE, "nothing is accepted in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
