//! `exogate config check`: is it valid, and what does it amount to?

use std::process::ExitCode;

use serde_json::json;

use super::{Failure, File, print_json};
use crate::config::{Config, Guard};

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
    Ok(ExitCode::SUCCESS)
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
    json!({
        "file": file.path(),
        "mode": config.mode.name(),
        "interfaces": config.interfaces,
        "guards": guards.collect::<Vec<_>>(),
        "sources": sources.collect::<Vec<_>>(),
    })
}

fn names<'a>(guard: &Guard, config: &'a Config) -> Vec<&'a str> {
    let sources = guard.sources.iter().filter_map(|&place| config.sources.get(place));
    sources.map(|source| source.name.as_str()).collect()
}
