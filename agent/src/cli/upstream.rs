//! `exogate upstream`: take servers out of service, and back.

use std::process::ExitCode;

use super::{Failure, File, ago, print_json};
use crate::{
    admin::{
        api::{
            Status,
            relay::{Relay, Upstream, UpstreamOrder},
        },
        client,
    },
    config::Config,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the servers of all upstreams
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Send nothing new to a server; what is under way goes on
    ///
    /// Connections on which clients are authenticated stay until they end. Without a server, all
    /// of them are drained, and requests to a proxy get its maintenance answer. It holds until
    /// `ready`, or until the agent is started anew.
    Drain(Which),
    /// Take a server back into service
    Ready(Which),
}

/// Which servers are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The upstream, as in the configuration
    upstream: String,
    /// The server, as `upstream status` shows it; all of the upstream if not given
    server: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(file: &File, command: Command) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    match command {
        Command::Status { json } => {
            let status: Status =
                client::get(&config.admin.socket, "/v1/status").await.map_err(Failure::new)?;
            let Some(Relay { upstreams, .. }) = status.relay else {
                return Err(Failure::new(
                    "there is no relay: the configuration has no [[listener]]",
                ));
            };
            show(&upstreams, json)
        }
        Command::Drain(which) => order(&config, which, true).await,
        Command::Ready(which) => order(&config, which, false).await,
    }
}

async fn order(config: &Config, which: Which, drained: bool) -> Result<ExitCode, Failure> {
    let Which { upstream, server, json } = which;
    let order = UpstreamOrder { upstream, server, drained };
    let upstream: Upstream =
        client::post(&config.admin.socket, "/v1/upstream", &order).await.map_err(Failure::new)?;
    show(&[upstream], json)
}

fn show(upstreams: &[Upstream], json: bool) -> Result<ExitCode, Failure> {
    if json {
        return print_json(&upstreams);
    }
    for upstream in upstreams {
        for server in &upstream.servers {
            let state = match (server.drained, server.up) {
                (true, _) => "drained",
                (false, true) => "up",
                (false, false) => "DOWN",
            };
            say!(
                "{} {}: {state}, {} requests and connections; up or down since {}",
                upstream.name,
                server.server,
                server.load,
                ago(Some(&server.since.to_string()))
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
