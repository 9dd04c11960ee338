//! `cargo xtask package`: what an operator installs.
//!
//! The manual pages and completions are made of the command line as it is, the bill of
//! materials and the licences of cargo's account of the dependencies ([`components`]), the
//! packages by `cargo-deb` and `cargo-generate-rpm` of what `agent/Cargo.toml` says of them.
//! Nothing is signed here.

mod components;
mod next;

use crate::{
    command::{cargo, run, run_download, workspace},
    setup::{self, install_as, no_tools_directory},
    toolchain::Places,
};
use anyhow::Result;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The releases that are installed if they are missing.
const CARGO_DEB: (&str, &str) = ("cargo-deb", "3.8.0");
const CARGO_GENERATE_RPM: (&str, &str) = ("cargo-generate-rpm", "0.21.1");

/// Builds the packages; returns where they lie.
///
/// `development`: of a build for tests, which takes seconds instead of minutes; and beside
/// them those of the next version, which tests upgrade to.
pub(crate) fn build(development: bool) -> Result<PathBuf> {
    setup::run()?;
    let packagers = Packagers::ensure()?;
    let this = packagers.build(workspace(), development)?;
    if development {
        packagers.build(&next::make()?, development)?;
    }
    Ok(this)
}

/// What makes packages of a build.
struct Packagers {
    cargo_deb: PathBuf,
    generate_rpm: PathBuf,
}

impl Packagers {
    fn ensure() -> Result<Self> {
        Ok(Self {
            cargo_deb: tool(CARGO_DEB.0, CARGO_DEB.1)?,
            generate_rpm: tool(CARGO_GENERATE_RPM.0, CARGO_GENERATE_RPM.1)?,
        })
    }

    /// Builds the packages of the workspace at `root`, in its target directory.
    fn build(&self, root: &Path, development: bool) -> Result<PathBuf> {
        let (profile, built) = if development { ("dev", "debug") } else { ("release", "release") };
        let target = root.join("target");
        let mut command = cargo();
        command.current_dir(root).args(["build", "--package", "exogate", "--profile", profile]);
        // What workspaces have in common is compiled once.
        let shared = format!("build.build-dir={:?}", workspace().join("target"));
        run(command.args(["--config", &shared, "--target-dir"]).arg(&target))?;
        documents(root, &target.join(built).join("exogate"))?;
        let directory = target.join("package").join(profile);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        self.deb(root, profile, development, &directory)?;
        self.rpm(root, profile, development, &directory)?;
        Ok(directory)
    }

    fn deb(&self, root: &Path, profile: &str, fast: bool, directory: &Path) -> Result<()> {
        let mut command = Command::new(&self.cargo_deb);
        command
            .current_dir(root)
            .env("CARGO_TARGET_DIR", root.join("target"))
            .args(["--package", "exogate", "--no-build", "--locked", "--profile", profile])
            .arg("--output")
            .arg(directory);
        if fast {
            command.arg("--fast");
        }
        // As Debian's own tools have it.
        if let (Ok(name), Ok(address)) = (env::var("DEBFULLNAME"), env::var("DEBEMAIL")) {
            command.args(["--maintainer", &format!("{name} <{address}>")]);
        }
        run(&mut command)
    }

    fn rpm(&self, root: &Path, profile: &str, fast: bool, directory: &Path) -> Result<()> {
        let mut command = Command::new(&self.generate_rpm);
        command
            .current_dir(root)
            .env("CARGO_TARGET_DIR", root.join("target"))
            .env_remove("CARGO_BUILD_TARGET_DIR")
            .args(["--package", "agent", "--profile", profile, "--auto-req", "builtin"])
            .args(["--payload-compress", if fast { "gzip" } else { "zstd" }, "--output"])
            .arg(directory);
        run(&mut command)
    }
}

/// Writes manual pages, completions, bill of materials and licences to `target/documents`.
fn documents(root: &Path, program: &Path) -> Result<()> {
    let directory = root.join("target").join("documents");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    run(Command::new(program).arg("documents").arg(&directory))?;
    components::write(root, &directory)
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
                    // Packing takes seconds either way, and building them minutes less.
                    .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
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
