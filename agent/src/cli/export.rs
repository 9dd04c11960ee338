//! `exogate export`: the list for firewalls, people and other agents.

use std::{io::Write as _, process::ExitCode, sync::Arc};

use prometheus::Registry;

use super::{Failure, File};
use crate::{
    admin::{api::ExportFormat, client},
    allowlist::Keeper,
    daemon,
};

pub(super) async fn run(
    file: &File,
    format: ExportFormat,
    sources: Vec<String>,
) -> Result<ExitCode, Failure> {
    let config = file.load()?;
    if let Some(unknown) =
        sources.iter().find(|name| !config.sources.iter().any(|source| source.name == **name))
    {
        return Err(Failure::usage(format!("no guard uses a source {unknown:?}")));
    }
    let mut path = format!("/export?format={}", format.name());
    for source in &sources {
        path += &format!("&source={source}");
    }
    let page = match client::get_text(&config.admin.socket, &path).await {
        Ok(page) => page.to_vec(),
        Err(client::Error::NotRunning { .. }) => {
            let keeper = Keeper::open(Arc::new(config), &Registry::new()).map_err(Failure::new)?;
            let text = daemon::export(&keeper.list(), format, &sources).map_err(Failure::new)?;
            text.into_bytes()
        }
        Err(error) => return Err(Failure::new(error)),
    };
    std::io::stdout()
        .write_all(&page)
        .map_err(|error| Failure::new(format!("writing the list failed: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
