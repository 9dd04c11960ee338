//! `cargo xtask package`: what an operator installs.
//!
//! The manual pages and completions are made of the command line as it is, the bill of
//! materials and the licences of cargo's account of the dependencies ([`components`]), the
//! packages by `cargo-deb` and `cargo-generate-rpm` of what `agent/Cargo.toml` says of them.
//! Nothing is signed here.

mod components;

use crate::{
    command::{cargo, run, run_download, workspace},
    setup::{self, install_as, no_tools_directory},
    toolchain::Places,
};
use anyhow::Result;
use std::{env, fs, path::PathBuf, process::Command};

/// The releases that are installed if they are missing.
const CARGO_DEB: (&str, &str) = ("cargo-deb", "3.8.0");
const CARGO_GENERATE_RPM: (&str, &str) = ("cargo-generate-rpm", "0.21.1");

/// Builds the packages; returns where they lie.
///
/// `development`: of a build for tests, which takes seconds instead of minutes.
pub(crate) fn build(development: bool) -> Result<PathBuf> {
    setup::run()?;
    let (cargo_deb, generate_rpm) =
        (tool(CARGO_DEB.0, CARGO_DEB.1)?, tool(CARGO_GENERATE_RPM.0, CARGO_GENERATE_RPM.1)?);
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
    // As Debian's own tools have it.
    if let (Ok(name), Ok(address)) = (env::var("DEBFULLNAME"), env::var("DEBEMAIL")) {
        command.args(["--maintainer", &format!("{name} <{address}>")]);
    }
    run(&mut command)?;
    let mut command = Command::new(generate_rpm);
    command
        .current_dir(workspace())
        .args(["--package", "agent", "--profile", profile, "--auto-req", "builtin"])
        .args(["--payload-compress", if development { "gzip" } else { "zstd" }, "--output"])
        .arg(&directory);
    run(&mut command)?;
    Ok(directory)
}

/// Writes manual pages, completions, bill of materials and licences to `target/documents`.
fn documents(profile: &str) -> Result<()> {
    let directory = workspace().join("target").join("documents");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let program = workspace().join("target").join(profile).join("exogate");
    run(Command::new(program).arg("documents").arg(&directory))?;
    components::write(&directory)
}

/// A packager of the Rust registry; built once, in the tools' directory.
fn tool(name: &str, version: &str) -> Result<PathBuf> {
    let tools = Places::of_this_machine().tools.ok_or_else(no_tools_directory)?;
    let home = tools.join(format!("{name}-{version}"));
    let program = home.join("bin").join(name);
    if !program.is_file() {
        eprintln!("package: building {name} {version}, which takes a minute or two");
        install_as(&home, |partial| {
            run_download(
                cargo()
                    .args(["install", name, "--locked", "--version", version])
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
