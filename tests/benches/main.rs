//! The benchmarks: what speed is claimed, beside its peers and its limit, in one run.
//!
//! One program, so that all of them say what they found in the same way, on the same facts
//! of the machine. `cargo xtask bench NAME` builds what they compare with and starts it;
//! needs root. Nothing here passes or fails, but a benchmark stops where something that it
//! measures does not do its work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark stops at the first thing that goes wrong"
)]

mod attach;
mod idle;
mod packets;
mod publish;
mod relay;
mod restart;
mod rig;
mod support;
mod tables;
mod verdict;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

use support::Arguments;

fn main() -> Result<ExitCode> {
    let (name, arguments) = Arguments::of_this_program(env::args());
    match name.as_str() {
        "attach" => attach::bench(&arguments)?,
        "idle" => idle::bench(&arguments)?,
        "packets" => packets::bench(&arguments)?,
        "publish" => publish::bench(&arguments)?,
        "relay" => return relay::bench(&arguments),
        "restart" => restart::bench(&arguments)?,
        "tables" => tables::bench(&arguments)?,
        "verdict" => verdict::bench(&arguments)?,
        _ => bail!("no benchmark has the name '{name}'"),
    }
    Ok(ExitCode::SUCCESS)
}
