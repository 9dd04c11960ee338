//! Cleaning up, however a test ends.
//!
//! A lab leaves traces that outlive a process: namespaces, a mount, a directory,
//! agents. Destructors do not run when a test binary is killed, interrupted or
//! aborted, so the work is done by a child that waits for the end of its owner:
//! `janitor.sh` blocks on a pipe that the kernel closes in every one of these
//! cases. Dropping a lab closes the pipe as well and waits for the result, so that
//! there is one way to clean up and each test exercises it. The child has a process
//! group of its own, which Ctrl-C does not reach.
//!
//! Should owner and janitor be killed together, the next lab sweeps: names carry
//! the owner's process id, and what belongs to a dead one is taken down.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::process::wait;

/// Where labs keep their files; only root may look inside.
const ROOT: &str = "/run/exogate-lab";
/// Where iproute2 keeps named namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// What the name of every lab starts with.
const PREFIX: &str = "exo-";
/// How long taking a lab down may last.
const PATIENCE: Duration = Duration::from_secs(20);

const SCRIPT: &str = include_str!("janitor.sh");

/// The child that takes a lab down when this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Option<Child>,
    directory: PathBuf,
}

impl Janitor {
    /// Starts the child, and makes the directory of the lab called `lab`.
    pub(crate) fn start(lab: &str) -> Result<Self> {
        fs::create_dir_all(ROOT).with_context(|| format!("{ROOT} cannot be made"))?;
        let directory = Path::new(ROOT).join(lab);
        fs::create_dir(&directory)
            .with_context(|| format!("{} cannot be made", directory.display()))?;
        let child = command(lab, &directory, std::process::id())
            .stdin(Stdio::piped())
            // Who reads what tests print shall not wait for it.
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("the shell that cleans up after the lab cannot be started")?;
        Ok(Self { child: Some(child), directory })
    }

    /// The lab's directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes the lab down now.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        drop(child.stdin.take());
        let status = wait(&mut child, PATIENCE).context("the lab was not taken down")?;
        ensure!(status.success(), "the lab was not taken down completely ({status})");
        Ok(())
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            eprintln!("error: {error:#}: look at {ROOT} and {NAMESPACES}");
        }
    }
}

/// A name that no other lab has, of this process or another.
pub(crate) fn unique_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Takes down the labs of processes that are no more.
pub(crate) fn sweep() -> Result<()> {
    let mut labs = BTreeSet::new();
    for place in [ROOT, NAMESPACES] {
        // Neither need exist yet.
        let Ok(entries) = fs::read_dir(place) else { continue };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        labs.extend(names.filter_map(|name| lab_of(&name)));
    }
    for (lab, owner) in labs {
        if !Path::new(&format!("/proc/{owner}")).exists() {
            take_down_leftover(&lab, owner)?;
        }
    }
    Ok(())
}

fn take_down_leftover(lab: &str, owner: u32) -> Result<()> {
    let mut child = command(lab, &Path::new(ROOT).join(lab), owner).stdin(Stdio::null()).spawn()?;
    let status = wait(&mut child, PATIENCE)?;
    // Its own janitor may be at work at the same time, which makes either fail.
    if !status.success() && Path::new(ROOT).join(lab).exists() {
        bail!("{lab}, left over by process {owner}, cannot be taken down");
    }
    Ok(())
}

/// The lab that a namespace or directory belongs to, and the lab's owner.
fn lab_of(name: &str) -> Option<(String, u32)> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let owner: u32 = parts.next()?.parse().ok()?;
    let number: u32 = parts.next()?.parse().ok()?;
    Some((format!("{PREFIX}{owner}-{number}"), owner))
}

fn command(lab: &str, directory: &Path, owner: u32) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "janitor", lab]).arg(directory).arg(owner.to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_lab_and_owner() {
        let lab = ("exo-17-3".to_owned(), 17);
        assert_eq!(lab_of("exo-17-3"), Some(lab.clone()));
        assert_eq!(lab_of("exo-17-3-edge"), Some(lab));
        for foreign in ["exo-17", "exo-seventeen-3-edge", "edge", "cni-17-3"] {
            assert_eq!(lab_of(foreign), None, "{foreign}");
        }
    }
}
