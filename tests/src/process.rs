//! Child processes with a bound on their time.
//!
//! A test that hangs says nothing, so nothing here waits without end; a child that
//! outlasts its time is killed, and the error shows what it was and what it said.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::tempfile;

/// How long a program may take whose time is not the matter, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a child is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Names another agent than the one beside the running executable.
const BINARY: &str = "EXOGATE_BIN";

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; a signal counts as 128 and its number, as in a shell.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Waits for `child`, and kills it if it is not done in time.
///
/// # Errors
///
/// If it had to be killed.
pub fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begin.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            bail!("process {} was killed after {patience:?}", child.id());
        }
        thread::sleep(POLL);
    }
}

/// Runs `command` to its end, with nothing to read.
///
/// # Errors
///
/// If it cannot be started, or is not done in time. An exit code is no error.
pub fn run(command: &mut Command, patience: Duration) -> Result<Output> {
    run_with_input(command, "", patience)
}

/// Runs `command` to its end, with `input` to read.
///
/// # Errors
///
/// See [`run`].
pub fn run_with_input(command: &mut Command, input: &str, patience: Duration) -> Result<Output> {
    // Files, because a pipe fills up and would need a thread to drain it.
    let (mut stdin, stdout, stderr) = (tempfile()?, tempfile()?, tempfile()?);
    stdin.write_all(input.as_bytes())?;
    stdin.rewind()?;
    let mut child = command
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout.try_clone()?))
        .stderr(Stdio::from(stderr.try_clone()?))
        .spawn()
        .with_context(|| format!("{command:?} cannot be started"))?;
    let status = wait(&mut child, patience);
    let (stdout, stderr) = (text(stdout)?, text(stderr)?);
    let status = status.with_context(|| format!("{command:?}\n{stdout}{stderr}"))?;
    Ok(Output { code: code(status), stdout, stderr })
}

fn text(mut file: File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs `command` to its end and expects success.
///
/// # Errors
///
/// See [`run`]; also if the exit code is not 0.
pub fn check(command: &mut Command, input: &str) -> Result<String> {
    let output = run_with_input(command, input, PATIENCE)?;
    ensure!(
        output.code == 0,
        "{command:?} ended with {}: {}{}",
        output.code,
        output.stdout,
        output.stderr
    );
    Ok(output.stdout)
}

/// The exit code as a shell would tell it.
#[must_use]
pub fn code(status: ExitStatus) -> i32 {
    let signal = || status.signal().map_or(-1, |signal| signal.saturating_add(128));
    status.code().unwrap_or_else(signal)
}

/// The agent: `EXOGATE_BIN`, or `exogate` in the profile's directory that the
/// running executable is in.
///
/// # Errors
///
/// If it has not been built, or a source has changed since: cargo builds no
/// binaries for another package's tests, and an old one would be tested unseen.
pub fn agent_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(path.into());
    }
    let this = std::env::current_exe()?;
    let directory = this.parent().context("the executable has no directory")?;
    let profile = match directory.file_name() {
        Some(name) if name == "deps" || name == "examples" => directory.parent(),
        _ => Some(directory),
    };
    let path = profile.context("the executable has no profile directory")?.join("exogate");
    let advice = "build it with `cargo build --package exogate` (and --release where that is \
                  tested), or name another one in EXOGATE_BIN";
    let built = fs::metadata(&path).and_then(|data| data.modified()).map_err(|error| {
        anyhow!("the agent {} is not there ({error}): {advice}", path.display())
    })?;
    if let Some(source) = changed_since(&path, built) {
        bail!("the agent {} is older than {}: {advice}", path.display(), source.display());
    }
    Ok(path)
}

/// A source that changed after `built`, as cargo lists them beside the binary.
fn changed_since(binary: &Path, built: SystemTime) -> Option<PathBuf> {
    let list = fs::read_to_string(binary.with_extension("d")).ok()?;
    let (_, sources) = list.split_once(": ")?;
    // Cargo escapes blanks in paths with a backslash.
    let sources = sources.trim_end().replace("\\ ", "\0");
    let mut paths = sources.split(' ').map(|path| PathBuf::from(path.replace('\0', " ")));
    paths.find(|path| {
        fs::metadata(path).and_then(|data| data.modified()).is_ok_and(|changed| changed > built)
    })
}
