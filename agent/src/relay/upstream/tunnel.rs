//! Connections to servers whose bytes are somebody else's: TLS that a client and a
//! server speak with each other.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use hyper::http::uri::Scheme;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    Pool, SendError, after,
    answer::Place,
    connect::KEEP_ALIVE,
    metrics::Outcome,
    server::{Refused, Server},
};

/// A connection to a server. It has its place among the server's `connections` until it
/// is dropped.
pub(in crate::relay) struct Tunnel {
    pub(in crate::relay) stream: TcpStream,
    _place: Place,
    _pinned: PinnedTo,
}

/// Counts as a client's connection.
struct PinnedTo(Arc<Server>);

impl Drop for PinnedTo {
    fn drop(&mut self) {
        self.0.pinned(false);
    }
}

impl Pool {
    /// A TCP connection to a server that is well, for a client from `source`. A server that
    /// cannot be reached is passed over.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing was sent.
    pub(in crate::relay) async fn tunnel(&self, source: IpAddr) -> Result<Tunnel, SendError> {
        let deadline = after(Instant::now(), self.response_timeout());
        let mut failed = None;
        for server in self.order(Some(source)) {
            let (attempt, place) = match server.enter(deadline).await {
                Ok(entered) => entered,
                Err(Refused::NotWell) => continue,
                Err(Refused::Busy) => return Err(self.busy(server)),
                Err(Refused::Stopping) => return Err(SendError::Stopping(self.name.clone())),
            };
            match connect(server, self.connect_timeout).await {
                Ok(stream) => {
                    attempt.succeeded(Outcome::Ok);
                    server.pinned(true);
                    let pinned = PinnedTo(Arc::clone(server));
                    return Ok(Tunnel { stream, _place: place, _pinned: pinned });
                }
                Err(problem) => {
                    let (server, problem) = (server.name.clone(), problem.to_string());
                    let error = SendError::Connect { server, problem };
                    attempt.failed(Outcome::Connect, error.to_string());
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| self.unavailable()))
    }
}

async fn connect(server: &Server, limit: Duration) -> io::Result<TcpStream> {
    let address = server.address();
    let host = address.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_plain = address.scheme() == Some(&Scheme::HTTP);
    let port = address.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
    let stream = match timeout(limit, TcpStream::connect((host, port))).await {
        Ok(connected) => connected?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    stream.set_nodelay(true)?;
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
    Ok(stream)
}
