//! Prometheus, with this project's rules.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Server;
use crate::{
    http::{Get, Response},
    lab::Lab,
    peer::Reached,
    process::check,
};

/// Where it listens, on the edge host.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The rules, in the order in which they are loaded.
const RULES: [&str; 2] = ["recording.yml", "alerts.yml"];

/// A Prometheus on the edge host.
#[derive(Debug)]
pub struct Prometheus {
    _server: Server,
    lab: Lab,
}

/// The directory of the rules that operators get.
#[must_use]
pub fn rules_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

/// Runs `promtool` and expects success.
///
/// # Errors
///
/// If it is not installed, or finds fault.
pub fn promtool(arguments: &[&str], input: &str) -> Result<String> {
    check(Command::new("promtool").args(arguments), input)
}

impl Prometheus {
    /// Starts one that scrapes these targets as the job `exogate`, with the rules that
    /// operators get, in which minutes pass as seconds and nothing lasts longer than
    /// ten.
    ///
    /// # Errors
    ///
    /// If it is not installed, or refuses configuration or rules.
    pub fn start(lab: &Lab, targets: &[&str]) -> Result<Self> {
        let directory = Server::directory(lab, "prometheus")?;
        for name in RULES {
            let rules = fs::read_to_string(rules_directory().join(name))?;
            fs::write(directory.join(name), hasten(&rules))?;
        }
        let config = directory.join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 300ms, scrape_timeout: 300ms, evaluation_interval: 300ms}}
rule_files: {RULES:?}
scrape_configs:
- job_name: exogate
  static_configs: [{{targets: {targets:?}}}]
"
            ),
        )?;
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let config = option("config.file", &config);
        let storage = option("storage.tsdb.path", &directory.join("data"));
        let listen = format!("--web.listen-address={ADDRESS}");
        let command = ["prometheus", &config, &storage, &listen];
        let server = Server::start(lab, lab.edge(), &directory, &command, &[ADDRESS])?;
        let prometheus = Self { _server: server, lab: lab.clone() };
        let begin = Instant::now();
        while prometheus.get("/-/ready")?.status != 200 {
            ensure!(begin.elapsed() < ANSWER, "Prometheus is not ready in {ANSWER:?}");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(prometheus)
    }

    /// The result of an expression, now.
    ///
    /// # Errors
    ///
    /// If it is none, or Prometheus does not answer.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let answer = self.json(&format!("/api/v1/query?query={}", escape(expression)))?;
        let result = answer.pointer("/data/result").and_then(Value::as_array);
        result.cloned().with_context(|| format!("{expression}: {answer}"))
    }

    /// The alerts that fire.
    ///
    /// # Errors
    ///
    /// If Prometheus does not answer.
    pub fn firing(&self) -> Result<Vec<Value>> {
        let answer = self.json("/api/v1/alerts")?;
        let alerts = answer.pointer("/data/alerts").and_then(Value::as_array);
        let mut alerts = alerts.cloned().with_context(|| answer.to_string())?;
        alerts.retain(|alert| alert.get("state").is_some_and(|state| state == "firing"));
        Ok(alerts)
    }

    /// Whether an alert fires now.
    ///
    /// # Errors
    ///
    /// If Prometheus does not answer.
    pub fn fires(&self, name: &str) -> Result<bool> {
        let is_it =
            |alert: &Value| alert.pointer("/labels/alertname").is_some_and(|found| found == name);
        Ok(self.firing()?.iter().any(is_it))
    }

    /// Waits until an alert fires, or does not any more.
    ///
    /// # Errors
    ///
    /// If it goes on as before for that long.
    pub fn wait_for(&self, name: &str, fires: bool, patience: Duration) -> Result<Vec<Value>> {
        let begin = Instant::now();
        loop {
            let mut firing = self.firing()?;
            firing.retain(|alert| {
                alert.pointer("/labels/alertname").is_some_and(|found| found == name)
            });
            if firing.is_empty() != fires {
                return Ok(firing);
            }
            let what = if fires { "does not fire" } else { "does not resolve" };
            ensure!(begin.elapsed() < patience, "{name} {what} in {patience:?}: {firing:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn json(&self, path: &str) -> Result<Value> {
        let response = self.get(path)?;
        serde_json::from_slice(&response.body).with_context(|| response.text())
    }

    fn get(&self, path: &str) -> Result<Response> {
        let path = path.to_owned();
        let get = Get { source: None, target: ADDRESS, tls: None, path, patience: ANSWER };
        match self.lab.edge().run_async(ANSWER, || get.send())? {
            Reached::Answered(response) => Ok(response),
            other => bail!("Prometheus does not answer: {other:?}"),
        }
    }
}

/// The longest time in hastened rules, in seconds.
const LONGEST: u64 = 10;

/// Rules in which minutes pass as seconds: what alerts wait for, what they look back on,
/// and the times that they compare with.
fn hasten(rules: &str) -> String {
    let rules = rules.replace("* 3600", "* 1").replace("* 60", "* 1");
    let mut hastened = String::new();
    for line in rules.lines() {
        let waits = line.trim_start().strip_prefix("for: ").is_some();
        let line = match waits {
            true => "        for: 1s".to_owned(),
            false => ["[", "offset "].iter().fold(line.to_owned(), |line, before| {
                let mut pieces = line.split(before);
                let first = pieces.next().unwrap_or_default().to_owned();
                pieces.fold(first, |line, piece| line + before + &hastened_duration(piece))
            }),
        };
        hastened.push_str(&line);
        hastened.push('\n');
    }
    hastened
}

/// The same text, in which a duration at its beginning is shorter.
fn hastened_duration(text: &str) -> String {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let rest = text.get(digits.len()..).unwrap_or_default();
    let minutes = match rest.chars().next() {
        Some('m') => 1,
        Some('h') => 60,
        Some('d') => 1440,
        _ => return text.to_owned(),
    };
    let Ok(count) = digits.parse::<u64>() else { return text.to_owned() };
    let seconds = count.saturating_mul(minutes).min(LONGEST);
    format!("{seconds}s{}", rest.get(1..).unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => {
            escaped + &char::from(byte).to_string()
        }
        _ => escaped + &format!("%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hastened_rules_wait_for_seconds() {
        let rules =
            "  for: 5m\n  expr: a > 10 * avg_over_time(b[1d] offset 10m) and c > 4 * 3600\n";
        let expected =
            "        for: 1s\n  expr: a > 10 * avg_over_time(b[10s] offset 10s) and c > 4 * 1\n";
        assert_eq!(hasten(rules), expected);
    }
}
