//! `exogate status`: everything at a glance.

use std::{fmt::Write as _, process::ExitCode};

use super::{Failure, File, NOT_RUNNING, ago};
use crate::{
    admin::{
        api::{Feed, Status},
        client,
    },
    gate::pins,
};

pub(super) async fn run(file: &File, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load()?;
    match client::get::<Status>(&config.admin.socket, "/v1/status").await {
        Ok(status) if json => {
            say!("{}", serde_json::to_string_pretty(&status).map_err(Failure::new)?);
            Ok(ExitCode::SUCCESS)
        }
        Ok(status) => {
            say!("{}", text(&status).trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ client::Error::NotRunning { .. }) => {
            let pinned = pins::interfaces(&config.gate.pin_directory).unwrap_or_default();
            let left = match pinned.len() {
                0 => "no filter is pinned",
                _ => "a filter of an earlier run is still in force; `exogate detach` removes it",
            };
            Err(Failure { message: format!("{error}; {left}"), code: NOT_RUNNING.into() })
        }
        Err(error) => Err(Failure::new(error)),
    }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, status);
    text
}

fn write(text: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(text, "exogate {}, process {}, since {}", status.version, status.pid, status.started)?;
    let meaning = match status.mode.as_str() {
        "enforce" => "packets from unlisted sources are dropped",
        _ => "NOTHING IS DROPPED, only counted",
    };
    writeln!(text, "mode {}: {meaning}", status.mode)?;
    if !status.waiting_for.is_empty() {
        writeln!(text, "NOT READY: waiting for {}", status.waiting_for.join(", "))?;
    }
    for interface in &status.interfaces {
        let adopted = if interface.adopted { ", taken over from an earlier run" } else { "" };
        writeln!(
            text,
            "\ninterface {} (number {}): attached {}{adopted}",
            interface.name, interface.index, interface.attached
        )?;
        for count in &interface.packets {
            writeln!(
                text,
                "  {:<10} {:<11} {:<5} {:>14} packets {:>18} bytes",
                count.action, count.reason, count.family, count.packets, count.bytes
            )?;
        }
    }
    writeln!(text, "\nallow-list {}", status.list.hash)?;
    for source in &status.list.sources {
        writeln!(
            text,
            "  {:<24} {:>6} IPv4 {:>6} IPv6 prefixes",
            source.name, source.ipv4, source.ipv6
        )?;
    }
    for entry in &status.temporary {
        writeln!(
            text,
            "  allowed by hand: {} until {}: {}",
            entry.prefix, entry.until, entry.reason
        )?;
    }
    if status.hold {
        writeln!(text, "\nUPDATES OF FEEDS ARE ON HOLD; `exogate feed resume` ends that")?;
    }
    status.feeds.iter().try_for_each(|feed| write_feed(text, feed))?;
    if !status.blocked.is_empty() {
        writeln!(text, "\nbusiest refused sources")?;
    }
    for blocked in &status.blocked {
        writeln!(
            text,
            "  {:<39} {:>12} packets on {}, last {} to port {} ({})",
            blocked.address,
            blocked.packets,
            blocked.interface,
            blocked.last_seen,
            blocked.port,
            blocked.action
        )?;
    }
    Ok(())
}

fn write_feed(text: &mut String, feed: &Feed) -> std::fmt::Result {
    let unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    writeln!(
        text,
        "\nfeed {}: version {}, {} since {}",
        feed.feed,
        unknown(&feed.version),
        feed.provenance,
        ago(feed.since.as_deref())
    )?;
    writeln!(
        text,
        "  last success {}, next poll {}",
        feed.last_success.as_deref().unwrap_or("never"),
        feed.next_attempt.as_deref().unwrap_or("under way")
    )?;
    if feed.pending_removals > 0 {
        writeln!(text, "  {} prefixes are no longer published and will go", feed.pending_removals)?;
    }
    if let Some(offered) = &feed.offered {
        writeln!(text, "  version {offered} is offered and not in force; see `exogate diff`")?;
    }
    if let Some(problem) = &feed.problem {
        writeln!(text, "  PROBLEM since {}: {} ({})", problem.at, problem.message, problem.reason)?;
    }
    Ok(())
}
