//! `exogate detach`: the way back.

use std::process::ExitCode;

use super::{Failure, File};
use crate::gate;

pub(super) fn run(file: &File) -> Result<ExitCode, Failure> {
    let directory = file.load()?.gate.pin_directory;
    let detached = gate::detach_all(&directory).map_err(Failure::new)?;
    match detached.len() {
        0 => say!("no filter is pinned below {}", directory.display()),
        1 => say!("filter removed from 1 interface"),
        count => say!("filter removed from {count} interfaces"),
    }
    Ok(ExitCode::SUCCESS)
}
