//! The agent's relay, as most tests need it.

use std::fs;

use anyhow::Result;
use toml::Table;

use super::{Agent, text};
use crate::{notification::RELAY_NAME, pega::Pega, tls::Validity};

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
        let (chain, key) = self.lab.authority().issue_pem(&[RELAY_NAME], Validity::Now)?;
        let (chain_file, key_file) =
            (self.directory.join("chain.pem"), self.directory.join("key.pem"));
        fs::write(&chain_file, chain)?;
        fs::write(&key_file, key)?;
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
}
