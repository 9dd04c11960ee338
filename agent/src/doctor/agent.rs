//! The running agent, by its own account.

use super::Finding;
use crate::{
    admin::{api::Status, client},
    config::Config,
    gate::pins,
};

pub(super) async fn ask(config: &Config) -> Result<Status, client::Error> {
    client::get(&config.admin.socket, "/v1/status").await
}

/// Whether it runs, and what it waits for.
pub(super) fn state(config: &Config, status: &Result<Status, client::Error>) -> Finding {
    match status {
        Ok(status) if !status.waiting_for.is_empty() => Finding::failure(
            "agent",
            format!("the agent runs and waits for {}", status.waiting_for.join(", ")),
            "see the other lines here, and the agent's log",
        ),
        Ok(status) => {
            let (version, mode, pid) = (&status.version, &status.mode, status.pid);
            Finding::ok("agent", format!("version {version} runs in {mode} mode, process {pid}"))
        }
        Err(error @ client::Error::NotRunning { .. }) => {
            let filter = match pins::interfaces(&config.gate.pin_directory) {
                Ok(pinned) if pinned.is_empty() => "and no filter is pinned",
                Ok(_) => "the filter of an earlier run is still in force, and its list grows old",
                Err(_) => "and whether a filter is still in force cannot be seen",
            };
            Finding::warning("agent", format!("{error}; {filter}"), "systemctl start exogate")
        }
        Err(error) => Finding::warning(
            "agent",
            error.to_string(),
            "run this command as root, or as a member of the group in admin.group",
        ),
    }
}

/// The list in force, and how its feeds fare.
pub(super) fn list(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &status.list.sources {
        if source.ipv4.saturating_add(source.ipv6) == 0 {
            let message = "the source has no prefix, so nobody passes through it";
            let next = "exogate feed refresh, or exogate feed import on a host with no way out";
            findings.push(Finding::failure("list", message, next).about(&source.name));
        }
    }
    for feed in &status.feeds {
        if let Some(problem) = &feed.problem {
            let message = format!("since {}: {} ({})", problem.at, problem.message, problem.reason);
            let next = match problem.can_be_accepted {
                true => format!("look at `exogate diff`, then `exogate feed accept {}`", feed.feed),
                false => "exogate feed refresh, once the cause is gone".to_owned(),
            };
            findings.push(Finding::warning("list", message, next).about(&feed.feed));
        }
    }
    if status.hold {
        let message = "updates of feeds are on hold";
        findings.push(Finding::warning("list", message, "exogate feed resume"));
    }
    if findings.is_empty() {
        let sources = status.list.sources.len();
        findings.push(Finding::ok("list", format!("{sources} sources, all with prefixes")));
    }
    findings
}
