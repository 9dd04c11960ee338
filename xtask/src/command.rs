//! Running other programs: every command line is shown before it runs, so that a developer
//! can repeat it by hand, and a failure names the command and how it ended.

use anyhow::{Context, Result, bail};
use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

/// How often a command that downloads is tried.
const DOWNLOAD_ATTEMPTS: u32 = 4;

/// Shows and runs a command, and fails if the command does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", line(command));
    let status = command.status().with_context(|| format!("cannot start: {}", line(command)))?;
    ended(command, status)
}

fn ended(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("failed ({status}): {}", line(command));
    }
    Ok(())
}

/// The same, and hands over each line of its standard output, which is shown too.
pub(crate) fn run_and_read(command: &mut Command, mut read: impl FnMut(&str)) -> Result<()> {
    eprintln!("$ {}", line(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start: {}", line(command)))?;
    let output = child.stdout.take().context("a command without standard output")?;
    for text in BufReader::new(output).split(b'\n') {
        let text = text.with_context(|| format!("what it printed: {}", line(command)))?;
        let text = String::from_utf8_lossy(&text);
        println!("{text}");
        read(&text);
    }
    ended(command, child.wait()?)
}

/// Shows a command and becomes it: signals and the exit status are its own then. Returns only
/// if it cannot be started.
pub(crate) fn become_command(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", line(command));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start: {}", line(command)))
}

/// Runs a command without showing it and returns what it printed.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start: {}", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("failed ({}): {}\n{}", output.status, line(command), stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that downloads, again after a pause if it fails: mirrors have bad moments.
pub(crate) fn run_download(command: &mut Command) -> Result<()> {
    let mut attempt = 1_u32;
    loop {
        match run(command) {
            Ok(()) => return Ok(()),
            Err(error) if attempt >= DOWNLOAD_ATTEMPTS => return Err(error),
            Err(error) => {
                let pause = Duration::from_secs(2).saturating_mul(attempt);
                eprintln!("{error}\ntrying again in {} s", pause.as_secs());
                thread::sleep(pause);
                attempt = attempt.saturating_add(1);
            }
        }
    }
}

/// `cargo` in the workspace's root, without what `cargo run` told this program about itself:
/// it would look like a changed environment to the build scripts that cargo runs next.
pub(crate) fn cargo() -> Command {
    let mut command =
        Command::new(env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text == "LD_LIBRARY_PATH"
        {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace());
    command
}

/// The workspace's root directory.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Looks a program up in `PATH` and in the directories of programs for root, which a normal
/// user's `PATH` may leave out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("cargo");
        command.args(["test", "", "it's", "--features=a,b"]);
        assert_eq!(line(&command), r"cargo test '' 'it'\''s' --features=a,b");
    }

    #[test]
    fn a_failing_command_is_named_with_its_status() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("sh -c 'exit 3'"), "{error}");
    }
}
