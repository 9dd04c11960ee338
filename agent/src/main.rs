//! The `exogate` program: arguments to exit status, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    exogate::cli::run(std::env::args_os())
}
