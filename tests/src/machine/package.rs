//! The packages that `cargo xtask package --development` leaves: of the build under test, and
//! of a newer version, which is another build with other maps.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::process::agent_binary;

/// Where the packages lie, below cargo's target directory.
const THIS: &str = "package/dev";
const NEWER: &str = "next/target/package/dev";

/// The Debian package of the build under test.
///
/// # Errors
///
/// If it was not built, or an older agent was packed.
pub fn package() -> Result<PathBuf> {
    built_package(THIS, "deb")
}

/// The same for distributions that have rpm.
///
/// # Errors
///
/// As for [`package`].
pub fn rpm_package() -> Result<PathBuf> {
    built_package(THIS, "rpm")
}

/// The Debian package of a newer version.
///
/// # Errors
///
/// As for [`package`].
pub fn newer_package() -> Result<PathBuf> {
    built_package(NEWER, "deb")
}

/// The same for distributions that have rpm.
///
/// # Errors
///
/// As for [`package`].
pub fn newer_rpm_package() -> Result<PathBuf> {
    built_package(NEWER, "rpm")
}

fn built_package(place: &str, kind: &str) -> Result<PathBuf> {
    let advice = "build it with `cargo xtask package --development`";
    let agent = agent_binary()?;
    // Where they are made, wherever the agent was built.
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(place);
    let found = fs::read_dir(&directory).into_iter().flatten().flatten().find_map(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|extension| extension == kind).then_some(path)
    });
    let package =
        found.with_context(|| format!("no .{kind} in {}: {advice}", directory.display()))?;
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
    ensure!(
        modified(&package)? >= modified(&agent)?,
        "{} is older than the agent: {advice}",
        package.display()
    );
    Ok(package)
}
