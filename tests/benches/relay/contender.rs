//! The proxies: each configured as its documentation advises for this work.
//!
//! All show the same certificate (ECDSA P-256), write no access log, keep their
//! connections to the upstream open, and leave the path as it is. nginx and haproxy
//! have one worker; exogate has as many as it sees cores, which is one. After a
//! handshake exogate gives one session ticket, and nginx is told to do the same;
//! haproxy gives two, which cannot be changed.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use exogate_tests::{
    notification::RELAY_NAME,
    process::{agent_binary, wait},
    tls::{Authority, Validity},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio_rustls::TlsConnector;

use super::{
    generator::{self, Target, Traffic, wait_for},
    host::PROXY_CORE,
    http::{EWS_PATH, GRAPH_PATH},
};

const UPSTREAM: u16 = 2000;
/// Nobody listens there.
const NOWHERE: u16 = 2001;
const ADMIN: u16 = 2002;
/// Connections that each of them must be ready for.
const CONNECTIONS: u32 = 12_000;
const PATIENCE: Duration = Duration::from_secs(15);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
    Exogate,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Exogate];

    /// The name of its program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Exogate => "exogate",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Nginx => 2010,
            Self::Haproxy => 2011,
            Self::Exogate => 2012,
        }
    }
}

/// What the contenders have in common.
pub struct Setting {
    directory: PathBuf,
    tls: TlsConnector,
}

impl Setting {
    /// Makes the certificate, in an empty directory.
    pub fn new(directory: PathBuf) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        let (chain, key) = Authority::new()?.issue_pem(&[RELAY_NAME], Validity::Now)?;
        fs::write(directory.join("chain.pem"), &chain)?;
        fs::write(directory.join("key.pem"), &key)?;
        fs::write(directory.join("both.pem"), [chain, key].concat())?;
        Ok(Self { directory, tls: generator::tls()? })
    }

    /// Where all files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The upstream, without a proxy before it.
    pub fn direct() -> Target {
        Target { address: local(UPSTREAM), tls: None }
    }

    /// Starts a contender, and waits until it serves.
    pub async fn start(&self, kind: Kind) -> Result<Contender> {
        self.launch(kind, UPSTREAM, &[])?.when_up(Traffic::Ews).await
    }

    /// The same for one that has its core as soon as it wants it, whatever else the
    /// machine has to do. It must not want all of it.
    pub async fn start_prompt(&self, kind: Kind) -> Result<Contender> {
        self.launch(kind, UPSTREAM, &["chrt", "--rr", "1"])?.when_up(Traffic::Ews).await
    }

    /// Starts exogate with an upstream that is down.
    pub async fn start_alone(&self) -> Result<Contender> {
        self.launch(Kind::Exogate, NOWHERE, &[])?.when_up(Traffic::Graph).await
    }

    fn launch(&self, kind: Kind, upstream: u16, by: &[&str]) -> Result<Contender> {
        let home = self.directory.join(kind.name());
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        fs::create_dir_all(&home)?;
        let configuration = home.join("configuration");
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", PROXY_CORE]).args(by);
        let text = match kind {
            Kind::Nginx => {
                command.arg("nginx").arg("-e").arg(home.join("log")).arg("-c").arg(&configuration);
                self.nginx(&home, upstream)
            }
            Kind::Haproxy => {
                command.args(["haproxy", "-db", "-f"]).arg(&configuration);
                self.haproxy(upstream)
            }
            Kind::Exogate => {
                command.arg(agent_binary()?).arg("run").arg("--config").arg(&configuration);
                self.exogate(&home, upstream)
            }
        };
        fs::write(&configuration, text)?;
        let log = home.join("output");
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} cannot be started", kind.name()))?;
        let target = Target { address: local(kind.port()), tls: Some(self.tls.clone()) };
        Ok(Contender { kind, child, target, log })
    }

    fn nginx(&self, home: &Path, upstream: u16) -> String {
        let (home, directory, port) =
            (home.display(), self.directory.display(), Kind::Nginx.port());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("    {name}_temp_path {home}/{name};\n"))
            .concat();
        format!(
            "daemon off;
user root;
pid {home}/pid;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{
    worker_connections {CONNECTIONS};
}}
http {{
    access_log off;
{temporary}
    keepalive_timeout 10m;
    keepalive_requests 1000000000;
    upstream pega {{
        server 127.0.0.1:{upstream};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        server_name {RELAY_NAME};
        ssl_certificate {directory}/chain.pem;
        ssl_certificate_key {directory}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_conf_command NumTickets 1;
        location = {EWS_PATH} {{
            proxy_pass http://pega;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
        }}
        location /EWS/ {{
            client_max_body_size 64m;
            proxy_pass http://pega;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
        }}
        location / {{
            return 404;
        }}
    }}
}}
"
        )
    }

    fn haproxy(&self, upstream: u16) -> String {
        let (directory, port) = (self.directory.display(), Kind::Haproxy.port());
        format!(
            "global
    nbthread 1
    no strict-limits
    maxconn {CONNECTIONS}
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    http-reuse always
    option forwardfor
    timeout connect 3s
    timeout server 30s
    timeout client 10m
    timeout http-request 10s
    timeout http-keep-alive 10m
frontend https
    bind 127.0.0.1:{port} ssl crt {directory}/both.pem alpn http/1.1 backlog 4096
    http-request return status 404 unless {{ path {EWS_PATH} }} or {{ path_beg /EWS/ }}
    http-request set-header X-Forwarded-Proto https
    use_backend exchange if {{ path_beg /EWS/ }}
    default_backend pega
backend exchange
    http-reuse never
    server exchange 127.0.0.1:{upstream}
backend pega
    server pega 127.0.0.1:{upstream}
"
        )
    }

    fn exogate(&self, home: &Path, upstream: u16) -> String {
        let (home, directory, port) =
            (home.display(), self.directory.display(), Kind::Exogate.port());
        format!(
            "mode = \"enforce\"
interfaces = []
state_directory = \"{home}/state\"
[gate]
pin_directory = \"/sys/fs/bpf/exogate-bench\"
[[guard]]
port = {port}
protocols = [\"tcp\"]
sources = [\"senders\"]
[source.senders]
kind = \"static\"
prefixes = [\"127.0.0.0/8\"]
[feed]
base_url = \"https://127.0.0.1:1\"
[[listener]]
address = \"127.0.0.1:{port}\"
certificates = [{{ chain = \"{directory}/chain.pem\", key = \"{directory}/key.pem\" }}]
connections = {CONNECTIONS}
idle_timeout = \"10m\"
[route.ews]
kind = \"ews\"
host = \"{RELAY_NAME}\"
path = \"{EWS_PATH}\"
upstream = \"pega\"
[route.graph]
kind = \"graph\"
host = \"{RELAY_NAME}\"
path = \"{GRAPH_PATH}\"
upstream = \"pega\"
[route.exchange]
kind = \"proxy\"
path_prefix = \"/EWS/\"
upstream = \"pega\"
[upstream.pega]
servers = [\"http://127.0.0.1:{upstream}\"]
[spool]
max_size = \"16GiB\"
[relay]
drain = \"1s\"
[admin]
listen = \"127.0.0.1:{ADMIN}\"
socket = \"{home}/control.sock\"
[log]
level = \"warn\"
"
        )
    }
}

/// The address of the upstream.
pub fn upstream() -> SocketAddr {
    local(UPSTREAM)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A running contender. It ends when this is dropped.
pub struct Contender {
    pub kind: Kind,
    pub target: Target,
    child: Child,
    log: PathBuf,
}

impl Contender {
    /// Its process, whose descendants belong to it.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    async fn when_up(self, traffic: Traffic) -> Result<Self> {
        wait_for(&self.target, traffic, PATIENCE).await.with_context(|| {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            format!("{} does not serve: {log}", self.kind.name())
        })?;
        Ok(self)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let process = Pid::from_raw(self.child.id() as i32);
        let ended = kill(process, Signal::SIGTERM).map_err(Into::into);
        if let Err(error) = ended.and_then(|()| wait(&mut self.child, PATIENCE).map(drop)) {
            eprintln!("{}: {error:#}", self.kind.name());
        }
    }
}
