//! `exogate enforce`, `confirm` and `monitor`: whether packets are dropped, from now on.

use std::{process::ExitCode, time::Duration};

use super::{Failure, File, print_json};
use crate::admin::{api::Order, client};

pub(super) async fn enforce(
    file: &File,
    confirm_within: Option<Duration>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let confirm_within_seconds = confirm_within.map(|time| time.as_secs());
    order(file, &Order::Enforce { confirm_within_seconds }, json).await
}

pub(super) async fn confirm(file: &File, json: bool) -> Result<ExitCode, Failure> {
    order(file, &Order::Confirm, json).await
}

pub(super) async fn monitor(file: &File, json: bool) -> Result<ExitCode, Failure> {
    order(file, &Order::Monitor, json).await
}

async fn order(file: &File, order: &Order, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    let obeyed = client::order(&config.admin.socket, order).await.map_err(Failure::new)?;
    if json {
        return print_json(&serde_json::json!({
            "mode": obeyed.mode,
            "configured_mode": obeyed.configured_mode,
            "confirm_by": obeyed.confirm_by,
        }));
    }
    match obeyed.mode.as_str() {
        "enforce" => say!("mode enforce: packets from unlisted sources are dropped"),
        mode => say!("mode {mode}: nothing is dropped"),
    }
    if let Some(until) = obeyed.confirm_by {
        say!("until {until}: then the mode before comes back, unless you run `exogate confirm`");
    } else if obeyed.mode != obeyed.configured_mode {
        say!(
            "the configuration says mode = {:?}; change it, so that both say the same",
            obeyed.configured_mode
        );
    }
    Ok(ExitCode::SUCCESS)
}
