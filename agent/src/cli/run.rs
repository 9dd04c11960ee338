//! `exogate run`: the agent.

use std::process::ExitCode;

use super::{Failure, File, parse_mode};
use crate::{
    config::{Config, InterfacePattern, Mode},
    daemon::{self, Attacher},
    telemetry,
};

/// What can be said on the command line; it goes before the file.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Filter on this interface too, or on those of a pattern (eth*); may be repeated
    #[arg(long, short, value_name = "NAME")]
    interface: Vec<InterfacePattern>,
    /// monitor (count what would be dropped) or enforce (drop it) [default: as configured, else
    /// monitor]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    mode: Option<Mode>,
}

pub(super) async fn run(
    file: File,
    arguments: Arguments,
    attacher: Option<Attacher>,
) -> Result<ExitCode, Failure> {
    let attacher = attacher.ok_or_else(|| Failure::new("nothing can attach the filter"))?;
    let file = file.resolved();
    let log = file.load()?.log;
    telemetry::start_logging(log.format, log.level.name()).map_err(Failure::usage)?;
    let load = move || file.load().map(|config| arguments.over(config));
    match daemon::run(Box::new(load), attacher).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_usage() => Err(Failure::usage(error)),
        Err(error) => Err(Failure::new(error)),
    }
}

impl Arguments {
    fn over(&self, mut config: Config) -> Config {
        for name in &self.interface {
            if !config.interfaces.contains(name) {
                config.interfaces.push(name.clone());
            }
        }
        if let Some(mode) = self.mode {
            config.mode = mode;
        }
        config
    }
}
