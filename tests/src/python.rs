//! Programs in Python: independent clients and servers, from `tests/peers`.

use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::lab::Namespace;

/// Names the interpreter that has the packages of `tests/peers/requirements.txt`.
const INTERPRETER: &str = "EXOGATE_PYTHON";

/// A command that will run a program of `tests/peers` in a namespace.
///
/// # Errors
///
/// If no interpreter is named.
pub fn command(namespace: &Namespace, program: &str) -> Result<Command> {
    let interpreter = env::var_os(INTERPRETER).context(
        "EXOGATE_PYTHON must name a python3 with the packages of tests/peers/requirements.txt; \
         `cargo xtask test` makes one",
    )?;
    let peers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers");
    let mut command = namespace.command(interpreter);
    command.arg(peers.join(program));
    Ok(command)
}

/// A server in Python, which ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// See [`command`].
    pub fn start(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = command(namespace, program)?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().context("python3 cannot be started")?;
        let output = process.stdout.take().context("the output is piped")?;
        Ok(Self { process, output: BufReader::new(output) })
    }

    /// The next line that it prints. Waits for it.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line)?;
        anyhow::ensure!(length > 0, "the server ended: {:?}", self.process.try_wait()?);
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
