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
}

/// Runs a benchmark.
pub(crate) fn run(benchmark: Benchmark) -> Result<()> {
    setup::run()?;
    let Benchmark::Verdict = benchmark;
    let twins = object(Some("twins"))?;
    let mut cargo = command::cargo();
    cargo
        .args(["bench", "--quiet", "--package", "exogate-tests", "--bench", "verdict"])
        .env("EXOGATE_TWINS_OBJECT", twins);
    command::run(&mut cargo)
}
