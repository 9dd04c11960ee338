//! `exogate history`: what happened to the list.

use std::process::ExitCode;

use super::{Failure, File, print_json};
use crate::{
    admin::{api::History, client},
    allowlist::{self, Record},
};

pub(super) async fn run(file: &File, last: usize, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    let mut history: History = match client::get(&config.admin.socket, "/v1/history").await {
        Ok(history) => history,
        // It is a file, and good without an agent.
        Err(client::Error::NotRunning { .. }) => {
            let records = allowlist::History::new(&config.state_directory).read();
            let directory = config.state_directory.display();
            let failed =
                |error| Failure::new(format!("reading the history in {directory}: {error}"));
            History { records: records.map_err(failed)? }
        }
        Err(error) => return Err(Failure::new(error)),
    };
    history.records.drain(..history.records.len().saturating_sub(last));
    if json {
        return print_json(&history);
    }
    history.records.iter().for_each(print);
    if history.records.is_empty() {
        say!("nothing has happened yet");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(record: &Record) {
    let event = serde_json::to_value(record.event).unwrap_or_default();
    let event = event.as_str().unwrap_or_default().to_owned();
    let mut line = format!("{} {event}", record.at);
    if let Some(feed) = &record.feed {
        line += &format!(" {feed}");
    }
    match (&record.from, &record.to) {
        (Some(from), Some(to)) if from != to => line += &format!(" {from} -> {to}"),
        (_, Some(to)) => line += &format!(" {to}"),
        _ => {}
    }
    line += &format!(", +{} -{}", record.added, record.removed);
    if record.pending > 0 {
        line += &format!(", {} about to go", record.pending);
    }
    if let Some(message) = &record.message {
        line += &format!(": {message}");
    }
    say!("{line}");
    for (sign, changes) in [("+", &record.added_prefixes), ("-", &record.removed_prefixes)] {
        for change in changes {
            say!("  {sign} {} {}", change.prefix, change.source);
        }
    }
}
