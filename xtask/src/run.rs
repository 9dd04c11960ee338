//! `cargo xtask run`: exogate at work, after one command on a fresh machine.
//!
//! By default that is the demonstration of package `exogate-tests`, in network namespaces
//! of its own; with arguments it is the agent, on an interface of this machine. Both
//! replace this process, so that Ctrl-C reaches nobody else.

use crate::{
    command::{become_command, cargo, run as run_command},
    packages::is_root,
    setup,
};
use anyhow::{Result, bail};
use std::{ffi::OsString, process::Command};

/// Sets up, builds, and becomes the demonstration or the agent.
pub(crate) fn run(once: bool, mut agent: Vec<OsString>) -> Result<()> {
    if !is_root() {
        bail!(
            "this needs root: it makes network namespaces and attaches XDP programs; build as \
             yourself (cargo xtask build), then run it as root with the same tools in the path: \
             sudo env PATH=\"$PATH\" cargo xtask run"
        );
    }
    // `cargo xtask run -- --once` is as good as `cargo xtask run --once`.
    let demonstration_once = once || agent == ["--once"];
    if demonstration_once {
        agent.retain(|argument| argument != "--once");
    }
    if once && !agent.is_empty() {
        bail!("--once is for the demonstration; without it, the rest goes to `exogate run`");
    }
    setup::run()?;
    run_command(cargo().args(["build", "--package", "exogate"]))?;
    become_command(&mut program(demonstration_once, &agent))
}

/// What this process becomes.
fn program(once: bool, agent: &[OsString]) -> Command {
    let mut cargo = cargo();
    cargo.args(["run", "--quiet"]);
    if agent.is_empty() {
        cargo.args(["--package", "exogate-tests", "--bin", "exogate-demo", "--"]);
        cargo.args(once.then_some("--once"));
    } else {
        cargo.args(["--package", "exogate", "--", "run"]).args(agent);
    }
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(once: bool, agent: &[&str]) -> String {
        let agent: Vec<OsString> = agent.iter().map(OsString::from).collect();
        let command = program(once, &agent);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn arguments_go_to_the_agent() {
        assert_eq!(
            words(false, &["--interface", "eth0", "--mode", "enforce"]),
            "run --quiet --package exogate -- run --interface eth0 --mode enforce"
        );
    }

    #[test]
    fn without_arguments_it_is_the_demonstration() {
        let demonstration = "run --quiet --package exogate-tests --bin exogate-demo --";
        assert_eq!(words(false, &[]), demonstration);
        assert_eq!(words(true, &[]), format!("{demonstration} --once"));
    }
}
