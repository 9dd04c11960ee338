//! `exogate doctor`: what is wrong with this host, and what to do next.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;

use super::{Failure, File};
use crate::doctor::{self, Finding, Level};

/// Exit status if there are failures.
const FAILURES: u8 = 1;
/// Exit status if there are warnings alone.
const WARNINGS: u8 = 2;

/// What `--json` prints. Field names are stable.
#[derive(Serialize)]
struct Report {
    worst: Level,
    findings: Vec<Finding>,
}

pub(super) async fn run(file: &File, listen: Duration, json: bool) -> Result<ExitCode, Failure> {
    let findings = match file.load() {
        Ok(config) => {
            let named = file.path().map_or_else(
                || "there is no file, so the defaults hold".to_owned(),
                |path| format!("{} is valid", path.display()),
            );
            let mut findings = vec![Finding::ok("configuration", named)];
            findings.extend(doctor::examine(&config, listen).await);
            findings
        }
        Err(error) => {
            let next = "correct the file; until then only the host is looked at";
            let mut findings = vec![Finding::failure("configuration", error.to_string(), next)];
            findings.extend(doctor::examine_host());
            findings
        }
    };
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    if json {
        super::print_json(&Report { worst, findings })?;
    } else {
        findings.iter().for_each(print);
    }
    Ok(match worst {
        Level::Ok => ExitCode::SUCCESS,
        Level::Warning => WARNINGS.into(),
        Level::Failure => FAILURES.into(),
    })
}

fn print(finding: &Finding) {
    let subject = finding.subject.as_deref().map_or(String::new(), |name| format!("{name}: "));
    say!("{:<8} {:<14} {subject}{}", finding.level.name(), finding.check, finding.message);
    if let Some(next) = &finding.next_step {
        say!("{:<8} {:<14}   next: {next}", "", "");
    }
}
