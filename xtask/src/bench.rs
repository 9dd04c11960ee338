//! `cargo xtask bench`: what speed is claimed, and its peers, in one run.
//!
//! A benchmark is a program of package `exogate-tests`; this file builds what it
//! compares with and starts it. They need root. Nothing here passes or fails: the
//! figures go into BENCHMARKS.md by hand, with the machine they were taken on.

use anyhow::Result;
use clap::ValueEnum;

use crate::{build, command, object, setup};

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benchmark {
    /// Nanoseconds per packet in the kernel, beside an empty program and LPM tries
    Verdict,
    /// Seconds to replace a list of 34 to 1,000,000 prefixes, beside LPM tries,
    /// ipset and nftables
    Tables,
    /// Requests, connections, latency and memory of the relay, beside nginx and haproxy
    Relay,
}

impl Benchmark {
    const fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Tables => "tables",
            Self::Relay => "relay",
        }
    }
}

/// Runs a benchmark.
pub(crate) fn run(benchmark: Benchmark) -> Result<()> {
    setup::for_tests()?;
    if benchmark == Benchmark::Relay {
        build(true)?;
    }
    let twins = object(Some("twins"))?;
    let mut cargo = command::cargo();
    cargo
        .args(["bench", "--quiet", "--package", "exogate-tests", "--bench", benchmark.name()])
        .env("EXOGATE_TWINS_OBJECT", twins);
    command::run(&mut cargo)
}
