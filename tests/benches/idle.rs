//! What the agent itself takes: memory and CPU at rest, and under a flood of refused
//! packets while drop events flow, Prometheus scrapes, and people watch `exogate top` and
//! `exogate events --follow`. Run by `cargo xtask bench idle`; needs root.
//!
//! It is the real agent, gate and relay: a listener with a route for Graph and one for EWS,
//! without connections. The endpoint service and the server behind the relay are stand-ins. Whether its events cost packets is measured by killing it: the filter stays,
//! and records one drop in 4,096 only.

use std::{
    fs, io,
    process::{Child, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab},
    lists::exchange,
    pega::Pega,
    process::agent_binary,
    service::EndpointService,
};

use crate::{
    rig::{Flood, List, Order, Share, Wire, receiver_core},
    support::{Arguments, Report, figure, middle},
};

/// How long `exogate top` may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The port of the server behind the relay.
const BEHIND: u16 = 8080;
/// Between two scrapes, as an impatient Prometheus has it.
const SCRAPE: Duration = Duration::from_secs(1);

/// How long, and how often.
struct Scope {
    rest: Duration,
    rounds: usize,
    time: Duration,
}

pub fn bench(arguments: &Arguments) -> Result<()> {
    let [rest, time] = if arguments.quick() { [2, 2] } else { [60, 10] }.map(Duration::from_secs);
    let scope = Scope { rest, rounds: if arguments.quick() { 1 } else { 5 }, time };
    let mut report = Report::begin("idle")?;

    let wire = Wire::new(receiver_core())?;
    let lab = wire.lab();
    let _service = EndpointService::start(lab)?;
    let server = Pega::start(lab, BEHIND)?;
    let mut agent = Agent::new(lab)?;
    agent.add_relay(&[&server])?;
    agent.start()?;
    at_rest(&mut report, &scope, &agent)?;
    report.table(
        &format!(
            "**Under a flood of refused packets, {} rounds of {} s**",
            scope.rounds,
            scope.time.as_secs()
        ),
        &[
            "packets",
            "ns per packet, agent at work",
            "agent killed",
            "agent: % of a core",
            "resident: MB",
        ],
    );
    for family in Family::ALL {
        flooded(&mut report, &scope, &wire, &mut agent, family)?;
    }
    report.finish()
}

fn at_rest(report: &mut Report, scope: &Scope, agent: &Agent) -> Result<()> {
    let process = agent.pid().context("the agent does not run")?;
    // What it does once, it has done then.
    thread::sleep(Duration::from_secs(3));
    let cpu = share_of_core(process, || {
        thread::sleep(scope.rest);
        Ok(())
    })?;
    let Memory { resident, private, anonymous } = memory(process)?;
    report.table(
        &format!(
            "**The agent at rest, its relay without connections, for {} s**",
            scope.rest.as_secs()
        ),
        &["resident: MB", "of it private: MB", "of it not of files: MB", "CPU: % of a core"],
    );
    report.row(&[
        format!("{resident:.1}"),
        format!("{private:.1}"),
        format!("{anonymous:.1}"),
        format!("{:.3}", cpu * 100.0),
    ]);
    report.target("resident at rest: under 20 MB", format!("{resident:.1} MB"), resident < 20.0);
    report.target(
        "CPU at rest: under 0.1 % of a core",
        format!("{:.3} %", cpu * 100.0),
        cpu < 0.001,
    );
    Ok(())
}

/// In turns: the agent at work with all who watch it, and the filter that it leaves when it
/// is killed.
fn flooded(
    report: &mut Report,
    scope: &Scope,
    wire: &Wire,
    agent: &mut Agent,
    family: Family,
) -> Result<()> {
    let list = List::new(exchange()?);
    let sources = list.sources(family, Share::Dropped, Order::Random)?;
    let destination = Wire::destination(family);
    let flood = Flood::new(wire.sender(), wire.addresses(), destination, &sources)?;
    let (mut with, mut without, mut cpu, mut resident) = (vec![], vec![], vec![], vec![]);
    for _ in 0..scope.rounds {
        let process = agent.pid().context("the agent does not run")?;
        let mut top = agent.top()?;
        top.wait_until("the view", PATIENCE, |text| text.contains("q quits"))?;
        let follower = Follower::start(wire.lab(), agent)?;
        let before = wire.settled()?;
        cpu.push(100.0 * share_of_core(process, || watched(wire, &flood, agent, scope.time))?);
        with.push(wire.settled()?.cost_since(&before));
        resident.push(memory(process)?.resident);
        top.wait_until("refused packets", PATIENCE, |text| text.contains("unlisted"))?;
        top.press("q")?;
        top.wait_exit(PATIENCE)?;
        follower.stop()?;
        agent.kill9()?;
        let before = wire.settled()?;
        flood.run(wire.lab().wan(), receiver_core(), scope.time)?;
        without.push(wire.settled()?.cost_since(&before));
        agent.start()?;
    }
    report.row(&[
        format!("{family:?}"),
        figure(&with, 1),
        figure(&without, 1),
        figure(&cpu, 2),
        figure(&resident, 1),
    ]);
    let off = 1.0 - middle(&without) / middle(&with);
    report.target(
        &format!("{family:?}: events cost at most 3 % of the rate"),
        format!("{:.1} %", off * 100.0),
        off <= 0.03,
    );
    report.target(
        &format!("{family:?}: agent under 5 % of a core"),
        format!("{:.2} %", middle(&cpu)),
        middle(&cpu) < 5.0,
    );
    Ok(())
}

/// Somebody who reads `exogate events --follow`.
struct Follower {
    process: Child,
    reader: JoinHandle<io::Result<u64>>,
}

impl Follower {
    fn start(lab: &Lab, agent: &Agent) -> Result<Self> {
        let mut command = lab.edge().command(agent_binary()?);
        command.args(["events", "--follow", "--config"]).arg(agent.config_file());
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut output = process.stdout.take().context("no output")?;
        let reader = thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Ok(Self { process, reader })
    }

    fn stop(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        let read = self.reader.join().map_err(|_| anyhow!("a thread panicked"))??;
        ensure!(read > 0, "`exogate events --follow` printed nothing");
        Ok(())
    }
}

/// A flood, while metrics and the blocked sources are asked for every second.
fn watched(wire: &Wire, flood: &Flood, agent: &Agent, time: Duration) -> Result<()> {
    flood.run_during(wire.lab().wan(), receiver_core(), || {
        let begin = Instant::now();
        while begin.elapsed() < time {
            agent.metrics()?;
            agent.status_json()?;
            thread::sleep(SCRAPE);
        }
        Ok(())
    })
}

/// The share of a core that a process takes while `work` is done.
fn share_of_core(process: u32, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (begin, before) = (Instant::now(), cpu_time(process)?);
    work()?;
    Ok((cpu_time(process)?.saturating_sub(before)).as_secs_f64() / begin.elapsed().as_secs_f64())
}

/// The CPU time of all threads that there are.
fn cpu_time(process: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += Duration::from_nanos(text.split(' ').next().context("schedstat")?.parse()?);
    }
    Ok(sum)
}

/// Memory of a process: MB.
struct Memory {
    resident: f64,
    /// What no other process has, pages of the program file among it.
    private: f64,
    /// What no file backs.
    anonymous: f64,
}

fn memory(process: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let megabytes = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("smaps_rollup")?;
        let kilobytes: f64 = line.split_whitespace().next().context("smaps_rollup")?.parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    };
    Ok(Memory {
        resident: megabytes("Rss:")?,
        private: megabytes("Private_Clean:")? + megabytes("Private_Dirty:")?,
        anonymous: megabytes("Anonymous:")?,
    })
}
