//! Compiles the XDP program and tells the crate where its object is.
//!
//! The object is part of the agent's binary, so that the two cannot be of different versions.
//! `gate` includes it from `EXOGATE_XDP_OBJECT`. How compiler and linker are chosen is
//! described in `xtask/src/toolchain/mod.rs`, which this script shares with `xtask`.

#[path = "../xtask/src/toolchain/mod.rs"]
#[allow(dead_code, reason = "xtask, which shares these files, uses more of them")]
mod toolchain;

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};
use toolchain::{ENVIRONMENT, Endian, ObjectRequest, Places};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let endian = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => Endian::Big,
        _ => Endian::Little,
    };
    let workspace = manifest.parent().unwrap_or(&manifest);
    for name in ENVIRONMENT {
        println!("cargo:rerun-if-env-changed={name}");
    }
    for name in ["ebpf/src", "ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        rerun_if_changed(&workspace.join(name));
    }

    let toolchain = toolchain::resolve(&Places::of_this_machine())?;
    rerun_if_changed(&toolchain.compiler.path);
    rerun_if_changed(&toolchain.linker.path);

    let built = toolchain::build_object(
        &toolchain,
        &ObjectRequest {
            workspace,
            target_dir: &toolchain::bpf_target_dir(&out),
            arch: &arch,
            endian,
            example: None,
        },
    )?;
    // A copy, because the next build of another profile writes the same file again.
    let object = out.join("exogate-xdp");
    fs::copy(&built, &object).map_err(|source| toolchain::Error::File {
        action: "copy the XDP program to",
        path: object.clone(),
        source,
    })?;
    println!("cargo:rustc-env=EXOGATE_XDP_OBJECT={}", object.display());
    Ok(())
}

fn rerun_if_changed(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
}

fn variable(name: &'static str) -> Result<String, Failure> {
    env::var(name).map_err(|_| Failure::NotUnderCargo(name))
}

/// Why there is no object.
enum Failure {
    /// A variable that cargo sets for build scripts is not there.
    NotUnderCargo(&'static str),
    /// Compiler, linker or the build.
    Toolchain(toolchain::Error),
}

impl From<toolchain::Error> for Failure {
    fn from(error: toolchain::Error) -> Self {
        Self::Toolchain(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderCargo(name) => {
                write!(f, "{name} is not set to text; this program is run by cargo only")
            }
            Self::Toolchain(error) => error.fmt(f),
        }
    }
}
