//! Python's packages that the tests speak to, in an environment of their own.
//!
//! It lies in the tools directory under the digest of `tests/peers/requirements.txt`, so that a
//! changed list makes another one.

use crate::{
    command::{capture, find_program, run_download, workspace},
    packages,
    setup::{install_as, no_tools_directory},
    toolchain::Places,
};
use anyhow::{Context, Result, anyhow};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    process::Command,
};

/// Where the tests look for the environment's `python3`.
pub(crate) const VARIABLE: &str = "EXOGATE_PYTHON";

/// Makes the environment if it is not there.
pub(crate) fn ensure() -> Result<()> {
    let interpreter = interpreter()?;
    if interpreter.exists() {
        return Ok(());
    }
    let home = home()?;
    let python = find_program("python3").ok_or_else(|| anyhow!("python3 is not installed"))?;
    // Debian leaves it out of its python3.
    if capture(Command::new(&python).args(["-c", "import ensurepip"])).is_err() {
        packages::install("python3-venv")?;
    }
    install_as(&home, |partial| {
        run_download(Command::new(&python).args(["-m", "venv"]).arg(partial))?;
        run_download(
            Command::new(partial.join("bin/python3"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .arg("--requirement")
                .arg(requirements()),
        )
    })
}

/// Its interpreter, whether it is there or not.
pub(crate) fn interpreter() -> Result<PathBuf> {
    Ok(home()?.join("bin/python3"))
}

fn home() -> Result<PathBuf> {
    let requirements = requirements();
    let text = fs::read(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tools = Places::of_this_machine().tools.ok_or_else(no_tools_directory)?;
    Ok(tools.join(format!("python-{:016x}", hasher.finish())))
}

fn requirements() -> PathBuf {
    workspace().join("tests/peers/requirements.txt")
}
