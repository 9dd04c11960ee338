//! `cargo xtask bench`: what speed is claimed, and its peers, in one run.
//!
//! The benchmarks are a program of package `exogate-tests`; this file builds what they
//! compare with and starts it. They need root. Nothing here passes or fails: the
//! figures go into BENCHMARKS.md by hand, with the machine they were taken on.

use std::{ffi::OsString, process::Command};

use anyhow::Result;
use clap::ValueEnum;

use crate::{build, command, object, setup};

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benchmark {
    /// Nanoseconds per packet in the kernel, beside an empty program and LPM tries
    Verdict,
    /// Packets of a flooded interface, beside no filter, xdp-filter, nftables and ipset.
    /// Behind `--`: `--lists NAME[,NAME]` for some of the lists, `--separate` for sender and
    /// receiver on two cores
    Packets,
    /// Seconds to replace a list of 34 to 1,000,000 prefixes, beside LPM tries,
    /// ipset and nftables
    Tables,
    /// Wrong verdicts and added latency while the list is replaced under full load
    Publish,
    /// How long an interface that appears is without the filter
    Attach,
    /// Memory and CPU of the agent at rest and under a flood
    Idle,
    /// How long notifications are not taken while the agent is restarted
    Restart,
    /// Requests, connections, latency and memory of the relay, beside nginx and haproxy
    Relay,
}

impl Benchmark {
    const fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Packets => "packets",
            Self::Tables => "tables",
            Self::Publish => "publish",
            Self::Attach => "attach",
            Self::Idle => "idle",
            Self::Relay => "relay",
            Self::Restart => "restart",
        }
    }

    /// Whether it starts the agent.
    const fn needs_agent(self) -> bool {
        matches!(self, Self::Attach | Self::Idle | Self::Relay | Self::Restart)
    }
}

/// Runs a benchmark. In its short form it is not optimised, which matters little where the
/// kernel does the work, and spares a build.
pub(crate) fn run(benchmark: Benchmark, quick: bool, arguments: Vec<OsString>) -> Result<()> {
    setup::for_tests(false)?;
    if benchmark.needs_agent() {
        build(!quick)?;
    }
    let mut cargo = command::cargo();
    cargo
        .args(["bench", "--quiet", "--package", "exogate-tests", "--bench", "bench"])
        .env("EXOGATE_COMMIT", commit())
        .env("EXOGATE_TWINS_OBJECT", object(Some("twins"))?)
        .env("EXOGATE_FLOOD_OBJECT", object(Some("flood"))?);
    if quick {
        cargo.args(["--profile", "dev", "--", benchmark.name(), "--quick"]);
    } else {
        cargo.args(["--", benchmark.name()]);
    }
    command::run(cargo.args(arguments))
}

/// What is measured, for the report.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(command::workspace());
    command::capture(&mut git).map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
