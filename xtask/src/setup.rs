//! `cargo xtask setup`: installs what builds and tests need and the machine lacks.
//!
//! It works without root and leaves the system alone: everything goes into the tools
//! directory (`EXOGATE_TOOLS`, by default `exogate/tools` in the user's cache directory), one
//! sub-directory per tool and version, which can be deleted at any time. Each is made under a
//! temporary name and renamed when it is complete, so that an interrupted run leaves nothing
//! that looks finished. Where nothing is missing, it only looks.
//!
//! The compiler comes from one of two sources, tried in the order that suits the machine. On
//! Debian these are the packages `rustc-web` and `rust-web-src`, unpacked but not installed;
//! elsewhere it is the pinned nightly by rustup.

use crate::{
    command::{cargo, find_program, run_download},
    debian, packages, python,
    toolchain::{Compiler, Error, Linker, PINNED_LINKER, PINNED_NIGHTLY, Places, resolve},
};
use anyhow::{Context, Result, anyhow};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// Debian's package of the kernel that tests start.
const GUEST_KERNEL: &str = "linux-image-amd64";
/// The suite whose kernel is the oldest that is supported.
const OLDEST_SUITE: &str = "bullseye";
/// Suites with newer kernels than this machine's own may have.
const NEWER_SUITES: [&str; 2] = ["trixie", "sid"];

/// Installs what is missing, for tests too; with `all_kernels`, those of all suites.
pub(crate) fn for_tests(all_kernels: bool) -> Result<()> {
    run()?;
    packages::ensure(packages::TEST_PROGRAMS)?;
    ensure_kernels(all_kernels);
    python::ensure()
}

/// The kernels of all suites, as tests know them.
pub(crate) fn kernels() -> Vec<String> {
    let of_suite = |suite: &str| format!("{GUEST_KERNEL}-{suite}");
    let mut kernels = vec![of_suite(OLDEST_SUITE), GUEST_KERNEL.to_owned()];
    kernels.extend(NEWER_SUITES.map(of_suite));
    kernels
}

/// Installs what is missing to build and run the agent.
pub(crate) fn run() -> Result<()> {
    let toolchain = match resolve(&Places::of_this_machine()) {
        Ok(toolchain) => toolchain,
        Err(_) => {
            ensure_linker()?;
            ensure_compiler()?;
            resolve(&Places::of_this_machine())?
        }
    };
    packages::ensure(packages::PROGRAMS)?;
    eprintln!(
        "setup: rustc {} (LLVM {}) from {}, bpf-linker {}",
        toolchain.compiler.version.release,
        toolchain.compiler.version.llvm,
        toolchain.compiler.sysroot.display(),
        toolchain.linker.version,
    );
    Ok(())
}

fn ensure_linker() -> Result<()> {
    let places = Places::of_this_machine();
    let reason = match Linker::find(&places) {
        Ok(_) => return Ok(()),
        Err(error @ Error::NoLinker { .. }) if places.linker_override.is_none() => error,
        Err(error @ Error::LinkerTooOld { .. }) if places.linker_override.is_none() => error,
        Err(error) => return Err(error.into()),
    };
    let summary = reason.to_string();
    eprintln!("setup: {}", summary.lines().next().unwrap_or_default());
    let home = places.linker_home().ok_or_else(no_tools_directory)?;
    eprintln!("setup: building bpf-linker {PINNED_LINKER}, which takes a minute or two");
    install_as(&home, |partial| {
        run_download(
            cargo()
                .args(["install", "bpf-linker", "--locked", "--version"])
                .arg(PINNED_LINKER.to_string())
                .arg("--root")
                .arg(partial)
                .arg("--target-dir")
                .arg(partial.join("target")),
        )?;
        fs::remove_dir_all(partial.join("target")).context("cannot remove the build directory")
    })
}

fn ensure_compiler() -> Result<()> {
    let places = Places::of_this_machine();
    let llvm = Linker::find(&places)?.llvm.major();
    let Err(reason) = Compiler::find(&places, llvm) else { return Ok(()) };
    if places.compiler_override.is_some() {
        return Err(reason.into());
    }
    eprintln!("setup: no compiler here holds the library source that the XDP program needs");

    let tools = places.tools.ok_or_else(no_tools_directory)?;
    let by_rustup: &dyn Fn() -> Result<()> = &install_nightly;
    let by_debian: &dyn Fn() -> Result<()> = &|| debian::unpack_compiler(&tools);
    let sources = if debian::is_debian() {
        [("Debian's packages", by_debian), ("rustup", by_rustup)]
    } else {
        [("rustup", by_rustup), ("Debian's packages", by_debian)]
    };
    let mut failures = String::new();
    for (name, install) in sources {
        eprintln!("setup: trying {name}");
        let outcome = install().and_then(|()| {
            let places = Places::of_this_machine();
            Compiler::find(&places, llvm).map(|_| ()).map_err(anyhow::Error::from)
        });
        match outcome {
            Ok(()) => return Ok(()),
            Err(error) => {
                eprintln!("setup: {name}: {error:#}");
                failures.push_str(&format!("\n  {name}: {error:#}"));
            }
        }
    }
    Err(anyhow!("no compiler for the XDP program could be installed:{failures}\n{reason}"))
}

/// Unpacks the kernels that tests start. Without them these tests fail and say so; nothing
/// else needs them.
fn ensure_kernels(all: bool) {
    let Some(tools) = Places::of_this_machine().tools else { return };
    let newer = if all { NEWER_SUITES.as_slice() } else { &[] };
    let of_suites = [OLDEST_SUITE].iter().chain(newer).map(|suite| Some(*suite));
    for suite in [None].into_iter().chain(of_suites) {
        let name = suite.map_or(GUEST_KERNEL.to_owned(), |suite| format!("{GUEST_KERNEL}-{suite}"));
        let home = tools.join(format!("guest-{name}"));
        if home.is_dir() {
            continue;
        }
        eprintln!("setup: no {name} is unpacked, which tests start under qemu");
        let unpacked = match suite {
            None => debian::unpack_kernel(GUEST_KERNEL, &tools, &home),
            Some(suite) => debian::unpack_kernel_of(suite, GUEST_KERNEL, &home),
        };
        if let Err(error) = unpacked {
            eprintln!("setup: {name}: {error:#}");
        }
    }
}

fn install_nightly() -> Result<()> {
    let rustup = find_program("rustup").ok_or_else(|| anyhow!("rustup is not installed"))?;
    run_download(Command::new(rustup).args([
        "toolchain",
        "install",
        PINNED_NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--no-self-update",
    ]))
}

/// Lets `fill` make a directory under a temporary name beside `home`, and renames it when it
/// is complete. Two runs at once do the work twice, and the first to finish wins.
pub(crate) fn install_as(home: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = home.as_os_str().to_owned();
    name.push(format!(".partial-{}", process::id()));
    let partial = PathBuf::from(name);
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let outcome = fill(&partial).and_then(|()| {
        if home.exists() {
            return Ok(());
        }
        fs::rename(&partial, home)
            .with_context(|| format!("cannot rename {} to {}", partial.display(), home.display()))
    });
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    outcome
}

pub(crate) fn no_tools_directory() -> anyhow::Error {
    anyhow!("no place to install tools: set EXOGATE_TOOLS to a directory, or HOME")
}
