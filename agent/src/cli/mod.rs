//! The command line: one file per command.

/// Prints a line. Whoever reads may have gone, as `head` does.
macro_rules! say {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($what)*);
    }};
}

mod allow;
mod audit;
mod check;
mod config;
mod detach;
mod diff;
mod doctor;
mod documents;
mod events;
mod export;
mod feed;
mod history;
mod mode;
mod run;
mod spool;
mod status;
mod top;
mod upstream;

use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::{
    admin::api::ExportFormat,
    config::{Config, Error as ConfigError, Mode, parse_duration},
    daemon::Attacher,
};

/// Exit status of wrong usage or configuration (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;
/// Exit status of `status` where no agent runs, as systemd and LSB have it.
const NOT_RUNNING: u8 = 3;

/// Drops inbound traffic to guarded ports that does not come from Exchange
/// Online, Microsoft Graph or the other sources that you name.
#[derive(Debug, Parser)]
#[command(name = "exogate", version, max_term_width = 100)]
pub struct Arguments {
    /// Configuration file [default: /etc/exogate/exogate.toml if there is one]
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Filter, until a signal says stop; the filter stays in force after that
    ///
    /// SIGHUP reads the configuration again. SIGTERM and SIGINT stop the agent; the filter stays
    /// attached unless gate.on_stop is "detach". At native attachment some drivers take the link
    /// down for a moment.
    Run(run::Arguments),
    /// Say whether packets from an address would pass, and why
    ///
    /// Asks the running agent; without one, answers from the list that is stored.
    Check {
        /// The source address
        address: IpAddr,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the agent does: mode, interfaces, packets, list, feeds, blocked sources
    ///
    /// Exit status 3 if no agent runs.
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Watch the agent live in a terminal: rates, refused sources, feeds, relay
    ///
    /// Graphs are of packets per second by verdict. Refused sources are shown with the known prefix
    /// that is nearest to them. q quits.
    Top {
        /// How often the agent is asked
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
        interval: Duration,
    },
    /// Let an address pass for a while, through every guard
    Allow(allow::Arguments),
    /// Drop packets from unlisted sources, from now on
    ///
    /// Goes before the mode of the configuration, and survives a restart, until `exogate monitor`
    /// or a configuration that says the same. With --confirm-within the mode before comes back by
    /// itself, unless `exogate confirm` is run in time. The program in the kernel sees to it, also
    /// while no agent runs.
    Enforce {
        /// Only for so long, unless it is confirmed; at most 7d
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        confirm_within: Option<Duration>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make `exogate enforce --confirm-within` last
    Confirm {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop nothing any more, from now on; only count what would be dropped
    ///
    /// Goes before the mode of the configuration, like `exogate enforce`.
    Monitor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Work with the feeds: refresh, accept, hold, resume, import
    #[command(subcommand)]
    Feed(feed::Command),
    /// Show what runs against what is offered: refused, held back or about to go
    Diff {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every version that was applied or refused, and what operators did
    History {
        /// Only the last ones
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        last: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show who ordered what, and what came of it
    Audit {
        /// Only the last ones
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        last: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print refused packets, one line each
    ///
    /// The kernel records the first 128 of a second on each CPU one by one, after that one in
    /// 4,096, which then stands for so many.
    Events {
        /// Go on with those that come
        #[arg(long, short)]
        follow: bool,
        /// Print JSON, one line each
        #[arg(long)]
        json: bool,
    },
    /// Print the list in force, without temporary entries
    Export {
        /// The form
        #[arg(long, value_enum, default_value_t = ExportFormat::Plain)]
        format: ExportFormat,
        /// Only this source; may be repeated
        #[arg(long = "source", value_name = "NAME")]
        sources: Vec<String>,
        /// The same as --format json
        #[arg(long, conflicts_with = "format")]
        json: bool,
    },
    /// Work with stored notifications: status, list, show, replay, export, purge
    #[command(subcommand)]
    Spool(spool::Command),
    /// Work with the servers behind the relay: status, drain, ready
    #[command(subcommand)]
    Upstream(upstream::Command),
    /// Work with the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look for what stands in the way on this host, and say what to do next
    ///
    /// Kernel, capabilities, pins, interfaces and foreign XDP programs, feeds through the
    /// configured proxy, clock, forwarding, frames that the gate cannot see into, certificates and
    /// how they can be renewed, spool. Changes nothing, with or without a running agent. Exit status
    /// 0 if all is well, 2 if there are warnings, 1 if there are failures.
    Doctor {
        /// How long to listen for PPPoE and MPLS frames
        #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
        listen: Duration,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write manual pages and shell completions
    #[command(hide = true)]
    Documents {
        /// Where to
        directory: PathBuf,
    },
    /// Remove the filter from all interfaces
    ///
    /// Stop the agent first. Without this program: rm -r /sys/fs/bpf/exogate
    Detach {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether a configuration is valid, and what it amounts to
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command line and returns its exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done about a closed standard output.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(USAGE),
            };
        }
    };
    // Before there is another thread.
    let attacher = match &arguments.command {
        Command::Run(_) => Some(Attacher::start()),
        _ => None,
    };
    let attacher = match attacher.transpose() {
        Ok(attacher) => attacher,
        Err(error) => {
            eprintln!("exogate: giving up capabilities failed: {error}");
            return ExitCode::FAILURE;
        }
    };
    // A thread for each processor that this process may use.
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("exogate: starting the runtime failed: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(arguments, attacher));
    // Nobody waits for a task that hangs.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(Failure { message, code }) => {
            eprintln!("exogate: {message}");
            code
        }
    }
}

async fn dispatch(arguments: Arguments, attacher: Option<Attacher>) -> Result<ExitCode, Failure> {
    let file = File(arguments.config);
    match arguments.command {
        Command::Run(arguments) => run::run(file, arguments, attacher).await,
        Command::Check { address, json } => check::run(&file, address, json).await,
        Command::Status { json } => status::run(&file, json).await,
        Command::Top { interval } => top::run(&file, interval).await,
        Command::Allow(arguments) => allow::run(&file, arguments).await,
        Command::Enforce { confirm_within, json } => {
            mode::enforce(&file, confirm_within, json).await
        }
        Command::Confirm { json } => mode::confirm(&file, json).await,
        Command::Monitor { json } => mode::monitor(&file, json).await,
        Command::Feed(command) => feed::run(&file, command).await,
        Command::Diff { json } => diff::run(&file, json).await,
        Command::History { last, json } => history::run(&file, last, json).await,
        Command::Audit { last, json } => audit::run(&file, last, json).await,
        Command::Events { follow, json } => events::run(&file, follow, json).await,
        Command::Export { format, sources, json } => {
            let format = if json { ExportFormat::Json } else { format };
            export::run(&file, format, sources).await
        }
        Command::Spool(command) => spool::run(&file, command).await,
        Command::Upstream(command) => upstream::run(&file, command).await,
        Command::Config(ConfigCommand::Check { json }) => config::check(&file, json),
        Command::Doctor { listen, json } => doctor::run(&file, listen, json).await,
        Command::Documents { directory } => documents::run(&directory),
        Command::Detach { json } => detach::run(&file, json),
    }
}

/// Prints an answer as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<ExitCode, Failure> {
    say!("{}", serde_json::to_string_pretty(value).map_err(Failure::new)?);
    Ok(ExitCode::SUCCESS)
}

/// A time and how long ago that was.
fn ago(time: Option<&str>) -> String {
    match time {
        Some(text) => format!("{text} ({} ago)", since(text)),
        None => "unknown".to_owned(),
    }
}

/// How long ago a time was.
fn since(time: &str) -> String {
    let seconds = time
        .parse::<jiff::Timestamp>()
        .map_or(0, |time| jiff::Timestamp::now().duration_since(time).as_secs());
    match seconds {
        // Clocks are set.
        ..0 => "0 s".to_owned(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A command that failed.
struct Failure {
    message: String,
    code: ExitCode,
}

impl Failure {
    fn new(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), code: ExitCode::FAILURE }
    }

    fn usage(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), code: ExitCode::from(USAGE) }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

/// Where the configuration is read from.
#[derive(Clone, Debug)]
struct File(Option<PathBuf>);

impl File {
    /// Used if it exists and none is named.
    const DEFAULT: &str = "/etc/exogate/exogate.toml";

    /// The file that is read, if any. Only one that certainly is not there is none: what
    /// may not be looked at is no reason to go on without it.
    fn path(&self) -> Option<PathBuf> {
        let Self(named) = self;
        named.clone().or_else(|| {
            let default = PathBuf::from(Self::DEFAULT);
            default.try_exists().unwrap_or(true).then_some(default)
        })
    }

    /// The same file from now on, even if it goes away.
    fn resolved(self) -> Self {
        Self(self.path())
    }

    fn load(&self) -> Result<Config, ConfigError> {
        self.path().map_or_else(|| Ok(Config::default()), |path| Config::load(&path))
    }

    /// The same, to find the agent: whoever may ask it may still have no right to read its
    /// configuration, and most agents are where the defaults say.
    fn load_to_ask(&self) -> Result<Config, ConfigError> {
        match self.load() {
            Err(error) if self.0.is_none() && error.is_forbidden() => {
                eprintln!("{error}; asking at the default control socket");
                Ok(Config::default())
            }
            loaded => loaded,
        }
    }
}

/// Reads a time with its unit.
fn parse_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "must be a time such as 10s, 30m, 2h or 7d".to_owned())
}

/// Reads `monitor` or `enforce`.
fn parse_mode(text: &str) -> Result<Mode, String> {
    [Mode::Monitor, Mode::Enforce]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or_else(|| "must be monitor or enforce".to_owned())
}
