//! Every action of a developer and of continuous integration, as `cargo xtask ACTION`.
//!
//! One program in place of scripts: it is checked by the compiler like everything else, and
//! it shares with the agent's build script the knowledge of what compiles the XDP program
//! ([`toolchain`]). Each action has a file of its own.

mod bench;
mod command;
mod debian;
mod doctor;
mod failures;
mod fuzz;
mod package;
mod packages;
mod python;
mod run;
mod setup;
mod test;
#[allow(dead_code, reason = "agent/build.rs, which shares these files, uses more of them")]
mod toolchain;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::{env, ffi::OsString, path::PathBuf, process::ExitCode};

/// Actions of exogate's developers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install what builds and tests need and this machine lacks; needs no root
    Setup {
        /// The kernels of all of Debian's suites too, for `test --kernels`
        #[arg(long)]
        kernels: bool,
    },
    /// Show what would compile the XDP program, and what is missing
    Doctor,
    /// Set up, then build the agent with the XDP program inside
    Build {
        /// Optimised, as it is packaged
        #[arg(long)]
        release: bool,
    },
    /// Build the packages: .deb and .rpm
    Package {
        /// Of an unoptimised build, as tests install it
        #[arg(long)]
        development: bool,
    },
    /// Build the XDP program alone and print the path of its object
    Object {
        /// An example of package exogate-ebpf instead
        #[arg(long, value_name = "NAME")]
        example: Option<String>,
    },
    /// Set up, build, and show exogate at work on a small internet; needs root
    ///
    /// With arguments behind `--`, the agent runs on this machine instead:
    /// `cargo xtask run -- --interface eth0` is `exogate run --interface eth0`.
    Run {
        /// End when all has been shown: status 0 if it was as expected, else 1
        #[arg(long)]
        once: bool,
        /// Arguments of `exogate run`
        #[arg(last = true, value_name = "ARGUMENTS")]
        agent: Vec<OsString>,
    },
    /// Measure speed beside peers, in one run; needs root
    Bench {
        /// What to measure
        benchmark: bench::Benchmark,
        /// A single short round, to see that it works
        #[arg(long)]
        quick: bool,
        /// Arguments of the benchmark
        #[arg(last = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Give the parsers of outside data bytes that nobody would write
    Fuzz {
        /// One of the files in tests/fuzz/src/bin; all if not given
        target: Option<String>,
        /// For how long, each
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
    },
    /// Set up, then check formatting and lints and run all tests
    Test {
        /// Run the long trials in full: crashes, power cuts, kernels, soaks
        #[arg(long)]
        soak: bool,
        /// Leave out the end-to-end tests, which need root
        #[arg(long, conflicts_with = "soak")]
        quick: bool,
        /// Test the program on the kernels of all of Debian's suites, not only on the two oldest
        #[arg(long, conflicts_with = "quick")]
        kernels: bool,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().action) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(action: Action) -> Result<ExitCode> {
    match action {
        Action::Setup { kernels } => setup::for_tests(kernels)?,
        Action::Doctor => doctor::run()?,
        Action::Build { release } => build(release)?,
        Action::Package { development } => {
            println!("{}", package::build(development)?.display());
        }
        Action::Object { example } => println!("{}", object(example.as_deref())?.display()),
        Action::Run { once, agent } => run::run(once, agent)?,
        Action::Bench { benchmark, quick, arguments } => bench::run(benchmark, quick, arguments)?,
        Action::Fuzz { target, seconds } => fuzz::run_targets(target.as_deref(), seconds)?,
        Action::Test { soak, quick, kernels } => {
            return test::run_all(test::Scope { quick, soak, kernels });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn build(release: bool) -> Result<()> {
    setup::run()?;
    let mut cargo = command::cargo();
    cargo.args(["build", "--package", "exogate"]);
    if release {
        cargo.arg("--release");
    }
    command::run(&mut cargo)
}

/// Builds the XDP program, or an example of its package, for this machine.
fn object(example: Option<&str>) -> Result<PathBuf> {
    let chosen = toolchain::resolve(&toolchain::Places::of_this_machine())?;
    let endian = if cfg!(target_endian = "big") {
        toolchain::Endian::Big
    } else {
        toolchain::Endian::Little
    };
    let request = toolchain::ObjectRequest {
        workspace: command::workspace(),
        target_dir: &toolchain::bpf_target_dir(&env::current_exe()?),
        arch: env::consts::ARCH,
        endian,
        example,
    };
    Ok(toolchain::build_object(&chosen, &request)?)
}
