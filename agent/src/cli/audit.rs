//! `exogate audit`: who changed what.

use std::process::ExitCode;

use super::{Failure, File, print_json};
use crate::admin::{AuditRecord, audit_records, client};

pub(super) async fn run(file: &File, last: usize, json: bool) -> Result<ExitCode, Failure> {
    let config = file.load_to_ask()?;
    let mut records: Vec<AuditRecord> = match client::get(&config.admin.socket, "/v1/audit").await {
        Ok(records) => records,
        // It is a file, and good without an agent.
        Err(client::Error::NotRunning { .. }) => {
            let directory = config.state_directory.display();
            let failed =
                |error| Failure::new(format!("reading the audit log in {directory}: {error}"));
            audit_records(&config.state_directory).map_err(failed)?
        }
        Err(error) => return Err(Failure::new(error)),
    };
    records.drain(..records.len().saturating_sub(last));
    if json {
        return print_json(&records);
    }
    records.iter().for_each(print);
    if records.is_empty() {
        say!("nobody has ordered anything yet");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(record: &AuditRecord) {
    let AuditRecord { at, caller, order, outcome, message } = record;
    let user = caller.user.clone().unwrap_or_else(|| format!("uid {}", caller.uid));
    let message = message.as_ref().map_or(String::new(), |message| format!(": {message}"));
    say!("{at} {user} {} {order}{message}", outcome.name());
}
