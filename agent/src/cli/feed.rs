//! `exogate feed`: what the feeds bring, and what becomes of it.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use prometheus::Registry;

use super::{Failure, File, diff, print_json};
use crate::{
    admin::{
        api::{Obeyed, Order},
        client,
    },
    allowlist::{Import, Keeper, MAX_IMPORT, Unpublished},
    config::Config,
    daemon,
    source::microsoft365::Version,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Poll all feeds now, and say what is not in force then
    Refresh {
        /// Only show what they would change
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Poll a feed now and take what it says, even if a source loses more than is believed
    ///
    /// What cannot be right, such as a private address, is refused all the same. See `exogate diff`
    /// before.
    Accept {
        /// An instance of the web service, or a source
        #[arg(value_name = "INSTANCE|SOURCE")]
        feed: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put nothing in force that feeds say, until `resume`; they are still polled
    Hold {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Go on putting in force what feeds say
    Resume {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take the content of a feed from a file, for hosts with no way out
    ///
    /// For an instance of the web service: an answer of https://endpoints.office.com/endpoints/NAME.
    /// For a source: its list. It is vetted like any answer. Without a running agent it is stored,
    /// and in force with the next start.
    Import(ImportArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArguments {
    /// The file; - is standard input
    file: PathBuf,
    /// An instance of the web service, or a source
    #[arg(long, value_name = "INSTANCE|SOURCE", default_value = "Worldwide")]
    feed: String,
    /// The version of an answer of the web service, as /version says; without it the next poll gets
    /// the answer again
    #[arg(long, value_name = "YYYYMMDDNN")]
    version: Option<Version>,
    /// Take it even if a source loses more than is believed
    #[arg(long)]
    accept: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(file: &File, command: Command) -> Result<ExitCode, Failure> {
    let (order, json) = match command {
        Command::Refresh { dry_run, json } => (Order::Refresh { dry_run }, json),
        Command::Accept { feed, json } => (Order::Accept { feed }, json),
        Command::Hold { json } => (Order::Hold, json),
        Command::Resume { json } => (Order::Resume, json),
        Command::Import(arguments) => return import(file, arguments).await,
    };
    let config = file.load_to_ask()?;
    let obeyed = client::order(&config.admin.socket, &order).await.map_err(Failure::new)?;
    show(&obeyed, json)
}

async fn import(file: &File, arguments: ImportArguments) -> Result<ExitCode, Failure> {
    let ImportArguments { file: path, feed, version, accept, json } = arguments;
    let config = file.load_to_ask()?;
    let body = read(&path)?;
    let content = String::from_utf8(body)
        .map_err(|error| Failure::new(format!("{} is not UTF-8: {error}", path.display())))?;
    let order = Order::Import {
        feed: feed.clone(),
        version: version.map(|version| version.to_string()),
        accept,
        content: content.clone(),
    };
    match client::order(&config.admin.socket, &order).await {
        Ok(obeyed) => show(&obeyed, json),
        Err(client::Error::NotRunning { .. }) => {
            let feed = daemon::feed(&config, &feed).map_err(Failure::new)?;
            let import = Import { feed, body: content.into_bytes(), version, accept };
            offline(config, &import, json)
        }
        Err(error) => Err(Failure::new(error)),
    }
}

fn offline(config: Config, import: &Import, json: bool) -> Result<ExitCode, Failure> {
    let mut keeper = Keeper::open(Arc::new(config), &Registry::new()).map_err(Failure::new)?;
    keeper.import(import, &mut Unpublished).map_err(Failure::new)?;
    let hash = keeper.list().hash().to_owned();
    if json {
        return print_json(&serde_json::json!({ "list": hash, "stored": true }));
    }
    say!("stored; no agent is running, so it is in force with the next start (list {hash})");
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed =
        |error: io::Error| Failure::new(format!("reading {} failed: {error}", path.display()));
    let most = u64::try_from(MAX_IMPORT).unwrap_or(u64::MAX).saturating_add(1);
    let mut body = Vec::new();
    if path == Path::new("-") {
        io::stdin().take(most).read_to_end(&mut body).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(most).read_to_end(&mut body).map_err(failed)?;
    }
    if body.len() > MAX_IMPORT {
        let message = format!("{} has more than {MAX_IMPORT} bytes", path.display());
        return Err(Failure::new(message));
    }
    Ok(body)
}

fn show(obeyed: &Obeyed, json: bool) -> Result<ExitCode, Failure> {
    if json {
        return print_json(obeyed);
    }
    diff::print(&obeyed.diff);
    say!("allow-list {}", obeyed.list);
    Ok(ExitCode::SUCCESS)
}
