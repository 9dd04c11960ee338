//! Listeners: TCP, PROXY protocol, TLS, HTTP/1.1 and HTTP/2, with limits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use exogate_ebpf::verdict::{Action, Reason};
use futures_util::future::BoxFuture;
use hyper::{Request, Response, body::Incoming};

use super::Body;

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
        request: Request<Incoming>,
        peer: Arc<Peer>,
    ) -> BoxFuture<'static, Response<Body>>;
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client, behind a trusted proxy the one that it names.
    pub source: SocketAddr,
    /// The load balancer that the connection came through.
    pub proxy: Option<IpAddr>,
    /// The name that the client asked for in TLS, in lower case.
    pub server_name: Option<String>,
    /// Name of the listener, as in metrics.
    pub listener: Arc<str>,
}
