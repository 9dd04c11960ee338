//! What the agent itself takes: memory and CPU at rest, and under a flood of refused
//! packets while drop events flow, Prometheus scrapes, and people watch `exogate top` and
//! `exogate events --follow`. Run by `cargo xtask bench idle`; needs root.
//!
//! It is the real agent, gate and relay: a listener with a route for Graph and one for EWS,
//! without connections. The endpoint service and the server behind the relay are stand-ins. Whether its events cost packets is
//! measured by killing it: the filter stays, and records one drop in 4,096 only. Each round has
//! both, in the other order than the one before, and they are compared within the round.

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
    rig::{Flood, List, Order, Share, Wire, family_name, receiver_core},
    support::{Arguments, Report, beside, figure, middle, paired},
};

/// How long `exogate top` may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The port of the server behind the relay.
const BEHIND: u16 = 8080;
/// Between two scrapes, as an impatient Prometheus has it.
const SCRAPE: Duration = Duration::from_secs(1);

/// After a start: what the agent does once, it has done then.
const STARTED: Duration = Duration::from_secs(3);
/// What /proc/PID/stat counts in (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// How often, and how long.
struct Scope {
    samples: usize,
    rest: Duration,
    rounds: usize,
    time: Duration,
}

pub fn bench(arguments: &Arguments) -> Result<()> {
    let [rest, time] = if arguments.quick() { [2, 2] } else { [15, 5] }.map(Duration::from_secs);
    let [samples, rounds] = if arguments.quick() { [1, 2] } else { [5, 9] };
    let scope = Scope { samples, rest, rounds, time };
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
    thread::sleep(STARTED);
    let mut cpu = Vec::new();
    for _ in 0..scope.samples {
        let rest = || {
            thread::sleep(scope.rest);
            Ok(())
        };
        cpu.push(100.0 * share_of_core(process, rest)?);
    }
    let Memory { resident, private, anonymous } = memory(process)?;
    report.table(
        &format!(
            "**The agent at rest, its relay without connections, {} times {} s**",
            scope.samples,
            scope.rest.as_secs()
        ),
        &["resident: MB", "of it private: MB", "of it not of files: MB", "CPU: % of a core"],
    );
    report.row(&[
        format!("{resident:.1}"),
        format!("{private:.1}"),
        format!("{anonymous:.1}"),
        figure(&cpu, 3),
    ]);
    report.target("resident at rest: under 20 MB", format!("{resident:.1} MB"), resident < 20.0);
    report.target(
        "CPU at rest: under 0.1 % of a core",
        format!("{} %", beside(&cpu, 0.1)),
        middle(&cpu) < 0.1,
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
    let name = family_name(family);
    let list = List::new(exchange()?);
    let sources = list.sources(family, Share::Dropped, Order::Random)?;
    let destination = Wire::destination(family);
    let flood = Flood::new(wire.sender(), wire.addresses(), destination, &sources)?;
    let (mut with, mut without, mut cpu, mut resident) = (vec![], vec![], vec![], vec![]);
    for round in 0..scope.rounds {
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for is_at_work in order {
            if is_at_work {
                let taken = at_work(scope, wire, &flood, agent)?;
                with.push(taken.cost);
                cpu.push(taken.cpu);
                resident.push(taken.resident);
            } else {
                if agent.is_running()? {
                    agent.kill9()?;
                }
                let before = wire.settled()?;
                flood.run(wire.lab().wan(), receiver_core(), scope.time)?;
                without.push(wire.settled()?.cost_since(&before));
            }
        }
    }
    report.row(&[
        name.to_owned(),
        figure(&with, 1),
        figure(&without, 1),
        figure(&cpu, 2),
        figure(&resident, 1),
    ]);
    let off = paired(&with, &without, |with, without| 100.0 * (1.0 - without / with));
    report.target(
        &format!("{name}: events cost at most 3 % of the rate"),
        format!("{} %", beside(&off, 3.0)),
        middle(&off) <= 3.0,
    );
    report.target(
        &format!("{name}: agent under 5 % of a core"),
        format!("{} %", beside(&cpu, 5.0)),
        middle(&cpu) < 5.0,
    );
    Ok(())
}

/// What a packet cost while the agent was at work, and what the agent took.
struct Taken {
    /// Nanoseconds.
    cost: f64,
    /// Percent of a core.
    cpu: f64,
    /// MB.
    resident: f64,
}

/// A flood while the agent is at work, with all who watch it.
fn at_work(scope: &Scope, wire: &Wire, flood: &Flood, agent: &mut Agent) -> Result<Taken> {
    if !agent.is_running()? {
        agent.start()?;
        thread::sleep(STARTED);
    }
    let process = agent.pid().context("the agent does not run")?;
    let mut top = agent.top()?;
    top.wait_until("the view", PATIENCE, |text| text.contains("q quits"))?;
    let follower = Follower::start(wire.lab(), agent)?;
    let before = wire.settled()?;
    let cpu = 100.0 * share_of_core(process, || watched(wire, flood, agent, scope.time))?;
    let cost = wire.settled()?.cost_since(&before);
    let resident = memory(process)?.resident;
    top.wait_until("refused packets", PATIENCE, |text| text.contains("unlisted"))?;
    top.press("q")?;
    top.wait_exit(PATIENCE)?;
    follower.stop()?;
    Ok(Taken { cost, cpu, resident })
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
    let (begin, before) = (Instant::now(), CpuTime::of(process)?);
    work()?;
    let taken = CpuTime::of(process)?.since(&before);
    Ok(taken.as_secs_f64() / begin.elapsed().as_secs_f64())
}

/// The CPU time of a process, by two accounts.
struct CpuTime {
    /// Of the threads that there are, in nanoseconds.
    threads: Duration,
    /// Of those that have ended, too, in ticks.
    ticks: Duration,
}

impl CpuTime {
    fn of(process: u32) -> Result<Self> {
        let mut threads = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            // It may have ended meanwhile; the other account has its time.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            threads += Duration::from_nanos(text.split(' ').next().context("schedstat")?.parse()?);
        }
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name stands in parentheses and may hold anything; utime and stime are the 12th
        // and 13th field behind it.
        let (_, fields) = stat.rsplit_once(')').context("stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks = ticks.sum::<Result<u32, _>>()?;
        Ok(Self { threads, ticks: TICK * ticks })
    }

    /// What was taken since then: by the finer account, or if threads have ended what the other
    /// one is sure of.
    fn since(&self, before: &Self) -> Duration {
        let sure = (self.ticks - before.ticks).saturating_sub(TICK);
        self.threads.saturating_sub(before.threads).max(sure)
    }
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
