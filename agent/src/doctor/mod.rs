//! What stands in the way of filtering and delivering on this host, and what to do next.
//!
//! Every look is a [`Finding`]: ok, a warning, or a failure with the next step. Nothing is
//! changed, nothing is locked, and a running agent is asked, not disturbed. Where none runs,
//! files and the kernel are looked at alone. A look that cannot be made is a finding too,
//! never an end of the examination.

mod agent;
mod filter;
mod frames;
mod host;
mod outside;
mod relay;

use std::time::Duration;

use serde::Serialize;

use crate::config::Config;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but less well or less surely than it could.
    Warning,
    /// It does not work.
    Failure,
}

impl Level {
    /// The name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What one look has shown. Field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at: `kernel`, `interface` and so on.
    pub check: &'static str,
    /// Which one, where there are several.
    pub subject: Option<String>,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub message: String,
    /// What to do; none if all is well.
    pub next_step: Option<String>,
}

impl Finding {
    /// A finding that is as it should be.
    #[must_use]
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, subject: None, level: Level::Ok, message: message.into(), next_step: None }
    }

    fn warning(
        check: &'static str,
        message: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        let next_step = Some(next_step.into());
        Self { level: Level::Warning, next_step, ..Self::ok(check, message) }
    }

    /// A finding that keeps something from working.
    #[must_use]
    pub fn failure(
        check: &'static str,
        message: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Self { level: Level::Failure, ..Self::warning(check, message, next_step) }
    }

    fn about(self, subject: impl ToString) -> Self {
        Self { subject: Some(subject.to_string()), ..self }
    }
}

/// Looks at everything. `listen` is how long frames are waited for that the gate cannot judge.
pub async fn examine(config: &Config, listen: Duration) -> Vec<Finding> {
    let status = agent::ask(config).await;
    let mut findings = host::kernel();
    findings.push(host::capabilities(status.as_ref().ok()));
    findings.push(agent::state(config, &status));
    let status = status.ok();
    let (survey, mut pins) = filter::pins(config);
    findings.append(&mut pins);
    let interfaces = filter::interfaces(config, status.as_ref(), survey.as_deref()).await;
    let indexes: Vec<_> = interfaces.iter().filter_map(|(index, _)| *index).collect();
    findings.extend(interfaces.into_iter().map(|(_, finding)| finding));
    // Frames are collected by the kernel while the feeds are asked.
    let frames = frames::Listening::start();
    let (outside, ()) = tokio::join!(outside::feeds(config), tokio::time::sleep(listen));
    findings.extend(outside);
    findings.extend(frames::findings(frames, &indexes, listen));
    findings.push(host::forwarding(config));
    if let Some(status) = &status {
        findings.extend(agent::list(status));
    }
    findings.extend(relay::certificates(config));
    findings.extend(relay::spool(config, status.as_ref()));
    findings
}

/// Looks only at what needs no configuration.
#[must_use]
pub fn examine_host() -> Vec<Finding> {
    let mut findings = host::kernel();
    findings.push(host::capabilities(None));
    findings
}
