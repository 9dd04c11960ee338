//! `cargo xtask bench`: what speed is claimed, and its peers, in one run.
//!
//! A benchmark is a program of package `exogate-tests`; this file builds what it
//! compares with and starts it. They need root. Nothing here passes or fails: the
//! figures go into BENCHMARKS.md by hand, with the machine they were taken on.

use anyhow::Result;
use clap::ValueEnum;

use crate::{command, object, setup};

/// A benchmark.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Benchmark {
    /// Nanoseconds per packet in the kernel, beside an empty program and LPM tries
    Verdict,
    /// Seconds to replace a list of 34 to 1,000,000 prefixes, beside LPM tries,
    /// ipset and nftables
    Tables,
}

impl Benchmark {
    const fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Tables => "tables",
        }
    }
}

/// Runs a benchmark.
pub(crate) fn run(benchmark: Benchmark) -> Result<()> {
    setup::for_tests()?;
    let twins = object(Some("twins"))?;
    let mut cargo = command::cargo();
    cargo
        .args(["bench", "--quiet", "--package", "exogate-tests", "--bench", benchmark.name()])
        .env("EXOGATE_TWINS_OBJECT", twins);
    command::run(&mut cargo)
}
