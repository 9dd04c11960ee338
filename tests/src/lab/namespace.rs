//! Network namespaces, entered by threads and by child processes.
//!
//! A thread enters with `setns` and ends there, so that no code runs in the wrong
//! namespace by accident. Sockets stay in the namespace where they were made,
//! whichever thread uses them later. Child processes enter by `nsenter`, which
//! changes the network and nothing else; `ip netns exec` would put an empty /sys
//! over the BPF file system.

use std::{
    fs::{self, File},
    future::Future,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::Command,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::{runtime, sync::oneshot, time::timeout};

use super::janitor::NAMESPACES;
use crate::process::check;

/// A named network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace, with its loopback interface up and IPv6 addresses that
    /// can be used at once.
    pub(super) fn create(name: String) -> Result<Self> {
        check(Command::new("ip").args(["netns", "add", &name]), "")?;
        let namespace = Self { name };
        // New namespaces may inherit other values from the host.
        namespace.sysctl(&[
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
        ])?;
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that `nsenter --net=` takes.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NAMESPACES).join(&self.name)
    }

    /// A command that will run `program` inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs commands of `ip`, one a line.
    ///
    /// # Errors
    ///
    /// If one of them fails; the rest is not run then.
    pub fn ip(&self, batch: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-netns", &self.name, "-batch", "-"]);
        check(&mut command, batch).map(drop).context(batch.to_owned())
    }

    /// Sets kernel parameters below `/proc/sys/net`.
    ///
    /// # Errors
    ///
    /// If one does not exist or is refused.
    pub fn sysctl(&self, values: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in values {
                fs::write(format!("/proc/sys/net/{name}"), value)
                    .with_context(|| format!("{name} cannot be set to {value}"))?;
            }
            Ok(())
        })
    }

    /// Does `work` inside, on a thread of its own.
    ///
    /// # Errors
    ///
    /// Those of `work`; also if the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter()?;
                work()
            });
            worker.join().map_err(|_| anyhow!("a thread in {} panicked", self.name))?
        })
    }

    /// Completes a future inside, if it is done in time.
    ///
    /// # Errors
    ///
    /// Those of the future; also if time runs out.
    pub fn run_async<T: Send, F: Future<Output = Result<T>>>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> F + Send,
    ) -> Result<T> {
        self.run(|| {
            runtime()?.block_on(async {
                let done = timeout(patience, work()).await;
                done.with_context(|| format!("not done in {patience:?} in {}", self.name))?
            })
        })
    }

    /// Starts a future inside, which goes on until the result is dropped.
    pub(crate) fn serve<F: Future<Output = Result<()>>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Background> {
        let (stop, stopped) = oneshot::channel();
        let namespace = self.clone();
        let thread = thread::Builder::new().name(self.name.clone()).spawn(move || {
            namespace.enter()?;
            runtime()?.block_on(async {
                tokio::select! {
                    result = work() => result,
                    _ = stopped => Ok(()),
                }
            })
        })?;
        Ok(Background { stop: Some(stop), thread: Some(thread) })
    }

    /// A listening socket inside.
    pub(crate) fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        self.bind(address, |address| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    /// A datagram socket inside.
    pub(crate) fn datagram(&self, address: SocketAddr) -> Result<UdpSocket> {
        self.bind(address, |address| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
    }

    fn bind<T: Send>(
        &self,
        address: SocketAddr,
        bind: impl FnOnce(SocketAddr) -> io::Result<T> + Send,
    ) -> Result<T> {
        self.run(|| {
            bind(address).with_context(|| format!("{address} cannot be bound in {}", self.name))
        })
    }

    fn enter(&self) -> Result<()> {
        let file = File::open(self.path())
            .with_context(|| format!("there is no namespace {}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("{} cannot be entered", self.name))
    }
}

/// A thread that serves until this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Background {
    /// Waits until it ends by itself, and tells how it fared.
    pub(crate) fn join(mut self) -> Result<()> {
        self.ended()
    }

    fn ended(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("a serving thread panicked"))?
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Err(error) = self.ended() {
            eprintln!("error: {error:#}");
        }
    }
}

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}
