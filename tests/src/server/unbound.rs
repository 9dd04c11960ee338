//! unbound, which answers for `example.com`.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result};

use super::Server;
use crate::lab::Lab;

const PORT: u16 = 53;

/// A name, its time to live in seconds, and its addresses.
type Name<'a> = (&'a str, u32, &'a [IpAddr]);

/// A question that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// When, in seconds.
    pub at: u64,
    /// The name.
    pub name: String,
    /// `A` or `AAAA`.
    pub kind: String,
}

/// A running unbound.
#[derive(Debug)]
pub struct Unbound {
    server: Option<Server>,
    addresses: Vec<SocketAddr>,
    directory: PathBuf,
    lab: Lab,
}

impl Unbound {
    /// Starts one on the router, at these of its addresses.
    ///
    /// # Errors
    ///
    /// If unbound is not installed, or refuses its configuration.
    pub fn start(lab: &Lab, addresses: &[IpAddr], names: &[Name<'_>]) -> Result<Self> {
        let directory = Server::directory(lab, "unbound")?;
        let addresses = addresses.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
        let mut unbound = Self { server: None, addresses, directory, lab: lab.clone() };
        unbound.answer(names)?;
        Ok(unbound)
    }

    /// Answers for these names of `example.com` and for no others from now on.
    ///
    /// # Errors
    ///
    /// See [`Unbound::start`].
    pub fn answer(&mut self, names: &[Name<'_>]) -> Result<()> {
        drop(self.server.take());
        let root = self.directory.display();
        let mut config = format!(
            "server:
  directory: \"{root}\"
  pidfile: \"{root}/pid\"
  logfile: \"{root}/queries\"
  chroot: \"\"
  username: \"\"
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  module-config: \"iterator\"
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
  log-queries: yes
  local-zone: \"example.com.\" static
"
        );
        for address in &self.addresses {
            writeln!(config, "  interface: {}", address.ip())?;
        }
        for (name, ttl, addresses) in names {
            for address in *addresses {
                let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                writeln!(config, "  local-data: \"{name}. {ttl} IN {kind} {address}\"")?;
            }
        }
        config += "remote-control:\n  control-enable: no\n";
        let path = self.directory.join("unbound.conf");
        fs::write(&path, config)?;
        let path = path.to_str().context("a path that is not UTF-8")?;
        let command = ["unbound", "-d", "-c", path];
        let server =
            Server::start(&self.lab, self.lab.wan(), &self.directory, &command, &self.addresses)?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops answering at all.
    pub fn stop(&mut self) {
        drop(self.server.take());
    }

    /// The questions so far.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        let log = fs::read_to_string(self.directory.join("queries")).unwrap_or_default();
        // [time] unbound[pid:thread] info: 198.51.100.10 probe.example.com. A IN
        let question = |line: &str| {
            let (before, rest) = line.split_once(" info: ")?;
            let (at, _) = before.strip_prefix('[')?.split_once(']')?;
            let mut words = rest.split_whitespace().skip(1);
            let (name, kind) = (words.next()?.trim_end_matches('.'), words.next()?);
            let query =
                Query { at: at.parse().ok()?, name: name.to_owned(), kind: kind.to_owned() };
            (words.next()? == "IN").then_some(query)
        };
        log.lines().filter_map(question).collect()
    }
}
