//! `cargo xtask package`: what an operator installs.
//!
//! The manual pages and completions are made of the command line as it is, the Debian
//! package by `cargo-deb` of `[package.metadata.deb]` in the agent's `Cargo.toml`. Nothing
//! is signed here.

use crate::{
    command::{cargo, run, run_download, workspace},
    setup::{self, install_as, no_tools_directory},
    toolchain::Places,
};
use anyhow::Result;
use std::{fs, path::PathBuf, process::Command};

/// The release of `cargo-deb` that is installed if it is missing.
const CARGO_DEB: &str = "3.8.0";

/// Builds the package; returns where it lies.
///
/// `development`: of a build for tests, which takes seconds instead of minutes.
pub(crate) fn build(development: bool) -> Result<PathBuf> {
    setup::run()?;
    let cargo_deb = cargo_deb()?;
    let profile = if development { "dev" } else { "release" };
    run(cargo().args(["build", "--package", "exogate", "--profile", profile]))?;
    documents(if development { "debug" } else { "release" })?;
    let directory = workspace().join("target").join("package").join(profile);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let mut command = Command::new(cargo_deb);
    command
        .current_dir(workspace())
        .args(["--package", "exogate", "--no-build", "--locked", "--profile", profile, "--output"])
        .arg(&directory);
    if development {
        command.arg("--fast");
    }
    run(&mut command)?;
    Ok(directory)
}

/// Writes manual pages and completions to `target/documents`.
fn documents(profile: &str) -> Result<()> {
    let directory = workspace().join("target").join("documents");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let program = workspace().join("target").join(profile).join("exogate");
    run(Command::new(program).arg("documents").arg(&directory))
}

fn cargo_deb() -> Result<PathBuf> {
    let tools = Places::of_this_machine().tools.ok_or_else(no_tools_directory)?;
    let home = tools.join(format!("cargo-deb-{CARGO_DEB}"));
    let program = home.join("bin").join("cargo-deb");
    if !program.is_file() {
        eprintln!("package: building cargo-deb {CARGO_DEB}, which takes a minute or two");
        install_as(&home, |partial| {
            run_download(
                cargo()
                    .args(["install", "cargo-deb", "--locked", "--version", CARGO_DEB])
                    .arg("--root")
                    .arg(partial)
                    .arg("--target-dir")
                    .arg(partial.join("target")),
            )?;
            Ok(fs::remove_dir_all(partial.join("target"))?)
        })?;
    }
    Ok(program)
}
