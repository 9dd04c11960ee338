//! `exogate config check`: is it valid, and what does it amount to?

use std::process::ExitCode;

use super::{Failure, File};

pub(super) fn check(file: &File) -> Result<ExitCode, Failure> {
    let config = file.load()?;
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
        let names = guard.sources.iter().filter_map(|&place| config.sources.get(place));
        let names: Vec<_> = names.map(|source| source.name.as_str()).collect();
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
