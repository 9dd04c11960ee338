//! The relay beside nginx and haproxy: requests, connections, latencies, memory, and
//! what being durable costs. Run by `cargo xtask bench relay`; needs root.
//!
//! The proxy under test has one core, generator and upstream share the other one. All
//! of it runs in a network namespace of its own, on its loopback. Contenders take turns
//! within each round. Words as arguments choose among measures and contenders:
//! `cargo xtask bench relay -- keep-alive nginx`.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use exogate_tests::process::agent_binary;
use tokio::{task::LocalSet, time::sleep};

mod contender;
mod disk;
mod generator;
mod host;
mod http;
mod stream;
mod upstream;

use contender::{Contender, Kind, Setting};
use generator::{Interval, Traffic, crowd, pace, saturate};
use stream::{Way, transfer};

use crate::support::{Arguments, Report, figure, middle};

const ROUNDS: usize = 7;
const SENDERS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(3);
/// Connections without a request.
const CROWD: usize = 10_000;
/// How long memory is left to settle before it is looked at.
const SETTLE: Duration = Duration::from_secs(2);
/// The rate of the latencies when there is no maximum to take the half of.
const RATE: f64 = 5_000.0;

pub fn bench(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(code) = host::enter()? {
        return Ok(code);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure(&arguments.words()))?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(words: &[&str]) -> Result<()> {
    let is_chosen = |word: &str, all: &[&str]| {
        words.contains(&word) || !words.iter().any(|chosen| all.contains(chosen))
    };
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| is_chosen(kind.name(), &Kind::ALL.map(Kind::name)))
        .collect();
    let measures = ["keep-alive", "new", "latency", "durable", "memory", "pinned", "stream"];
    let report = Report::begin("relay")?;
    let setting = Setting::new(report.directory().join("relay"))?;
    upstream::serve(contender::upstream())?;

    let mut bench = Bench { report, setting, kinds, maxima: BTreeMap::new() };
    bench.introduce().await?;
    for measure in measures.into_iter().filter(|measure| is_chosen(measure, &measures)) {
        match measure {
            "keep-alive" => bench.keep_alive().await?,
            "new" => bench.new_connections().await?,
            "latency" => bench.latency().await?,
            "durable" => bench.durable().await?,
            "pinned" => bench.pinned().await?,
            "stream" => bench.stream().await?,
            _ => bench.memory().await?,
        }
    }
    let directory = bench.setting.directory().to_owned();
    bench.report.finish()?;
    Ok(std::fs::remove_dir_all(directory)?)
}

struct Bench {
    report: Report,
    setting: Setting,
    kinds: Vec<Kind>,
    /// The most keep-alive requests per second of each contender.
    maxima: BTreeMap<&'static str, f64>,
}

/// What the rounds of a contender brought.
#[derive(Clone, Default)]
struct Rounds {
    /// Requests per second.
    rate: Vec<f64>,
    /// Requests per second of the proxy's processor time.
    per_cpu: Vec<f64>,
    /// The shares of their cores that the proxy, and generator and upstream were busy.
    proxy: Vec<f64>,
    ours: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, interval: &Interval<Duration>) {
        let (answers, time) = (interval.answers as f64, interval.time.as_secs_f64());
        let proxy = (interval.after - interval.before).as_secs_f64();
        self.rate.push(answers / time);
        self.per_cpu.push(answers / proxy);
        self.proxy.push(100.0 * proxy / time);
        self.ours.push(100.0 * (1.0 - interval.idle.as_secs_f64() / time));
    }

    fn row(&self, name: &str) -> [String; 5] {
        let figures = [&self.rate, &self.per_cpu].map(|values| figure(values, 0));
        let [rate, per_cpu] = figures;
        let [proxy, ours] = [&self.proxy, &self.ours].map(|busy| format!("{:.0} %", middle(busy)));
        [name.to_owned(), rate, per_cpu, proxy, ours]
    }
}

const THROUGHPUT: [&str; 5] = [
    "contender",
    "requests/s",
    "requests/s of proxy's CPU time",
    "proxy's core busy",
    "generator's core busy",
];

impl Bench {
    async fn introduce(&mut self) -> Result<()> {
        let report = &mut self.report;
        for kind in &self.kinds {
            let version = match kind {
                Kind::Nginx => host::first_line("nginx", "-v")?,
                Kind::Haproxy => host::first_line("haproxy", "-v")?,
                Kind::Exogate => {
                    host::first_line(&agent_binary()?.display().to_string(), "--version")?
                }
            };
            let contender = self.setting.start(*kind).await?;
            let agreement = generator::agreement(&contender.target).await?;
            report.line(&format!("- {}: {version}; {agreement}", kind.name()));
        }
        let [ews, graph] = [http::Request::ews(0, false)?, http::Request::graph(0)?];
        report.line(&format!(
            "\nMedian of {ROUNDS} rounds (least..most), each {} s after {} s of warm-up, {SENDERS} \
             senders. A request has {} bytes with its head (EWS) or {} (Graph).",
            TIME.as_secs(),
            WARM_UP.as_secs(),
            ews.len(),
            graph.len()
        ));
        Ok(())
    }

    async fn start_all(&self) -> Result<Vec<Contender>> {
        let mut contenders = Vec::new();
        for kind in &self.kinds {
            contenders.push(self.setting.start(*kind).await?);
        }
        Ok(contenders)
    }

    async fn throughput(&mut self, title: &str, traffic: Traffic) -> Result<Vec<Rounds>> {
        let contenders = self.start_all().await?;
        let mut rounds = vec![Rounds::default(); contenders.len()];
        for _ in 0..ROUNDS {
            for (contender, rounds) in contenders.iter().zip(&mut rounds) {
                rounds.add(&full_load(contender, traffic).await?);
            }
        }
        self.report.table(title, &THROUGHPUT);
        for (kind, rounds) in self.kinds.iter().zip(&rounds) {
            self.report.row(&rounds.row(kind.name()));
        }
        Ok(rounds)
    }

    async fn keep_alive(&mut self) -> Result<()> {
        let title = "Pass-through on connections that stay open";
        let rounds = self.throughput(title, Traffic::Ews).await?;
        for (kind, rounds) in self.kinds.iter().zip(&rounds) {
            self.maxima.insert(kind.name(), middle(&rounds.rate));
        }
        if let [nginx, haproxy, exogate] = rounds.as_slice() {
            let best = middle(&nginx.per_cpu).max(middle(&haproxy.per_cpu));
            let ratio = middle(&exogate.per_cpu) / best;
            self.report.target(
                "keep-alive requests: at least the better of nginx and haproxy (per CPU time)",
                format!("{ratio:.2} times"),
                ratio >= 1.0,
            );
        }
        Ok(())
    }

    async fn pinned(&mut self) -> Result<()> {
        let title = "Proxied requests with NTLM on connections that stay open (haproxy and exogate: \
                     a connection to the server for each client's; nginx cannot)";
        let rounds = self.throughput(title, Traffic::Pinned).await?;
        if let [nginx, haproxy, exogate] = rounds.as_slice() {
            let best = middle(&nginx.per_cpu).max(middle(&haproxy.per_cpu));
            let ratio = middle(&exogate.per_cpu) / best;
            self.report.target(
                "requests on pinned connections: at least 0.9 of the better one (per CPU time)",
                format!("{ratio:.2} times"),
                ratio >= 0.9,
            );
        }
        Ok(())
    }

    async fn stream(&mut self) -> Result<()> {
        for (way, title) in
            [(Way::Up, "Bodies of 64 MiB, up"), (Way::Down, "Bodies of 64 MiB, down")]
        {
            let contenders = self.start_all().await?;
            let mut rate = vec![Vec::new(); contenders.len()];
            let mut per_cpu = vec![Vec::new(); contenders.len()];
            let mut memory = vec![Vec::new(); contenders.len()];
            for _ in 0..ROUNDS {
                for (number, contender) in contenders.iter().enumerate() {
                    let cpu_time = || host::cpu_time(contender.process());
                    let before = host::memory(contender.process())?.all;
                    let moved = transfer(&contender.target, way, 2, TIME, cpu_time).await?;
                    let mib = moved.bytes as f64 / f64::from(1 << 20);
                    rate[number].push(mib / moved.time.as_secs_f64());
                    per_cpu[number].push(mib / moved.processor.as_secs_f64());
                    memory[number].push(host::memory(contender.process())?.all - before);
                }
            }
            let columns = ["contender", "MiB/s", "MiB/s of proxy's CPU time", "memory added, MiB"];
            self.report.table(title, &columns);
            for (number, kind) in self.kinds.iter().enumerate() {
                let [rate, per_cpu] = [&rate[number], &per_cpu[number]].map(|all| figure(all, 0));
                let memory = figure(&memory[number], 1);
                self.report.row(&[kind.name().to_owned(), rate, per_cpu, memory]);
            }
            if let [nginx, haproxy, exogate] = per_cpu.as_slice() {
                let ratio = middle(exogate) / middle(nginx).max(middle(haproxy));
                self.report.target(
                    &format!("{title}: at least 0.9 of the better one (per CPU time)"),
                    format!("{ratio:.2} times"),
                    ratio >= 0.9,
                );
            }
        }
        Ok(())
    }

    async fn new_connections(&mut self) -> Result<()> {
        let title = "Pass-through, each request on a new connection with a full handshake";
        let rounds = self.throughput(title, Traffic::EwsOnce).await?;
        if let [nginx, _, exogate] = rounds.as_slice() {
            let ratio = middle(&exogate.per_cpu) / middle(&nginx.per_cpu);
            self.report.target(
                "new connections: at least 1.3 times nginx (per CPU time)",
                format!("{ratio:.2} times"),
                ratio >= 1.3,
            );
        }
        Ok(())
    }

    async fn latency(&mut self) -> Result<()> {
        let slowest = self.maxima.values().copied().min_by(f64::total_cmp);
        let rate = slowest.unwrap_or(2.0 * RATE) / 2.0;
        let mut contenders = Vec::new();
        for kind in &self.kinds {
            contenders.push(self.setting.start_prompt(*kind).await?);
        }
        let direct = Setting::direct();
        let targets: Vec<_> =
            std::iter::once(&direct).chain(contenders.iter().map(|it| &it.target)).collect();
        let mut p50 = vec![Vec::new(); targets.len()];
        let mut p99 = vec![Vec::new(); targets.len()];
        for _ in 0..ROUNDS {
            for (number, target) in targets.iter().enumerate() {
                let took = pace(target, Traffic::Ews, SENDERS, rate, WARM_UP, TIME).await?;
                let took = sorted_microseconds(took);
                p50[number].push(percentile(&took, 0.5));
                p99[number].push(percentile(&took, 0.99));
            }
        }
        self.report.table(
            &format!(
                "Pass-through at {rate:.0} requests/s, half of the slowest contender's maximum: µs"
            ),
            &["contender", "p50", "p99", "p99 over direct"],
        );
        let names = std::iter::once("direct").chain(self.kinds.iter().map(|kind| kind.name()));
        let mut added = Vec::new();
        for (number, name) in names.enumerate() {
            let over: Vec<f64> =
                p99[number].iter().zip(&p99[0]).map(|(through, direct)| through - direct).collect();
            added.push(middle(&over));
            let over = if number == 0 { String::new() } else { figure(&over, 0) };
            let row = [name.to_owned(), figure(&p50[number], 0), figure(&p99[number], 0), over];
            self.report.row(&row);
        }
        if let [_, nginx, _, exogate] = added.as_slice() {
            self.report.target(
                "added p99: at most nginx's",
                format!("{exogate:.0} µs, nginx {nginx:.0} µs"),
                exogate <= nginx,
            );
        }
        Ok(())
    }

    async fn durable(&mut self) -> Result<()> {
        if !self.kinds.contains(&Kind::Exogate) {
            return Ok(());
        }
        let [mut through, mut up, mut down] = [(); 3].map(|()| Rounds::default());
        let mut disk = Vec::new();
        let size = http::Request::graph(0)?.len();
        for _ in 0..ROUNDS {
            let contender = self.setting.start(Kind::Exogate).await?;
            through.add(&full_load(&contender, Traffic::Ews).await?);
            up.add(&full_load(&contender, Traffic::Graph).await?);
            drop(contender);
            let contender = self.setting.start_alone().await?;
            down.add(&full_load(&contender, Traffic::Graph).await?);
            drop(contender);
            disk.push(disk::limit(self.setting.directory(), SENDERS, size, TIME)?);
        }
        let system = host::file_system(self.setting.directory())?;
        self.report.table(
            &format!("Durable accepts of exogate, by {SENDERS} senders (spool on {system})"),
            &THROUGHPUT,
        );
        self.report.row(&through.row("pass-through"));
        self.report.row(&up.row("durable, while the upstream takes them"));
        self.report.row(&down.row("durable, upstream down"));
        let name = format!("the bare disk: {SENDERS} records of {size} bytes and a flush");
        self.report.row(&[name.as_str(), &figure(&disk, 0), "", "", ""]);
        let [ratio, alone] =
            [&up, &down].map(|rounds| middle(&rounds.rate) / middle(&through.rate));
        self.report.target(
            "durable accepts against pass-through: at least 0.6 (requests/s, upstream up)",
            format!("{ratio:.2}; {alone:.2} with the upstream down"),
            ratio >= 0.6,
        );
        self.durable_latency(middle(&up.rate) / 2.0).await
    }

    async fn durable_latency(&mut self, rate: f64) -> Result<()> {
        let (mut p50, mut p99, mut most, mut slow) = (Vec::new(), Vec::new(), 0.0, 0);
        for _ in 0..ROUNDS {
            let contender = self.setting.start_alone().await?;
            let target = &contender.target;
            let took = pace(target, Traffic::Graph, SENDERS, rate, WARM_UP, 2 * TIME).await?;
            let took = sorted_microseconds(took);
            p50.push(percentile(&took, 0.5) / 1e3);
            p99.push(percentile(&took, 0.99) / 1e3);
            most = (percentile(&took, 1.0) / 1e3).max(most);
            slow += took.iter().filter(|took| **took > 1e6).count();
        }
        self.report.table(
            &format!("Durable accepts of exogate at {rate:.0} requests/s, upstream down: ms"),
            &["p50", "p99", "the longest", "longer than 1 s"],
        );
        let row = [figure(&p50, 2), figure(&p99, 2), format!("{most:.1}"), slow.to_string()];
        self.report.row(&row);
        let p99 = middle(&p99);
        self.report.target(
            "p99 of a durable accept at half load, upstream down: under 100 ms; above 1 s: none",
            format!("{p99:.1} ms; {slow}"),
            p99 < 100.0 && slow == 0,
        );
        Ok(())
    }

    async fn memory(&mut self) -> Result<()> {
        let mut rest = vec![Vec::new(); self.kinds.len()];
        let mut anonymous = vec![Vec::new(); self.kinds.len()];
        let mut crowded = vec![Vec::new(); self.kinds.len()];
        for _ in 0..ROUNDS.div_ceil(2) {
            for (number, kind) in self.kinds.iter().enumerate() {
                let contender = self.setting.start(*kind).await?;
                sleep(SETTLE).await;
                let memory = host::memory(contender.process())?;
                rest[number].push(memory.all);
                anonymous[number].push(memory.anonymous);
                let crowd = crowd(&contender.target, CROWD).await?;
                sleep(SETTLE).await;
                crowded[number].push(host::memory(contender.process())?.all);
                drop(crowd);
            }
        }
        self.report.table(
            "Memory, by proportional set size: MiB",
            &[
                "contender",
                "at rest",
                "without programs and libraries",
                &format!("{CROWD} idle TLS connections"),
                "KiB each",
            ],
        );
        for (number, kind) in self.kinds.iter().enumerate() {
            let (rest, crowded) = (&rest[number], &crowded[number]);
            let each = (middle(crowded) - middle(rest)) * 1024.0 / CROWD as f64;
            let [rest, own, crowded] =
                [rest, &anonymous[number], crowded].map(|values| figure(values, 1));
            self.report.row(&[kind.name().to_owned(), rest, own, crowded, format!("{each:.1}")]);
        }
        if let ([nginx, _, exogate], [crowded_nginx, _, crowded_exogate]) =
            (rest.as_slice(), crowded.as_slice())
        {
            for (what, exogate, nginx) in [
                ("memory at rest: at most nginx's", exogate, nginx),
                ("memory with idle connections: at most nginx's", crowded_exogate, crowded_nginx),
            ] {
                let [exogate, nginx] = [exogate, nginx].map(|values| middle(values));
                let found = format!("{exogate:.1} MiB, nginx {nginx:.1} MiB");
                self.report.target(what, found, exogate <= nginx);
            }
        }
        Ok(())
    }
}

/// As much as a contender can do, and the processor time that it took.
async fn full_load(contender: &Contender, traffic: Traffic) -> Result<Interval<Duration>> {
    let cpu_time = || host::cpu_time(contender.process());
    saturate(&contender.target, traffic, SENDERS, WARM_UP, TIME, cpu_time).await
}

fn sorted_microseconds(took: Vec<Duration>) -> Vec<f64> {
    let mut took: Vec<f64> = took.into_iter().map(|took| took.as_secs_f64() * 1e6).collect();
    took.sort_by(f64::total_cmp);
    took
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
