//! The relay: its certificates, how they can be renewed, and the spool.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use super::Finding;
use crate::{
    admin::api::{Status, relay::Relay},
    config::{self, Config, Mode, Store},
    relay::listen::{Examined, examine},
};

const DAY: i64 = 86_400;
/// A certificate that expires sooner is told of.
const SOON: i64 = 14 * DAY;
/// A certificate that lives no longer is renewed by a program (ACME), most likely.
const SHORT_LIVED: i64 = 100 * DAY;

pub(super) fn certificates(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_short_lived = false;
    for listener in &config.relay.listeners {
        for files in &listener.certificates {
            let name = files.chain.display();
            match examine(files) {
                Err(problem) => findings.push(
                    Finding::failure("certificate", problem, "put usable files there; key first")
                        .about(name),
                ),
                Ok(certificate) => {
                    let lifetime = certificate.expires.saturating_sub(certificate.begins);
                    is_short_lived |= lifetime <= SHORT_LIVED;
                    findings.extend(
                        judge(&certificate, files, Timestamp::now().as_second())
                            .into_iter()
                            .map(|finding| finding.about(&name)),
                    );
                }
            }
        }
    }
    if !findings.is_empty() {
        findings.push(acme(config, is_short_lived));
    }
    findings
}

fn judge(certificate: &Examined, files: &config::Certificate, now: i64) -> Vec<Finding> {
    const RENEW: &str = "renew it: replace the files, key first; they are read within seconds";
    let names = certificate.names.join(", ");
    let left = certificate.expires.saturating_sub(now);
    let days = left.div_euclid(DAY);
    let mut findings = Vec::new();
    if left > 0 {
        let message = format!("{names}: expires in {days} days");
        findings.push(match left {
            ..=SOON => Finding::warning("certificate", message, RENEW),
            _ => Finding::ok("certificate", message),
        });
    }
    for warning in &certificate.warnings {
        let next = if left > 0 { "get another certificate, with its chain" } else { RENEW };
        findings.push(Finding::failure("certificate", format!("{names}: {warning}"), next));
    }
    let mode = fs::metadata(&files.key).map_or(0, |data| data.permissions().mode());
    if mode & 0o007 != 0 {
        let key = files.key.display();
        findings.push(Finding::warning(
            "certificate",
            format!("{key} may be read by everybody on this host"),
            format!("chmod o= {key}"),
        ));
    }
    findings
}

/// Authorities look at port 443 (TLS-ALPN-01) or 80 (HTTP-01) from addresses that nobody
/// publishes, so the gate refuses them like any stranger.
fn acme(config: &Config, is_short_lived: bool) -> Finding {
    let challenges = [(443, "TLS-ALPN-01"), (80, "HTTP-01")];
    let blocked: Vec<_> = challenges
        .into_iter()
        .filter(|(port, _)| config.guards_tcp(*port))
        .map(|(port, name)| format!("{name} (port {port})"))
        .collect();
    if blocked.is_empty() || config.interfaces.is_empty() {
        return Finding::ok("acme", "the gate lets the challenges of ACME pass");
    }
    let would = if config.mode == Mode::Enforce { "blocks" } else { "would block" };
    let message = format!("the gate {would} the ACME challenges {}", blocked.join(" and "));
    match is_short_lived {
        true => Finding::warning(
            "acme",
            format!("{message}, and a certificate lives no longer than 100 days"),
            "renew it by DNS-01, or on another host that hands it over",
        ),
        false => Finding::ok("acme", format!("{message}; no certificate is short-lived")),
    }
}

pub(super) fn spool(config: &Config, status: Option<&Status>) -> Vec<Finding> {
    if !config.relay.needs_spool() {
        return Vec::new();
    }
    let spool = &config.relay.spool;
    let mut findings = vec![match &spool.store {
        Store::Disk(directory) => room(directory, spool.max_bytes),
        Store::Jetstream(jetstream) => Finding::ok(
            "spool",
            format!("JetStream {} on {}", jetstream.prefix, jetstream.servers.join(", ")),
        ),
    }];
    let relay = status.and_then(|status| status.relay.as_ref());
    findings.extend(relay.into_iter().flat_map(waiting));
    findings
}

fn room(directory: &Path, max_bytes: u64) -> Finding {
    let shown = directory.display();
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = match statvfs(there) {
        Ok(disk) => disk,
        Err(error) => {
            let message = format!("cannot see the disk of {shown}: {error}");
            return Finding::failure("spool", message, "make the directory usable for the agent");
        }
    };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let used = fs::metadata(directory.join("spool.db")).map_or(0, |file| file.len());
    let message = format!("{shown}: {} MiB free, {} MiB in use", free >> 20, used >> 20);
    match free.saturating_add(used) < max_bytes {
        true => Finding::warning(
            "spool",
            format!("{message}, less than spool.max_bytes"),
            "make room, or lower spool.max_bytes",
        ),
        false => Finding::ok("spool", message),
    }
}

fn waiting(relay: &Relay) -> Vec<Finding> {
    let mut findings = Vec::new();
    for route in &relay.routes {
        if route.dead_letters > 0 {
            findings.push(
                Finding::warning(
                    "spool",
                    format!("{} notifications were given up", route.dead_letters),
                    "exogate spool list, then exogate spool replay or purge",
                )
                .about(&route.name),
            );
        }
    }
    for upstream in &relay.upstreams {
        for server in upstream.servers.iter().filter(|server| !server.up) {
            findings.push(
                Finding::warning(
                    "upstream",
                    format!("{} is down since {}", server.server, server.since),
                    "start the server; what is stored waits for it",
                )
                .about(&upstream.name),
            );
        }
    }
    findings
}
