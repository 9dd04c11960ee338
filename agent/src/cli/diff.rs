//! `exogate diff`: what runs against what is offered.

use std::process::ExitCode;

use super::{Failure, File, print_json};
use crate::admin::{
    api::{Change, Diff},
    client,
};

/// Prefixes that are shown of each feed.
const SHOWN: usize = 50;

pub(super) async fn run(file: &File, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    let diff: Diff = client::get(&config.admin.socket, "/v1/diff").await.map_err(Failure::new)?;
    if json {
        return print_json(&diff);
    }
    print(&diff);
    Ok(ExitCode::SUCCESS)
}

/// Prints it for people.
pub(super) fn print(diff: &Diff) {
    if diff.hold {
        say!("updates are ON HOLD; `exogate feed resume` ends that");
    }
    for feed in &diff.feeds {
        let running = feed.running.as_deref().unwrap_or("unknown");
        match (&feed.offered, &feed.seen) {
            (Some(offered), Some(seen)) => {
                say!("{}: running {running}, offered {offered} (seen {seen})", feed.feed);
            }
            _ => say!("{}: running {running}, nothing else is offered", feed.feed),
        }
        if let Some(problem) = &feed.problem {
            let hint = if problem.can_be_accepted {
                format!("; `exogate feed accept {}` takes it", feed.feed)
            } else {
                String::new()
            };
            say!("  PROBLEM: {} ({}){hint}", problem.message, problem.reason);
        }
        changes("+", &feed.added, "");
        changes("-", &feed.removed, " (after the grace period)");
        changes("-", &feed.pending, " (no longer published, will go)");
    }
}

fn changes(sign: &str, changes: &[Change], note: &str) {
    for change in changes.iter().take(SHOWN) {
        say!("  {sign} {} {}{note}", change.prefix, change.source);
    }
    let more = changes.len().saturating_sub(SHOWN);
    if more > 0 {
        say!("  {sign} and {more} more{note}");
    }
}
