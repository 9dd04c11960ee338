//! `exogate check`: would this address pass, and why?

use std::{net::IpAddr, process::ExitCode, sync::Arc};

use prometheus::Registry;

use super::{Failure, File, ago};
use crate::{
    admin::{api::Check, client},
    allowlist::Keeper,
    config::Config,
    daemon,
};

pub(super) async fn run(file: &File, address: IpAddr, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    let path = format!("/v1/check?address={address}");
    let check = match client::get::<Check>(&config.admin.socket, &path).await {
        Ok(check) => check,
        Err(client::Error::NotRunning { .. }) => offline(config, address)?,
        Err(error) => return Err(Failure::new(error)),
    };
    if json {
        say!("{}", serde_json::to_string_pretty(&check).map_err(Failure::new)?);
    } else {
        print(&check);
    }
    Ok(ExitCode::SUCCESS)
}

fn offline(config: Config, address: IpAddr) -> Result<Check, Failure> {
    let config = Arc::new(config);
    let keeper = Keeper::open(Arc::clone(&config), &Registry::new()).map_err(Failure::new)?;
    Ok(daemon::explain(&keeper.list(), &config, address))
}

fn print(check: &Check) {
    let Check { address, answered_by, mode, .. } = check;
    say!("{address}");
    match answered_by.as_str() {
        "agent" => say!("  the running agent says (mode {mode}):"),
        _ => say!("  no agent is running; by the stored list (mode {mode}):"),
    }
    for verdict in &check.verdicts {
        say!(
            "  {} {:<5} {} ({}); accepts {}",
            verdict.protocol,
            verdict.port,
            verdict.action,
            verdict.reason,
            verdict.accepts.join(", ")
        );
    }
    if check.matches.is_empty() {
        say!("  in no source");
    }
    for known in &check.left_out {
        say!(
            "  but in {} of {} {}: {}",
            known.prefix,
            known.instance,
            known.origin,
            known.suggestion
        );
    }
    for found in &check.matches {
        say!("  in {} of {}: {}", found.prefix, found.source, found.origin);
    }
    for feed in &check.feeds {
        say!(
            "  {}: published version {}, {} since {}",
            feed.feed,
            feed.version.as_deref().unwrap_or("unknown"),
            feed.provenance,
            ago(feed.since.as_deref())
        );
    }
    if let Some(blocked) = &check.blocked {
        say!(
            "  refused on {} about {} times, last {} on port {}",
            blocked.interface,
            blocked.packets,
            blocked.last_seen,
            blocked.port
        );
    }
}
