//! TLS that is not the relay's: passed on byte by byte, by the name that the client
//! asks for.
//!
//! Extended Protection ties an identity to the TLS session that it was proven in, so it
//! holds only where the client's session is the server's own. The source is judged and
//! the limits hold as for all connections; what is inside is nobody's business here.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use super::tunnel;
use crate::{
    config,
    relay::{
        access::PassedOn,
        listen::{Passage, Passed, Peer},
        upstream::Pool,
    },
};

/// Names and where they lead.
#[derive(Default)]
pub(in crate::relay) struct Passthroughs(HashMap<String, Arc<To>>);

struct To {
    name: String,
    /// Whether each connection is logged.
    access_log: bool,
    pool: Arc<Pool>,
    idle_timeout: Duration,
}

impl Passthroughs {
    /// `pools` are in the order of the configuration.
    pub(in crate::relay) fn new(config: &config::Relay, pools: &[Arc<Pool>]) -> Self {
        let mut names = HashMap::new();
        for passthrough in &config.passthroughs {
            let Some(pool) = pools.get(passthrough.upstream) else { continue };
            let to = Arc::new(To {
                name: passthrough.name.clone(),
                access_log: config.general.access_log,
                pool: Arc::clone(pool),
                idle_timeout: passthrough.idle_timeout,
            });
            for name in &passthrough.server_names {
                names.insert(name.clone(), Arc::clone(&to));
            }
        }
        Self(names)
    }

    pub(in crate::relay) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl crate::relay::listen::Passthrough for Passthroughs {
    fn find(&self, server_name: &str) -> Option<Arc<dyn Passage>> {
        let to = self.0.get(server_name)?;
        Some(Arc::clone(to) as Arc<dyn Passage>)
    }
}

impl Passage for To {
    fn pass(
        self: Arc<Self>,
        stream: TcpStream,
        said: Vec<u8>,
        peer: Peer,
    ) -> BoxFuture<'static, Passed> {
        Box::pin(async move {
            // All of it, with what belongs to the connection, lives as long as this.
            let peer = Arc::new(peer);
            let logged = self.access_log.then(|| Arc::clone(&peer));
            let mut line = PassedOn::new(logged, &self.name);
            let mut tunnel = match self.pool.tunnel(peer.source.ip()).await {
                Ok(tunnel) => tunnel,
                Err(error) => {
                    tracing::warn!(passthrough = self.name, %error, "no server for a connection");
                    line.ended("unreachable");
                    return Passed::Unreachable;
                }
            };
            // Whoever breaks off, the other one is told by the end of its connection.
            let _ = tunnel::pass(stream, &mut tunnel.stream, &said, self.idle_timeout).await;
            line.ended("passed_on");
            Passed::On
        })
    }
}
