//! `exogate status`: everything at a glance.

use std::{fmt::Write as _, process::ExitCode};

use super::{Failure, File, NOT_RUNNING, ago};
use crate::{
    admin::{
        api::{Feed, Status, relay::Relay},
        client,
    },
    gate::pins,
};

pub(super) async fn run(file: &File, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
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
    if let Some(until) = &status.confirm_by {
        writeln!(
            text,
            "TO BE CONFIRMED until {until} with `exogate confirm`, or the mode before comes back, \
             also without the agent"
        )?;
    } else if status.mode != status.configured_mode {
        writeln!(
            text,
            "by an operator's order; the configuration says {}",
            status.configured_mode
        )?;
    }
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
    status.relay.iter().try_for_each(|relay| write_relay(text, relay))?;
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

fn write_relay(text: &mut String, relay: &Relay) -> std::fmt::Result {
    writeln!(text, "\nrelay on {}", relay.listeners.join(", "))?;
    for route in &relay.routes {
        if route.kind == "proxy" {
            writeln!(text, "  route {} (proxy) to {}", route.name, route.upstream)?;
            continue;
        }
        writeln!(
            text,
            "  route {} ({}) to {}: {} waiting, {} dead letters, {} of {} subscriptions silent",
            route.name,
            route.kind,
            route.upstream,
            route.waiting,
            route.dead_letters,
            route.silent.len(),
            route.subscriptions
        )?;
        match &route.last_notification {
            Some(last) => writeln!(text, "    last notification {}", ago(Some(last)))?,
            None => writeln!(text, "    no notification since the start")?,
        }
        if let Some(oldest) = &route.oldest {
            writeln!(text, "    the oldest waits since {}", ago(Some(oldest)))?;
        }
    }
    for upstream in &relay.upstreams {
        for server in &upstream.servers {
            let state = if server.up { "up" } else { "DOWN" };
            let since = ago(Some(&server.since.to_string()));
            let drained = if server.drained { "; drained by an operator" } else { "" };
            writeln!(
                text,
                "  server {} of {}: {state} since {since}{drained}",
                server.server, upstream.name
            )?;
            if let Some(problem) = &server.last_problem {
                writeln!(text, "    last problem: {problem}")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_is_told_by_listener_route_and_server() {
        let relay = serde_json::from_value(serde_json::json!({
            "listeners": ["[::]:443"],
            "routes": [{
                "name": "graph", "kind": "graph", "upstream": "pega",
                "waiting": 3, "waiting_bytes": 900, "oldest": "2026-11-25T10:00:00Z",
                "dead_letters": 1, "last_notification": null, "subscriptions": 5,
                "silent": [{ "subscription": "one", "last": "2026-11-25T09:00:00Z" }],
            }, {
                "name": "mail", "kind": "proxy", "upstream": "exchange",
                "waiting": 0, "waiting_bytes": 0, "oldest": null, "dead_letters": 0,
                "last_notification": null, "subscriptions": 0, "silent": [],
            }],
            "upstreams": [{ "name": "pega", "servers": [
                { "server": "a:1", "up": true, "since": "2026-11-25T08:00:00Z", "last_problem": null },
                { "server": "b:2", "up": false, "since": "2026-11-25T09:00:00Z", "last_problem": "a reset", "drained": true },
            ] }],
        }));
        let mut text = String::new();
        write_relay(&mut text, &relay.unwrap()).unwrap();
        for line in [
            "relay on [::]:443",
            "  route graph (graph) to pega: 3 waiting, 1 dead letters, 1 of 5 subscriptions silent",
            "    no notification since the start",
            "    the oldest waits since 2026-11-25T10:00:00Z",
            "  route mail (proxy) to exchange",
            "  server a:1 of pega: up since 2026-11-25T08:00:00Z",
            "  server b:2 of pega: DOWN since 2026-11-25T09:00:00Z",
            "    last problem: a reset",
        ] {
            assert!(text.lines().any(|other| other.starts_with(line)), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("; drained by an operator").count(), 1, "{text}");
    }
}
