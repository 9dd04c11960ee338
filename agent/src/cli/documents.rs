//! `exogate documents`: manual pages and shell completions of the command line as it is,
//! for those who make packages.

use std::{fs, io, path::Path, process::ExitCode};

use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

use super::{Arguments, Failure};

pub(super) fn run(directory: &Path) -> Result<ExitCode, Failure> {
    match write(directory) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            Err(Failure::new(format!("writing to {} failed: {error}", directory.display())))
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut completed(), "exogate", directory)?;
    }
    clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), directory)
}

/// The command line without the commands that are hidden, which completions would show.
fn completed() -> clap::Command {
    let all = Arguments::command();
    clap::Command::new("exogate")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments())
        .subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()))
}
