//! `exogate events`: refused packets, one line each.

use std::{io::Write as _, net::SocketAddr, process::ExitCode};

use super::{Failure, File};
use crate::admin::{api::events::Event, client};

pub(super) async fn run(file: &File, follow: bool, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    let path = if follow { "/v1/events?follow=true" } else { "/v1/events" };
    let mut is_read = true;
    let print = |line: &[u8]| {
        let mut output = std::io::stdout().lock();
        let written = match (json, serde_json::from_slice(line)) {
            (false, Ok(event)) => writeln!(output, "{}", text(&event)),
            _ => output.write_all(line).and_then(|()| output.write_all(b"\n")),
        };
        // Whoever reads may have gone, as `head` does.
        is_read = written.and_then(|()| output.flush()).is_ok();
        is_read
    };
    client::follow(&config.admin.socket, path, print).await.map_err(Failure::new)?;
    if follow && is_read {
        return Err(Failure::new("the agent has ended"));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(event: &Event) -> String {
    let refused = match event {
        Event::Missed { count } => return format!("... {count} events were missed ..."),
        Event::Refused(refused) => refused,
    };
    let protocol = match refused.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        number => format!("protocol {number}"),
    };
    let stands_for = match refused.stands_for {
        0 | 1 => String::new(),
        count => format!(", stands for {count}"),
    };
    format!(
        "{} {} {} {} {} -> {} {protocol}, {} bytes{stands_for}",
        refused.at,
        refused.interface,
        refused.action,
        refused.reason,
        SocketAddr::new(refused.source, refused.source_port),
        SocketAddr::new(refused.destination, refused.port),
        refused.bytes,
    )
}
