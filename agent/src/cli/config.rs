//! `exogate config check`: is it valid, and what does it amount to?

use std::process::ExitCode;

use serde_json::json;

use super::{Failure, File, print_json};
use crate::config::{Config, Guard, Relay, Route, Store, Upstream};

pub(super) fn check(file: &File, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load()?;
    if json {
        return print_json(&summary(file, &config));
    }
    match file.path() {
        Some(path) => say!("{} is valid", path.display()),
        None => say!("there is no configuration file; these are the defaults"),
    }
    say!("mode        {}", config.mode.name());
    let interfaces = if config.interfaces.is_empty() {
        "none; `run` needs --interface".to_owned()
    } else {
        config.interfaces.join(", ")
    };
    say!("interfaces  {interfaces}");
    for guard in &config.guards {
        let protocols: Vec<_> = guard.protocols.iter().map(|protocol| protocol.name()).collect();
        let ports: Vec<_> = guard.ports.iter().map(ToString::to_string).collect();
        let names = names(guard, &config);
        say!(
            "guard       {} {} accepts {}",
            protocols.join("+"),
            ports.join(","),
            names.join(", ")
        );
    }
    for source in &config.sources {
        say!("source      {} = {}", source.name, source.definition);
    }
    tell_relay(&config.relay);
    Ok(ExitCode::SUCCESS)
}

/// What the relay amounts to, without paths: nobody shall know them who need not.
fn tell_relay(relay: &Relay) {
    for listener in &relay.listeners {
        say!("listener    {}", listener.address);
    }
    for route in &relay.routes {
        let host = route.host.as_deref().unwrap_or("any host");
        say!(
            "route       {} = {} at {host} to {}, {}",
            route.name,
            route.kind.name(),
            upstream(route, relay),
            answered(route)
        );
    }
    for upstream in &relay.upstreams {
        say!("upstream    {} = {}", upstream.name, servers(upstream).join(", "));
    }
    if relay.needs_spool() {
        say!("spool       {}, at most {} bytes", spool(relay), relay.spool.max_bytes);
    }
}

fn upstream<'a>(route: &Route, relay: &'a Relay) -> &'a str {
    relay.upstreams.get(route.upstream).map_or("", |upstream| &upstream.name)
}

const fn answered(route: &Route) -> &'static str {
    if route.is_stored() { "stored before it is answered" } else { "answered by the upstream" }
}

fn servers(upstream: &Upstream) -> Vec<String> {
    // A server is a scheme, a host and a port.
    let server = |uri: &hyper::Uri| uri.to_string().trim_end_matches('/').to_owned();
    upstream.servers.iter().map(server).collect()
}

fn spool(relay: &Relay) -> String {
    match &relay.spool.store {
        Store::Disk(directory) => directory.display().to_string(),
        Store::Jetstream(jetstream) => format!(
            "JetStream {} on {} servers, {} copies",
            jetstream.prefix,
            jetstream.servers.len(),
            jetstream.replicas
        ),
    }
}

/// What `--json` prints. Field names are stable.
fn summary(file: &File, config: &Config) -> serde_json::Value {
    let guards = config.guards.iter().map(|guard| {
        let protocols: Vec<_> = guard.protocols.iter().map(|protocol| protocol.name()).collect();
        json!({ "ports": guard.ports, "protocols": protocols, "sources": names(guard, config) })
    });
    let sources = config.sources.iter().map(|source| {
        json!({
            "name": source.name,
            "definition": source.definition.to_string(),
            "protected": source.protected,
        })
    });
    let relay = &config.relay;
    let routes = relay.routes.iter().map(|route| {
        json!({
            "name": route.name,
            "kind": route.kind.name(),
            "host": route.host,
            "upstream": upstream(route, relay),
            "stored": route.is_stored(),
        })
    });
    let upstreams = relay
        .upstreams
        .iter()
        .map(|upstream| json!({ "name": upstream.name, "servers": servers(upstream) }));
    let listeners = relay.listeners.iter().map(|listener| listener.address.to_string());
    let spool = relay
        .needs_spool()
        .then(|| json!({ "store": spool(relay), "max_bytes": relay.spool.max_bytes }));
    json!({
        "file": file.path(),
        "mode": config.mode.name(),
        "interfaces": config.interfaces,
        "guards": guards.collect::<Vec<_>>(),
        "sources": sources.collect::<Vec<_>>(),
        "listeners": listeners.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "upstreams": upstreams.collect::<Vec<_>>(),
        "spool": spool,
    })
}

fn names<'a>(guard: &Guard, config: &'a Config) -> Vec<&'a str> {
    let sources = guard.sources.iter().filter_map(|&place| config.sources.get(place));
    sources.map(|source| source.name.as_str()).collect()
}
