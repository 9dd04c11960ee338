//! The packages of the build under test, as `cargo xtask package --development` leaves them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    lab::Lab,
    process::{agent_binary, check},
};

/// The Debian package of the build under test.
///
/// # Errors
///
/// If it was not built, or an older agent was packed.
pub fn package() -> Result<PathBuf> {
    built_package("deb")
}

/// The same for distributions that have rpm.
///
/// # Errors
///
/// As for [`package`].
pub fn rpm_package() -> Result<PathBuf> {
    built_package("rpm")
}

fn built_package(kind: &str) -> Result<PathBuf> {
    let advice = "build it with `cargo xtask package --development`";
    let agent = agent_binary()?;
    let target = agent.parent().and_then(Path::parent).context("the agent has no target")?;
    let directory = target.join("package").join("dev");
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

/// [`package`] under a higher version.
///
/// # Errors
///
/// As for [`package`], or if it cannot be packed again.
pub fn newer_package(lab: &Lab) -> Result<PathBuf> {
    let (directory, newer) = (lab.directory().join("newer"), lab.directory().join("newer.deb"));
    check(Command::new("dpkg-deb").arg("--raw-extract").args([package()?, directory.clone()]), "")?;
    let control = directory.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let raised = |line: &str| match line.strip_prefix("Version: ") {
        Some(version) => format!("Version: {version}+newer\n"),
        None => format!("{line}\n"),
    };
    fs::write(&control, text.lines().map(raised).collect::<String>())?;
    let pack = ["-Zgzip", "-z1", "--root-owner-group", "--build"];
    check(Command::new("dpkg-deb").args(pack).args([&directory, &newer]), "")?;
    Ok(newer)
}
