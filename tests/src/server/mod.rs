//! Servers of the distribution, as they are.
//!
//! What an agent meets in life is no stand-in: nginx serves lists, with its own entity
//! tags, passwords and TLS, unbound answers for names, and Prometheus asks for metrics. Each runs in a namespace of
//! the lab, with its files in the lab's directory, and ends with its handle.

mod nginx;
mod prometheus;
mod unbound;

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

pub use self::{
    nginx::Nginx,
    prometheus::{Prometheus, promtool, rules_directory},
    unbound::{Query, Unbound},
};
use crate::lab::{Lab, Namespace};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
struct Server {
    process: Child,
    directory: PathBuf,
    _lab: Lab,
}

impl Server {
    /// A directory for a server's files.
    fn directory(lab: &Lab, name: &str) -> Result<PathBuf> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = lab.directory().join(format!("{name}-{number}"));
        fs::create_dir(&directory)?;
        Ok(directory)
    }

    /// Starts a server that stays in the foreground, and waits until it listens.
    fn start(
        lab: &Lab,
        host: &Namespace,
        directory: &Path,
        command: &[&str],
        listens: &[SocketAddr],
    ) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no program")?;
        let log = File::options().create(true).append(true).open(directory.join("output"))?;
        let mut child = host.command(program);
        child.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = child.spawn().with_context(|| format!("{program} cannot be started"))?;
        let mut server = Self { process, directory: directory.to_owned(), _lab: lab.clone() };
        let begin = Instant::now();
        for address in listens {
            while host.run(|| Ok(TcpStream::connect_timeout(address, START)?)).is_err() {
                if let Some(status) = server.process.try_wait()? {
                    bail!("{program} ended with {status}: {}", server.output());
                }
                ensure!(
                    begin.elapsed() < START,
                    "{program} does not listen on {address}: {}",
                    server.output()
                );
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(server)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.directory.join("output")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; the janitor looks after the rest.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
