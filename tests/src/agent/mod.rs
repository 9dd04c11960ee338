//! The agent, as a process on the edge host.
//!
//! The lab knows it as an operator does: a binary, a configuration file, signals,
//! the admin address, the command line. Nothing is linked in, so a test holds for
//! the program that is shipped.
//!
//! The agent's log goes to a file in the lab's directory, and every error that the
//! agent may be to blame for ends with it. An agent that still runs when its handle
//! is dropped is killed; the filter that it leaves goes with the lab's namespaces.

mod metrics;
pub mod relay;

use std::{
    fs::{self, File, OpenOptions},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use toml::{Table, Value};

pub use self::metrics::{Metrics, Sample};
use crate::{
    http::{Get, Response},
    lab::{EDGE_INTERFACE, Lab},
    peer::Reached,
    process::{Output, agent_binary, run, wait},
    service::EndpointService,
    terminal::Terminal,
};

/// How long the agent may take to be ready, in a debug build on a busy machine.
pub const READY: Duration = Duration::from_secs(90);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(60);
/// How long a command of its command line may take.
const COMMAND: Duration = Duration::from_secs(20);
/// How long it may take to answer a request.
const REQUEST: Duration = Duration::from_secs(5);

/// An agent with its configuration; it runs or it does not.
#[derive(Debug)]
pub struct Agent {
    lab: Lab,
    binary: Option<PathBuf>,
    settings: Table,
    directory: PathBuf,
    admin: SocketAddr,
    process: Option<Child>,
}

impl Agent {
    /// An agent that does not run yet, with settings for this lab: it guards the edge
    /// host's interface, asks the lab's endpoint service, and keeps its pins, state
    /// and socket in the lab's directory. It enforces.
    ///
    /// # Errors
    ///
    /// If the lab's directory cannot be written to.
    pub fn new(lab: &Lab) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = lab.directory().join(format!("agent-{number}"));
        fs::create_dir(&directory)?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 9469));
        let mut agent = Self {
            lab: lab.clone(),
            binary: None,
            settings: Table::new(),
            directory,
            admin,
            process: None,
        };
        agent
            .set("mode", "enforce")?
            .set("interfaces", vec![EDGE_INTERFACE])?
            .set("state_directory", text(&agent_file(lab, "state"))?)?
            .set("gate.pin_directory", text(&lab.pin_directory().join("exogate"))?)?
            .set("feed.base_url", EndpointService::base_url())?
            .set("feed.ca_file", text(&lab.ca_file())?)?
            .set("feed.first_poll_within", "0s")?
            .set("admin.listen", admin.to_string())?
            .set("admin.socket", text(&agent_file(lab, "control.sock"))?)?;
        Ok(agent)
    }

    /// Another agent on the same host, with an admin address, a socket and a state of its
    /// own. It needs another interface, or it is turned away.
    ///
    /// # Errors
    ///
    /// See [`Agent::new`].
    pub fn second(lab: &Lab) -> Result<Self> {
        let mut agent = Self::new(lab)?;
        agent.admin.set_port(9470);
        let listen = agent.admin.to_string();
        agent
            .set("admin.listen", listen)?
            .set("admin.socket", text(&agent_file(lab, "second.sock"))?)?
            .set("state_directory", text(&agent_file(lab, "second-state"))?)?;
        Ok(agent)
    }

    /// Another program than the one that was just built, for instance an older
    /// release. Holds from the next start.
    pub fn use_binary(&mut self, binary: impl Into<PathBuf>) -> &mut Self {
        self.binary = Some(binary.into());
        self
    }

    /// Sets a value of the configuration, by its path: `gate.on_stop`. Holds from the
    /// next start, or the next [`Agent::reload`].
    ///
    /// # Errors
    ///
    /// If a part of the path is a value already.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<&mut Self> {
        let mut table = &mut self.settings;
        let (sections, key) = path.rsplit_once('.').unwrap_or(("", path));
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().with_context(|| format!("{section} in {path}"))?;
        }
        table.insert(key.to_owned(), value.into());
        Ok(self)
    }

    /// The whole configuration, for what [`Agent::set`] cannot say.
    pub fn settings(&mut self) -> &mut Table {
        &mut self.settings
    }

    /// The configuration file; it is written by each start.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("exogate.toml")
    }

    /// The state directory that the configuration names.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        agent_file(&self.lab, "state")
    }

    /// Starts the agent and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it is not ready in time, or ends before; with its log.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready(READY)
    }

    /// Starts the agent and does not wait.
    ///
    /// # Errors
    ///
    /// If it runs already, has not been built, or cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(!self.is_running()?, "the agent runs already");
        self.write_config()?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = self.command()?;
        command.arg("run").arg("--config").arg(self.config_file());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn().context("the agent cannot be started")?);
        Ok(())
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    ///
    /// If it does not in time, or the agent ends before; with its log.
    pub fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let answer = match self.get("/readyz") {
                Ok(response) if response.status == 200 => return Ok(()),
                Ok(response) => format!("/readyz: {} {}", response.status, response.text()),
                Err(error) => format!("/readyz: {error:#}"),
            };
            let Some(process) = &mut self.process else { bail!("the agent was not started") };
            if let Some(status) = process.try_wait()? {
                self.process = None;
                bail!("the agent ended with {status} before it was ready\n{}", self.log());
            }
            ensure!(
                begin.elapsed() < patience,
                "the agent is not ready after {patience:?}: {answer}\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the process is there.
    ///
    /// # Errors
    ///
    /// If the kernel cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(match &mut self.process {
            Some(process) => process.try_wait()?.is_none(),
            None => false,
        })
    }

    /// The process id, if it was started.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Asks the agent to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    ///
    /// If it does not stop in time; with its log.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_exit(STOP)
    }

    /// Kills the agent, as a crash would.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_exit(STOP).map(drop)
    }

    /// Stops and starts the agent.
    ///
    /// # Errors
    ///
    /// If it does not stop, or is not ready again in time.
    pub fn restart(&mut self) -> Result<()> {
        self.terminate()?;
        self.start()
    }

    /// Writes the configuration and asks the agent to read it (SIGHUP).
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn reload(&mut self) -> Result<()> {
        self.write_config()?;
        self.hup()
    }

    /// Sends SIGHUP.
    ///
    /// # Errors
    ///
    /// If the agent does not run.
    pub fn hup(&mut self) -> Result<()> {
        self.signal(Signal::SIGHUP)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// If the agent does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.is_running()?, "the agent does not run\n{}", self.log());
        let pid = self.pid().context("the agent was not started")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Waits until the agent ends by itself.
    ///
    /// # Errors
    ///
    /// If it does not in time; it is killed then.
    pub fn wait_exit(&mut self, patience: Duration) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the agent was not started")?;
        wait(&mut process, patience)
            .with_context(|| format!("the agent does not end\n{}", self.log()))
    }

    /// Runs `exogate ARGUMENTS --config FILE` on the edge host.
    ///
    /// # Errors
    ///
    /// If it does not end in time. An exit code is no error.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        self.write_config()?;
        let mut command = self.command()?;
        run(command.args(arguments).arg("--config").arg(self.config_file()), COMMAND)
    }

    /// What `exogate status --json` prints.
    ///
    /// # Errors
    ///
    /// See [`Agent::json`].
    pub fn status_json(&self) -> Result<serde_json::Value> {
        self.json(&["status"])
    }

    /// What `exogate ARGUMENTS` prints; it has to succeed.
    ///
    /// # Errors
    ///
    /// If the command fails; with the log.
    pub fn print(&self, arguments: &[&str]) -> Result<String> {
        let Output { code, stdout, stderr } = self.cli(arguments)?;
        ensure!(code == 0, "{arguments:?} ended with {code}: {stderr}\n{}", self.log());
        Ok(stdout)
    }

    /// What `exogate ARGUMENTS --json` prints; it has to succeed.
    ///
    /// # Errors
    ///
    /// If the command fails, or prints anything else.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let printed = self.print(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("not JSON: {printed}"))
    }

    /// Waits until the feed of an instance, or of a source, has this version in force.
    ///
    /// # Errors
    ///
    /// If it does not in time; with the log.
    pub fn wait_for_version(&self, feed: &str, version: &str, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let status = self.status_json()?;
            let feeds = status.get("feeds").and_then(serde_json::Value::as_array);
            let is_it = |found: &&serde_json::Value| found.get("feed").is_some_and(|of| of == feed);
            let found =
                feeds.into_iter().flatten().find(is_it).and_then(|feed| feed.get("version"));
            if found.is_some_and(|found| found == version) {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < patience,
                "{feed} has version {found:?}, not {version}, after {patience:?}\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The metrics.
    ///
    /// # Errors
    ///
    /// If the agent does not answer, or a line is not of the exposition format.
    pub fn metrics(&self) -> Result<Metrics> {
        let response = self.get("/metrics")?;
        ensure!(response.status == 200, "/metrics: {} {}", response.status, response.text());
        response.text().parse()
    }

    /// Gets a path from the admin address, on the edge host.
    ///
    /// # Errors
    ///
    /// If nobody answers.
    pub fn get(&self, path: &str) -> Result<Response> {
        let get = Get {
            source: None,
            target: self.admin,
            tls: None,
            path: path.to_owned(),
            patience: REQUEST,
        };
        match self.lab.edge().run_async(REQUEST, || get.send())? {
            Reached::Answered(response) => Ok(response),
            other => bail!("{} does not answer: {other:?}", self.admin),
        }
    }

    /// Waits until `holds` does, and asks for the metrics each time.
    ///
    /// # Errors
    ///
    /// If it does not in time; with `what` and the log.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&Metrics) -> bool,
    ) -> Result<Metrics> {
        let begin = Instant::now();
        loop {
            // A busy machine may leave one question without an answer.
            let metrics = self.metrics();
            let late = begin.elapsed() >= patience;
            match metrics {
                Ok(metrics) if holds(&metrics) => return Ok(metrics),
                Ok(metrics) if late => {
                    bail!("not within {patience:?}: {what}\n{metrics}\n{}", self.log())
                }
                Err(error) if late => return Err(error.context(format!("{what}; {}", self.log()))),
                _ => {}
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that the agent has logged since the first start.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        format!("--- log of the agent\n{}---", String::from_utf8_lossy(&log))
    }

    /// `exogate top` on a terminal of 30 rows and 110 columns.
    ///
    /// # Errors
    ///
    /// If the agent's binary or the terminal cannot be had.
    pub fn top(&self) -> Result<Terminal> {
        // A terminal of its own in every respect, whatever terminal the test runs on.
        let mut command = self.lab.edge().command("setsid");
        command.args(["--ctty", "--wait"]).arg(self.program()?);
        command.args(["top", "--config"]).arg(self.config_file());
        Terminal::start(&mut command, 30, 110)
    }

    fn command(&self) -> Result<Command> {
        Ok(self.lab.edge().command(self.program()?))
    }

    fn program(&self) -> Result<PathBuf> {
        self.binary.clone().map_or_else(agent_binary, Ok)
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn write_config(&self) -> Result<()> {
        // Whole or not at all, since a running agent may be reading it.
        let next = self.directory.join("next.toml");
        fs::write(&next, toml::to_string(&self.settings)?)?;
        File::open(&next)?.sync_all()?;
        Ok(fs::rename(next, self.config_file())?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // It may have ended by itself; the janitor looks after the rest.
        drop(process.kill());
        drop(process.wait());
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A file of the agent that outlives its handle: the next agent of the lab goes on
/// where it stopped.
fn agent_file(lab: &Lab, name: &str) -> PathBuf {
    lab.directory().join(name)
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is not UTF-8")
}
