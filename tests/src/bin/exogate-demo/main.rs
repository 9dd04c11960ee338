//! The demonstration behind `cargo xtask run`: exogate at work, in a small internet on
//! this machine.
//!
//! Everything is the real thing but the far ends: the agent, its XDP program on a
//! network interface, its relay and spool, HTTPS between hosts, lists that Microsoft
//! published. Each claim
//! is checked and printed as `ok` or `FAILED`. The lab stays up until Ctrl-C, with
//! traffic, so that a reader can look around; `--once` ends it when all has been
//! shown, with exit status 0 if every claim held and 1 otherwise.

mod relay;

use std::{
    env,
    net::IpAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use exogate_tests::{
    agent::{Agent, Metrics},
    lab::{EDGE_INTERFACE, EXCHANGE_SINCE_2020, Family, Lab, Peer, edge},
    peer::{EdgeServer, Reached},
    pega::Pega,
    service::{EndpointService, Publication},
};
use tokio::signal::unix::{SignalKind, signal};

/// The list that is published at first, and the one that follows it. Both are true
/// versions; the second one has the range that [`EXCHANGE_SINCE_2020`] is in.
const OLDER: &str = "2019102800";
const NEWER: &str = "2020080600";
/// How long anything may take to show.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a prefix stays in force that is no longer published: a day in life.
const GRACE: &str = "4s";

fn main() -> ExitCode {
    let once = match env::args().nth(1).as_deref() {
        None => false,
        Some("--once") => true,
        Some(other) => {
            eprintln!("error: {other:?} is not understood; there is only --once");
            return ExitCode::from(64);
        }
    };
    match run(once) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Shows everything; tells whether all of it was as expected.
fn run(once: bool) -> Result<bool> {
    let stop = stop_signal()?;
    let lab = Lab::new()?;
    let service = EndpointService::start(&lab)?;
    service.publish(Publication::worldwide(OLDER)?);
    let server = EdgeServer::start(&lab)?;
    let mut agent = Agent::new(&lab)?;
    agent.set("feed.interval", "1s")?;
    agent.set("feed.removal_grace", GRACE)?;
    agent.set("feed.removal_polls", 1)?;
    let mut show = Show { lab, service, agent, server: Some(server), pega: None, failures: 0 };

    show.introduce();
    show.start()?;
    show.senders()?;
    show.refresh()?;
    show.relay()?;
    show.places();
    if once {
        println!();
    } else {
        println!(
            "\nThe senders go on sending. Ctrl-C ends the demonstration and removes everything."
        );
        let mut number = 0u64;
        while !stop.load(Ordering::Relaxed) {
            number = number.wrapping_add(1);
            show.notify(number);
            thread::sleep(Duration::from_millis(500));
        }
        println!("\ncleaning up");
    }
    let Show { lab, service, mut agent, server, pega, failures } = show;
    // Ctrl-C in a terminal reaches the agent as well.
    if agent.is_running()? {
        agent.terminate()?;
    }
    drop((agent, service, server, pega));
    lab.close()?;
    match failures {
        0 => println!("Everything was as expected."),
        _ => println!("NOT as expected: {failures} of the above FAILED."),
    }
    Ok(failures == 0)
}

/// A flag that Ctrl-C and SIGTERM set.
fn stop_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = runtime.block_on(async {
        anyhow::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    })?;
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if flag.swap(true, Ordering::Relaxed) {
                    // Asked for twice; what is left is taken down by the lab's janitor.
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(stop)
}

/// What is shown, and how much of it was not as expected.
struct Show {
    lab: Lab,
    service: EndpointService,
    agent: Agent,
    server: Option<EdgeServer>,
    pega: Option<Pega>,
    failures: u32,
}

impl Show {
    fn introduce(&self) {
        println!("exogate on a small internet of network namespaces:\n");
        let row = |name: &str, v4: IpAddr, v6: IpAddr, what: &str| {
            println!("  {name:<9} {:<15} {:<26} {what}", v4.to_string(), v6.to_string());
        };
        let (v4, v6) = (edge(Family::V4), edge(Family::V6));
        row("edge", v4, v6, "your host: an HTTPS server, exogate on edge0");
        for (peer, what) in [
            (Peer::Exchange, "a mailbox server of Exchange Online"),
            (Peer::Graph, "a sender of Graph change notifications"),
            (Peer::Stranger, "anybody else"),
        ] {
            row(peer.name(), peer.address(Family::V4), peer.address(Family::V6), what);
        }
    }

    fn start(&mut self) -> Result<()> {
        heading("The agent starts, and asks the endpoint service for the list");
        self.agent.start()?;
        let metrics = self.wait_for_version(OLDER)?;
        let native = [("interface", EDGE_INTERFACE), ("mode", "native")];
        let native = metrics.sum("exogate_gate_attached", &native) == Some(1.0);
        self.claim(native, "the filter is in force on edge0, native mode, enforcing");
        // What was built in and is not in that version leaves first.
        let settled = |metrics: &Metrics| pending(metrics) == 0.0;
        let metrics = self.agent.wait_until("only that list", PATIENCE, settled)?;
        println!("          {}", list(&metrics));
        Ok(())
    }

    fn senders(&mut self) -> Result<()> {
        heading("Everybody sends HTTPS to port 443");
        for peer in Peer::ALL {
            for family in Family::ALL {
                self.send(peer, peer.address(family), peer != Peer::Stranger)?;
            }
            let address = peer.address(Family::V4).to_string();
            self.check(&address)?;
        }

        heading("What the kernel counted on edge0, by the agent's metrics");
        let metrics = self.agent.metrics()?;
        for (action, reason, family) in [
            ("pass", "allowed", "ipv4"),
            ("pass", "allowed", "ipv6"),
            ("drop", "unlisted", "ipv4"),
            ("drop", "unlisted", "ipv6"),
        ] {
            let packets = packets(&metrics, action, reason, family);
            let line = format!("{action:<5} {reason:<9} {family:<5} {packets:>4} packets");
            self.claim(packets > 0.0, &line);
        }
        let wrong = metrics.sum(PACKETS, &[("action", "would_drop")]).unwrap_or(0.0);
        self.claim(wrong == 0.0, "nothing else was refused");
        Ok(())
    }

    fn refresh(&mut self) -> Result<()> {
        heading("Microsoft publishes a newer list, and the agent takes it up by itself");
        let before = self.agent.metrics()?;
        println!("  before: {}", list(&before));
        println!("  A mailbox server in a range that this list does not have:");
        self.lab.add_source(Peer::Exchange, EXCHANGE_SINCE_2020)?;
        self.send(Peer::Exchange, EXCHANGE_SINCE_2020, false)?;
        self.service.publish(Publication::worldwide(NEWER)?);
        let after = self.wait_for_version(NEWER)?;
        println!("  after:  {}", list(&after));
        let added = self.logged("added").unwrap_or(0);
        self.claim(added > 0, &format!("{added} prefixes were added"));
        let leaving = pending(&after);
        let line =
            format!("{leaving} are no longer published and stay for {GRACE} (a day unless set)");
        self.claim(leaving > 0.0, &line);
        self.send(Peer::Exchange, EXCHANGE_SINCE_2020, true)?;
        let after = self.agent.wait_until("what is not published goes", PATIENCE, |metrics| {
            pending(metrics) == 0.0
        })?;
        println!("  later:  {}", list(&after));
        self.check(&EXCHANGE_SINCE_2020.to_string())
    }

    fn places(&self) {
        let namespace = self.lab.edge().path();
        let enter = format!("nsenter --net={}", namespace.display());
        heading("Look around");
        println!("  metrics   {enter} curl -s http://127.0.0.1:9469/metrics");
        println!("  health    {enter} curl -s http://127.0.0.1:9469/readyz");
        let config = self.agent.config_file();
        if let Ok(binary) = exogate_tests::process::agent_binary() {
            let command = format!("{} --config {}", binary.display(), config.display());
            println!("  status    {command} status");
            println!("  a verdict {command} check 40.96.1.2");
            println!("  the spool {command} spool status");
        }
    }

    /// Sends a request, and claims that it gets through or does not.
    fn send(&mut self, peer: Peer, source: IpAddr, passes: bool) -> Result<()> {
        let (right, line) = match self.lab.https_from(peer, source, "/")? {
            Reached::Answered(answer) => {
                let seen = answer.text();
                let line = format!("gets through: {}, from {seen}", answer.status);
                (passes && answer.status == 200 && seen == source.to_string(), line)
            }
            Reached::Refused => (false, "is refused by the server".to_owned()),
            Reached::TimedOut => (!passes, "gets no answer: dropped in the driver".to_owned()),
        };
        let line = format!("{:<9} {:<24} {line}", peer.name(), source.to_string());
        self.claim(right, &line);
        Ok(())
    }

    /// Shows what the agent says of an address.
    fn check(&mut self, address: &str) -> Result<()> {
        let output = self.agent.cli(&["check", address])?;
        ensure!(output.code == 0, "check ended with {}: {}", output.code, output.stderr);
        println!("          $ exogate check {address}");
        output.stdout.lines().skip(1).for_each(|line| println!("          {line}"));
        Ok(())
    }

    /// A number of the last line that the agent logged about a new list.
    fn logged(&self, name: &str) -> Option<u64> {
        let log = self.agent.log();
        let line = log.lines().rfind(|line| line.contains("the allow-list is up to date"))?;
        let mut words = line.split_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(key, _)| *key == name)?.1.parse().ok()
    }

    fn wait_for_version(&self, version: &str) -> Result<Metrics> {
        let number: f64 = version.parse().context("a version is a number")?;
        self.agent.wait_until("the version is in force", PATIENCE, |metrics| {
            metrics.sum("exogate_feed_version", &[]) == Some(number)
        })
    }

    fn claim(&mut self, holds: bool, line: &str) {
        let word = if holds { "ok" } else { "FAILED" };
        println!("  {word:<7} {line}");
        self.failures = self.failures.saturating_add(u32::from(!holds));
    }
}

const PACKETS: &str = "exogate_gate_packets_total";

fn packets(metrics: &Metrics, action: &str, reason: &str, family: &str) -> f64 {
    let labels = [("action", action), ("reason", reason), ("family", family)];
    metrics.sum(PACKETS, &labels).unwrap_or(0.0)
}

fn pending(metrics: &Metrics) -> f64 {
    metrics.sum("exogate_allowlist_pending_removals", &[]).unwrap_or(0.0)
}

/// The list in force, in one line.
fn list(metrics: &Metrics) -> String {
    let count =
        |source| metrics.sum("exogate_allowlist_prefixes", &[("source", source)]).unwrap_or(0.0);
    format!(
        "version {}: {} prefixes of exchange-online, {} of graph-notifications",
        metrics.sum("exogate_feed_version", &[]).unwrap_or(0.0),
        count("exchange-online"),
        count("graph-notifications"),
    )
}

fn heading(text: &str) {
    println!("\n{text}");
}
