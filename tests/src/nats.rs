//! A cluster of real NATS servers on loopback, with JetStream in directories of
//! its own.
//!
//! Servers can be killed, stopped, and started again on what they left. Everything
//! is done with processes that this module started, by their ids. However a test
//! ends, a shell that waits for the end of its process kills what is left and
//! removes the directory, as the lab's janitor does.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    process::wait,
    tls::{Authority, Validity},
};

/// The longest that a cluster may need to be ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// How long copies of a stream may differ to which nothing is added.
const SETTLE: Duration = Duration::from_secs(10);

/// Kills the servers whose ids are in its directory, then removes that.
const JANITOR: &str = r#"
cat >/dev/null
for file in "$1"/*.pid; do
    [ -e "$file" ] && kill -KILL "$(cat "$file")" 2>/dev/null
done
rm -rf "$1"
"#;

/// Servers that form a cluster.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    scheme: &'static str,
    janitor: Child,
    directory: PathBuf,
}

#[derive(Debug)]
struct Node {
    name: String,
    client: u16,
    monitor: u16,
    child: Option<Child>,
}

impl Cluster {
    /// Starts this many servers and waits until they have a leader.
    ///
    /// # Errors
    ///
    /// If the program is not there, or they do not come up.
    pub fn start(count: usize) -> Result<Self> {
        Self::start_with(count, None)
    }

    /// The same, where clients have to speak TLS and show a certificate of this
    /// authority. Its certificate is in `ca.pem`, one for clients in `client.pem`
    /// and `client-key.pem` of [`Self::directory`].
    ///
    /// # Errors
    ///
    /// As for [`Self::start`].
    pub fn start_with_tls(count: usize, authority: &Authority) -> Result<Self> {
        Self::start_with(count, Some(authority))
    }

    fn start_with(count: usize, authority: Option<&Authority>) -> Result<Self> {
        let temporary = TempDir::with_prefix("exogate-nats-")?;
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "sh"])
            .arg(temporary.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("the shell that cleans up after the servers cannot be started")?;
        let directory = temporary.keep();
        let scheme = if authority.is_some() { "tls" } else { "nats" };
        let mut cluster = Self { nodes: Vec::new(), scheme, janitor, directory };
        if let Some(authority) = authority {
            cluster.write_certificates(authority)?;
        }
        let ports = free_ports(count.saturating_mul(3))?;
        let (groups, _) = ports.as_chunks::<3>();
        let routes: Vec<_> =
            groups.iter().map(|[_, route, _]| format!("nats://127.0.0.1:{route}")).collect();
        for (number, [client, route, monitor]) in groups.iter().enumerate() {
            let node = Node {
                name: format!("n{number}"),
                client: *client,
                monitor: *monitor,
                child: None,
            };
            cluster.configure(&node, *route, &routes.join(","), authority.is_some())?;
            cluster.nodes.push(node);
        }
        for node in 0..count {
            cluster.restart(node)?;
        }
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What clients are told, one for each server.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let url = |node: &Node| format!("{}://127.0.0.1:{}", self.scheme, node.client);
        self.nodes.iter().map(url).collect()
    }

    /// Kills a server as a power cut of its host would, but for what the kernel
    /// has not written yet.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let pid_file = self.pid_file(node)?;
        let mut child = self.node_mut(node)?.child.take().context("the server does not run")?;
        child.kill()?;
        child.wait()?;
        // Its id may be another process' now.
        let _ = fs::remove_file(pid_file);
        Ok(())
    }

    /// Stops a server where it stands, with its connections open, until
    /// [`Self::resume`].
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::SIGSTOP)
    }

    /// Lets a server go on.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::SIGCONT)
    }

    /// Starts a server, with what it left when it ran before.
    ///
    /// # Errors
    ///
    /// If the program is not there.
    pub fn restart(&mut self, node: usize) -> Result<()> {
        let name = self.node(node)?.name.clone();
        let pid_file = self.pid_file(node)?;
        let log = fs::File::create(self.directory.join(format!("{name}.out")))?;
        let child = Command::new("nats-server")
            .arg("--config")
            .arg(self.directory.join(format!("{name}.conf")))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context(
                "nats-server cannot be started; as root, run\n  \
                 apt-get install --no-install-recommends nats-server",
            )?;
        fs::write(pid_file, child.id().to_string())?;
        self.node_mut(node)?.child = Some(child);
        Ok(())
    }

    /// Waits until the servers that run agree on a leader.
    ///
    /// # Errors
    ///
    /// If that takes too long.
    pub fn wait_until_ready(&self) -> Result<()> {
        // Streams and consumers are left out: under load they are behind at times.
        let healthy = |node: &Node| node.get("/healthz?js-server-only=true").is_ok();
        let leader = |node: &Node| {
            let jsz = node.get("/jsz").ok()?;
            let leader = jsz.get("meta_cluster")?.get("leader")?.as_str()?.to_owned();
            (!leader.is_empty()).then_some(leader)
        };
        // Alone it has no cluster, and nobody to agree with.
        let alone = self.nodes.len() == 1;
        until("a leader of the NATS servers", || {
            let all = self.running().all(|(_, node)| healthy(node));
            let leaders: BTreeSet<_> = self.running().map(|(_, node)| leader(node)).collect();
            let agree = leaders.len() == 1 && !leaders.contains(&None);
            (all && (alone || agree)).then_some(())
        })
        .with_context(|| self.logs())
    }

    /// Waits until all servers have all of this stream; which of them leads it.
    ///
    /// # Errors
    ///
    /// If that takes too long.
    pub fn wait_until_current(&self, stream: &str) -> Result<usize> {
        let leads = |node: &Node| {
            let found = node.stream(stream)?;
            let cluster = found.get("cluster")?;
            let mut replicas = cluster.get("replicas")?.as_array()?.iter();
            let current = replicas.all(|r| r.get("current").is_some_and(|current| current == true));
            Some(current && cluster.get("leader")? == node.name.as_str())
        };
        until("all copies of a stream", || {
            self.running().find(|(_, node)| leads(node) == Some(true)).map(|(number, _)| number)
        })
        .with_context(|| format!("{stream}: {}", self.logs()))
    }

    /// Whether all servers that run come to have the same of this stream, as far as they
    /// can be asked: messages, bytes, subjects, and the last place. What differs after a
    /// while is a fault of theirs.
    #[must_use]
    pub fn agrees(&self, stream: &str) -> bool {
        let copy = |node: &Node| {
            let state = node.stream(stream)?.get("state")?.clone();
            let field = |name| state.get(name).and_then(Value::as_u64);
            Some(["messages", "bytes", "num_subjects", "last_seq"].map(field))
        };
        let begin = Instant::now();
        loop {
            let copies: BTreeSet<_> = self.running().map(|(_, node)| copy(node)).collect();
            if copies.len() == 1 && !copies.contains(&None) {
                return true;
            }
            if begin.elapsed() > SETTLE {
                eprintln!("{stream} differs from server to server: {copies:?}");
                return false;
            }
            thread::sleep(POLL);
        }
    }

    /// What the servers logged last.
    #[must_use]
    pub fn logs(&self) -> String {
        let tail = |node: &Node| {
            let log = fs::read_to_string(self.directory.join(format!("{}.out", node.name)));
            let log = log.unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(15).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            format!("--- {}\n{}", node.name, lines.join("\n"))
        };
        self.nodes.iter().map(tail).collect::<Vec<_>>().join("\n")
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.child.is_some())
    }

    fn node(&self, node: usize) -> Result<&Node> {
        self.nodes.get(node).context("there is no such server")
    }

    fn node_mut(&mut self, node: usize) -> Result<&mut Node> {
        self.nodes.get_mut(node).context("there is no such server")
    }

    fn pid_file(&self, node: usize) -> Result<PathBuf> {
        Ok(self.directory.join(format!("{}.pid", self.node(node)?.name)))
    }

    fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        let child = self.node(node)?.child.as_ref().context("the server does not run")?;
        Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
    }

    fn configure(&self, node: &Node, route: u16, routes: &str, tls: bool) -> Result<()> {
        let directory = self.directory.display();
        let (name, client, monitor) = (&node.name, node.client, node.monitor);
        let tls = if tls {
            format!(
                "tls {{ cert_file: \"{directory}/server.pem\", key_file: \"{directory}/server-key.pem\", \
                 ca_file: \"{directory}/ca.pem\", verify: true }}"
            )
        } else {
            String::new()
        };
        let cluster = if self.nodes.is_empty() && !routes.contains(',') {
            String::new()
        } else {
            format!("cluster {{ name: lab, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}")
        };
        let text = format!(
            "server_name: {name}\n\
             listen: \"127.0.0.1:{client}\"\n\
             http: \"127.0.0.1:{monitor}\"\n\
             jetstream {{ store_dir: \"{directory}/{name}\", max_memory_store: 64MB, \
             max_file_store: 100GB }}\n\
             {cluster}\n{tls}\n"
        );
        Ok(fs::write(self.directory.join(format!("{name}.conf")), text)?)
    }

    fn write_certificates(&self, authority: &Authority) -> Result<()> {
        let write = |name: &str, text: String| fs::write(self.directory.join(name), text);
        write("ca.pem", authority.pem())?;
        for (name, host) in [("server", "127.0.0.1"), ("client", "relay.test")] {
            let (certificate, key) = authority.issue_pem(&[host], Validity::Now)?;
            write(&format!("{name}.pem"), certificate)?;
            write(&format!("{name}-key.pem"), key)?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for node in 0..self.nodes.len() {
            let _ = self.pid_file(node).map(fs::remove_file);
        }
        drop(self.janitor.stdin.take());
        let _ = wait(&mut self.janitor, Duration::from_secs(20));
    }
}

impl Node {
    /// What it says of a stream.
    fn stream(&self, name: &str) -> Option<Value> {
        let jsz = self.get("/jsz?streams=true&accounts=true").ok()?;
        let accounts = jsz.get("account_details")?.as_array()?;
        let streams = accounts.iter().filter_map(|account| account.get("stream_detail"));
        let mut streams = streams.filter_map(Value::as_array).flatten();
        streams.find(|found| found.get("name").is_some_and(|found| found == name)).cloned()
    }

    /// What its monitoring port answers.
    fn get(&self, path: &str) -> Result<Value> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.monitor));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.contains(" 200 "), "{head}");
        Ok(serde_json::from_str(body)?)
    }
}

/// Ports that nobody listens on, nor gets by chance until a server does: they lie below those
/// that the kernel chooses, and each process begins at another one.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    const PORTS: Range<u16> = 16_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(100);
    let mut ports = Vec::new();
    for _ in PORTS {
        if ports.len() == count {
            return Ok(ports);
        }
        let place = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let place = place.checked_rem(PORTS.len().try_into()?).unwrap_or_default();
        let port = PORTS.start.saturating_add(place.try_into()?);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
    }
    bail!("no {count} ports of {PORTS:?} are free")
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begin.elapsed() > PATIENCE {
            bail!("{what}: not there after {PATIENCE:?}");
        }
        thread::sleep(POLL);
    }
}
