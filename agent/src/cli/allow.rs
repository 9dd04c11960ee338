//! `exogate allow`: let somebody pass for a while.

use std::{process::ExitCode, time::Duration};

use ipnet::IpNet;

use super::{Failure, File, parse_time, print_json};
use crate::{
    admin::{
        api::{Order, Temporary},
        client,
    },
    allowlist::StateDirectory,
    source::parse_prefix,
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The source address or prefix
    #[arg(value_name = "ADDRESS|PREFIX", value_parser = parse_prefix, required = true)]
    prefix: Option<IpNet>,
    /// For how long, such as 30m, 2h or 7d; at most 30d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time, required = true)]
    time: Option<Duration>,
    /// Why; it is in `allow list`, `check` and `history`
    #[arg(long, value_name = "TEXT", required = true)]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what passes for a while
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take it back
    Remove {
        /// The source address or prefix
        #[arg(value_name = "ADDRESS|PREFIX", value_parser = parse_prefix)]
        prefix: IpNet,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(file: &File, arguments: Arguments) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    let socket = &config.admin.socket;
    let (order, json) = match arguments {
        Arguments { command: Some(Command::List { json }), .. } => {
            let entries = match client::get::<Vec<Temporary>>(socket, "/v1/allow").await {
                Ok(entries) => entries,
                Err(client::Error::NotRunning { .. }) => stored(&config.state_directory)?,
                Err(error) => return Err(Failure::new(error)),
            };
            return show(&entries, json);
        }
        Arguments { command: Some(Command::Remove { prefix, json }), .. } => {
            (Order::Disallow { prefix }, json)
        }
        Arguments {
            prefix: Some(prefix), time: Some(time), reason: Some(reason), json, ..
        } => (Order::Allow { prefix, seconds: time.as_secs(), reason }, json),
        // clap asks for them.
        _ => return Err(Failure::usage("an address, --for and --reason are needed")),
    };
    let obeyed = client::order(socket, &order).await.map_err(Failure::new)?;
    show(&obeyed.temporary, json)
}

fn stored(directory: &std::path::Path) -> Result<Vec<Temporary>, Failure> {
    let known = StateDirectory::new(directory).load().map_err(Failure::new)?;
    let entry = |entry: crate::allowlist::Temporary| Temporary {
        prefix: entry.prefix,
        reason: entry.reason,
        since: entry.since,
        until: entry.until,
    };
    Ok(known.temporary.into_iter().map(entry).collect())
}

fn show(entries: &[Temporary], json: bool) -> Result<ExitCode, Failure> {
    if json {
        return print_json(&entries);
    }
    for entry in entries {
        say!("{:<43} until {}: {}", entry.prefix.to_string(), entry.until, entry.reason);
    }
    if entries.is_empty() {
        say!("nothing is allowed by hand");
    }
    Ok(ExitCode::SUCCESS)
}
