//! Listeners: TCP, PROXY protocol, TLS, HTTP/1.1 and HTTP/2, with limits.
//!
//! A connection is accepted, its source judged, TLS agreed on, and each request
//! given to a [`Handler`]. Whatever a client does or leaves undone has an end: a
//! limit on time, on bytes or on how many there are. `body_timeout` bounds also how
//! long an answer waits for a client that takes nothing of it. Every connection
//! that ends is counted under what became of it.
//!
//! # Behind a load balancer
//!
//! Connections from `trusted_proxies` begin with a PROXY header of version 2, and
//! the client in it is judged. Nobody else's header is read; it is no TLS, and the
//! connection ends. A header without a client (`LOCAL`: the balancer's own health
//! check) is served a TLS handshake and then closed.
//!
//! # When things fail
//!
//! A handler that panics costs one request. Want of descriptors or memory costs
//! time. New certificates that are of no use leave those before in force. A client
//! that breaks a rule costs its connection. Only what cannot work at the start is
//! an error: the address, the files.
//!
//! # Stopping
//!
//! [`Running::drain`] stops accepting; what the kernel has accepted on a socket of
//! our own is served too, while a socket of systemd's keeps it for the next start.
//! Idle connections are closed, those that were just made may bring their first
//! request for a second, requests under way are answered. What is left after the
//! deadline is cut, and counted.

mod accept;
mod activity;
mod attached;
mod body;
mod connection;
mod dormant;
mod drain;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod hello;
mod http;
mod metrics;
mod proxy;
mod socket;
mod sources;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use exogate_ebpf::verdict::{Action, Reason};
use futures_util::future::BoxFuture;
use hyper::{Method, Request, Response, StatusCode};
use ipnet::IpNet;
use tokio::{net::TcpStream, sync::Semaphore, time::MissedTickBehavior};
use tokio_util::task::TaskTracker;

pub use self::{
    attached::{Attached, Attachment, Closer},
    body::{BodyError, RequestBody},
    error::Error,
    metrics::Metrics,
    socket::Inherited,
    tls::{Examined, Reload, examine},
};
use self::{
    drain::Drain, http::Protocols, metrics::ListenerMetrics, socket::Listening, sources::Sources,
    tls::Tls,
};
use super::Body;
use crate::config::{self, Limits};

/// How often the files of certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What connections may take to end after the deadline has cut them.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// Whether a source may speak to a guarded port: what the filter says, asked
/// again where the filter may be off or stand behind a load balancer.
pub trait Admission: Send + Sync + 'static {
    /// The verdict on a TCP connection from `source` to the guarded `port`, by the
    /// list and in the mode that are in force now.
    fn judge(&self, source: IpAddr, port: u16) -> (Action, Reason);
}

/// What answers the requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Its body is bounded in time by the listener, in size
    /// by the handler.
    fn handle(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> BoxFuture<'static, Response<Body>>;

    /// Told of what the listener refuses itself: a request, which it answers with a status,
    /// or what a connection brought that was none.
    fn refused(
        &self,
        _peer: &Peer,
        _method: Option<&Method>,
        _reason: &str,
        _status: Option<StatusCode>,
    ) {
    }

    /// The TLS that is not ours, if there is any.
    fn passthrough(&self) -> Option<Arc<dyn Passthrough>> {
        None
    }
}

/// Which TLS is not ours.
pub trait Passthrough: Send + Sync + 'static {
    /// Who takes the connections of clients that ask for a name, given in lower case.
    fn find(&self, server_name: &str) -> Option<Arc<dyn Passage>>;
}

/// Takes connections whose TLS is not ours.
pub trait Passage: Send + Sync + 'static {
    /// Passes a connection on until it ends; `said` is what its client said already.
    fn pass(
        self: Arc<Self>,
        stream: TcpStream,
        said: Vec<u8>,
        peer: Peer,
    ) -> BoxFuture<'static, Passed>;
}

/// What became of a connection that was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It reached a server, and ended.
    On,
    /// There was no server for it.
    Unreachable,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client, behind a trusted proxy the one that it names.
    pub source: SocketAddr,
    /// The load balancer that the connection came through.
    pub proxy: Option<IpAddr>,
    /// The name that the client asked for in TLS, in lower case.
    pub server_name: Option<String>,
    /// Name of the listener, as in metrics.
    pub listener: Arc<str>,
    /// What belongs to the connection.
    pub attached: Arc<Attached>,
}

/// A listener that has its sockets and certificates, and accepts nothing yet.
pub struct Listener {
    name: Arc<str>,
    sockets: Vec<Listening>,
    guard: Option<u16>,
    trusted_proxies: Vec<IpNet>,
    limits: Limits,
    tls: Arc<Tls>,
    metrics: Arc<ListenerMetrics>,
}

impl Listener {
    /// Takes the address and reads the files. Blocks on the disk, briefly; needs
    /// the runtime.
    ///
    /// # Errors
    ///
    /// If the address cannot be had, or a file is of no use.
    pub fn bind(
        config: &config::Listener,
        inherited: &mut Inherited,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let name: Arc<str> = config.address.to_string().into();
        let metrics = Arc::new(metrics.of(&name));
        let tls = Arc::new(Tls::load(config, &metrics)?);
        Ok(Self {
            sockets: socket::listen(&config.address, inherited)?,
            guard: config.guard,
            trusted_proxies: config.trusted_proxies.clone(),
            limits: config.limits.clone(),
            name,
            tls,
            metrics,
        })
    }

    /// Where it listens. Several, if systemd hands over several sockets.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|listening| listening.address).collect()
    }

    /// The guarded ports whose sources may speak here: the configured one, or those
    /// of its sockets.
    #[must_use]
    pub fn guarded_ports(&self) -> Vec<u16> {
        let own = self.sockets.iter().map(|listening| listening.address.port());
        self.guard.map_or_else(|| own.collect(), |port| vec![port])
    }

    /// Begins to accept.
    pub fn serve<H: Handler>(self, admission: Arc<dyn Admission>, handler: Arc<H>) -> Running {
        let drain = Arc::new(Drain::default());
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            protocols: Arc::new(Protocols::new(&self.limits)),
            sources: Sources::new(self.limits.source_connections, self.limits.source_requests),
            places: Arc::new(Semaphore::new(self.limits.connections)),
            drain: Arc::clone(&drain),
            tasks: tasks.clone(),
            name: self.name,
            tls: Arc::clone(&self.tls),
            metrics: Arc::clone(&self.metrics),
            trusted_proxies: self.trusted_proxies,
            limits: self.limits,
            admission,
            passthrough: handler.passthrough(),
            handler,
        });
        for listening in self.sockets {
            let port = self.guard.unwrap_or_else(|| listening.address.port());
            tasks.spawn(accept::accept(Arc::clone(&shared), listening, port));
        }
        tasks.spawn(follow(Arc::clone(&self.tls), Arc::clone(&drain)));
        tasks.close();
        Running {
            name: Arc::clone(&shared.name),
            drain,
            tasks,
            tls: self.tls,
            metrics: self.metrics,
        }
    }
}

/// Looks at the files of certificates until we drain.
async fn follow(tls: Arc<Tls>, drain: Arc<Drain>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.begun() => return,
            _ = ticks.tick() => {}
        }
        let tls = Arc::clone(&tls);
        if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
            tracing::error!(%error, "the look at the certificates broke off: this is a bug");
        }
    }
}

/// A listener that accepts. Dropped, it accepts no more and cuts what is open.
pub struct Running {
    name: Arc<str>,
    drain: Arc<Drain>,
    tasks: TaskTracker,
    tls: Arc<Tls>,
    metrics: Arc<ListenerMetrics>,
}

/// What became of the connections that were open when a listener stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Those that were still open at the deadline.
    pub cut: u64,
}

impl Running {
    /// Reads the files of certificates again, now. What is new is in force when it
    /// returns; connections that are open stay as they are.
    ///
    /// # Errors
    ///
    /// If a file is of no use; those before stay in force.
    pub async fn reload(&self) -> Result<Reload, Error> {
        let tls = Arc::clone(&self.tls);
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(result) => result,
            Err(error) => Err(Error::Tls {
                listener: self.name.to_string(),
                source: rustls::Error::General(format!("the reload broke off: {error}")),
            }),
        }
    }

    /// Stops accepting, finishes what is under way, and cuts what is not done
    /// after `within`.
    pub async fn drain(self, within: Duration) -> Drained {
        let before = self.metrics.cut();
        let end = self.drain.begin(within);
        let latest = end.checked_add(CUT_WITHIN).unwrap_or(end);
        // Connections end by themselves at the deadline.
        let _ = tokio::time::timeout_at(latest, self.tasks.wait()).await;
        Drained { cut: self.metrics.cut().saturating_sub(before) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain.begin(Duration::ZERO);
    }
}

/// What all connections of a listener share.
struct Shared<H> {
    name: Arc<str>,
    tls: Arc<Tls>,
    metrics: Arc<ListenerMetrics>,
    trusted_proxies: Vec<IpNet>,
    limits: Limits,
    protocols: Arc<Protocols>,
    admission: Arc<dyn Admission>,
    handler: Arc<H>,
    passthrough: Option<Arc<dyn Passthrough>>,
    /// What each source may take, if that is limited.
    sources: Option<Arc<Sources>>,
    /// Places for connections at once.
    places: Arc<Semaphore>,
    drain: Arc<Drain>,
    tasks: TaskTracker,
}
