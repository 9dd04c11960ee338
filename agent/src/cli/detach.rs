//! `exogate detach`: the way back.

use std::process::ExitCode;

use super::{Failure, File, print_json};
use crate::gate;

pub(super) fn run(file: &File, json: bool) -> Result<ExitCode, Failure> {
    let directory = file.load()?.gate.pin_directory;
    let detached = gate::detach_all(&directory).map_err(Failure::new)?;
    if json {
        // Numbers of interfaces: one may have gone, and its name with it.
        return print_json(&serde_json::json!({ "detached": detached }));
    }
    match detached.len() {
        0 => say!("no filter is pinned below {}", directory.display()),
        1 => say!("filter removed from 1 interface"),
        count => say!("filter removed from {count} interfaces"),
    }
    Ok(ExitCode::SUCCESS)
}
