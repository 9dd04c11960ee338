//! The agent's relay, as most tests need it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::{Agent, text};
use crate::{notification::RELAY_NAME, pega::Pega, process::check, tls::Validity};

/// The hard limit of open files that a soft one may be raised to again.
const MOST_FILES: u32 = 4096;

/// The path of the route for Graph.
pub const GRAPH: &str = "/graph/8Jx2mVq0s7";
/// The path of the route for EWS.
pub const EWS: &str = "/ews/Kq81zB4tYc";
/// The paths that they have behind the relay.
pub const GRAPH_BEHIND: &str = "/prweb/PRRestService/Calendar/v1/graph";
/// See [`GRAPH_BEHIND`].
pub const EWS_BEHIND: &str = "/prweb/PRRestService/Calendar/v1/ews";

impl Agent {
    /// Gives the agent a relay: a listener on the guarded port, a route for Graph and one
    /// for EWS, and an upstream of the given servers. More can be said by
    /// [`Agent::set`], such as `route.graph.handshake`.
    ///
    /// # Errors
    ///
    /// If the files cannot be written.
    pub fn add_relay(&mut self, servers: &[&Pega]) -> Result<&mut Self> {
        let (chain_file, key_file) = self.certificate_files();
        self.write_certificate(Validity::Now)?;
        let servers: Vec<_> = servers.iter().map(|server| server.url()).collect();
        let relay = format!(
            "[[listener]]
             address = \"[::]:443\"
             certificates = [{{ chain = {:?}, key = {:?} }}]
             [upstream.pega]
             servers = {servers:?}
             [route.graph]
             kind = \"graph\"
             path = \"{GRAPH}\"
             upstream = \"pega\"
             upstream_path = \"{GRAPH_BEHIND}\"
             [route.ews]
             kind = \"ews\"
             path = \"{EWS}\"
             upstream = \"pega\"
             upstream_path = \"{EWS_BEHIND}\"",
            text(&chain_file)?,
            text(&key_file)?,
        );
        self.settings.extend(relay.parse::<Table>()?);
        Ok(self)
    }

    /// The options of the relay's listener, for what [`Agent::set`] cannot reach.
    ///
    /// # Errors
    ///
    /// If there is no relay.
    pub fn listener(&mut self) -> Result<&mut Table> {
        let listeners = self.settings.get_mut("listener").and_then(Value::as_array_mut);
        let first = listeners.and_then(|listeners| listeners.first_mut());
        first.and_then(Value::as_table_mut).context("the agent has no relay")
    }

    /// Puts another certificate in the place of the relay's, as a renewal does.
    ///
    /// # Errors
    ///
    /// If the files cannot be written.
    pub fn replace_certificate(&self, validity: Validity) -> Result<()> {
        self.write_certificate(validity)
    }

    /// Puts nonsense in the place of the relay's certificate.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn spoil_certificate(&self) -> Result<()> {
        let (chain_file, _) = self.certificate_files();
        Ok(fs::write(chain_file, "no certificate")?)
    }

    /// Puts a certificate in the place of the relay's that expired years ago.
    ///
    /// # Errors
    ///
    /// If the files cannot be written.
    pub fn expire_certificate(&self) -> Result<()> {
        self.write_certificate(Validity::Expired)
    }

    /// Lets the running agent have no more than so many open files.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn limit_open_files(&self, count: u32) -> Result<()> {
        let pid = self.pid().context("the agent was not started")?.to_string();
        let mut command = Command::new("prlimit");
        check(command.args(["--pid", &pid, &format!("--nofile={count}:{MOST_FILES}")]), "")?;
        Ok(())
    }

    fn certificate_files(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("chain.pem"), self.directory.join("key.pem"))
    }

    fn write_certificate(&self, validity: Validity) -> Result<()> {
        let (chain, key) = self.lab.authority().issue_pem(&[RELAY_NAME], validity)?;
        let (chain_file, key_file) = self.certificate_files();
        for (file, text) in [(key_file, key), (chain_file, chain)] {
            let next = file.with_extension("next");
            fs::write(&next, text)?;
            fs::rename(next, file)?;
        }
        Ok(())
    }
}
